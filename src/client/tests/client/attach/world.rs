//! Coordinators that serve streams only, over one store, and break them as a plan says.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use palisade_api::v1::lease_service_server::{LeaseService, LeaseServiceServer};
use palisade_api::v1::{self, OpenRequest, OpenRequestState, attach_open, attach_release};
use palisade_api::{AttachRequest, AttachResponse, Refusal};
use palisade_test_support::eventually;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use crate::fake::PATIENCE;

pub(crate) use palisade_api::v1::attach_request::Message as Asked;
pub(crate) use palisade_api::v1::attach_response::Message as Told;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Open,
    Renew,
    Acquire,
    Cancel,
    Release,
    Close,
    RevokeAck,
    DrainAck,
}

impl Kind {
    pub(crate) fn of(message: &Asked) -> Self {
        match message {
            Asked::Open(_) => Self::Open,
            Asked::Renew(_) => Self::Renew,
            Asked::Acquire(_) => Self::Acquire,
            Asked::Cancel(_) => Self::Cancel,
            Asked::Release(_) => Self::Release,
            Asked::Close(_) => Self::Close,
            Asked::RevokeAck(_) => Self::RevokeAck,
            Asked::DrainAck(_) => Self::DrainAck,
        }
    }
}

/// What to do with a message instead of serving it well.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Served, and the answer is lost.
    LoseReply,
    /// Not served; the connection breaks.
    Cut,
    /// Served; the connection breaks before the answer.
    ServeAndCut,
    /// From here on the stream is deaf and dumb.
    Mute,
    Refuse(Refusal),
    /// Not served; the stream ends with this.
    End(Status),
    Answer(Told),
}

#[derive(Debug)]
struct Session {
    secret: Vec<u8>,
    epoch: u64,
    ended: bool,
    stream: Option<Stream>,
}

#[derive(Debug, Clone)]
struct Stream {
    host: usize,
    answers: mpsc::UnboundedSender<Result<AttachResponse, Status>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) session: String,
    pub(crate) request: String,
    seq: u64,
    metadata: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    sessions: HashMap<String, Session>,
    pub(crate) held: BTreeMap<String, (Place, i64)>,
    pub(crate) queue: BTreeMap<String, VecDeque<Place>>,
    token: i64,
    ttl_ms: u64,
    next: HashMap<(usize, Kind), VecDeque<(usize, Fault)>>,
    always: HashMap<(usize, Kind), Fault>,
    seen: Vec<(usize, AttachRequest)>,
    /// The largest number of messages served at which a violation was seen, with what it was.
    pub(crate) violations: Vec<String>,
    /// Lists are refused.
    pub(crate) lists_nothing: bool,
}

pub(crate) type Shared = Arc<Mutex<World>>;

/// One coordinator of a world.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) address: String,
    world: Shared,
    index: usize,
    server: JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug, Clone)]
struct Service {
    world: Shared,
    host: usize,
}

pub(crate) fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Refusal {
    Refusal {
        code: code.into(),
        reason: reason.to_owned(),
        message: "refused by the plan".to_owned(),
        metadata: metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        retry_after_ms: 0,
    }
}

pub(crate) fn status(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let details =
        ErrorDetails::with_error_info(reason, "palisade", refusal(code, reason, metadata).metadata);
    Status::with_error_details(code, "ended by the plan", details)
}

pub(crate) fn away() -> Refusal {
    let may = [("mayHaveHappened", "true")];
    refusal(Code::Unavailable, "STORE_UNAVAILABLE", &may)
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test's server, ended when it is dropped"
)]
impl Host {
    pub(crate) async fn start() -> Self {
        Self::of_world(&Arc::new(Mutex::new(World::new())), 0).await
    }

    pub(crate) async fn pair() -> (Self, Self) {
        let world = Arc::new(Mutex::new(World::new()));
        (
            Self::of_world(&world, 0).await,
            Self::of_world(&world, 1).await,
        )
    }

