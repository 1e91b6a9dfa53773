use std::fmt;
use std::time::SystemTime;

use palisade_token::Grant;

use super::{IdempotencyKey, KeyPolicy};

/// What came of beginning an attempt.
///
/// ```no_run
/// # use palisade_guard::{GuardError, effects::*, postgres::{Guard, Sealed}};
/// # async fn pay(pool: &sqlx::PgPool, sealed: &Sealed, key: IdempotencyKey, asked: Fingerprint,
/// #     charge: impl AsyncFn(&str) -> Result<String, GuardError>) -> Result<String, GuardError> {
/// let guard = Guard::new();
/// let begun = guard.begin_attempt(pool, sealed, &key, &asked, &KeyPolicy::new()).await?;
/// let receipt: String = match begun {
///     Begun::Replayed { value, .. } => value, // it was paid before: no call
///     Begun::Attempt(attempt) => {
///         let receipt = charge(&attempt.external_key()).await?; // in no transaction
///         let mut tx = guard.begin(pool, sealed).await?;
///         let done = tx.complete(&attempt, async |_| Ok::<_, GuardError>(receipt)).await?;
///         tx.commit().await?;
///         done.into_value()
///     }
/// };
/// # Ok(receipt) }
/// ```
#[derive(Debug)]
pub enum Begun<T> {
    /// The attempt is recorded and committed: make the external call, then complete it.
    Attempt(Attempt),
    /// The effect is done: this is the answer that was given. Make no call.
    Replayed {
        /// The stored answer.
        value: T,
        /// When the key was first seen, by the store's clock.
        first_seen: SystemTime,
    },
}

/// The right to make one external call and to store its answer, from `postgres::Guard::begin_attempt`: it is
/// recorded in the store, so that whoever comes later knows that the call may have been made.
///
/// It cannot be fenced: another holder may take it over while the call is on its way, and make the call again.
/// What makes that harmless is the key that the other side is shown, [`Attempt::external_key`], the same for
/// every attempt.
///
/// ```no_run
/// # use palisade_guard::{GuardError, effects::Attempt, postgres::GuardedTx};
/// # async fn settle(mut tx: GuardedTx, attempt: Attempt, called: Option<String>)
/// #     -> Result<(), GuardError> {
/// // `called` is what came of the call under `attempt.external_key()`: a receipt, or no answer.
/// match called {
///     Some(receipt) => {
///         tx.complete(&attempt, async |_| Ok::<_, GuardError>(receipt)).await?;
///     }
///     // It may have happened: the key stays begun, and the next attempt asks there first.
///     None => tx.give_up(&attempt).await?,
/// }
/// tx.commit().await?;
/// # Ok(()) }
/// ```
pub struct Attempt {
    pub(crate) key: IdempotencyKey,
    pub(crate) grant: Grant,
    pub(crate) number: i32,
    pub(crate) policy: KeyPolicy,
    pub(crate) first_seen: SystemTime,
}

impl Attempt {
    /// The effect's key.
    #[must_use]
    pub const fn key(&self) -> &IdempotencyKey {
        &self.key
    }

    /// The grant under which it was begun.
    #[must_use]
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// How many attempts this key has had, this one included. Above 1 the call may have been made before: where
    /// the other side can be asked what it did, ask first.
    #[must_use]
    pub const fn number(&self) -> i32 {
        self.number
    }

    /// When the key was first seen, by the store's clock.
    #[must_use]
    pub const fn first_seen(&self) -> SystemTime {
        self.first_seen
    }

    /// The idempotency key to show to the other side: [`IdempotencyKey::external`].
    #[must_use]
    pub fn external_key(&self) -> String {
        self.key.external()
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Attempt")
            .field("key", &self.key)
            .field("grant", &self.grant)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// An attempt that was begun and not finished, as `postgres::Guard::unfinished` lists them.
///
/// ```no_run
/// # use palisade_guard::{GuardError, postgres::Guard};
/// # async fn lead(pool: &sqlx::PgPool, grant: &palisade_token::Grant) -> Result<(), GuardError> {
/// let guard = Guard::new();
/// let sealed = guard.seal(pool, grant).await?; // first: it puts the fence above their tokens
/// for left in guard.unfinished(pool, &grant.resource, 100).await? {
///     println!("{} was begun {} times, at last by {}", left.key, left.number, left.by);
///     // `guard.begin_attempt(pool, &sealed, &left.key, …)` takes it over
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// The effect's key.
    pub key: IdempotencyKey,
    /// The grant under which it was begun last.
    pub by: Grant,
    /// How many attempts there were.
    pub number: i32,
    /// When the key was first seen, by the store's clock.
    pub first_seen: SystemTime,
    /// When the same holder may begin it again.
    pub until: SystemTime,
}
