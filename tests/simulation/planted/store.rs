//! Stores that say or do something else than they should, round an honest one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use palisade_coordinator::clock::Moment;
use palisade_coordinator::domain::{
    Acquire, Acquired, AskBack, AttachMark, Caller, Claim, GrantNote, Hold, HoldName, Refusal,
    Release, Released, RequestId, Revision, Revoke, Revoked, Session, SessionId,
};
use palisade_coordinator::store::{
    Advance, Advanced, Alive, Events, Page, Pages, Standing, Status, Store, StoreError,
};
use palisade_token::{FencingToken, ResourceName};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// It does not compare the attach mark: a copy of an acquire that comes after the release is granted.
    IgnoresTheMark,
    /// It does not know what a session holds, not even what such a copy came to.
    ForgetsHoldings,
    /// Where it cannot be reached it grants by what it has seen.
    FailsOpen,
    /// It says that a lease is released, and releases none.
    OnlySaysReleased,
    /// It refuses, after something that has to be refused, what comes next.
    RefusesTheNext,
    /// A session that is closed lives on.
    NeverCloses,
}

#[derive(Debug, Default)]
struct Seen {
    sessions: BTreeMap<SessionId, Session>,
    acquires: BTreeMap<(SessionId, ResourceName), Acquire>,
    holds: BTreeMap<ResourceName, Hold>,
}

/// A store with a flaw.
#[derive(Debug)]
pub(super) struct Flawed {
    inner: Arc<dyn Store>,
    flaw: Flaw,
    refuses_next: AtomicBool,
    seen: Mutex<Seen>,
}

/// How often a session is kept alive that should be closed.
const KEEPS_ALIVE: Duration = Duration::from_secs(1);

impl Flawed {
    pub(super) fn new(flaw: Flaw, inner: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            flaw,
            refuses_next: AtomicBool::new(false),
            seen: Mutex::default(),
        })
    }

    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, acquired: &Acquired) {
        if let Acquired::Held(hold) = acquired {
            let name = hold.claim.resource.clone();
            self.seen().holds.insert(name, hold.clone());
        }
    }

    /// What it grants without asking anybody.
    fn made_up(&self, acquire: &Acquire) -> Option<Acquired> {
        let seen = self.seen();
        let session = seen.sessions.get(&acquire.caller.session)?;
        let last = seen.holds.get(&acquire.resource)?;
        let metadata = acquire.metadata.clone();
        let (resource, request) = (acquire.resource.clone(), acquire.request.clone());
        Some(Acquired::Held(Hold {
            claim: Claim::new(session, resource, request, metadata),
            generation: last.generation,
            granted: Revision(last.granted.0 + 1),
            note: GrantNote::default(),
        }))
    }

    /// Says that a lease is released.
    async fn say_released(&self, release: &Release) -> Result<Option<Released>, StoreError> {
        let standing = self.inner.lease(&release.resource).await?;
        let is_meant = |hold: &Hold| {
            hold.claim.session == release.caller.session
                && match &release.hold {
                    HoldName::Token(token) => hold.token() == Some(*token),
                    HoldName::Request(request) => hold.claim.request == *request,
                }
        };
        let hold = standing.hold.filter(is_meant);
        Ok(hold.map(|hold| Released::Lease {
            hold,
            ended: standing.revision,
            successor: None,
        }))
    }

    /// Keeps a session alive for ever.
    #[allow(
        clippy::disallowed_methods,
        reason = "nothing of the product must be able to stop it"
    )]
    fn haunt(&self, caller: Caller) {
        let inner = Arc::clone(&self.inner);
        drop(tokio::spawn(async move {
            while !matches!(
                inner.renew_session(&caller).await,
                Err(StoreError::Refused(_))
            ) {
                tokio::time::sleep(KEEPS_ALIVE).await;
            }
        }));
    }
}

#[async_trait]
impl Store for Flawed {
    async fn open_session(&self, session: Session) -> Result<Alive, StoreError> {
        self.seen().sessions.insert(session.id, session.clone());
        self.inner.open_session(session).await
    }

    async fn renew_session(&self, caller: &Caller) -> Result<Alive, StoreError> {
        self.inner.renew_session(caller).await
    }