    async fn of_world(world: &Shared, index: usize) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = TcpListener::bind(any).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = LeaseServiceServer::new(Service {
            world: Arc::clone(world),
            host: index,
        });
        let server = tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener));
            serving.await.unwrap();
        });
        Self {
            address,
            world: Arc::clone(world),
            index,
            server,
        }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// The next message of this kind goes this way.
    pub(crate) fn next(&self, kind: Kind, fault: Fault) {
        self.nth(kind, 0, fault);
    }

    /// The message of this kind after so many more goes this way.
    pub(crate) fn nth(&self, kind: Kind, skip: usize, fault: Fault) {
        let mut world = self.world();
        let plan = world.next.entry((self.index, kind)).or_default();
        plan.push_back((skip, fault));
    }

    pub(crate) fn always(&self, kind: Kind, fault: Option<Fault>) {
        let key = (self.index, kind);
        match fault {
            Some(fault) => drop(self.world().always.insert(key, fault)),
            None => drop(self.world().always.remove(&key)),
        }
    }

    pub(crate) fn ttl(&self, ttl: Duration) {
        self.world().ttl_ms = u64::try_from(ttl.as_millis()).unwrap();
    }

    /// What this coordinator was sent, of one kind.
    pub(crate) fn seen(&self, kind: Kind) -> Vec<AttachRequest> {
        let world = self.world();
        let of_kind = world.seen.iter().filter(|(host, request)| {
            let message = request.message.as_ref();
            *host == self.index && message.is_some_and(|message| Kind::of(message) == kind)
        });
        of_kind.map(|(_, request)| request.clone()).collect()
    }

    pub(crate) async fn saw(&self, kind: Kind, count: usize) -> Vec<AttachRequest> {
        let what = format!("{count} of {kind:?}");
        eventually(&what, PATIENCE, async || self.seen(kind).len() >= count)
            .await
            .unwrap();
        self.seen(kind)
    }

    /// Tells every stream that is served here.
    pub(crate) fn tell(&self, news: &Told) {
        self.answer(0, news);
    }

    /// Answers a message, as numbered on every stream that is served here.
    pub(crate) fn answer(&self, seq: u64, told: &Told) {
        let world = self.world();
        let streams = world
            .sessions
            .values()
            .filter_map(|session| session.stream.as_ref());
        for stream in streams.filter(|stream| stream.host == self.index) {
            drop(stream.answers.send(Ok(answer(seq, told.clone()))));
        }
    }

    /// Breaks every stream that is served here.
    pub(crate) fn cut(&self) {
        self.end(&Status::unavailable("connection reset"));
    }

    pub(crate) fn end(&self, status: &Status) {
        let mut world = self.world();
        for session in world.sessions.values_mut() {
            if let Some(stream) = session.stream.take_if(|stream| stream.host == self.index) {
                drop(stream.answers.send(Err(status.clone())));
            }
        }
    }

    /// An operator takes a lease away.
    pub(crate) fn revoke(&self, resource: &str, reason: &str) -> i64 {
        let mut world = self.world();
        let (place, token) = world.held.remove(resource).unwrap();
        world.promote(resource);
        let next = world.held.get(resource).map_or(0, |(_, token)| *token);
        let lost = v1::AttachLost {
            resource: resource.to_owned(),
            request_id: place.request,
            token,
            end: v1::LeaseEnd::Revoked.into(),
            superseded_by_token: next,
            superseded_by_label: "worker-8".to_owned(),
            reason: reason.to_owned(),
        };
        world.tell(&place.session, 0, Told::Lost(lost));
        token
    }
}

fn answer(seq: u64, message: Told) -> AttachResponse {
    AttachResponse {
        reply_to: seq,
        message: Some(message),
    }
}

impl World {
    fn new() -> Self {
        Self {
            ttl_ms: 15_000,
            token: 100,
            ..Self::default()
        }
    }

    fn fault(&mut self, host: usize, kind: Kind) -> Option<Fault> {
        if let Some(plan) = self.next.get_mut(&(host, kind))
            && let Some((skip, _)) = plan.front_mut()
        {
            if *skip == 0 {
                return plan.pop_front().map(|(_, fault)| fault);
            }
            *skip -= 1;
        }
        self.always.get(&(host, kind)).cloned()
    }

