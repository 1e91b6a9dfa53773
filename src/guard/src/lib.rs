//! Refuses writes that carry a stale fencing token, in the same transaction as the write.
//!
//! A lease cannot stop a leader that was paused: it wakes up, believes that it still leads, and writes.
//! What stops it is the store. Every lease carries a *fencing token* that only grows; the store keeps the
//! greatest one that was *sealed* for the resource, its *fence*, and a write with a lower token does not
//! commit (invariant I2). The lease keeps most stale work from being tried; the guard is the safety.
//!
//! 1. [Acquire, seal, read, write](#acquire-seal-read-write)
//! 2. [What is decided](#what-is-decided)
//! 3. [What to do about an error](#what-to-do-about-an-error)
//! 4. [What is not promised](#what-is-not-promised)
//! 5. The stores, each a module behind a feature of its name: `postgres`, the reference design, and `sqlite`,
//!    both on by default; `mysql`, for MySQL and MariaDB; `redis`, of efficiency grade; `object_store`
//!    (feature `object-store`), for S3 and its kin
//! 6. [Effects](effects): writes that are applied once, whatever is tried again
//! 7. [Your own engine](memory): fences in memory, and a hook that keeps them
//! 8. Services in front of a store: module and feature `tower`, grants in headers, for HTTP and gRPC
//! 9. [What is counted](metrics), through the `metrics` facade
//! 10. The suite that every store runs, and yours can: module and feature `conformance`
//!
//! # Acquire, seal, read, write
//!
//! The order at takeover is always the same:
//!
//! 1. **Acquire** a lease from a coordinator: that gives a [`Grant`](palisade_token::Grant) of resource,
//!    token and holder.
//! 2. **Seal** it (`Guard::seal`). Waits for the transactions of earlier holders that are under way, then
//!    raises the fence. Before it returns an earlier holder may still commit; afterwards none can.
//! 3. **Read.** Whatever was read before the seal may have been changed by an earlier holder since.
//! 4. **Write** in guarded transactions (`Guard::begin`, `GuardedTx::commit`), which need the `Sealed`
//!    that only a seal makes.
//!
//! The tables are protected once (`Guard::install`, `Guard::protect`): from then on a statement that
//! writes them outside a guarded transaction is refused, whoever sends it and in whatever language.
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # async fn lead(pool: &sqlx::PgPool, grant: &palisade_token::Grant) -> Result<(), palisade_guard::GuardError> {
//! use palisade_guard::postgres::Guard;
//!
//! let guard = Guard::new();
//! let sealed = guard.seal(pool, grant).await?;
//! let mut tx = guard.begin(pool, &sealed).await?;
//! sqlx::query("UPDATE counters SET value = value + 1").execute(&mut *tx).await?;
//! tx.commit().await?;
//! # Ok(()) }
//! ```
//!
//! # What is decided
//!
//! | the token shown is | answer |
//! |---|---|
//! | equal to the fence, of the holder that sealed it | admitted |
//! | lower | [`GuardError::Stale`], final |
//! | higher, or there is no fence | [`GuardError::Unsealed`]: nothing is sealed on the quiet, because its holder may have read too early |
//! | equal, of another holder | [`GuardError::Collision`] |
//! | none | [`GuardError::Unguarded`] |
//!
//! A fence is never lowered and never deleted, not even by the owner of its table. [`decide`] is the whole
//! decision, as pure code.
//!
//! # What to do about an error
//!
//! [`GuardError::class`] says it: step down, run the transaction again, find out first whether it has
//! happened, or mend the caller. `commit` returns `Ok` for a transaction that was admitted and has
//! committed, and for nothing else. A [`GuardError::StoreWentBackwards`] means that a seal was lost with a
//! failover or a restore: seal again *and read again*. The library never seals again by itself.
//!
//! # What is not promised
//!
//! - Mutual exclusion of *reads*: an old holder may read at any time.
//! - Anything outside the store: an e-mail, a payment, a file. For those: an outbox in the same
//!   transaction, a stable idempotency key, and reconciliation.
//! - More than the store keeps: a seal that was lost by an asynchronous failover or a restored backup is
//!   not there any more. Seal with a synchronous standby, and seal every resource after a restore.
//! - Safety from a hostile writer. The guard stops stale ones; each store's module says what goes past it.
#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod decide;
pub mod effects;
mod error;
#[cfg(any(
    feature = "postgres",
    feature = "sqlite",
    feature = "mysql",
    feature = "redis"
))]
mod fence;
#[cfg(any(test, all(fuzzing, feature = "tower")))]
pub mod fuzz;
pub mod memory;
pub mod metrics;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "object-store")]
pub mod object_store;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
mod sealed;
mod spans;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "tower")]
pub mod tower;

pub use error::{Blocker, Class, GuardError};
#[cfg(any(
    feature = "postgres",
    feature = "sqlite",
    feature = "mysql",
    feature = "redis"
))]
pub use fence::Fence;
pub use sealed::Sealed;
