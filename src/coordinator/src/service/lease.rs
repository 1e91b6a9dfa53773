//! Sessions and leases: what each call asks of the store, in domain terms.

use std::sync::Arc;
use std::time::Duration;

use palisade_token::{FencingToken, ResourceName};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

use super::counted::{self, CountedAcquire};
use super::deadline::{Deadline, Kind};
use super::drain::Drain;
use super::error::CallError;
use super::news::News;
use super::parse::Opening;
use super::waiters::Waiters;
use crate::access::{Scope, Span};
use crate::clock::{Clock, Moment};
use crate::config::{Limits, Timeouts};
use crate::domain::{
    Acquire, Acquired, AttachMark, Caller, GenerationError, Hold, HoldName, LeaseEnd, Nonce,
    Principal, Refusal, Release, Released, Revision, Session, SessionId,
};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::store::{Alive, Failure, Page, Standing, Store, StoreError};

/// How long a renewal's answer waits for the list of what the session has: a small part of the shortest TTL.
const HOLDINGS_LIMIT: Duration = Duration::from_millis(250);

/// What serves leases, beneath whatever protocol asks for them.
#[derive(Debug)]
pub(crate) struct Leases {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    /// Names this process in attach marks.
    pub(super) process: Nonce,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) waiters: Waiters,
    pub(super) metrics: Metrics,
    pub(super) news: News,
    pub(super) draining: CancellationToken,
    pub(super) drain: Drain,
}

/// A session that lives, and until when at least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Living {
    pub(super) session: SessionId,
    pub(super) ttl: Duration,
    pub(super) until: Moment,
}

impl Leases {
    /// Refuses what would begin something new while this coordinator drains.
    pub(super) fn admit_new(&self) -> Result<(), CallError> {
        if self.draining.is_cancelled() {
            return Err(CallError::Draining);
        }
        Ok(())
    }

    /// What is left until a moment.
    pub(super) fn left(&self, until: Moment) -> Duration {
        self.clock.now().until(until)
    }

    /// Opens a session, or finds the one that this opening made (I4).
    pub(super) async fn open(
        &self,
        opening: &Opening,
        principal: &Principal,
        deadline: &Deadline,
    ) -> Result<Living, CallError> {
        self.admit_new()?;
        let session = self.session(opening, principal, self.process);
        let sent = self.clock.now();
        let alive = deadline
            .run(Kind::Write, self.store.open_session(session))
            .await?;
        self.living(alive, sent, deadline).await
    }

    /// How long a session lives that was opened by a call that began at `sent`. It may have been found, or only its
    /// time, where an opening before got halfway: then that began earlier.
    pub(super) async fn living(
        &self,
        alive: Alive,
        sent: Moment,
        deadline: &Deadline,
    ) -> Result<Living, CallError> {
        let known = self.store.lives_until(alive.session);
        let until = match known.filter(|until| *until > self.clock.now()) {
            Some(until) => until,
            None => {
                let asked = self.clock.now();
                let left = deadline.run(Kind::Read, self.store.time_left(alive.session));
                asked.after(left.await.map_err(CallError::or_happened)?)
            }
        };
        Ok(Living {
            session: alive.session,
            ttl: alive.ttl,
            until: sent.after(alive.ttl).min(until),
        })
    }

    /// The session that an opening makes, with a mark of this nonce.
    pub(super) fn session(
        &self,
        opening: &Opening,
        principal: &Principal,
        nonce: Nonce,
    ) -> Session {
        Session {
            id: SessionId::derive(principal, &opening.open_id),
            principal: principal.clone(),
            secret: opening.secret,
            label: opening.label.clone(),
            ttl_ms: opening.ttl_ms,
            opening: self.entropy.nonce(),
            mark: AttachMark {
                epoch: opening.epoch,
                sub: 0,
                nonce,
            },
        }
    }

    /// Renews a session. Its time is counted from before the store was asked.
    pub(super) async fn renew(
        &self,
        caller: &Caller,
        deadline: &Deadline,
    ) -> Result<Living, CallError> {
        let sent = self.clock.now();
        let lives_until = self.store.lives_until(caller.session);
        let slack = lives_until.map(|until| sent.until(until));
        let renewed = deadline
            .run(Kind::Write, self.store.renew_session(caller))
            .await;
        self.metrics
            .renewed(counted::renewal(renewed.as_ref()), slack);
        let alive = renewed?;
        Ok(Living {
            session: alive.session,
            ttl: alive.ttl,
            until: sent.after(alive.ttl),
        })
    }