    fn tell(&self, session: &str, seq: u64, message: Told) {
        if let Some(stream) = self
            .sessions
            .get(session)
            .and_then(|found| found.stream.as_ref())
        {
            drop(stream.answers.send(Ok(answer(seq, message))));
        }
    }

    fn lease(&self, resource: &str) -> Option<palisade_api::Lease> {
        let (place, token) = self.held.get(resource)?;
        Some(palisade_api::Lease {
            resource: resource.to_owned(),
            token: *token,
            holder: vec![9; 16],
            session_id: place.session.clone(),
            request_id: place.request.clone(),
            metadata: place.metadata.clone(),
            ..palisade_api::Lease::default()
        })
    }

    /// Pages of three, so that there are many.
    fn list(&self, prefix: &str, after: &str) -> v1::ListLeasesResponse {
        let mut names = self
            .held
            .keys()
            .filter(|name| name.starts_with(prefix) && name.as_str() > after);
        let leases: Vec<_> = names
            .by_ref()
            .take(3)
            .filter_map(|name| self.lease(name))
            .collect();
        let next_page_token = match (names.next(), leases.last()) {
            (Some(_), Some(last)) => last.resource.clone(),
            _ => String::new(),
        };
        v1::ListLeasesResponse {
            leases,
            next_page_token,
            revision: 1,
        }
    }

    fn granted(&self, resource: &str) -> Told {
        Told::Granted(v1::AttachGranted {
            lease: self.lease(resource),
            ttl_left_ms: self.ttl_ms,
            previous: None,
        })
    }

    fn grant(&mut self, resource: &str, place: Place) {
        self.token += 1;
        let (session, seq) = (place.session.clone(), place.seq);
        self.held.insert(resource.to_owned(), (place, self.token));
        let granted = self.granted(resource);
        // Asked on a stream that is no more: it hears of it when it asks again.
        if seq > 0 {
            self.tell(&session, seq, granted);
        }
    }

    fn promote(&mut self, resource: &str) {
        if self.held.contains_key(resource) {
            return;
        }
        if let Some(next) = self.queue.get_mut(resource).and_then(VecDeque::pop_front) {
            self.grant(resource, next);
        }
    }

    /// Ends whatever the session has that is not named. Says whether there was such.
    fn give_back(&mut self, session: &str, named: &[OpenRequest]) {
        let known = |resource: &str, place: &Place| {
            place.session != session
                || named
                    .iter()
                    .any(|known| known.request_id == place.request && known.resource == resource)
        };
        for (resource, queue) in &mut self.queue {
            queue.retain(|place| known(resource, place));
        }
        let unknown = self
            .held
            .iter()
            .filter(|(resource, (place, _))| !known(resource, place));
        let unknown: Vec<String> = unknown.map(|(resource, _)| resource.clone()).collect();
        for resource in unknown {
            self.held.remove(&resource);
            self.promote(&resource);
        }
    }

    fn stands(&self, session: &str, named: &OpenRequest) -> v1::OpenRequestStatus {
        let ours = |place: &Place| place.session == session && place.request == named.request_id;
        let held = self
            .held
            .get(&named.resource)
            .filter(|(place, _)| ours(place));
        let queued = self
            .queue
            .get(&named.resource)
            .is_some_and(|queue| queue.iter().any(ours));
        let state = match (held, queued) {
            (Some(_), _) => OpenRequestState::Held,
            (None, true) => OpenRequestState::Queued,
            (None, false) => OpenRequestState::Absent,
        };
        v1::OpenRequestStatus {
            request: Some(OpenRequest {
                token: held.map_or(0, |(_, token)| *token),
                ..named.clone()
            }),
            state: state.into(),
        }
    }

    /// Leases that were named as held and are not.
    fn tell_lost(&self, session: &str, named: &[OpenRequest]) {
        for known in named.iter().filter(|known| known.token > 0) {
            let stands = self.stands(session, known);
            if stands.state() == OpenRequestState::Held {
                continue;
            }
            let lost = v1::AttachLost {
                resource: known.resource.clone(),
                request_id: known.request_id.clone(),
                token: known.token,
                end: v1::LeaseEnd::Revoked.into(),
                ..v1::AttachLost::default()
            };
            self.tell(session, 0, Told::Lost(lost));
        }
    }

