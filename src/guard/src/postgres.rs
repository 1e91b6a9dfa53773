//! The guard for PostgreSQL 13 and later: the reference design.
//!
//! The fence, the check and the triggers live in the schema `palisade` of the database that holds the
//! data, so that writers in any language meet the same guard. From Rust, [`Guard`] seals and begins
//! guarded transactions on a [`sqlx::PgPool`]; the check rides in messages that a transaction sends anyway.
//!
//! ```no_run
//! # async fn lead(pool: &sqlx::PgPool, grant: &palisade_token::Grant) -> Result<(), palisade_guard::GuardError> {
//! use palisade_guard::postgres::Guard;
//!
//! let guard = Guard::new();
//! guard.install(pool).await?;
//! guard.protect(pool, "orders", &grant.resource).await?;
//!
//! let sealed = guard.seal(pool, grant).await?; // before the first read
//! let mut tx = guard.begin(pool, &sealed).await?;
//! let written = sqlx::query("UPDATE orders SET paid = true WHERE id = $1")
//!     .bind(7_i64)
//!     .execute(&mut *tx)
//!     .await;
//! if let Err(error) = written {
//!     return Err(tx.refusal(error));
//! }
//! tx.commit().await?;
//! # Ok(()) }
//! ```
//!
//! # From any language
//!
//! ```sql
//! SELECT palisade.seal('orders', 42, '000102030405060708090a0b0c0d0e0f');  -- commits on its own
//! BEGIN;
//! SELECT palisade.check('orders', 42, '000102030405060708090a0b0c0d0e0f'); -- raises unless admitted
//! UPDATE orders SET paid = true WHERE id = 7;
//! COMMIT;
//! ```
//!
//! `palisade.enter` answers instead of raising (`ok`, `stale`, `unsealed`, `collision`), so that it fits
//! into a BEGIN message; a later write to a protected table then raises. SQLSTATE ZF001 is stale, ZF002
//! unsealed, ZF003 unguarded, ZF004 collision, each with the detail
//! `{"resource": …, "presented": …, "fence": …}`. `SELECT palisade.grant_writer('role')` gives a role what
//! it needs, and no right on the fence; `palisade.grant_owner('role')` lets it protect its own tables.
//!
//! # What is not covered
//!
//! The guard stops stale writers, not hostile ones. A role that may write can still forge an entry in
//! its own transaction, enter with another's grant, seal a great token, or hold a lock; an owner can
//! disable the triggers or drop the table. A partition that is attached after [`Guard::protect`] is open
//! to statements that name it until `protect` runs again. Logical replication into a protected table
//! passes. Above READ COMMITTED a check needs a transaction that may write.
//!
//! A protected table that is attached *later* under a parent or a partition root without protection is
//! written through that parent, whose statements do not fire the triggers of what is below it. Protect the
//! parent. This finds such tables:
//!
//! ```sql
//! SELECT i.inhparent::regclass AS parent, i.inhrelid::regclass AS protected
//! FROM pg_trigger AS t JOIN pg_inherits AS i ON i.inhrelid = t.tgrelid
//! WHERE t.tgname = 'zz_palisade_guard' AND NOT EXISTS (
//!     SELECT FROM pg_trigger AS p WHERE p.tgrelid = i.inhparent AND p.tgname = t.tgname);
//! ```
//!
//! Protection belongs to the table, not to its name: when names are swapped (a new `orders` is built and
//! renamed into place) it stays with the old table. Protect the new one before the swap.
//!
//! A dump restored without its triggers' state (`pg_restore --disable-triggers`) leaves them at less than
//! ALWAYS: run `protect` again, and seal every resource before the store is opened.
//!
//! # Settings worth having
//!
//! A writer that hangs in its transaction keeps a seal waiting: set `idle_in_transaction_session_timeout`,
//! and TCP keepalives for clients that vanish. A seal is as safe as a commit: with asynchronous standbys a
//! failover can lose it. With synchronous ones a COMMIT whose wait for the standby is *cancelled*
//! (`pg_cancel_backend`, a client's cancel request) succeeds with no more than a warning, and is kept by this
//! server only: cancel no seal that waits there. One whose session is terminated in that wait reports an
//! error; sealing the same grant again waits for the standby as the first time did. The library speaks the simple protocol only, so that a pooler in transaction mode
//! may sit in between.

mod audit;
mod begin;
mod effects;
mod errors;
mod install;
mod lent;
mod protect;
mod seal;
mod sql;
mod status;
mod transaction;

use std::time::Duration;

pub use audit::{Finding, Severity};
pub use effects::{Backlog, Expired, Pass, Relay, RelayPolicy, Stop};
#[cfg(any(test, fuzzing))]
pub(crate) use errors::fuzz_refusal;
pub(crate) use errors::plain;
pub use install::script;
pub use status::Outcome;
pub use transaction::{Committed, GuardedTx};

