//! The guard for `InnoDB` tables of MariaDB (10.6 and later) and MySQL (8.0.16 and later).
//!
//! The tests run on MariaDB 10.11. Only statements that both servers have are used.
//!
//! The fence, the check and the triggers live in the database that holds the data, under names that begin with
//! `palisade_`, so that writers in any language meet the same guard. From Rust, [`Guard`] seals and begins
//! guarded transactions on a [`sqlx::MySqlPool`]; the check rides in the messages that a transaction sends
//! anyway.
//!
//! ```no_run
//! # async fn lead(pool: &sqlx::MySqlPool, grant: &palisade_token::Grant) -> Result<(), palisade_guard::GuardError> {
//! use palisade_guard::mysql::Guard;
//!
//! let guard = Guard::new();
//! guard.install(pool).await?;
//! guard.protect(pool, "orders", &grant.resource).await?;
//!
//! let sealed = guard.seal(pool, grant).await?; // before the first read
//! let mut tx = guard.begin(pool, &sealed).await?;
//! let written = sqlx::query("UPDATE orders SET paid = 1 WHERE id = ?").bind(7).execute(&mut *tx).await;
//! if let Err(error) = written {
//!     return Err(tx.refusal(error));
//! }
//! tx.commit().await?;
//! # Ok(()) }
//! ```
//!
//! # How it checks
//!
//! A transaction *enters* its resource: it reads the fence with a locking read, which sees what is committed
//! last at every isolation level, and keeps that lock until it ends; a seal waits for it, new transactions
//! wait behind the seal, so that no stream of writers starves one. (A plain SELECT would compare with the
//! transaction's snapshot, and `GET_LOCK` belongs to the session, not to the transaction: neither is used.)
//! It leaves an *entry* for as long as it runs; row triggers on the protected tables ask for one that
//! agrees with the fence, so that a writer which forgot the guard is refused.
//!
//! # From any language
//!
//! ```sql
//! CALL palisade_seal('orders', 42, '000102030405060708090a0b0c0d0e0f');  -- on its own: it commits
//! START TRANSACTION;
//! CALL palisade_enter('orders', 42, '000102030405060708090a0b0c0d0e0f'); -- first: raises unless admitted
//! UPDATE orders SET paid = 1 WHERE id = 7;
//! CALL palisade_leave();                                                 -- last: raises if it is over
//! COMMIT;
//! ```
//!
//! SQLSTATE ZF001 (error 51001) is stale, ZF002 (51002) unsealed, ZF003 (51003) unguarded, ZF004 (51004)
//! collision; the message is JSON, `{"resource": …, "presented": …, "fence": …}`, in which a long name is
//! cut and marked with `~`. `@palisade_refusal` has it whole. A writer needs `GRANT EXECUTE ON PROCEDURE` for
//! `palisade_seal`, `palisade_enter`, `palisade_leave`, `palisade_status` and `palisade_blockers`, and no
//! right on the tables `palisade_*`.
//!
//! Without `palisade_leave` an entry outlives its COMMIT. It then counts for later transactions of the same
//! session until it enters again, and never past a seal: it is compared with the fence at each row.
//!
//! # After an error
//!
//! MySQL goes on after most errors, but a deadlock has rolled back the whole transaction, and what follows
//! would run outside of one. Protected tables refuse that, the commit reports
//! [`GuardError::RolledBack`](crate::GuardError::RolledBack), and *other* tables keep it: end the
//! transaction after [`GuardError::Serialization`](crate::GuardError::Serialization). DDL commits what ran
//! before it; [`GuardedTx::commit`] reports that.
//!
//! # What is not covered
//!
//! - TRUNCATE, ALTER, DROP and RENAME fire no trigger. They need the privileges DROP and ALTER: a writer
//!   should have neither. TRUNCATE of the fence itself is stopped by a foreign key, unless
//!   `foreign_key_checks` is off.
//! - What a foreign key cascades into a child table fires no trigger there. It begins at the parent: protect
//!   that.
//! - A statement that changes no row passes, having written nothing.
//! - Replicas that apply rows fire no triggers, and need none. Statement-based replication is not supported.
//! - `READ UNCOMMITTED` elsewhere reads what may be rolled back, guarded or not.
//! - A row's owner and whoever has rights on `palisade_*`. The guard stops stale writers, not hostile ones.
//!
//! # Settings that keep a seal
//!
//! A seal is as safe as a commit: `innodb_flush_log_at_trx_commit = 1`, `sync_binlog = 1`, and a replica that
//! may take over must have it (semi-synchronous replication falls back to asynchronous after its timeout).
//! [`Guard::weaknesses`] looks at the first two. A seal that was lost shows as
//! [`GuardError::StoreWentBackwards`](crate::GuardError::StoreWentBackwards).