    fn open(&mut self, open: v1::AttachOpen, stream: Stream) -> Result<String, Status> {
        let (id, secret, epoch, new) = match open.owner.expect("an owner") {
            attach_open::Owner::Opening(opening) => (
                opening.open_id[..16].to_owned(),
                opening.secret,
                opening.epoch,
                true,
            ),
            attach_open::Owner::Session(session) => {
                (session.session_id, session.secret, session.epoch, false)
            }
        };
        let resumed = self.sessions.contains_key(&id);
        if new && !resumed {
            let session = Session {
                secret: secret.clone(),
                epoch: 0,
                ended: false,
                stream: None,
            };
            self.sessions.insert(id.clone(), session);
        }
        let session = self.sessions.get_mut(&id);
        let Some(session) = session.filter(|session| !session.ended) else {
            return Err(status(Code::NotFound, "SESSION_ENDED", &[]));
        };
        if session.secret != secret {
            return Err(status(Code::PermissionDenied, "PERMISSION_DENIED", &[]));
        }
        if epoch <= session.epoch {
            let stored = session.epoch.to_string();
            return Err(status(
                Code::Aborted,
                "EPOCH_STALE",
                &[("storedEpoch", &stored)],
            ));
        }
        session.epoch = epoch;
        if let Some(before) = session.stream.replace(stream) {
            drop(
                before
                    .answers
                    .send(Err(status(Code::Aborted, "SUPERSEDED", &[]))),
            );
        }
        if open.open_requests.len() > 1000 {
            self.violations.push("more than 1000 named".to_owned());
        }
        let places = self.queue.values_mut().flatten();
        for place in places.filter(|place| place.session == id) {
            place.seq = 0;
        }
        self.give_back(&id, &open.open_requests);
        let requests = open
            .open_requests
            .iter()
            .map(|named| self.stands(&id, named))
            .collect();
        let opened = v1::AttachOpened {
            session_id: id.clone(),
            ttl_ms: self.ttl_ms,
            ttl_left_ms: self.ttl_ms,
            resumed,
            requests,
        };
        self.tell(&id, 1, Told::Opened(opened));
        self.tell_lost(&id, &open.open_requests);
        Ok(id)
    }

    fn refuse(&self, session: &str, seq: u64, refusal: Refusal) {
        if seq == 0 {
            return;
        }
        let refused = v1::AttachRefused {
            request_id: String::new(),
            resource: String::new(),
            refusal: Some(refusal),
        };
        self.tell(session, seq, Told::Refused(refused));
    }

    fn acquire(&mut self, session: &str, seq: u64, asked: v1::AttachAcquire) {
        let place = Place {
            session: session.to_owned(),
            request: asked.request_id.clone(),
            seq,
            metadata: asked.metadata.clone(),
        };
        let own = |found: &Place| found.session == session && found.request == asked.request_id;
        match self.held.get_mut(&asked.resource) {
            Some((holder, _)) if own(holder) => {
                if asked.attempt < 2 {
                    self.violations
                        .push(format!("asked twice as the first: {asked:?}"));
                }
                let granted = self.granted(&asked.resource);
                self.tell(session, seq, granted);
            }
            Some((holder, token)) if holder.session == session => {
                let (request, token) = (holder.request.clone(), token.to_string());
                let of = [("requestId", request.as_str()), ("token", &token)];
                self.refuse(
                    session,
                    seq,
                    refusal(Code::FailedPrecondition, "ALREADY_HELD", &of),
                );
            }
            None if self
                .queue
                .get(&asked.resource)
                .is_none_or(VecDeque::is_empty) =>
            {
                self.grant(&asked.resource, place);
            }
            _ if asked.wait_ms == 0 => {
                let of = [("resource", asked.resource.as_str())];
                self.refuse(
                    session,
                    seq,
                    refusal(Code::FailedPrecondition, "LEASE_HELD", &of),
                );
            }
            _ => {
                let queue = self.queue.entry(asked.resource.clone()).or_default();
                match queue.iter_mut().find(|found| own(found)) {
                    Some(found) => found.seq = seq,
                    None => queue.push_back(place),
                }
                let ahead = queue.iter().position(own).unwrap_or_default();
                let queued = v1::AttachQueued {
                    request_id: asked.request_id.clone(),
                    resource: asked.resource.clone(),
                    ahead: u32::try_from(ahead).unwrap(),
                    wait_left_ms: asked.wait_ms,
                    holder_token: self
                        .held
                        .get(&asked.resource)
                        .map_or(0, |(_, token)| *token),
                };
                self.tell(session, seq, Told::Queued(queued));
            }
        }
    }