/// A grant that was sealed in PostgreSQL; only [`Guard::seal`] makes one.
pub type Sealed = crate::Sealed<sqlx::Postgres>;

/// Most resources of one transaction ([`Guard::begin_all`]). Their locks are striped, so that the server's
/// lock table is not the limit; the BEGIN message is, at about 350 bytes for each.
pub const MAX_RESOURCES: usize = 10_000;

/// Seals resources in a PostgreSQL database and begins guarded transactions.
///
/// It holds settings only: clone it, or make another, at will.
///
/// ```no_run
/// use std::time::Duration;
/// use palisade_guard::postgres::{Guard, Isolation, SealPolicy};
///
/// # async fn example(
/// #     pool: &sqlx::PgPool,
/// #     grant: &palisade_token::Grant,
/// # ) -> Result<(), palisade_guard::GuardError> {
/// let guard = Guard::new()
///     .with_isolation(Isolation::RepeatableRead)
///     .with_seal_policy(SealPolicy::Timeout(Duration::from_secs(3)));
/// let sealed = guard.seal(pool, grant).await?;
/// let mut tx = guard.begin(pool, &sealed).await?;
/// sqlx::query("UPDATE orders SET paid = true").execute(&mut *tx).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {
    isolation: Isolation,
    seal_policy: SealPolicy,
}

/// The isolation level of guarded transactions.
///
/// The guard is safe at each. At READ COMMITTED a stale write is refused as stale; above it, as a
/// serialization failure when the seal came after the transaction's snapshot.
///
/// ```
/// use palisade_guard::postgres::{Guard, Isolation};
///
/// assert_eq!(Isolation::default(), Isolation::ReadCommitted);
/// // For a transaction that reads several tables and must see one state of them.
/// let reports = Guard::new().with_isolation(Isolation::RepeatableRead);
/// # let _ = reports;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// PostgreSQL's default, and this library's.
    #[default]
    ReadCommitted,
    /// One snapshot for the whole transaction. Each check then locks the fence's row, which costs a
    /// little log and, with many writers at once, multixacts.
    RepeatableRead,
    /// As [`Isolation::RepeatableRead`], and serializable with others of this level.
    Serializable,
}

/// How long a seal waits for the writers that are still running, and what it does then.
///
/// A wait is at least 1 ms and at most [`SealPolicy::LONGEST`]; other values are moved into that range.
///
/// ```
/// use std::time::Duration;
/// use palisade_guard::postgres::{Guard, SealPolicy};
///
/// assert_eq!(SealPolicy::default(), SealPolicy::Timeout(Duration::from_secs(10)));
/// // A takeover that is worth more than the work of those who are in its way.
/// let impatient = SealPolicy::Terminate { after: Duration::from_secs(2) };
/// let guard = Guard::new().with_seal_policy(impatient);
/// # let _ = guard;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealPolicy {
    /// Waits until they have ended, however long that takes, up to [`SealPolicy::LONGEST`]. New writers wait
    /// behind it all the while.
    Wait,
    /// Gives up with [`GuardError::SealTimeout`](crate::GuardError::SealTimeout), which names the blockers.
    Timeout(Duration),
    /// Ends the blockers and tries again, at most [`SealPolicy::ATTEMPTS`] times in all: running
    /// transactions are terminated, prepared ones rolled back. Needs the rights for that
    /// (`pg_signal_backend`; owner of the prepared transaction). A blocker may be the writer of a
    /// neighbour, another resource with the same one of 1,024 locks.
    Terminate {
        /// How long to wait before that, and again after it.
        after: Duration,
    },
}

impl SealPolicy {
    /// The longest wait. A lease that is not usable for an hour is better given back.
    pub const LONGEST: Duration = Duration::from_secs(3600);

    /// How often a seal is tried when it ends its blockers: once before, and twice after, because new
    /// writers may come between.
    pub const ATTEMPTS: u32 = 3;

    fn wait(self) -> Duration {
        let wait = match self {
            Self::Wait => Self::LONGEST,
            Self::Timeout(wait) | Self::Terminate { after: wait } => wait,
        };
        wait.clamp(Duration::from_millis(1), Self::LONGEST)
    }
}

impl Default for SealPolicy {
    /// [`SealPolicy::Timeout`] of 10 s: within a lease of the default TTL, so that a holder that cannot
    /// seal learns it while it may still try again.
    fn default() -> Self {
        Self::Timeout(Duration::from_secs(10))
    }
}

impl Guard {
    /// A guard with default settings: READ COMMITTED, and a seal that waits 10 s.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same guard with another isolation level for its transactions.
    #[must_use]
    pub const fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// The same guard with another way to treat writers that keep a seal waiting.
    #[must_use]
    pub const fn with_seal_policy(mut self, policy: SealPolicy) -> Self {
        self.seal_policy = policy;
        self
    }
}