    async fn close_session(&self, caller: &Caller) -> Result<(), StoreError> {
        if self.is(Flaw::NeverCloses) {
            self.haunt(caller.clone());
            return Ok(());
        }
        self.inner.close_session(caller).await
    }

    async fn attach(&self, caller: &Caller) -> Result<Session, StoreError> {
        let session = self.inner.attach(caller).await?;
        self.seen().sessions.insert(session.id, session.clone());
        Ok(session)
    }

    async fn raise(&self, caller: &Caller, to: AttachMark) -> Result<(), StoreError> {
        self.inner.raise(caller, to).await
    }

    async fn holdings(&self, session: SessionId) -> Result<Vec<Acquired>, StoreError> {
        if self.is(Flaw::ForgetsHoldings) {
            return Ok(Vec::new());
        }
        self.inner.holdings(session).await
    }

    async fn time_left(&self, session: SessionId) -> Result<Duration, StoreError> {
        self.inner.time_left(session).await
    }

    fn lives_until(&self, session: SessionId) -> Option<Moment> {
        self.inner.lives_until(session)
    }

    async fn acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        let key = (acquire.caller.session, acquire.resource.clone());
        self.seen().acquires.insert(key, acquire.clone());
        if self.is(Flaw::RefusesTheNext) && self.refuses_next.swap(false, Ordering::Relaxed) {
            return Err(Refusal::LeaseHeld { token: None }.into());
        }
        let acquired = self.inner.acquire(acquire).await;
        match &acquired {
            Ok(acquired) => self.note(acquired),
            Err(StoreError::Refused(_)) => self.refuses_next.store(true, Ordering::Relaxed),
            Err(_) if self.is(Flaw::FailsOpen) => {
                if let Some(made_up) = self.made_up(acquire) {
                    return Ok(made_up);
                }
            }
            Err(_) => {}
        }
        acquired
    }

    async fn standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Result<Option<Acquired>, StoreError> {
        self.inner.standing(session, resource, request).await
    }

    async fn release(&self, release: &Release) -> Result<Released, StoreError> {
        if self.is(Flaw::OnlySaysReleased)
            && let Some(released) = self.say_released(release).await?
        {
            return Ok(released);
        }
        let released = self.inner.release(release).await;
        let grants_copies = self.is(Flaw::IgnoresTheMark) || self.is(Flaw::ForgetsHoldings);
        if grants_copies && released.is_ok() {
            let key = (release.caller.session, release.resource.clone());
            let copy = self.seen().acquires.get(&key).cloned();
            if let Some(copy) = copy {
                let caller = release.caller.clone();
                drop(self.inner.acquire(&Acquire { caller, ..copy }).await);
            }
        }
        released
    }

    async fn promote(&self, resource: &ResourceName) -> Result<Option<Hold>, StoreError> {
        self.inner.promote(resource).await
    }

    async fn lease_and_queue(
        &self,
        resource: &ResourceName,
        queue_size: usize,
    ) -> Result<Standing, StoreError> {
        self.inner.lease_and_queue(resource, queue_size).await
    }

    async fn revoke(&self, revoke: &Revoke) -> Result<Revoked, StoreError> {
        self.inner.revoke(revoke).await
    }

    async fn ask_back(&self, ask: &AskBack) -> Result<bool, StoreError> {
        self.inner.ask_back(ask).await
    }

    async fn decline(
        &self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<(), StoreError> {
        self.inner.decline(resource, token).await
    }

    async fn snapshot(&self, prefix: &str) -> Result<Pages, StoreError> {
        self.inner.snapshot(prefix).await
    }

    async fn leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.inner.leases(prefix, after, limit).await
    }

    async fn leases_held(&self) -> Result<u64, StoreError> {
        self.inner.leases_held().await
    }

    async fn advance_as(&self, advance: Advance) -> Result<Advanced, StoreError> {
        self.inner.advance_as(advance).await
    }

    async fn status(&self) -> Status {
        self.inner.status().await
    }

    async fn watch(&self) -> Result<Events, StoreError> {
        self.inner.watch().await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }

    fn least_ttl(&self) -> Duration {
        self.inner.least_ttl()
    }
}