    fn end_one(&mut self, session: &str, seq: u64, resource: &str, request: &str, token: i64) {
        let ours = |place: &Place| place.session == session && place.request == request;
        let is_it = |(place, held): &(Place, i64)| {
            place.session == session && (*held == token || place.request == request)
        };
        let mut place_given_back = false;
        if let Some(queue) = self.queue.get_mut(resource)
            && let Some(at) = queue.iter().position(ours)
        {
            let place = queue.remove(at).unwrap();
            place_given_back = true;
            self.refuse(
                session,
                place.seq,
                refusal(Code::Aborted, "REQUEST_CANCELLED", &[]),
            );
        }
        let held = self.held.get(resource).is_some_and(is_it);
        if held {
            self.held.remove(resource);
        }
        let (outcome, end) = if held {
            (v1::ReleaseOutcome::Released, v1::LeaseEnd::Released)
        } else {
            (v1::ReleaseOutcome::NotHeld, v1::LeaseEnd::Unknown)
        };
        let released = v1::AttachReleased {
            resource: resource.to_owned(),
            request_id: request.to_owned(),
            outcome: outcome.into(),
            end: end.into(),
            queue_place_given_back: place_given_back,
        };
        self.tell(session, seq, Told::Released(released));
        self.promote(resource);
    }

    /// Serves a message of a session's present stream. Says whether the stream goes on.
    fn serve(&mut self, session: &str, seq: u64, message: Asked) -> bool {
        match message {
            Asked::Open(_) => self.violations.push("a second open".to_owned()),
            Asked::Renew(renew) => {
                self.give_back(session, &renew.open_requests);
                self.tell_lost(session, &renew.open_requests);
                let renewed = v1::AttachRenewed {
                    ttl_ms: self.ttl_ms,
                    ttl_left_ms: self.ttl_ms,
                };
                self.tell(session, seq, Told::Renewed(renewed));
            }
            Asked::Acquire(asked) => self.acquire(session, seq, asked),
            Asked::Cancel(cancel) => {
                self.end_one(session, seq, &cancel.resource, &cancel.request_id, 0);
            }
            Asked::Release(release) => match release.hold.expect("a hold") {
                attach_release::Hold::Token(token) => {
                    self.end_one(session, seq, &release.resource, "", token);
                }
                attach_release::Hold::RequestId(id) => {
                    self.end_one(session, seq, &release.resource, &id, 0);
                }
            },
            Asked::Close(_) => {
                self.give_back(session, &[]);
                self.tell(session, seq, Told::Closed(v1::AttachClosed {}));
                let found = self.sessions.get_mut(session).unwrap();
                found.ended = true;
                found.stream = None;
                return false;
            }
            Asked::RevokeAck(_) | Asked::DrainAck(_) => {}
        }
        true
    }
}

/// What came of a message.
enum After {
    GoesOn,
    Ends(Status),
    Over,
}