mod begin;
mod errors;
mod install;
mod lent;
mod protect;
mod seal;
mod sql;
mod status;
mod transaction;

use std::time::Duration;

#[cfg(any(test, fuzzing))]
pub(crate) use errors::fuzz_refusal;
pub(crate) use errors::known;
pub use install::script;
pub use status::Weakness;
pub use transaction::{Committed, GuardedTx};

/// A grant that was sealed in MySQL or MariaDB; only [`Guard::seal`] makes one.
pub type Sealed = crate::Sealed<sqlx::MySql>;

/// Most resources of one transaction ([`Guard::begin_all`]): each is a call in the BEGIN message, and all of
/// them fit into a `max_allowed_packet` of 1 MiB.
pub const MAX_RESOURCES: usize = 1_000;

/// Seals resources in a MySQL or MariaDB database and begins guarded transactions.
///
/// It holds settings only: clone it, or make another, at will.
///
/// ```no_run
/// use std::time::Duration;
/// use palisade_guard::mysql::{Guard, Isolation};
///
/// # async fn example(
/// #     pool: &sqlx::MySqlPool,
/// #     grant: &palisade_token::Grant,
/// # ) -> Result<(), palisade_guard::GuardError> {
/// let guard = Guard::new()
///     .with_isolation(Isolation::ReadCommitted)
///     .with_seal_timeout(Duration::from_secs(3));
/// let sealed = guard.seal(pool, grant).await?;
/// let mut tx = guard.begin(pool, &sealed).await?;
/// sqlx::query("UPDATE orders SET paid = 1").execute(&mut *tx).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    isolation: Isolation,
    seal_timeout: Duration,
}

/// The isolation level of guarded transactions. The guard is safe at each.
///
/// ```
/// use palisade_guard::mysql::{Guard, Isolation};
///
/// assert_eq!(Isolation::default(), Isolation::RepeatableRead);
/// // Fewer gap locks, and each statement sees what is committed by then.
/// let guard = Guard::new().with_isolation(Isolation::ReadCommitted);
/// # let _ = guard;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Each statement sees what is committed.
    ReadCommitted,
    /// One snapshot for the whole transaction, made after its check. The server's default, and this library's.
    #[default]
    RepeatableRead,
    /// As [`Isolation::RepeatableRead`], and every read locks.
    Serializable,
}

impl Guard {
    /// The longest wait of a seal. A lease that is not usable for an hour is better given back.
    pub const LONGEST_SEAL: Duration = Duration::from_secs(3600);

    /// A guard with default settings: REPEATABLE READ, and a seal that waits 10 s, within a lease of the default
    /// TTL.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            isolation: Isolation::RepeatableRead,
            seal_timeout: Duration::from_secs(10),
        }
    }

    /// The same guard with another isolation level for its transactions.
    #[must_use]
    pub const fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// The same guard with another bound on how long a seal waits for running writers: whole seconds, rounded
    /// up, 1 s to [`Guard::LONGEST_SEAL`]; other values are moved into that range.
    #[must_use]
    pub const fn with_seal_timeout(mut self, wait: Duration) -> Self {
        self.seal_timeout = wait;
        self
    }

    fn wait(&self) -> Duration {
        let wait = self
            .seal_timeout
            .clamp(Duration::from_secs(1), Self::LONGEST_SEAL);
        let up = u64::from(wait.subsec_nanos() > 0);
        Duration::from_secs(wait.as_secs() + up)
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}