    /// What a session has, so that its client finds what it does not know of (I5): no more than the limit, and nothing
    /// where it could not be read soon. The next renewal asks again, and this one's answer must not be late for it.
    pub(super) async fn holdings(&self, session: SessionId, deadline: &Deadline) -> Vec<Acquired> {
        let soon = HOLDINGS_LIMIT.min(deadline.left() / 4);
        let soon = Deadline::within(&self.clock, soon);
        match soon.run(Kind::Read, self.store.holdings(session)).await {
            Ok(mut holdings) => {
                holdings.truncate(self.limits.max_open_requests);
                holdings
            }
            Err(error) => {
                debug!(?error, %session, "could not read what a session has");
                Vec::new()
            }
        }
    }

    /// Ends a session.
    pub(super) async fn close(
        &self,
        caller: &Caller,
        deadline: &Deadline,
    ) -> Result<(), CallError> {
        deadline
            .run(Kind::Write, self.store.close_session(caller))
            .await
    }

    /// Grants a resource, or waits for it.
    pub(super) async fn acquire(
        &self,
        acquire: &Acquire,
        wait: Duration,
        deadline: &Deadline,
    ) -> Result<Hold, CallError> {
        let counted = CountedAcquire::start(&self.metrics, &self.clock);
        let done = match acquire.waits {
            _ if self.draining.is_cancelled() => Err(CallError::Draining),
            true => self.acquire_waiting(acquire, wait, deadline).await,
            false => self.acquire_at_once(acquire, deadline).await,
        };
        counted.end(&done);
        done.inspect(|hold| self.news.note_grant(hold))
    }

    /// Tells of a lease that was released, also whoever waited for it and has it now.
    pub(super) fn released(&self, released: &Released) {
        let Released::Lease {
            hold,
            successor,
            ended,
        } = released
        else {
            return;
        };
        if let Some(successor) = successor {
            self.waiters.granted(successor);
        }
        self.news.note_end(hold, LeaseEnd::Released, *ended, "");
    }

    async fn acquire_at_once(
        &self,
        acquire: &Acquire,
        deadline: &Deadline,
    ) -> Result<Hold, CallError> {
        let asked = deadline.run(Kind::Write, self.store.acquire(acquire));
        match asked.await? {
            Acquired::Held(hold) => Ok(hold),
            Acquired::Queued(_) => Err(CallError::Broken("a try was queued")),
        }
    }

    async fn acquire_waiting(
        &self,
        acquire: &Acquire,
        wait: Duration,
        deadline: &Deadline,
    ) -> Result<Hold, CallError> {
        let seat = self.waiters.seat(acquire)?;
        let until = self.clock.now().after(wait);
        let asked = deadline.run(Kind::Write, self.store.acquire(acquire));
        match asked.await? {
            Acquired::Held(hold) => Ok(hold),
            Acquired::Queued(place) => {
                seat.queued(place.since);
                let times = (until, deadline);
                self.waiters
                    .wait(&seat, acquire, times, &self.draining)
                    .await
            }
        }
    }

    /// Until when a session lives at least, as read from the store; `None` where it could not be read.
    pub(super) async fn living_until(
        &self,
        session: SessionId,
        deadline: &Deadline,
    ) -> Result<Option<Moment>, CallError> {
        let asked = self.clock.now();
        let known = self.store.lives_until(session);
        if known.is_some_and(|until| until > asked) {
            return Ok(known);
        }
        let read = deadline.run(Kind::Read, self.store.time_left(session));
        match read.await {
            Ok(left) => Ok(Some(asked.after(left))),
            Err(CallError::Store(StoreError::Refused(refusal))) => Err(refusal.into()),
            Err(error) => {
                debug!(?error, "could not read how long a session lives");
                Ok(None)
            }
        }
    }

    /// Releases a lease or gives a place back; before that, steps past a fence that refused the lease's token.
    pub(super) async fn release(
        &self,
        release: &Release,
        fence: Option<FencingToken>,
        deadline: &Deadline,
    ) -> Result<Released, CallError> {
        let stepped = match fence {
            None => Ok(()),
            Some(fence) => self.step_past(fence, release, deadline).await,
        };
        // What will not pass soon keeps no lease from being released.
        if fence.is_some() {
            self.metrics.fence_ahead();
        }
        let refused = match stepped {
            Err(error) if is_lasting(&error) => Err(error.or_happened()),
            other => other.map(Ok)?,
        };
        let asked = deadline.run(Kind::Write, self.store.release(release));
        let released = asked.await?;
        self.released(&released);
        if let HoldName::Request(request) = &release.hold {
            let session = release.caller.session;
            self.waiters.cancel(session, &release.resource, request);
        }
        refused.map(|()| released)
    }

