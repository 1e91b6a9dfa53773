use std::time::{Duration, SystemTime};

/// What came of an effect.
///
/// ```
/// use palisade_guard::effects::Outcome;
///
/// let first = Outcome::Executed("receipt 1");
/// match &first {
///     Outcome::Executed(_) => {} // done now: it happens if the transaction commits
///     Outcome::Replayed { .. } => {} // done before: nothing was done now
/// }
/// assert!(!first.is_replayed());
/// assert_eq!(first.into_value(), "receipt 1"); // either way, what the caller is told
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It was done now, in this transaction: it happens if the transaction commits.
    Executed(T),
    /// It was done before: this is the answer that was given then. Nothing was done now.
    Replayed {
        /// The stored answer.
        value: T,
        /// When the key was first seen, by the store's clock.
        first_seen: SystemTime,
    },
}

impl<T> Outcome<T> {
    /// The answer, whenever it was given.
    pub fn into_value(self) -> T {
        match self {
            Self::Executed(value) | Self::Replayed { value, .. } => value,
        }
    }

    /// Says whether the effect had been done before.
    #[must_use]
    pub const fn is_replayed(&self) -> bool {
        matches!(self, Self::Replayed { .. })
    }
}

/// What is kept of an effect that was refused by its own rules: a card declined, an order that is closed.
///
/// Only a *deterministic* refusal is a rejection: what might go otherwise at the next try (a timeout, a
/// server's 5xx, a conflict) is an error of the closure, and errors are never kept.
///
/// ```no_run
/// # use palisade_guard::{GuardError, effects::*, postgres::GuardedTx};
/// # async fn pay(mut tx: GuardedTx, key: IdempotencyKey, asked: Fingerprint)
/// #     -> Result<(), GuardError> {
/// let policy = KeyPolicy::new().with_rejections(Rejections::Replay);
/// let paid = tx.once_or_reject(&key, &asked, &policy, async |connection| {
///     let pay = sqlx::query("UPDATE orders SET paid = true WHERE id = 7 AND NOT closed");
///     Ok::<_, GuardError>(match pay.execute(connection).await?.rows_affected() {
///         1 => Ok("paid".to_owned()),
///         _ => Err("the order is closed".to_owned()), // at every try: so it is replayed
///     })
/// });
/// let paid: Result<String, String> = paid.await?.into_value();
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Rejections {
    /// Nothing: the next try asks again.
    #[default]
    Forget,
    /// The rejection is the answer of the key, and is replayed as one.
    Replay,
}

/// How long a key lives, and what kind of answers it keeps.
///
/// The two lifetimes are apart on purpose: that of the *answer* says for how long a retry is recognised, that
/// of the *attempt* how soon the same holder may try again what it has begun and not finished. Values outside
/// their range are moved into it.
///
/// ```
/// use std::time::Duration;
/// use palisade_guard::effects::KeyPolicy;
///
/// let policy = KeyPolicy::new()
///     .with_answer_lifetime(Duration::from_secs(30 * 86_400))
///     .with_attempt_lifetime(Duration::from_secs(90));
/// assert_eq!(policy.attempt_lifetime(), Duration::from_secs(90));
/// let shortest = KeyPolicy::new().with_answer_lifetime(Duration::ZERO);
/// assert_eq!(shortest.answer_lifetime(), KeyPolicy::SHORTEST_ANSWER);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPolicy {
    answer_lifetime: Duration,
    attempt_lifetime: Duration,
    rejections: Rejections,
}

impl KeyPolicy {
    /// The shortest lifetime of an answer: below it there is no retry to recognise.
    pub const SHORTEST_ANSWER: Duration = Duration::from_secs(1);

    /// The longest lifetime of an answer, ten years: a bound on what a table is asked to keep.
    pub const LONGEST_ANSWER: Duration = Duration::from_secs(10 * 365 * 86_400);

    /// The shortest lifetime of an attempt.
    pub const SHORTEST_ATTEMPT: Duration = Duration::from_millis(1);

    /// The longest lifetime of an attempt: no external call takes a day.
    pub const LONGEST_ATTEMPT: Duration = Duration::from_secs(86_400);

    /// The largest answer that is kept, as JSON. Of a larger one keep a reference: a key is looked up often.
    pub const MAX_ANSWER_BYTES: usize = 65_536;

    /// How far the clock of a key's maker may be ahead of the store's: a key that is a UUID of version 7 and
    /// claims to be from later still is purged as any other.
    pub const MOST_AHEAD: Duration = Duration::from_secs(86_400);

    /// The default policy: answers live seven days, attempts one minute, rejections are not kept.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            answer_lifetime: Duration::from_secs(7 * 86_400),
            attempt_lifetime: Duration::from_secs(60),
            rejections: Rejections::Forget,
        }
    }

    /// How long an answer is kept at least: longer than the longest time over which anybody tries again.
    /// Publish it to whoever makes keys, and treat it as a promise: when it is made longer, keys that were
    /// purged under the shorter one are not remembered.
    #[must_use]
    pub fn with_answer_lifetime(mut self, lifetime: Duration) -> Self {
        self.answer_lifetime = lifetime.clamp(Self::SHORTEST_ANSWER, Self::LONGEST_ANSWER);
        self
    }

    /// How long an attempt has before the *same holder* may begin it again: longer than the external call and
    /// its timeout. Another holder does not wait for it: it seals.
    #[must_use]
    pub fn with_attempt_lifetime(mut self, lifetime: Duration) -> Self {
        self.attempt_lifetime = lifetime.clamp(Self::SHORTEST_ATTEMPT, Self::LONGEST_ATTEMPT);
        self
    }

    /// Whether rejections are kept and replayed (`postgres::GuardedTx::once_or_reject`).
    #[must_use]
    pub const fn with_rejections(mut self, rejections: Rejections) -> Self {
        self.rejections = rejections;
        self
    }

    /// How long an answer is kept at least.
    #[must_use]
    pub const fn answer_lifetime(&self) -> Duration {
        self.answer_lifetime
    }

    /// How long an attempt has before the same holder may begin it again.
    #[must_use]
    pub const fn attempt_lifetime(&self) -> Duration {
        self.attempt_lifetime
    }

    /// Whether rejections are kept and replayed.
    #[must_use]
    pub const fn rejections(&self) -> Rejections {
        self.rejections
    }
}

impl Default for KeyPolicy {
    fn default() -> Self {
        Self::new()
    }
}
