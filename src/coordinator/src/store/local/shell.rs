//! The store that a shell around a ledger is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use palisade_token::{FencingToken, ResourceName};
use tokio_stream::wrappers::BroadcastStream;

use super::{Journal, LEAST_TTL, Local, before_the_operation};
use crate::clock::{Moment, within};
use crate::domain::{
    Acquire, Acquired, AskBack, AttachMark, Batch, Caller, Event, Hold, LeaseEnd, Ledger, Refusal,
    Release, Released, RequestId, Revoke, Revoked, Session, SessionId,
};
use crate::store::{
    Advance, Advanced, Alive, Events, Failure, Listed, Page, Pages, Standing, Status, Store,
    StoreError, StoreKind,
};

/// How long a look at how the store stands may take: an operator waits for it.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

/// A store that is a shell around a ledger of its own.
pub(in crate::store) trait Shell: fmt::Debug + Send + Sync + 'static {
    /// Where it keeps the ledger.
    type Journal: Journal;

    /// What it is called.
    fn kind(&self) -> StoreKind;

    /// The shell itself.
    fn local(&self) -> &Local<Self::Journal>;
}

#[async_trait]
impl<S: Shell> Store for S {
    async fn open_session(&self, mut session: Session) -> Result<Alive, StoreError> {
        let least = u64::try_from(LEAST_TTL.as_millis()).unwrap_or(u64::MAX);
        session.ttl_ms = session.ttl_ms.max(least);
        let inner = &self.local().inner;
        let mut state = inner.enter().await?;
        if state.deadlines.is_over(&session.id, inner.clock.now()) {
            // It could not be ended, so it cannot be opened anew.
            return Err(StoreError::not_applied(Failure::Unavailable));
        }
        let plan = state.ledger.plan_open(&session)?;
        let open = inner.commit(&mut state, plan).await?;
        let alive = inner.live_on(&mut state, &open);
        inner.changed.notify_one();
        Ok(alive)
    }