    /// A guard refused the token of the caller's lease, because its fence is ahead and no later lease
    /// explains that. The next token must be above the fence, also that of an heir in the queue.
    pub(super) async fn step_past(
        &self,
        fence: FencingToken,
        release: &Release,
        deadline: &Deadline,
    ) -> Result<(), CallError> {
        // Only a holder may move the tokens of everybody: the renewal checks who asks.
        let renewed = self.store.renew_session(&release.caller);
        deadline.run(Kind::Read, renewed).await?;
        let asked = deadline.run(Kind::Read, self.store.lease(&release.resource));
        let Some(hold) = asked.await?.hold else {
            return Ok(());
        };
        let is_meant = hold.claim.session == release.caller.session
            && match &release.hold {
                HoldName::Token(token) => hold.token() == Some(*token),
                HoldName::Request(request) => hold.claim.request == *request,
            };
        let Some(token) = hold.token().filter(|token| is_meant && *token < fence) else {
            return Ok(());
        };
        match deadline
            .run(Kind::Read, self.store.advance(Some(fence)))
            .await
        {
            Ok(generation) => {
                info!(resource = %release.resource, %token, %fence, base = generation.base,
                    "stepped past a fence that was ahead");
                Ok(())
            }
            Err(CallError::Store(error)) if is_far_ahead(&error) => {
                error!(resource = %release.resource, %token, %fence,
                    "a guard's fence is over a day ahead of the clock: every lease of this resource will \
                     be refused there until one of the two is set right");
                Err(CallError::FenceAhead { token, fence })
            }
            Err(error) => Err(error),
        }
    }

    /// The lease of a resource.
    pub(super) async fn lease(
        &self,
        resource: &ResourceName,
        deadline: &Deadline,
    ) -> Result<Standing, CallError> {
        deadline.run(Kind::Read, self.store.lease(resource)).await
    }

    /// The lease of a resource, and the first of those who wait for it.
    pub(super) async fn lease_and_queue(
        &self,
        resource: &ResourceName,
        queue_size: usize,
        deadline: &Deadline,
    ) -> Result<Standing, CallError> {
        let asked = self.store.lease_and_queue(resource, queue_size);
        deadline.run(Kind::Read, asked).await
    }

    /// A page of leases.
    /// A page of what a caller may see: only its own spans are read, so no name that it may not see is met,
    /// not even by a page token. Of several reads the page has the earliest revision.
    pub(super) async fn leases(
        &self,
        scope: &Scope,
        after: Option<&ResourceName>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<Page, CallError> {
        let mut found: Option<Page> = None;
        let is_over = |span: &&Span| after.is_some_and(|name| span.is_over_at(name));
        for span in scope.spans().iter().filter(|span| !is_over(span)) {
            let mut all = found.unwrap_or_default();
            let room = limit.saturating_sub(all.leases.len());
            if room == 0 {
                all.next = all
                    .leases
                    .last()
                    .map(|last| last.hold.claim.resource.clone());
                return Ok(all);
            }
            let page = self.span(span, after, room, deadline).await?;
            all.revision = match all.revision {
                Revision(0) => page.revision,
                earlier => earlier.min(page.revision),
            };
            all.leases.extend(page.leases);
            all.next = page.next;
            if all.next.is_some() {
                return Ok(all);
            }
            found = Some(all);
        }
        Ok(found.unwrap_or_default())
    }

    async fn span(
        &self,
        span: &Span,
        after: Option<&ResourceName>,
        limit: usize,
        deadline: &Deadline,
    ) -> Result<Page, CallError> {
        let (after, limit) = match span {
            Span::Beginning(beginning) => {
                let goes_on = |name: &&ResourceName| name.as_str().starts_with(beginning);
                (after.filter(goes_on), limit)
            }
            // Before all others that begin with its name is itself.
            Span::One(_) => (None, 1),
        };
        let asked = self.store.leases(span.beginning(), after, limit);
        let mut page = deadline.run(Kind::Read, asked).await?;
        if let Span::One(one) = span {
            page.leases
                .retain(|listed| listed.hold.claim.resource == *one);
            page.next = None;
        }
        Ok(page)
    }
}

/// Whether stepping past a fence failed for a reason that asking again does not cure.
pub(super) fn is_lasting(error: &CallError) -> bool {
    matches!(
        error,
        CallError::FenceAhead { .. }
            | CallError::Store(StoreError::Failed {
                failure: Failure::NoSpace | Failure::Generation(_),
                ..
            })
    )
}

fn is_far_ahead(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Refused(Refusal::FenceAhead(GenerationError::FarAhead { .. }))
            | StoreError::Failed {
                failure: Failure::Generation(GenerationError::FarAhead { .. }),
                ..
            }
    )
}
