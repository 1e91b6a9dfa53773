//! The guard for Redis 7 and later: **efficiency grade**.
//!
//! One function in the server reads the fence, compares, and runs the writes, as one atomic step: on one
//! healthy server no stale write is let in. It is not what this crate calls safe, for two reasons that are
//! Redis':
//!
//! - **It may forget.** Replication is asynchronous: a failover can lose a seal that was acknowledged, and then
//!   an older holder is admitted again. So can a restart without an append-only file that is flushed at each
//!   write, and an eviction policy that takes any key. [`Guard::weaknesses`] looks at the latter two. What was
//!   lost shows as [`GuardError::StoreWentBackwards`](crate::GuardError::StoreWentBackwards) to the holder
//!   whose seal it was, and to nobody else.
//! - **It can be gone round.** Redis has no triggers: who may write a key may write it without the guard.
//!
//! Use it to keep stale workers from most of their damage in a cache or a queue; keep what must be right in
//! a store that guards it: PostgreSQL, MariaDB, SQLite. The type says so too: [`Sealed`] is of
//! [`EfficiencyGrade`].
//!
//! ```no_run
//! # async fn lead(client: redis::Client, grant: &palisade_token::Grant) -> Result<(), Box<dyn std::error::Error>> {
//! use palisade_guard::redis::Guard;
//!
//! let mut connection = client.get_multiplexed_async_connection().await?;
//! let guard = Guard::new();
//! guard.install(&mut connection).await?;
//!
//! let sealed = guard.seal(&mut connection, grant).await?; // before the first read
//! let mut write = guard.begin(&sealed)?;
//! write.push(&redis::Cmd::set("cache:{orders}:7", "paid"))?;
//! write.push(redis::cmd("HINCRBY").arg("totals:{orders}").arg("paid").arg(1))?;
//! write.commit(&mut connection).await?;
//! # Ok(()) }
//! ```
//!
//! # Keys
//!
//! All keys of a write have the hash tag of their resource, `{orders}`, which keeps them beside the fence in a
//! cluster, and keeps a writer of one resource from the keys of another. The fence is the hash
//! `palisade:{orders}:fence`. It has no TTL, and must never get one, nor be deleted: take it out of every
//! clean-up.
//!
//! # From any language
//!
//! ```text
//! FCALL palisade_seal_1  1 palisade:{orders}:fence orders 42 000102030405060708090a0b0c0d0e0f
//! FCALL palisade_write_1 2 palisade:{orders}:fence cache:{orders}:7 orders 42 000102030405060708090a0b0c0d0e0f 3 SET cache:{orders}:7 paid
//! ```
//!
//! Each command comes as the number of its words and its words. The reply is an array: `ok` and an array of
//! one reply for each command, `stale` or `unsealed` and the fence, `collision`, `invalid` and what is, or
//! `failed`, which command (from 0), and Redis' words; `corrupt` if what is there is no fence.
//!
//! # Not rolled back
//!
//! Redis takes nothing back: a command that fails for what its key holds (a list where a hash is
//! expected) leaves those before it in place. That is
//! [`GuardError::CommitUnknown`](crate::GuardError::CommitUnknown), whose source says which it was.

mod errors;
mod install;
mod reply;
mod seal;
mod write;

pub use install::Weakness;
pub use write::GuardedWrite;

/// The store of [`Sealed`]: it holds as long as Redis keeps what it has acknowledged, which it does not promise.
///
/// A function that asks for more than this grade does not take a seal of Redis:
///
/// ```no_run
/// use palisade_guard::Sealed;
/// use palisade_guard::redis::EfficiencyGrade;
///
/// fn refresh_cache(sealed: &Sealed<EfficiencyGrade>) { /* … */ }
/// fn book_payment(sealed: &Sealed<sqlx::Postgres>) { /* … */ }
///
/// fn lead(cache: &Sealed<EfficiencyGrade>, books: &Sealed<sqlx::Postgres>) {
///     refresh_cache(cache);
///     book_payment(books); // with `cache` it does not compile
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum EfficiencyGrade {}

/// A grant that was sealed in Redis; only [`Guard::seal`] makes one.
pub type Sealed = crate::Sealed<EfficiencyGrade>;

/// Most commands of one write: the server does nothing else meanwhile.
pub const MAX_COMMANDS: usize = 1_000;

/// Most words of one command, its name included: the function's stack has room for about 8,000.
pub const MAX_WORDS: usize = 4_096;

/// Seals resources in Redis and makes guarded writes. It holds nothing.
///
/// ```no_run
/// use palisade_guard::redis::Guard;
///
/// # async fn example(
/// #     connection: &mut redis::aio::MultiplexedConnection,
/// #     grant: &palisade_token::Grant,
/// # ) -> Result<(), palisade_guard::GuardError> {
/// let guard = Guard::new();
/// guard.install(connection).await?;
/// let sealed = guard.seal(connection, grant).await?; // before the first read
/// let mut write = guard.begin(&sealed)?;
/// write.push(&redis::Cmd::set("cache:{orders}:7", "paid"))?;
/// write.commit(connection).await?;
///
/// let fence = guard.fence(connection, &grant.resource).await?;
/// assert_eq!(fence.map(|fence| fence.token), Some(grant.token));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {}

impl Guard {
    /// A guard.
    #[must_use]
    pub const fn new() -> Self {
        Self {}
    }
}

fn fence_key(resource: &palisade_token::ResourceName) -> String {
    format!("palisade:{{{resource}}}:fence")
}
