//! One stream while it is open.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use palisade_api::AttachRequest;
use palisade_api::v1::attach_request::Message;
use tonic::{Status, Streaming};
use tracing::debug;

use super::desk::{Desk, Held};
use super::heard::How;
use super::job::{Ask, Give, Job};
use super::open::Opened;
use super::outbox::{Backlog, Outbox};
use super::parse::Named;
use super::renew::{Barrier, Found, Renewals};
use super::streams::{Entered, Post, Stir};
use super::work::{Failed, Shared};
use super::{finish, parse, reply, unreadable};
use crate::clock::Moment;
use crate::domain::{Acquired, Hold, Refusal, Released};
use crate::service::error::{About, CallError};
use crate::service::lease::Living;
use crate::service::news::SessionSubscription;
use crate::service::parse::bad;
use crate::service::waiters::Glance;
use crate::store::StoreError;

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
    Position(Arc<Ask>, Option<Arc<Glance>>),
    Renewed(Result<Living, Failed>),
    Found(Box<Found>),
    /// A hold that a renewal named is not there.
    Missing(Box<super::renew::Missing>),
    Closed(Result<(), Failed>),
    /// The session may be over.
    Expiring,
    Alive(Result<Moment, StoreError>),
    /// Nobody waits for what came of it.
    Told,
    Drained,
}

pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) desk: Desk,
    pub(super) work: FuturesUnordered<BoxFuture<'static, Done>>,
    pub(super) renewals: Renewals,
    /// Until when the session lives at least.
    pub(super) living: Living,
    pub(super) news: SessionSubscription,
    inbound: Streaming<AttachRequest>,
    outbox: Outbox,
    post: Arc<Post>,
    /// While it is there, a newer stream of the session stirs this one.
    _entered: Entered,
    pub(super) last_seq: u64,
    /// The message that closes the session.
    pub(super) closing: Option<u64>,
    pub(super) is_draining: bool,
    pub(super) is_closing: bool,
}

impl Running {
    /// Answers the first message. It is in a box, so that it is not moved about in futures, where each place that
    /// it was in takes room for good.
    pub(super) fn begin(
        opened: Opened,
        entered: Entered,
        post: Arc<Post>,
        outbox: Outbox,
    ) -> Option<Box<Self>> {
        let mut running = Box::new(Self {
            shared: opened.shared,
            desk: Desk::default(),
            work: FuturesUnordered::new(),
            renewals: Renewals::default(),
            living: opened.living,
            news: opened.news,
            inbound: opened.inbound,
            outbox,
            post,
            _entered: entered,
            last_seq: opened.seq,
            closing: None,
            is_draining: false,
            is_closing: false,
        });
        match running.opened(opened.seq, opened.resumed, opened.statuses) {
            Ok(()) => Some(running),
            Err(end) => {
                running.end(end);
                None
            }
        }
    }

    fn end(self: Box<Self>, end: End) {
        let (session, epoch) = (self.shared.caller.session, self.shared.caller.epoch);
        debug!(%session, epoch, ?end, "a stream ended");
        let about = self.about();
        // Nothing else of it is left when its client hears of its end.
        let outbox = self.into_outbox();
        finish(end, outbox, &about);
    }

    fn into_outbox(self) -> Outbox {
        self.outbox
    }

    fn opened(
        &mut self,
        seq: u64,
        resumed: bool,
        statuses: Vec<(Named, Option<Acquired>)>,
    ) -> Result<(), End> {
        let mut named = Vec::with_capacity(statuses.len());
        let mut lost = Vec::new();
        for (one, found) in &statuses {
            match (found, one.token) {
                (Some(Acquired::Held(hold)), _) => {
                    self.take_up(seq, hold);
                    self.news.follow(&one.resource);
                }
                (Some(Acquired::Queued(_)) | None, Some(token)) => {
                    self.desk.note_end(&one.resource, &one.request);
                    let names = (&one.resource, &one.request, token);
                    lost.push(reply::lost(names, &How::default(), None));
                }
                (Some(Acquired::Queued(_)) | None, None) => {}
            }
            named.push(one.clone());
        }
        let opened = reply::opened((seq, &self.living), resumed, statuses, &self.shared);
        self.outbox.send(opened)?;
        for one in lost {
            self.outbox.send(one)?;
        }
        if resumed {
            self.renewals.barrier = Some(Barrier::new(seq, 0, named));
            self.start_pass();
        } else {
            // Of a session that nobody knew before this stream there is nothing to give back yet.
            self.renewals.nothing_before(self.news.grants());
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
                granted: hold.granted,
            };
            self.desk.hold(hold.claim.resource.clone(), held);
        }
    }

    /// Serves the client until the stream ends.
    pub(super) async fn serve(mut self: Box<Self>) {
        // Messages beyond this wait in the transport, and so hold up the client that sends them.
        let most = self
            .shared
            .leases
            .limits
            .max_open_requests
            .saturating_mul(2);
        loop {
            let reads = self.closing.is_none() && self.desk.lanes.messages() < most;
            let post = &self.post;
            let step = tokio::select! {
                biased;
                () = post.stirred() => self.stirred(),
                heard = self.news.next() => self.heard(heard),
                Some(done) = self.work.next() => self.finish(done),
                message = self.inbound.next(), if reads => self.message(message),
            };
            if let Err(end) = step {
                return self.end(end);
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
            let limit = leases.drain.limit(leases.timeouts.drain_limit);
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

    pub(super) fn about(&self) -> About {
        About {
            session: Some(self.shared.caller.session),
            ..About::default()
        }
    }

    pub(super) fn about_ask(&self, ask: &Ask) -> About {
        About {
            resource: Some(ask.acquire.resource.clone()),
            request: Some(ask.acquire.request.clone()),
            ..self.about()
        }
    }

    /// Tells the client of a failure, or ends the stream.
    pub(super) fn fail(&self, seq: u64, about: &About, failed: Failed) -> Result<(), End> {
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
            // Nothing rests on it: the stream ends when it is time.
            Some(Message::DrainAck(_)) => Ok(()),
            Some(Message::RevokeAck(ack)) => {
                self.revoke_ack(&ack);
                Ok(())
            }
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

    pub(super) fn put(&mut self, job: Job) -> Result<(), End> {
        if let Some(job) = self.desk.lanes.put(job) {
            self.start_job(job);
        }
        Ok(())
    }

    pub(super) fn start_job(&mut self, job: Job) {
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

    pub(super) fn next_job(&mut self, resource: &palisade_token::ResourceName) {
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
            Done::Position(ask, glance) => self.position(&ask, glance.as_deref()),
            Done::Renewed(done) => self.renewed(done),
            Done::Found(found) => self.found(*found),
            Done::Missing(missing) => self.missing(&missing),
            Done::Closed(done) => self.closed(done),
            Done::Expiring => {
                self.expiring();
                Ok(())
            }
            Done::Alive(done) => self.alive(done),
            Done::Told => Ok(()),
            Done::Drained => {
                self.shared.leases.drain.ended_one();
                Err(End::Error(CallError::Draining))
            }
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
}

pub(super) fn limit(limit: &'static str, bound: usize) -> CallError {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX);
    CallError::Limit { limit, bound }
}
