//! The seam between deciding and remembering: what a coordinator asks of whatever keeps its state.
//!
//! Every implementation runs the same `conformance` suite. A store answers in domain terms; what it
//! cannot say for certain, it says as such: see [`StoreError::Failed`].

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod embedded;
mod error;
pub mod etcd;
#[cfg(any(test, feature = "conformance"))]
pub mod faulty;
mod local;
pub mod memory;
mod status;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use palisade_token::{FencingToken, ResourceName};

use crate::clock::Moment;
use crate::domain::{
    Acquire, Acquired, AskBack, AttachMark, Batch, Caller, Generation, Hold, Place, Release,
    Released, RequestId, Revision, Revoke, Revoked, Session, SessionId,
};

pub use error::{Failure, Outcome, StoreError};
pub use status::{Advance, Advanced, Endpoint, Status, StoreKind};

/// A session as it was opened or renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// The session.
    pub session: SessionId,
    /// The time to live that the store granted. It may be longer than what was asked for.
    pub ttl: Duration,
}

/// The lease of a resource as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The lease, if it is held.
    pub hold: Option<Hold>,
    /// How many wait for it.
    pub waiters: u64,
    /// The first of them, as many as were asked for, in the order in which they will be served.
    pub queue: Vec<Place>,
    /// What is left, at the most, of a lock-delay during which nobody gets the resource: all of it where it
    /// has not begun yet.
    pub lock_delay_left: Duration,
    /// The generation then: no token above its own at this revision can have been issued.
    pub generation: Option<Generation>,
    /// When this was so.
    pub revision: Revision,
}

/// A lease in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The lease.
    pub hold: Hold,
    /// How many wait for it.
    pub waiters: u64,
}

/// Part of a list of leases, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The leases.
    pub leases: Vec<Listed>,
    /// The name to go on after, if there are more.
    pub next: Option<ResourceName>,
    /// When the leases were so.
    pub revision: Revision,
}

/// A list of leases, page by page.
pub type Pages = BoxStream<'static, Result<Page, StoreError>>;

/// What happens, as it happens.
pub type Events = BoxStream<'static, Result<Batch, StoreError>>;

/// What keeps sessions, leases and queues.
///
/// All methods may be called by any number of tasks, and by coordinators side by side where the store is
/// shared. A future that is dropped may have had its effect.
///
/// # Errors
/// Every method fails with a [`StoreError`]: refused (nothing happened and nothing will), or failed, with
/// word on whether the write may have happened.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Opens a session, or finds the one that a first try opened (I4).
    async fn open_session(&self, session: Session) -> Result<Alive, StoreError>;

    /// Renews a session: its time to live starts anew, counted from some moment within this call.
    async fn renew_session(&self, caller: &Caller) -> Result<Alive, StoreError>;

    /// Ends a session with all that it holds and waits for. One that has ended already is no error.
    async fn close_session(&self, caller: &Caller) -> Result<(), StoreError>;

    /// Makes the caller's stream the session's own: raises the mark to the caller's epoch, sub-number 0 and
    /// nonce. A mark that a first try has raised so is found; any other needs a larger epoch (I4).
    async fn attach(&self, caller: &Caller) -> Result<Session, StoreError>;

    /// Raises the mark from the one that the caller's stream wrote last; one that is found raised so already
    /// is no error (I4). From there on nothing that was submitted under an older mark can happen.
    async fn raise(&self, caller: &Caller, to: AttachMark) -> Result<(), StoreError>;

    /// What a session holds and waits for. It may be old: enough to find what nobody knows of (I5), as
    /// releasing it looks again.
    async fn holdings(&self, session: SessionId) -> Result<Vec<Acquired>, StoreError>;

    /// How long a session has left at least, at some moment within this call.
    async fn time_left(&self, session: SessionId) -> Result<Duration, StoreError>;

    /// Until when a session lives at least, by what was opened and renewed through this very store, without
    /// asking anybody; `None` where it does not know. One that was closed elsewhere meanwhile may be over.
    fn lives_until(&self, session: SessionId) -> Option<Moment>;

    /// Grants, queues, or says what an earlier try came to (I1, I4, I11).
    async fn acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError>;

    /// What a request came to so far: its hold, its place in the queue, or neither.
    async fn standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Result<Option<Acquired>, StoreError>;

    /// Ends a lease, or gives a place back; hands the resource over in the same transaction.
    async fn release(&self, release: &Release) -> Result<Released, StoreError>;

    /// Grants a vacant resource to whoever waits first, if anybody does (I6, I11); answers what it granted.
    async fn promote(&self, resource: &ResourceName) -> Result<Option<Hold>, StoreError>;

    /// The lease of a resource.
    async fn lease(&self, resource: &ResourceName) -> Result<Standing, StoreError> {
        self.lease_and_queue(resource, 0).await
    }

    /// The lease of a resource, and up to `queue_size` of those who wait for it.
    async fn lease_and_queue(
        &self,
        resource: &ResourceName,
        queue_size: usize,
    ) -> Result<Standing, StoreError>;

    /// Ends a lease, whoever holds it; hands the resource over in the same transaction.
    async fn revoke(&self, revoke: &Revoke) -> Result<Revoked, StoreError>;

    /// Tells the holder of a lease that it is wanted back; false where that lease has ended.
    async fn ask_back(&self, ask: &AskBack) -> Result<bool, StoreError>;

    /// Takes back what [`Store::ask_back`] told: the holder will not give the lease back, or need not. One
    /// that is not there is no error.
    async fn decline(&self, resource: &ResourceName, token: FencingToken)
    -> Result<(), StoreError>;

    /// All leases of resources whose names begin with `prefix`, at one revision, by name, in pages; their
    /// waiters are not counted. There is at least one page. It breaks off where the store no longer knows that
    /// revision.
    async fn snapshot(&self, prefix: &str) -> Result<Pages, StoreError>;

    /// Up to `limit` leases of resources whose names begin with `prefix`, after `after`.
    async fn leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> Result<Page, StoreError>;

    /// How many leases are held, in all.
    async fn leases_held(&self) -> Result<u64, StoreError>;

    /// Makes a new generation, above `past` where that is given.
    async fn advance(&self, past: Option<FencingToken>) -> Result<Generation, StoreError> {
        let advance = Advance {
            past,
            is_forced: false,
        };
        Ok(self.advance_as(advance).await?.generation)
    }

    /// Makes a new generation as told.
    async fn advance_as(&self, advance: Advance) -> Result<Advanced, StoreError>;

    /// How the store stands. It answers soon, also while the store is away.
    async fn status(&self) -> Status;

    /// Events from now on, all of one revision at once. The stream begins with [`Resync`](crate::domain::Event::Resync) and shows one
    /// wherever it may have missed something; it ends only with an error or with the store.
    async fn watch(&self) -> Result<Events, StoreError>;

    /// Whether the store can grant now: a read that a quorum confirms, and a trusted generation.
    async fn ready(&self) -> Result<(), StoreError>;

    /// The shortest time to live that the store can keep.
    fn least_ttl(&self) -> Duration;
}
