use std::error::Error;
use std::time::Duration;

use palisade_token::{FencingToken, ResourceName};

use crate::standing::LostReason;

pub(crate) mod status;

/// What a coordinator's or the transport's own words are kept as: for logs, never decided by.
pub type Source = Box<dyn Error + Send + Sync + 'static>;

/// Why a call of this library failed. Each says what to do; none carries the secret of a session.
///
/// ```no_run
/// # async fn example(session: palisade_client::Session)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use palisade_client::{ClientError, Lease};
///
/// async fn work(lease: Lease) { /* seal, read, write */ }
///
/// match session.try_acquire(&"orders".parse()?).await {
///     Ok(lease) => work(lease).await,
///     Err(ClientError::Held { retry_after, .. }) => println!("try again in {retry_after:?}"),
///     Err(ClientError::SessionLost { reason }) => println!("{reason:?}: open a new session"),
///     Err(ClientError::Unavailable { cause, .. }) => println!("{cause:?}: try again later"),
///     Err(other) => return Err(other.into()), // its text says what to do
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Another session holds the resource, or others wait for it, and the call was told not to wait.
    #[error("{resource} is held by another session; wait for it, or try again later")]
    Held {
        /// The resource.
        resource: ResourceName,
        /// The holder's token, where there is one.
        token: Option<FencingToken>,
        /// After how long a new try may help, where that is known.
        retry_after: Option<Duration>,
    },
    /// This session holds the resource already, by another request: use that lease, or release it first.
    #[error("this session holds the resource already, by request {request_id}; use that lease")]
    AlreadyHeld {
        /// The request that holds it.
        request_id: String,
        /// The token that it holds.
        token: Option<FencingToken>,
    },
    /// The wait was over before the resource was granted; the place in the queue is gone. A new acquire
    /// queues again, at the end.
    #[error("the wait for {resource} was over before it was granted; acquire again to queue again")]
    WaitExpired {
        /// The resource.
        resource: ResourceName,
    },
    /// The request was given back while it waited, by somebody with this session's secret. Acquire again.
    #[error("the request was given back while it waited; acquire again")]
    Cancelled,
    /// The session has ended, and all its leases with it: stop that work and open a new session.
    #[error("the session is lost ({reason:?}); stop its work and open a new session")]
    SessionLost {
        /// Why.
        reason: LostReason,
    },
    /// No coordinator served the call, though it was tried for as long as it may take. Try again later.
    #[error(
        "no coordinator served the call ({cause:?}); try again later{}",
        if *may_have_happened { "; it may have happened all the same" } else { "" }
    )]
    Unavailable {
        /// What the last try met.
        cause: Unavailable,
        /// Whether the call may have taken effect. What an acquire may have been granted is given back.
        may_have_happened: bool,
        /// After how long a new try may help, where that is known.
        retry_after: Option<Duration>,
        /// What the transport or the coordinator said, for the log.
        #[source]
        source: Option<Source>,
    },
    /// An argument is outside its bound. Trying again does not help.
    #[error("{field} is {given:?}; allowed is {bound}")]
    Invalid {
        /// Which argument.
        field: String,
        /// What is allowed.
        bound: String,
        /// What was given, shortened; empty for secrets.
        given: String,
    },
    /// The coordinator does not allow this to the caller: check the credentials, the access rules, and
    /// that the session's secret is its own.
    #[error(
        "the coordinator does not allow this; check credentials, access rules and session secret{}",
        if *may_have_happened { "; it may have happened all the same" } else { "" }
    )]
    Denied {
        /// Whether the call may have taken effect: where it was not a coordinator that said so, or an earlier
        /// try was not answered. What an acquire may have been granted is given back.
        may_have_happened: bool,
        /// What the coordinator said, for the log.
        #[source]
        source: Source,
    },
    /// The token named is above the resource's current one, or of another session's hold. Final.
    #[error(
        "{} is above the resource's current one, or another session's (current: {})",
        named(*presented),
        current.map_or_else(|| "none".to_owned(), |token| token.to_string())
    )]
    StaleToken {
        /// The token named.
        presented: Option<FencingToken>,
        /// The resource's current token, where it is held.
        current: Option<FencingToken>,
    },
    /// The lease is released. The fence that refused it is more than a day ahead of the coordinator's
    /// clock, so it will refuse the next lease's token, too. Correct that clock if it is behind; else the
    /// guard's database: it was sealed by a clock that was ahead, or is not of this coordinator's store.
    #[error(
        "the lease is released, but the guard's fence ({}) is over a day ahead of the coordinator's clock and \
         will refuse the next token, too; correct that clock, or the guard's database",
        fence.map_or_else(|| "not told".to_owned(), |fence| fence.to_string())
    )]
    FenceAhead {
        /// The fence.
        fence: Option<FencingToken>,
    },
    /// The generation would go more than a day past the coordinator's clock. If the token named is right, and
    /// the clock too, force it.
    #[error(
        "{} is more than a day past the coordinator's clock; force it if both are right",
        named(*past)
    )]
    ForceRequired {
        /// The token named.
        past: Option<FencingToken>,
        /// The coordinator's clock, in microseconds since 1970 UTC, where it was told.
        clock_unix_micros: Option<u64>,
    },
    /// A limit of the coordinator or of its store is reached. Try again later, with fewer.
    #[error(
        "the coordinator's limit of {limit} is reached ({bound}); try again later, with fewer{}",
        if *may_have_happened { "; it may have happened all the same" } else { "" }
    )]
    LimitReached {
        /// Which limit.
        limit: String,
        /// Its bound.
        bound: String,
        /// Whether the call may have taken effect: a store that is out of space may say so afterwards. What an
        /// acquire may have been granted is given back.
        may_have_happened: bool,
        /// After how long a new try may help, where that is known.
        retry_after: Option<Duration>,
    },
    /// This coordinator's version does not serve the call. Use a newer coordinator.
    #[error("the coordinator does not serve this call; use a newer one")]
    NotServed,
    /// There is no Tokio runtime here, or the one that the client was made on has ended: nothing is renewed
    /// there. Make the client on a runtime that lives as long as it.
    #[error("no Tokio runtime; make the client on one that lives as long as it")]
    NoRuntime,
    /// An answer that this version does not understand. It may have happened. Use a newer client.
    #[error("the coordinator's answer is not understood; it may have happened; use a newer client")]
    Unexpected {
        /// What is wrong with it, for the log.
        #[source]
        source: Source,
    },
}

