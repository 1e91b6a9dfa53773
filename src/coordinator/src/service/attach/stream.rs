//! One stream while it is open.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use palisade_api::AttachRequest;
use palisade_api::v1::attach_request::Message;
use palisade_api::v1::{AttachAcquire, AttachRenew};
use tonic::{Status, Streaming};

use super::desk::{Desk, Held};
use super::job::{Ask, Give, Job};
use super::open::Opened;
use super::outbox::{Backlog, Outbox};
use super::renew::{Barrier, Found, Renewals};
use super::streams::{Post, Stir};
use super::work::{Failed, Shared};
use super::{parse, reply, unreadable};
use crate::access::Verb;
use crate::clock::Moment;
use crate::domain::{Acquire, Acquired, Hold, HoldName, Refusal, Released};
use crate::service::counted;
use crate::service::error::{About, BadField, CallError};
use crate::service::lease::Living;
use crate::service::parse::bad;
use crate::store::{Failure, Standing, StoreError};

/// How long a request has waited before its client is told of its place: most are granted sooner, and looking
/// costs a read.
const FIRST_POSITION: Duration = Duration::from_millis(100);
/// How long until it is told again, if it has moved.
const NEXT_POSITION: Duration = Duration::from_secs(5);
/// How long before the coordinator's last moment streams end while it drains, so that they hear why.
const DRAIN_MARGIN: Duration = Duration::from_millis(500);

/// How a stream ends.
#[derive(Debug)]
pub(super) enum End {
    /// As the client wished: it closed the session, or its side of the stream.
    Closed,
    /// There is nobody to tell anything.
    Gone,
    Error(CallError),
    /// The client does not read.
    Backlog,
}

impl From<Backlog> for End {
    fn from(_: Backlog) -> Self {
        Self::Backlog
    }
}

/// A piece of work that has ended.
#[derive(Debug)]
pub(super) enum Done {
    Acquired(Arc<Ask>, Result<Acquired, Failed>),
    Gave(Box<Give>, Result<(Released, Option<CallError>), Failed>),
    Looked(Arc<Ask>, Result<Acquired, Failed>),
    Left(Arc<Ask>, Result<Hold, Failed>),
    /// There is news of a request that waits.
    Woken(Arc<Ask>),
    /// A request has waited so long.
    Due(Arc<Ask>),
    Position(Arc<Ask>, Option<Standing>),
    Renewed(Result<Living, Failed>),
    Found(Box<Found>),
    /// A hold that a renewal named is not there.
    Missing(Box<super::renew::Missing>),
    Closed(Result<(), Failed>),
    /// The session may be over.
    Expiring,
    Alive(Result<Moment, StoreError>),
    Drained,
}

pub(super) struct Running<'a> {
    pub(super) shared: Arc<Shared>,
    pub(super) desk: Desk,
    pub(super) work: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) renewals: Renewals,
    /// Until when the session lives at least.
    pub(super) living: Living,
    outbox: &'a Outbox,
    post: &'a Post,
    last_seq: u64,
    /// The message that closes the session.
    closing: Option<u64>,
    is_draining: bool,
    is_closing: bool,
}

impl<'a> Running<'a> {
    pub(super) async fn run(
        opened: Opened,
        inbound: Streaming<AttachRequest>,
        post: &'a Post,
        outbox: &'a Outbox,
    ) -> End {
        let mut running = Running {
            shared: Arc::clone(&opened.shared),
            desk: Desk::default(),
            work: FuturesUnordered::new(),
            renewals: Renewals::default(),
            living: opened.living,
            outbox,
            post,
            last_seq: opened.seq,
            closing: None,
            is_draining: false,
            is_closing: false,
        };
        match running.begin(opened) {
            Ok(()) => running.serve(inbound).await,
            Err(end) => end,
        }
    }

