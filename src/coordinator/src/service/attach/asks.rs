//! Acquires of one stream: asked, queued, woken, answered.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::AttachAcquire;
use palisade_token::FencingToken;

use super::job::{Ask, Job, MAX_JOBS_PER_RESOURCE};
use super::stream::{Done, End, Running, limit};
use super::work::Failed;
use super::{parse, reply};
use crate::access::Verb;
use crate::clock::Moment;
use crate::domain::{Acquire, Acquired, Hold};
use crate::metrics::Label;
use crate::service::counted;
use crate::service::error::{About, CallError};
use crate::service::lease::Leases;
use crate::service::parse::millis;
use crate::service::waiters::Glance;
use crate::store::{Failure, StoreError};
use crate::traces::Traced;

/// How long a request has waited before its client is told of its place, and its resource is looked after: most
/// are granted sooner, and looking costs a read.
const FIRST_POSITION: Duration = Duration::from_millis(100);
/// How long until it is told again, if it has moved.
const NEXT_POSITION: Duration = Duration::from_secs(5);
impl Running {
    pub(super) fn acquire(&mut self, seq: u64, given: AttachAcquire) -> Result<(), End> {
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
            return Err(limit("requests per resource", MAX_JOBS_PER_RESOURCE));
        }
        let acquire = Acquire {
            previous: leases.news.previous(&wish.resource),
            caller: shared.caller.clone(),
            resource: wish.resource,
            request: wish.request,
            metadata: wish.metadata,
            waits: !wish.wait.is_zero(),
            max_waiters: leases.limits.max_waiters_per_resource,
            lock_delay_ms: millis(wish.lock_delay),
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

    pub(super) fn acquired(
        &mut self,
        ask: &Arc<Ask>,
        done: Result<Acquired, Failed>,
    ) -> Result<(), End> {
        match done {
            Ok(Acquired::Held(hold)) => self.granted(ask, &hold),
            Ok(Acquired::Queued(_)) if ask.seat.is_none() => {
                self.refuse_ask(ask, &CallError::Broken("a try was queued"))
            }
            Ok(Acquired::Queued(place)) => {
                self.desk.wait(Arc::clone(ask));
                if let Some(seat) = &ask.seat {
                    seat.queued(place.since);
                }
                self.wait_first(Arc::clone(ask));
                Ok(())
            }
            Err(Failed::Told(error)) => self.refuse_ask(ask, &error),
            Err(Failed::Ends(error)) => self.over(error),
        }
    }

    pub(super) fn granted(&mut self, ask: &Ask, hold: &Hold) -> Result<(), End> {
        let leases = &self.shared.leases;
        let left = leases.left(self.living.until);
        let Some(granted) = reply::granted(ask.seq, hold, left) else {
            let error = StoreError::not_applied(Failure::HistoryRegressed).or_happened();
            return self.refuse_ask(ask, &error.into());
        };
        self.count(ask, Ok(()));
        self.take_up(ask.seq, hold);
        if ask.stale.is_some() {
            // It may have been granted before this stream listened.
            self.news.follow(&hold.claim.resource);
        }
        self.tell(granted)?;
        match hold.token() {
            Some(token) => self.catch_up(&hold.claim.resource, token),
            None => Ok(()),
        }
    }

    pub(super) fn wait_first(&mut self, ask: Arc<Ask>) {
        let first = self.shared.now().after(FIRST_POSITION);
        let next = first.min(ask.until);
        self.wait_on(ask, next);
    }

    /// Waits for news of a request, or for a moment.
    pub(super) fn wait_on(&mut self, ask: Arc<Ask>, next: Moment) {
        let clock = Arc::clone(&self.shared.leases.clock);
        self.start(async move {
            let time = clock.now().until(next);
            let is_woken = tokio::select! {
                biased;
                () = woken(&ask) => true,
                () = clock.sleep(time) => false,
            };
            match is_woken {
                true => Done::Woken(ask),
                false => Done::Due(ask),
            }
        });
    }

    pub(super) fn due(&mut self, ask: Arc<Ask>) -> Result<(), End> {
        if self.desk.waiting(&ask).is_none() {
            return Ok(());
        }
        let now = self.shared.now();
        // A later try of the same request goes on waiting, and this one with it.
        let last = self.desk.waits_until(&ask).unwrap_or(ask.until);
        if now < ask.until {
            let waiters = &self.shared.leases.waiters;
            waiters.look_after(&ask.acquire.resource);
            self.look_for_position(ask);
        } else if now < last {
            self.wait_on(ask, last);
        } else {
            return self.put(Job::Leave(ask));
        }
        Ok(())
    }

    /// Looks where a request stands, while it waits for its news and its end.
    pub(super) fn look_for_position(&mut self, ask: Arc<Ask>) {
        let shared = Arc::clone(&self.shared);
        self.start(async move {
            let Leases { waiters, clock, .. } = &*shared.leases;
            let time = clock.now().until(ask.until);
            let glance = tokio::select! {
                biased;
                () = woken(&ask) => return Done::Woken(ask),
                glance = waiters.glance(&ask.acquire.resource) => glance,
                () = clock.sleep(time) => return Done::Due(ask),
            };
            Done::Position(ask, glance)
        });
    }

    pub(super) fn position(&mut self, ask: &Arc<Ask>, glance: Option<&Glance>) -> Result<(), End> {
        let now = self.shared.now();
        let session = self.shared.caller.session;
        let Some(waiting) = self.desk.waiting(ask) else {
            return Ok(());
        };
        let before = waiting.told.map(|(told, _)| told);
        let read = glance.map(|glance| {
            let others = glance.ahead(session, &ask.acquire.request);
            let others = u32::try_from(others).unwrap_or(u32::MAX);
            // It never moves back.
            let ahead = before.map_or(others, |(ahead, _)| others.min(ahead));
            let holder = glance.holder().map_or(0, FencingToken::as_i64);
            (ahead, holder)
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

    pub(super) fn looked(
        &mut self,
        ask: &Arc<Ask>,
        done: Result<Acquired, Failed>,
    ) -> Result<(), End> {
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

    pub(super) fn dismiss(&self, ask: &Ask) -> Result<(), End> {
        // What waits for its news finds that nobody wants to know any more.
        if let Some(seat) = &ask.seat {
            seat.ring();
        }
        self.refuse_ask(ask, &CallError::Cancelled)
    }

    pub(super) fn refuse_ask(&self, ask: &Ask, error: &CallError) -> Result<(), End> {
        let about = self.about_ask(ask);
        let refused = reply::refused(ask.seq, &about, error);
        self.count(ask, Err(error));
        self.tell(refused)
    }

    pub(super) fn count(&self, ask: &Ask, done: Result<(), &CallError>) {
        let took = ask.since.until(self.shared.now());
        let outcome = counted::acquire(done);
        self.shared.leases.metrics.acquired(outcome, took);
        if let Some(Traced(trace)) = &self.shared.trace {
            trace.acquired(took, outcome.value());
        }
    }
}

/// Waits for news of a request.
async fn woken(ask: &Ask) {
    match &ask.seat {
        Some(seat) => seat.woken().await,
        None => std::future::pending().await,
    }
}