impl Service {
    fn take(
        &self,
        session: &mut Option<String>,
        answers: &mpsc::UnboundedSender<Result<AttachResponse, Status>>,
        request: AttachRequest,
        mute: &mut bool,
    ) -> After {
        let mut world = self.world.lock().unwrap();
        world.seen.push((self.host, request.clone()));
        let seq = request.seq;
        let message = request.message.expect("a message");
        let mut fault = world.fault(self.host, Kind::of(&message));
        match fault.take() {
            _ if *mute => return After::GoesOn,
            Some(Fault::Mute) => {
                *mute = true;
                return After::GoesOn;
            }
            Some(Fault::Cut) => return After::Ends(Status::unavailable("connection reset")),
            Some(Fault::End(status)) => return After::Ends(status),
            Some(Fault::Refuse(refusal)) => {
                world.refuse(session.as_deref().unwrap_or_default(), seq, refusal);
                return After::GoesOn;
            }
            Some(Fault::Answer(told)) => {
                drop(answers.send(Ok(answer(seq, told))));
                return After::GoesOn;
            }
            other => fault = other,
        }
        if let Asked::Open(open) = message {
            // What is answered and lost goes where nobody listens.
            let (deaf, _gone) = mpsc::unbounded_channel();
            let told = if fault.is_some() {
                deaf
            } else {
                answers.clone()
            };
            let stream = Stream {
                host: self.host,
                answers: told,
            };
            match world.open(open, stream) {
                Err(status) => return After::Ends(status),
                Ok(id) => *session = Some(id),
            }
        } else {
            let id = session.clone().expect("open comes first");
            let current = world
                .sessions
                .get(&id)
                .and_then(|found| found.stream.clone());
            if !current.is_some_and(|current| current.answers.same_channel(answers)) {
                return After::GoesOn;
            }
            let stream = world.sessions.get_mut(&id).unwrap().stream.clone();
            if fault.is_some() {
                let (deaf, _gone) = mpsc::unbounded_channel();
                world.sessions.get_mut(&id).unwrap().stream = Some(Stream {
                    host: self.host,
                    answers: deaf,
                });
            }
            let goes_on = world.serve(&id, seq, message);
            if !goes_on {
                return After::Over;
            }
            world.sessions.get_mut(&id).unwrap().stream = stream;
        }
        match fault {
            Some(Fault::ServeAndCut) => After::Ends(Status::unavailable("connection reset")),
            _ => After::GoesOn,
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a stream's task, ended with the stream"
)]
#[tonic::async_trait]
impl LeaseService for Service {
    type AttachStream = BoxStream<'static, Result<AttachResponse, Status>>;
    type WatchLeasesStream = BoxStream<'static, Result<v1::WatchLeasesResponse, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let service = self.clone();
        let mut requests = request.into_inner();
        let (answers, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let (mut session, mut mute) = (None, false);
            while let Some(Ok(request)) = requests.next().await {
                match service.take(&mut session, &answers, request, &mut mute) {
                    After::GoesOn => {}
                    After::Ends(status) => return drop(answers.send(Err(status))),
                    After::Over => return,
                }
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(told).boxed()))
    }

    async fn open_session(
        &self,
        _: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn renew_session(
        &self,
        _: Request<v1::RenewSessionRequest>,
    ) -> Result<Response<v1::RenewSessionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let session = request.into_inner().session.expect("a session");
        let mut world = self.world.lock().unwrap();
        world.give_back(&session.session_id, &[]);
        if let Some(found) = world.sessions.get_mut(&session.session_id) {
            found.ended = true;
            found.stream = None;
        }
        Ok(Response::new(v1::CloseSessionResponse {}))
    }

    async fn acquire(
        &self,
        _: Request<palisade_api::AcquireRequest>,
    ) -> Result<Response<palisade_api::AcquireResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn release(
        &self,
        _: Request<palisade_api::ReleaseRequest>,
    ) -> Result<Response<palisade_api::ReleaseResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_lease(
        &self,
        _: Request<v1::GetLeaseRequest>,
    ) -> Result<Response<v1::GetLeaseResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let request = request.into_inner();
        let world = self.world.lock().unwrap();
        if world.lists_nothing {
            return Err(Status::unavailable("away"));
        }
        Ok(Response::new(
            world.list(&request.prefix, &request.page_token),
        ))
    }

    async fn watch_leases(
        &self,
        _: Request<v1::WatchLeasesRequest>,
    ) -> Result<Response<Self::WatchLeasesStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn check_token(
        &self,
        _: Request<v1::CheckTokenRequest>,
    ) -> Result<Response<v1::CheckTokenResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