    fn begin(&mut self, opened: Opened) -> Result<(), End> {
        let Opened {
            shared,
            seq,
            living,
            resumed,
            statuses,
        } = opened;
        let mut named = Vec::with_capacity(statuses.len());
        let mut lost = Vec::new();
        for (one, found) in &statuses {
            match (found, one.token) {
                (Some(Acquired::Held(hold)), _) => self.take_up(seq, hold),
                (Some(Acquired::Queued(_)) | None, Some(token)) => {
                    self.desk.note_end(&one.resource, &one.request);
                    let names = (&one.resource, &one.request, token);
                    lost.push(reply::lost(names, palisade_api::LeaseEnd::Unknown, None));
                }
                (Some(Acquired::Queued(_)) | None, None) => {}
            }
            named.push(one.clone());
        }
        let opened = reply::opened((seq, &living), resumed, statuses, &shared);
        self.outbox.send(opened)?;
        for one in lost {
            self.outbox.send(one)?;
        }
        if resumed {
            self.renewals.barrier = Some(Barrier::new(seq, 0, named));
            self.start_pass();
        }
        self.watch_expiry();
        Ok(())
    }

    /// Takes note of a hold that the client knows of.
    pub(super) fn take_up(&mut self, seq: u64, hold: &Hold) {
        if let Some(token) = hold.token() {
            let held = Held {
                seq,
                request: hold.claim.request.clone(),
                token,
            };
            self.desk.hold(hold.claim.resource.clone(), held);
        }
    }

