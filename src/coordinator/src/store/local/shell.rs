//! The store that a shell around a ledger is.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use palisade_token::{FencingToken, ResourceName};
use tokio_stream::wrappers::BroadcastStream;

use super::{Journal, LEAST_TTL, Local, before_the_operation};
use crate::clock::Moment;
use crate::domain::{
    Acquire, Acquired, AttachMark, Caller, Event, Generation, Hold, LeaseEnd, Refusal, Release,
    Released, RequestId, Session, SessionId,
};
use crate::store::{Alive, Failure, Listed, Page, Standing, Store, StoreError};

/// A store that is a shell around a ledger of its own.
pub(in crate::store) trait Shell: fmt::Debug + Send + Sync + 'static {
    /// Where it keeps the ledger.
    type Journal: Journal;

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
        if state.deadlines.is_over(session.id, inner.clock.now()) {
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

    async fn lease(&self, resource: &ResourceName) -> Result<Standing, StoreError> {
        let state = self.local().inner.enter().await?;
        let (hold, waiters) = state.ledger.lease(resource);
        Ok(Standing {
            hold: hold.cloned(),
            waiters,
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

    async fn advance(&self, past: Option<FencingToken>) -> Result<Generation, StoreError> {
        let inner = &self.local().inner;
        let mut state = inner.enter().await?;
        inner.new_generation(&mut state, past).await
    }

    async fn watch(&self) -> Result<BoxStream<'static, Result<Event, StoreError>>, StoreError> {
        let events = self.local().inner.events.subscribe();
        // A lag is the only error of this stream.
        let events = BroadcastStream::new(events).map(|event| event.unwrap_or(Event::Resync));
        let first = stream::once(async { Event::Resync });
        Ok(first.chain(events).map(Ok).boxed())
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