    async fn renew_session(&self, caller: &Caller) -> Result<Alive, StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter_as(caller.session).await?;
        let session = state.ledger.admit(caller)?.clone();
        Ok(inner.live_on(&mut state, &session))
    }

    async fn close_session(&self, caller: &Caller) -> Result<(), StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter().await?;
        if state.ledger.session(caller.session).is_none() {
            return Ok(());
        }
        state.ledger.admit(caller)?;
        let plan =
            state
                .ledger
                .plan_end_session(caller.session, LeaseEnd::Released, inner.clock.wall());
        inner.commit(&mut state, plan).await
    }

    async fn attach(&self, caller: &Caller) -> Result<Session, StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter_as(caller.session).await?;
        let plan = state.ledger.plan_attach(caller)?;
        inner.commit(&mut state, plan).await
    }

    async fn raise(&self, caller: &Caller, to: AttachMark) -> Result<(), StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter_as(caller.session).await?;
        let plan = state.ledger.plan_raise(caller, to)?;
        inner.commit(&mut state, plan).await.map(|_| ())
    }

    async fn holdings(&self, session: SessionId) -> Result<Vec<Acquired>, StoreError> {
        let state = self.local().inner.enter().await?;
        Ok(state.ledger.holdings(session))
    }

    async fn time_left(&self, session: SessionId) -> Result<Duration, StoreError> {
        let inner = &self.local().inner;
        let state = inner.enter_as(session).await?;
        inner
            .left(&state, session)
            .ok_or_else(|| Refusal::SessionEnded { session }.into())
    }

    /// The ledger is at hand: asking it costs nothing.
    fn lives_until(&self, _session: SessionId) -> Option<Moment> {
        None
    }

    async fn acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter_as(acquire.caller.session).await?;
        let plan = state
            .ledger
            .plan_acquire(acquire, inner.clock.wall())
            .ok_or_else(|| StoreError::not_applied(Failure::HistoryRegressed))?;
        Ok(inner.commit(&mut state, plan).await??)
    }

    async fn standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Result<Option<Acquired>, StoreError> {
        let state = self.local().inner.enter().await?;
        Ok(state.ledger.standing(session, resource, request))
    }

    async fn release(&self, release: &Release) -> Result<Released, StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter_as(release.caller.session).await?;
        let plan = state.ledger.plan_release(release, inner.clock.wall());
        Ok(inner.commit(&mut state, plan).await??)
    }

    async fn promote(&self, resource: &ResourceName) -> Result<Option<Hold>, StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter().await?;
        let plan = state.ledger.plan_promotion(resource, inner.clock.wall());
        inner.commit(&mut state, plan).await
    }

    async fn lease_and_queue(
        &self,
        resource: &ResourceName,
        queue_size: usize,
    ) -> Result<Standing, StoreError> {
        let inner = &self.local().inner;
        let state = inner.enter().await?;
        let (hold, waiters) = state.ledger.lease(resource);
        let reopens = state.delays.get(resource).filter(|_| hold.is_none());
        Ok(Standing {
            hold: hold.cloned(),
            waiters,
            queue: state
                .ledger
                .queue(resource)
                .take(queue_size)
                .cloned()
                .collect(),
            lock_delay_left: reopens.map_or(Duration::ZERO, |at| inner.clock.now().until(at)),
            generation: state.ledger.generation(),
            revision: state.ledger.revision(),
        })
    }

    async fn leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = limit.max(1);
        let state = self.local().inner.enter().await?;
        let ledger = &state.ledger;
        let listed = |hold: &Hold| Listed {
            hold: hold.clone(),
            waiters: ledger.lease(&hold.claim.resource).1,
        };
        let mut leases: Vec<_> = ledger
            .leases(prefix, after, limit.saturating_add(1))
            .map(listed)
            .collect();
        let has_more = leases.len() > limit;
        leases.truncate(limit);
        let last = leases.last().filter(|_| has_more);
        Ok(Page {
            next: last.map(|last| last.hold.claim.resource.clone()),
            leases,
            revision: ledger.revision(),
        })
    }

    async fn revoke(&self, revoke: &Revoke) -> Result<Revoked, StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter().await?;
        let plan = state.ledger.plan_revoke(revoke, inner.clock.wall())?;
        inner.commit(&mut state, plan).await
    }

    async fn ask_back(&self, ask: &AskBack) -> Result<bool, StoreError> {
        let inner = &self.local().inner;
        let state = inner.enter().await?;
        let hold = state.ledger.asked_back(&ask.revoke)?;
        let Some(hold) = hold else { return Ok(false) };
        // Nobody else serves this store, so that what is told here is told everywhere.
        inner.tell_of(Event::Asked(ask.notice(hold, state.ledger.revision())));
        Ok(true)
    }

    async fn decline(
        &self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<(), StoreError> {
        let inner = &self.local().inner;
        let state = inner.enter().await?;
        let (hold, _) = state.ledger.lease(resource);
        if hold.and_then(Hold::token) == Some(token) {
            inner.tell_of(Event::Declined {
                resource: resource.clone(),
                revision: state.ledger.revision(),
            });
        }
        Ok(())
    }

    async fn snapshot(&self, prefix: &str) -> Result<Pages, StoreError> {
        let state = self.local().inner.enter().await?;
        let ledger = &state.ledger;
        let listed = |hold: &Hold| Listed {
            hold: hold.clone(),
            waiters: 0,
        };
        let leases = ledger.leases(prefix, None, usize::MAX);
        // The whole state is in memory as it is: once more for a moment is no more than twice.
        let page = Page {
            leases: leases.map(listed).collect(),
            next: None,
            revision: ledger.revision(),
        };
        Ok(stream::iter([Ok(page)]).boxed())
    }

    async fn advance_as(&self, advance: Advance) -> Result<Advanced, StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter().await?;
        let previous = state.ledger.generation();
        let generation = inner.new_generation(&mut state, advance).await?;
        Ok(Advanced {
            generation,
            previous,
        })
    }

    async fn status(&self) -> Status {
        let inner = &self.local().inner;
        let entered = within(&inner.clock, STATUS_LIMIT, inner.enter()).await;
        let ledger = entered.ok().and_then(Result::ok);
        let ledger = ledger.as_ref().map(|state| &state.ledger);
        Status {
            kind: self.kind(),
            cluster: None,
            endpoints: Vec::new(),
            generation: ledger.and_then(Ledger::generation),
            revision: ledger.map(Ledger::revision).unwrap_or_default(),
            in_flight: 0,
        }
    }

    async fn watch(&self) -> Result<Events, StoreError> {
        let inner = &self.local().inner;
        let (events, revision) = {
            let state = inner.enter().await?;
            (inner.events.subscribe(), state.ledger.revision())
        };
        let resync = || -> Batch { Arc::new([Event::Resync]) };
        // A lag is the only error of this stream.
        let events =
            BroadcastStream::new(events).map(move |event| event.unwrap_or_else(|_| resync()));
        let first: [Batch; 2] = [resync(), Arc::new([Event::Bookmark(revision)])];
        Ok(stream::iter(first).chain(events).map(Ok).boxed())
    }

    async fn leases_held(&self) -> Result<u64, StoreError> {
        let state = self.local().inner.enter().await?;
        Ok(state.ledger.leases_held())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter().await?;
        let revision = state.journal.probe().await.map_err(before_the_operation)?;
        if revision != state.ledger.revision() {
            state.is_in_doubt = true;
            return Err(StoreError::not_applied(Failure::HistoryRegressed));
        }
        Ok(())
    }

    fn least_ttl(&self) -> Duration {
        LEAST_TTL
    }
}