fn named(token: Option<FencingToken>) -> String {
    token.map_or_else(|| "the token".to_owned(), |token| format!("token {token}"))
}

/// What the last try of a call met that no coordinator served.
///
/// ```
/// use palisade_client::Unavailable;
///
/// fn who_to_call(cause: Unavailable) -> &'static str {
///     match cause {
///         Unavailable::Unreachable | Unavailable::NoAnswer => "the network's people",
///         Unavailable::Store | Unavailable::WrongCluster => "the store's people",
///         Unavailable::HistoryRegressed => "an operator: a new generation is needed",
///         _ => "nobody yet: try again",
///     }
/// }
/// assert_eq!(who_to_call(Unavailable::Draining), "nobody yet: try again");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unavailable {
    /// No connection to any endpoint.
    Unreachable,
    /// No answer in time, or the connection broke.
    NoAnswer,
    /// The coordinator's store is away or has no quorum.
    Store,
    /// The coordinator is draining.
    Draining,
    /// The coordinator has no generation that it trusts, so it grants nothing.
    HistoryRegressed,
    /// The coordinator's store endpoints are of different clusters, so it grants nothing.
    WrongCluster,
    /// Other calls of this session overtook this one each time it was tried.
    Superseded,
    /// A fault of the coordinator.
    Internal,
    /// A limit of the coordinator: of its watches, or of how far one may lag behind.
    Limit,
}

impl ClientError {
    /// Whether the call may have taken effect.
    ///
    /// ```
    /// use palisade_client::Secret;
    ///
    /// let error = Secret::from_hex("not a secret").unwrap_err();
    /// assert!(!error.may_have_happened(), "nothing was sent");
    /// ```
    #[must_use]
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Unavailable {
                may_have_happened, ..
            }
            | Self::LimitReached {
                may_have_happened, ..
            }
            | Self::Denied {
                may_have_happened, ..
            } => *may_have_happened,
            Self::Unexpected { .. } => true,
            _ => false,
        }
    }

    /// The same error after an earlier try of the call, of which `earlier_unknown` tells.
    pub(crate) fn after_tries(mut self, earlier_unknown: bool) -> Self {
        if let Self::Unavailable {
            may_have_happened, ..
        }
        | Self::LimitReached {
            may_have_happened, ..
        }
        | Self::Denied {
            may_have_happened, ..
        } = &mut self
        {
            *may_have_happened |= earlier_unknown;
        }
        self
    }

    pub(crate) fn invalid(field: &str, bound: impl Into<String>, given: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            bound: bound.into(),
            given: given.into(),
        }
    }
}

/// Why a lease gives no grant: stop the work that relies on it.
///
/// ```no_run
/// # fn example(lease: &palisade_client::Lease) {
/// use palisade_client::LeaseError;
///
/// match lease.grant() {
///     Ok(grant) => println!("show {grant} to the guard"),
///     Err(LeaseError::Expired) => println!("stop; the next holder may be at work"),
///     Err(error) => println!("stop: {error}"),
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The local deadline has passed; the resource may be another's by now. Acquire in a new session.
    #[error("the lease's local deadline has passed; stop, and acquire in a new session")]
    Expired,
    /// The lease has ended, alone or with its session, as the reason says. Acquire again, in a new session
    /// where it ended with its session.
    #[error("the lease is lost ({0:?}); stop before you acquire again")]
    Lost(LostReason),
}
