use std::fmt;
use std::time::Duration;

use palisade_token::{FencingToken, Grant, ResourceName};

use crate::effects::{IdempotencyKey, Name};

#[cfg(any(feature = "postgres", feature = "sqlite", feature = "mysql"))]
use crate::metrics::{self, StoreKind};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a guard did not do what was asked. [`GuardError::class`] says what to do about it.
///
/// Unless it is [`GuardError::CommitUnknown`], nothing of the transaction was committed.
///
/// ```
/// use palisade_guard::{Class, GuardError};
///
/// fn next(error: &GuardError) -> String {
///     match error {
///         GuardError::Stale { fence, .. } => format!("step down: {fence} leads"),
///         GuardError::StoreWentBackwards { .. } => "seal again, then read again".to_owned(),
///         GuardError::CommitUnknown { transaction: Some(id), .. } => format!("ask about {id}"),
///         // The rest, and what later versions add: by what is to be done.
///         other => match other.class() {
///             Class::Fatal => "step down".to_owned(),
///             Class::Retry => "run it all again".to_owned(),
///             _ => format!("{other}: see `Class`"),
///         },
///     }
/// }
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let later: palisade_token::Grant = "orders#43#0f0e0d0c0b0a09080706050403020100".parse()?;
///
/// let stale = GuardError::Stale {
///     resource: grant.resource,
///     presented: grant.token,
///     fence: later.token,
/// };
/// assert_eq!(stale.to_string(), "stale token 42 for orders: the fence is at 43");
/// assert_eq!(next(&stale), "step down: 43 leads");
/// assert_eq!(next(&GuardError::RolledBack(None)), "run it all again");
/// # Ok::<(), palisade_token::ParseGrantError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// A later holder has sealed the resource. Final: stop, and do not retry with this token.
    #[error("stale token {presented} for {resource}: the fence is at {fence}")]
    Stale {
        /// What is protected.
        resource: ResourceName,
        /// The token of the write or the seal.
        presented: FencingToken,
        /// The token that was sealed.
        fence: FencingToken,
    },
    /// The token was not sealed in this store. Seal it, and read again what was read before.
    #[error("unsealed token {presented} for {resource}: {}", At(*fence))]
    Unsealed {
        /// What is protected.
        resource: ResourceName,
        /// The token of the write.
        presented: FencingToken,
        /// The token that was sealed, if any was.
        fence: Option<FencingToken>,
    },
    /// The token was sealed, and the store does not know of it: it went backwards (failover, restore),
    /// or it is another store. What was read and written since is in doubt. Seal again *and read
    /// again*; the library never seals again by itself.
    #[error("the store went backwards: token {sealed} for {resource} was sealed, {}", At(*fence))]
    StoreWentBackwards {
        /// What is protected.
        resource: ResourceName,
        /// The token that was sealed.
        sealed: FencingToken,
        /// Where the fence is now, if there is one.
        fence: Option<FencingToken>,
    },
    /// A write to a protected table in a transaction that has not entered its resource, or a guarded
    /// transaction that was ended by hand. A bug in the caller.
    #[error("unguarded: no entry for {resource} in this transaction")]
    Unguarded {
        /// The resource whose entry is missing, as the store names it.
        resource: String,
        /// The table that was to be written, where the store says so.
        table: Option<String>,
    },
    /// The token was sealed by another hold: a coordinator has given one number twice. Stop, and
    /// acquire again for a greater one.
    #[error("token {token} for {resource} was sealed by another holder")]
    Collision {
        /// What is protected.
        resource: ResourceName,
        /// The token of both.
        token: FencingToken,
    },
    /// Running transactions kept the seal waiting for too long. Nothing was sealed; the lease is still
    /// held. Try again, or end the blockers (`postgres::SealPolicy::Terminate`).
    #[error("seal of {resource} waited {waited:?} in vain for {}", List(blockers))]
    SealTimeout {
        /// What was to be sealed.
        resource: ResourceName,
        /// The longest single wait.
        waited: Duration,
        /// Who held the lock when the wait was over. May be empty: they have ended meanwhile, or the
        /// store cannot name them.
        blockers: Vec<Blocker>,
    },
    /// The transaction met another one, or a deadlock. Run all of it again.
    #[error("the transaction could not be serialized; run it again")]
    Serialization(#[source] Source),
    /// The transaction was rolled back: by an earlier error in it, or by the store at commit.
    #[error("the transaction was rolled back")]
    RolledBack(#[source] Option<Source>),
    /// The answer to COMMIT was lost: the transaction *may have happened*. Find out before trying
    /// again: `postgres::Guard::outcome`, or the data itself.
    #[error("the answer to COMMIT was lost: the transaction may have happened")]
    CommitUnknown {
        /// The transaction's id in PostgreSQL, if it was learnt
        /// (`postgres::GuardedTx::transaction_id`).
        transaction: Option<i64>,
        /// What went wrong.
        source: Source,
    },
    /// The effect of this key is under way elsewhere. Nothing was done. Try the same key again.
    #[error("{key} is in progress; try again after {retry_after:?}")]
    InProgress {
        /// The key.
        key: IdempotencyKey,
        /// When it is worth asking again. It is no promise, and nothing is taken over because of it.
        retry_after: Duration,
        /// Whose attempt it is, where that is known: what may finish it is this resource's holder.
        owner: Option<Box<Grant>>,
    },
    /// The key was used for another request. A bug in whoever makes the keys; nothing was done.
    #[error("{key} was used for another request")]
    FingerprintMismatch {
        /// The key.
        key: IdempotencyKey,
    },
    /// The key is older than what is remembered of keys: its effect may have been done, and its answer
    /// forgotten. Find out; then ask with a new key.
    #[error("{key} is older than its answer would be kept")]
    KeyExpired {
        /// The key.
        key: IdempotencyKey,
    },
    /// A later attempt of the same holder has taken this key over. What this attempt did outside may have
    /// happened: leave it to the later one. Nothing was written.
    #[error("a later attempt has taken over {key}")]
    Superseded {
        /// The key.
        key: IdempotencyKey,
    },
    /// An answer is too large to be kept with its key. Keep a reference to it instead.
    #[error("the answer has {given} bytes; at most {bound} are kept with a key")]
    AnswerTooLarge {
        /// Its size as JSON, in bytes.
        given: usize,
        /// The most that is kept, in bytes.
        bound: usize,
    },
    /// An answer cannot be written as JSON, or a stored one is not of the type that was asked for.
    #[error("the answer of the key does not fit its type")]
    Answer(#[source] Source),
    /// Numbers of this producer are missing. Nothing was written; send again from `expected` on.
    #[error("{producer} sent number {got}; {expected} comes next")]
    SequenceGap {
        /// The producer.
        producer: Name,
        /// The number that comes next.
        expected: u64,
        /// The number that came.
        got: u64,
    },
    /// The cursor is not where its consumer believed. Roll back, read it again, and go on from there.
    #[error("offset of {cursor} is {found}, not {expected}")]
    OffsetConflict {
        /// The cursor.
        cursor: Name,
        /// Where it was believed to be.
        expected: u64,
        /// Where it is.
        found: u64,
    },
    /// The entity was changed since it was read. Roll back, read it again, and decide anew.
    #[error("{entity} has version {found}, not {expected}")]
    VersionConflict {
        /// The entity.
        entity: Name,
        /// The version that was read.
        expected: u64,
        /// The version that it has.
        found: u64,
    },
    /// A bound of the guard is reached: too many writes at once, or too many resources. Nothing was
    /// admitted.
    #[error("the limit of {limit} {what} is reached")]
    LimitReached {
        /// What there are too many of.
        what: &'static str,
        /// The most there may be.
        limit: u64,
    },
    /// The call cannot be right, whatever the store holds. A bug in the caller.
    #[error("{0}")]
    Misuse(&'static str),
    /// The schema in the store was made by a newer version of this library. Upgrade the library.
    #[error("the store's schema has version {found}; this library knows up to {known}")]
    Newer {
        /// The version in the store.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// The store did not answer, or refused for a reason of its own. Nothing was admitted.
    #[error("the store failed")]
    Backend(#[source] Source),
}

/// What to do about a [`GuardError`].
///
/// ```
/// use palisade_guard::{Class, GuardError};
///
/// #[derive(Debug, PartialEq)]
/// enum Next { StepDown, RunAgain, ReadAgain, FindOut, BackOff, Report }
///
/// fn next(error: &GuardError) -> Next {
///     match error.class() {
///         Class::Fatal => Next::StepDown,
///         Class::Retry => Next::RunAgain,
///         Class::Conflict => Next::ReadAgain,
///         Class::Backend => Next::BackOff, // and run again while the lease is held
///         Class::Bug => Next::Report,
///         _ => Next::FindOut, // `Unknown`, and what later versions add
///     }
/// }
///
/// assert_eq!(next(&GuardError::RolledBack(None)), Next::RunAgain);
/// assert_eq!(next(&GuardError::Misuse("no resource")), Next::Report);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Class {
    /// This grant, or this `Sealed`, is dead: stop writing, step down. Retrying cannot help.
    Fatal,
    /// Run the whole transaction, or the seal, again.
    Retry,
    /// What the caller believes is not what the store holds: read again, then decide anew.
    Conflict,
    /// It may have happened: find out first.
    Unknown,
    /// The caller is wrong.
    Bug,
    /// The store is in trouble: back off, then retry as long as the lease is held.
    Backend,
}

/// Who keeps a seal waiting.
///
/// ```
/// use palisade_guard::Blocker;
///
/// /// What to tell the operator, about one that `GuardError::SealTimeout` names.
/// fn advice(blocker: &Blocker) -> String {
///     match blocker {
///         Blocker::Session { pid, .. } => format!("if it hangs, terminate process {pid}"),
///         Blocker::Prepared { gid } => format!("commit or roll back {gid:?}"),
///         other => format!("see to {other}"),
///     }
/// }
///
/// let prepared = Blocker::Prepared { gid: "nightly".to_owned() };
/// assert_eq!(advice(&prepared), "commit or roll back \"nightly\"");
/// assert_eq!(prepared.to_string(), "prepared transaction \"nightly\"");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blocker {
    /// A running transaction.
    Session {
        /// The server process.
        pid: i32,
        /// Its `application_name`, if it may be seen.
        application: Option<String>,
        /// What it does (`active`, `idle in transaction`, …), if it may be seen.
        state: Option<String>,
    },
    /// A prepared transaction: it keeps its locks across restarts until it is committed or rolled back.
    Prepared {
        /// Its global id.
        gid: String,
    },
}

impl GuardError {
    /// What to do about the error.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Stale { .. }
            | Self::Unsealed { .. }
            | Self::StoreWentBackwards { .. }
            | Self::Collision { .. } => Class::Fatal,
            Self::SealTimeout { .. }
            | Self::Serialization(_)
            | Self::RolledBack(_)
            | Self::InProgress { .. }
            | Self::Superseded { .. } => Class::Retry,
            Self::SequenceGap { .. }
            | Self::OffsetConflict { .. }
            | Self::VersionConflict { .. } => Class::Conflict,
            Self::CommitUnknown { .. } | Self::KeyExpired { .. } => Class::Unknown,
            Self::Unguarded { .. }
            | Self::FingerprintMismatch { .. }
            | Self::AnswerTooLarge { .. }
            | Self::Answer(_)
            | Self::Misuse(_)
            | Self::Newer { .. } => Class::Bug,
            Self::LimitReached { .. } | Self::Backend(_) => Class::Backend,
        }
    }
}

/// Maps what a query has met: a refusal of the guard, else what the store said. In a guarded transaction
/// use its `refusal`, which knows the transaction's grants besides.
#[cfg(any(feature = "postgres", feature = "sqlite", feature = "mysql"))]
impl From<sqlx::Error> for GuardError {
    fn from(error: sqlx::Error) -> Self {
        #[cfg(feature = "sqlite")]
        let error = match crate::sqlite::known(error) {
            Ok(known) => {
                metrics::refused(StoreKind::Sqlite, &known);
                return known;
            }
            Err(error) => error,
        };
        #[cfg(feature = "mysql")]
        let error = match crate::mysql::known(error) {
            Ok(known) => {
                metrics::refused(StoreKind::Mysql, &known);
                return known;
            }
            Err(error) => error,
        };
        #[cfg(feature = "postgres")]
        {
            let known = crate::postgres::plain(error);
            metrics::refused(StoreKind::Postgres, &known);
            known
        }
        #[cfg(not(feature = "postgres"))]
        Self::Backend(Box::new(error))
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session { pid, .. } => write!(formatter, "process {pid}"),
            Self::Prepared { gid } => write!(formatter, "prepared transaction {gid:?}"),
        }
    }
}

struct At(Option<FencingToken>);

impl fmt::Display for At {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => formatter.write_str("it has no fence"),
            Some(fence) => write!(formatter, "the fence is at {fence}"),
        }
    }
}

struct List<'a>(&'a [Blocker]);

impl fmt::Display for List<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if self.0.is_empty() {
            formatter.write_str("a writer that cannot be named")?;
        }
        for blocker in self.0 {
            write!(formatter, "{separator}{blocker}")?;
            separator = ", ";
        }
        Ok(())
    }
}