    async fn serve(&mut self, mut inbound: Streaming<AttachRequest>) -> End {
        // Messages beyond this wait in the transport, and so hold up the client that sends them.
        let most = self
            .shared
            .leases
            .limits
            .max_open_requests
            .saturating_mul(2);
        loop {
            let reads = self.closing.is_none() && self.desk.lanes.messages() < most;
            let post = self.post;
            let step = tokio::select! {
                biased;
                () = post.stirred() => self.stirred(),
                Some(done) = self.work.next() => self.finish(done),
                message = inbound.next(), if reads => self.message(message),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn stirred(&mut self) -> Result<(), End> {
        if self.post.is(Stir::Gone) {
            return Err(End::Gone);
        }
        if self.post.is(Stir::Superseded) {
            return Err(End::Error(CallError::Superseded));
        }
        if self.post.is(Stir::Draining) && !self.is_draining {
            self.is_draining = true;
            let leases = &self.shared.leases;
            let limit = leases.timeouts.drain_limit;
            let left = limit.saturating_sub(DRAIN_MARGIN.min(limit / 4));
            let clock = Arc::clone(&leases.clock);
            self.outbox.send(reply::draining(left))?;
            self.start(async move {
                clock.sleep(left).await;
                Done::Drained
            });
        }
        Ok(())
    }

    pub(super) fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.work.push(work.boxed());
    }

    pub(super) fn tell(&self, message: palisade_api::AttachResponse) -> Result<(), End> {
        Ok(self.outbox.send(message)?)
    }

    fn about(&self) -> About {
        About {
            session: Some(self.shared.caller.session),
            ..About::default()
        }
    }

    fn about_ask(&self, ask: &Ask) -> About {
        About {
            resource: Some(ask.acquire.resource.clone()),
            request: Some(ask.acquire.request.clone()),
            ..self.about()
        }
    }

    /// Tells the client of a failure, or ends the stream.
    fn fail(&self, seq: u64, about: &About, failed: Failed) -> Result<(), End> {
        match failed {
            Failed::Told(error) => self.tell(reply::refused(seq, about, &error)),
            Failed::Ends(error) => self.over(error),
        }
    }

    /// What ends the stream does not, where the session is closed by this very stream.
    pub(super) fn over(&self, error: CallError) -> Result<(), End> {
        let is_ended = matches!(
            &error,
            CallError::Store(StoreError::Refused(Refusal::SessionEnded { .. }))
        );
        if is_ended && self.is_closing {
            return Ok(());
        }
        Err(End::Error(error))
    }

    fn message(&mut self, message: Option<Result<AttachRequest, Status>>) -> Result<(), End> {
        let limits = &self.shared.leases.limits;
        let AttachRequest { seq, message } = match message {
            None => return Err(End::Closed),
            Some(Err(status)) => return Err(End::Error(unreadable(&status, limits))),
            Some(Ok(message)) => message,
        };
        if seq <= self.last_seq {
            let bound = format!("above {}", self.last_seq);
            return Err(End::Error(bad("seq", bound, seq).into()));
        }
        self.last_seq = seq;
        match message {
            Some(Message::Acquire(given)) => self.acquire(seq, given),
            Some(Message::Release(given)) => {
                let mut about = self.about();
                let give = parse::release(seq, &given, &mut about);
                self.give(seq, give, &about)
            }
            Some(Message::Cancel(given)) => {
                let mut about = self.about();
                let give = parse::cancel(seq, &given, &mut about);
                self.give(seq, give, &about)
            }
            Some(Message::Renew(given)) => self.renew(seq, given),
            Some(Message::Close(_)) => {
                self.closing = Some(seq);
                self.close_if_due();
                Ok(())
            }
            // Nothing rests on them: the release counts, and the stream's end.
            Some(Message::RevokeAck(_) | Message::DrainAck(_)) => Ok(()),
            Some(Message::Open(_)) => {
                let bound = "anything but open, after the first";
                Err(End::Error(bad("message", bound, "open").into()))
            }
            None => {
                let bound = "one of the kinds of this version";
                Err(End::Error(
                    bad("message", bound, "missing or unknown").into(),
                ))
            }
        }
    }

    fn acquire(&mut self, seq: u64, given: AttachAcquire) -> Result<(), End> {
        let mut about = self.about();
        match self.ask(seq, given, &mut about) {
            Ok(ask) => self.put(Job::Acquire(Arc::new(ask))),
            Err(error) => self.tell(reply::refused(seq, &about, &error)),
        }
    }

    fn ask(&self, seq: u64, given: AttachAcquire, about: &mut About) -> Result<Ask, CallError> {
        let shared = &self.shared;
        let leases = &shared.leases;
        let wish = parse::acquire(given, &leases.limits, about)?;
        let principal = &shared.caller.principal;
        shared
            .access
            .check(principal, Verb::Acquire, &wish.resource)?;
        if self.is_draining {
            return Err(CallError::Draining);
        }
        let most = leases.limits.max_open_requests;
        if self.desk.open_requests() >= most {
            return Err(limit("open requests", most));
        }
        if !self.desk.lanes.has_room(&wish.resource) {
            return Err(limit(
                "requests per resource",
                super::job::MAX_JOBS_PER_RESOURCE,
            ));
        }
        let acquire = Acquire {
            previous: leases.news.previous(&wish.resource),
            caller: shared.caller.clone(),
            resource: wish.resource,
            request: wish.request,
            metadata: wish.metadata,
            waits: !wish.wait.is_zero(),
            max_waiters: leases.limits.max_waiters_per_resource,
            lock_delay_ms: crate::service::parse::millis(wish.lock_delay),
        };
        let seat = match acquire.waits {
            true => Some(leases.waiters.seat(&acquire)?),
            false => None,
        };
        let since = shared.now();
        Ok(Ask {
            seq,
            since,
            until: since.after(wish.wait),
            stale: wish.is_retry.then(|| shared.marks.present()),
            seat,
            acquire,
        })
    }

    fn give(&mut self, seq: u64, give: Result<Give, BadField>, about: &About) -> Result<(), End> {
        let checked = give.map_err(CallError::from).and_then(|give| {
            let shared = &self.shared;
            let principal = &shared.caller.principal;
            shared
                .access
                .check(principal, Verb::Acquire, &give.resource)?;
            if !self.desk.lanes.has_room(&give.resource) {
                return Err(limit(
                    "requests per resource",
                    super::job::MAX_JOBS_PER_RESOURCE,
                ));
            }
            Ok(give)
        });
        match checked {
            Ok(give) => self.put(Job::Give(Box::new(give))),
            Err(error) => self.tell(reply::refused(seq, about, &error)),
        }
    }

    pub(super) fn put(&mut self, job: Job) -> Result<(), End> {
        if let Some(job) = self.desk.lanes.put(job) {
            self.start_job(job);
        }
        Ok(())
    }

    fn start_job(&mut self, job: Job) {
        let mut job = job;
        let shared = Arc::clone(&self.shared);
        loop {
            match job {
                Job::Acquire(ask) => {
                    return self.start(async move {
                        let done = shared.acquire(&ask).await;
                        Done::Acquired(ask, done)
                    });
                }
                Job::Give(give) => {
                    return self.start(async move {
                        let done = shared.give(&give).await;
                        Done::Gave(give, done)
                    });
                }
                Job::Look(ask) if self.desk.waiting(&ask).is_some() => {
                    return self.start(async move {
                        let done = shared.look(&ask).await;
                        Done::Looked(ask, done)
                    });
                }
                Job::Leave(ask) if self.desk.waiting(&ask).is_some() => {
                    return self.start(async move {
                        let done = shared.leave(&ask).await;
                        Done::Left(ask, done)
                    });
                }
                // It was answered while this job was behind others.
                Job::Look(ask) | Job::Leave(ask) => {
                    match self.desk.lanes.next(&ask.acquire.resource) {
                        Some(next) => job = next,
                        None => return,
                    }
                }
            }
        }
    }

    fn next_job(&mut self, resource: &palisade_token::ResourceName) {
        if let Some(job) = self.desk.lanes.next(resource) {
            self.start_job(job);
        }
    }

    fn finish(&mut self, done: Done) -> Result<(), End> {
        match done {
            Done::Acquired(ask, done) => {
                self.acquired(&ask, done)?;
                self.answered(ask.seq, &ask.acquire.resource)
            }
            Done::Gave(give, done) => {
                self.gave(&give, done)?;
                if give.is_asked {
                    self.answered(give.seq, &give.resource)
                } else {
                    self.next_job(&give.resource);
                    Ok(())
                }
            }
            Done::Looked(ask, done) => {
                self.looked(&ask, done)?;
                self.next_job(&ask.acquire.resource);
                Ok(())
            }
            Done::Left(ask, done) => {
                self.looked(&ask, done.map(Acquired::Held))?;
                self.next_job(&ask.acquire.resource);
                Ok(())
            }
            Done::Woken(ask) => match self.desk.waiting(&ask) {
                Some(_) => self.put(Job::Look(ask)),
                None => Ok(()),
            },
            Done::Due(ask) => self.due(ask),
            Done::Position(ask, standing) => self.position(&ask, standing.as_ref()),
            Done::Renewed(done) => self.renewed(done),
            Done::Found(found) => self.found(*found),
            Done::Missing(missing) => self.missing(&missing),
            Done::Closed(done) => self.closed(done),
            Done::Expiring => {
                self.expiring();
                Ok(())
            }
            Done::Alive(done) => self.alive(done),
            Done::Drained => Err(End::Error(CallError::Draining)),
        }
    }

    /// A message has had its first answer: what waits for all before it may be next.
    fn answered(&mut self, seq: u64, resource: &palisade_token::ResourceName) -> Result<(), End> {
        self.desk.lanes.answered();
        self.next_job(resource);
        self.renewals.answered(seq);
        self.start_pass();
        self.close_if_due();
        Ok(())
    }

    fn acquired(&mut self, ask: &Arc<Ask>, done: Result<Acquired, Failed>) -> Result<(), End> {
        match done {
            Ok(Acquired::Held(hold)) => self.granted(ask, &hold),
            Ok(Acquired::Queued(_)) if ask.seat.is_none() => {
                self.refuse_ask(ask, &CallError::Broken("a try was queued"))
            }
            Ok(Acquired::Queued(_)) => {
                self.desk.wait(Arc::clone(ask));
                let waiters = &self.shared.leases.waiters;
                waiters.look_after(&ask.acquire.resource);
                self.wait_first(Arc::clone(ask));
                Ok(())
            }
            Err(Failed::Told(error)) => self.refuse_ask(ask, &error),
            Err(Failed::Ends(error)) => self.over(error),
        }
    }

    fn granted(&mut self, ask: &Ask, hold: &Hold) -> Result<(), End> {
        let leases = &self.shared.leases;
        let left = leases.left(self.living.until);
        let Some(granted) = reply::granted(ask.seq, hold, left) else {
            let error = StoreError::not_applied(Failure::HistoryRegressed).or_happened();
            return self.refuse_ask(ask, &error.into());
        };
        self.count(ask, Ok(()));
        self.take_up(ask.seq, hold);
        self.tell(granted)
    }

    fn wait_first(&mut self, ask: Arc<Ask>) {
        let first = self.shared.now().after(FIRST_POSITION);
        let next = first.min(ask.until);
        self.wait_on(ask, next);
    }

    /// Waits for news of a request, or for a moment.
    fn wait_on(&mut self, ask: Arc<Ask>, next: Moment) {
        let clock = Arc::clone(&self.shared.leases.clock);
        self.start(async move {
            let time = clock.now().until(next);
            let woken = async {
                match &ask.seat {
                    Some(seat) => seat.woken().await,
                    None => std::future::pending().await,
                }
            };
            let is_woken = tokio::select! {
                biased;
                () = woken => true,
                () = clock.sleep(time) => false,
            };
            match is_woken {
                true => Done::Woken(ask),
                false => Done::Due(ask),
            }
        });
    }

    fn due(&mut self, ask: Arc<Ask>) -> Result<(), End> {
        if self.desk.waiting(&ask).is_none() {
            return Ok(());
        }
        let now = self.shared.now();
        // A later try of the same request goes on waiting, and this one with it.
        let last = self.desk.waits_until(&ask).unwrap_or(ask.until);
        if now < ask.until {
            self.look_for_position(ask);
        } else if now < last {
            self.wait_on(ask, last);
        } else {
            return self.put(Job::Leave(ask));
        }
        Ok(())
    }

    fn look_for_position(&mut self, ask: Arc<Ask>) {
        let shared = Arc::clone(&self.shared);
        self.start(async move {
            let standing = shared.standing(&ask.acquire.resource).await;
            Done::Position(ask, standing)
        });
    }

    fn position(&mut self, ask: &Arc<Ask>, standing: Option<&Standing>) -> Result<(), End> {
        let now = self.shared.now();
        let Some(waiting) = self.desk.waiting(ask) else {
            return Ok(());
        };
        let before = waiting.told.map(|(told, _)| told);
        let read = standing.map(|standing| {
            let others = u32::try_from(standing.waiters.saturating_sub(1)).unwrap_or(u32::MAX);
            let holder = standing.hold.as_ref().and_then(Hold::token);
            // Those who came later are counted, too: it never moves back.
            let ahead = before.map_or(others, |(ahead, _)| others.min(ahead));
            (
                ahead,
                holder.map_or(0, palisade_token::FencingToken::as_i64),
            )
        });
        let told = read.filter(|read| Some(*read) != before);
        if let Some(told) = told.or(before) {
            waiting.told = Some((told, now));
        }
        if let Some(told) = told {
            let names = (&ask.acquire.resource, &ask.acquire.request);
            let left = now.until(ask.until);
            self.tell(reply::queued(ask.seq, names, told, left))?;
        }
        self.wait_on(Arc::clone(ask), ask.until);
        Ok(())
    }

    fn looked(&mut self, ask: &Arc<Ask>, done: Result<Acquired, Failed>) -> Result<(), End> {
        match done {
            Ok(Acquired::Queued(_)) => {
                let told = self.desk.waiting(ask).and_then(|waiting| waiting.told);
                match told {
                    Some((_, at)) if self.shared.now() >= at.after(NEXT_POSITION) => {
                        self.look_for_position(Arc::clone(ask));
                    }
                    Some(_) => self.wait_on(Arc::clone(ask), ask.until),
                    None => {
                        self.wait_first(Arc::clone(ask));
                    }
                }
                Ok(())
            }
            Ok(Acquired::Held(hold)) => {
                self.desk.unwait(ask);
                self.granted(ask, &hold)
            }
            Err(Failed::Told(error)) => {
                self.desk.unwait(ask);
                self.refuse_ask(ask, &error)
            }
            Err(Failed::Ends(error)) => self.over(error),
        }
    }

    fn gave(
        &mut self,
        give: &Give,
        done: Result<(Released, Option<CallError>), Failed>,
    ) -> Result<(), End> {
        let mut about = self.about();
        about.resource = Some(give.resource.clone());
        if let HoldName::Request(request) = &give.hold {
            about.request = Some(request.clone());
        }
        let (released, lasting) = match done {
            Ok(done) => done,
            Err(Failed::Told(_)) if !give.is_asked => return Ok(()),
            Err(failed) => return self.fail(give.seq, &about, failed),
        };
        if let HoldName::Request(request) = &give.hold {
            self.cancel_waiting(give, request)?;
        }
        let known = self.desk.end(&give.resource, &give.hold);
        self.shared.leases.released(&released);
        if let Released::Lease { hold, .. } = &released {
            about.request = Some(hold.claim.request.clone());
        }
        match (give.is_asked, lasting, known) {
            (true, Some(error), _) => self.tell(reply::refused(give.seq, &about, &error)),
            (true, None, known) => {
                let request = about.request.or(known.map(|known| known.request));
                let answer = reply::released(give.seq, &give.resource, request.as_ref(), &released);
                self.tell(answer)
            }
            (false, _, Some(known)) => {
                let names = (&give.resource, &known.request, known.token);
                let end = match released {
                    Released::Lease { .. } => palisade_api::LeaseEnd::Released,
                    _ => palisade_api::LeaseEnd::Unknown,
                };
                self.tell(reply::lost(names, end, None))
            }
            (false, _, None) => Ok(()),
        }
    }

    /// Acquires whose request is given back are answered before that is.
    fn cancel_waiting(
        &mut self,
        give: &Give,
        request: &crate::domain::RequestId,
    ) -> Result<(), End> {
        for ask in self.desk.unwait_before(&give.resource, request, give.seq) {
            self.dismiss(&ask)?;
        }
        let leases = &self.shared.leases;
        leases
            .waiters
            .cancel(self.shared.caller.session, &give.resource, request);
        Ok(())
    }

    fn dismiss(&self, ask: &Ask) -> Result<(), End> {
        // What waits for its news finds that nobody wants to know any more.
        if let Some(seat) = &ask.seat {
            seat.ring();
        }
        self.refuse_ask(ask, &CallError::Cancelled)
    }

    fn refuse_ask(&self, ask: &Ask, error: &CallError) -> Result<(), End> {
        let about = self.about_ask(ask);
        let refused = reply::refused(ask.seq, &about, error);
        self.count(ask, Err(error));
        self.tell(refused)
    }

    fn count(&self, ask: &Ask, done: Result<(), &CallError>) {
        let took = ask.since.until(self.shared.now());
        let outcome = counted::acquire(done);
        self.shared.leases.metrics.acquired(outcome, took);
    }

    /// Closing the session comes after everything before it.
    fn close_if_due(&mut self) {
        if self.closing.is_none() || self.is_closing || self.desk.lanes.messages() > 0 {
            return;
        }
        self.is_closing = true;
        let shared = Arc::clone(&self.shared);
        self.start(async move { Done::Closed(shared.close().await) });
    }

    fn closed(&mut self, done: Result<(), Failed>) -> Result<(), End> {
        let seq = self.closing.take().unwrap_or(self.last_seq);
        match done {
            Ok(()) => {
                for ask in self.desk.unwait_all() {
                    self.dismiss(&ask)?;
                }
                self.tell(reply::closed(seq))?;
                Err(End::Closed)
            }
            Err(failed) => {
                self.is_closing = false;
                self.fail(seq, &self.about(), failed)
            }
        }
    }

    fn renew(&mut self, seq: u64, given: AttachRenew) -> Result<(), End> {
        let limits = &self.shared.leases.limits;
        match parse::open_requests(given.open_requests, limits) {
            Ok(named) => {
                let before = self.desk.lanes.messages();
                self.renewals.barrier = Some(Barrier::new(seq, before, named));
                self.start_pass();
                self.relay(seq)
            }
            Err(error) => self.tell(reply::refused(seq, &self.about(), &error.into())),
        }
    }

    pub(super) fn refuse_renewal(&self, seq: u64, error: &CallError) -> Result<(), End> {
        self.tell(reply::refused(seq, &self.about(), error))
    }
}

fn limit(limit: &'static str, bound: usize) -> CallError {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX);
    CallError::Limit { limit, bound }
}
