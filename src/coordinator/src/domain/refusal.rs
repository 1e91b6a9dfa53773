use palisade_token::FencingToken;

use super::{AttachMark, GenerationError, RequestId, SessionId};

/// Why the coordinator says no. Nothing happened, and it will not happen later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The resource is held by another session, or others wait for it, and this request does not wait.
    #[error("the resource is held or awaited by others")]
    LeaseHeld {
        /// The token of the lease that stands in the way, if it is held.
        token: Option<FencingToken>,
    },
    /// This session holds the resource under another request.
    #[error("this session holds the resource under request {request}")]
    AlreadyHeld {
        /// The request that it was granted to.
        request: RequestId,
        /// Its token.
        token: FencingToken,
    },
    /// The request waited as long as it was asked to; its place in the queue is gone.
    #[error("the wait is over and the place in the queue is given back")]
    WaitExpired,
    /// No such session: it ended, or never was. Open a new one.
    #[error("session {session} has ended or never was")]
    SessionEnded {
        /// The session named.
        session: SessionId,
    },
    /// The session is another principal's, or the secret is not its secret.
    #[error("session {session} belongs to somebody else")]
    NotYours {
        /// The session named.
        session: SessionId,
    },
    /// The open id is in use with another secret.
    #[error("the open id is in use by session {session} with another secret")]
    OpenIdTaken {
        /// The session that it names.
        session: SessionId,
    },
    /// The request carries an older epoch than the session has seen, or is a retry under the same one.
    /// Send it again with a larger one.
    #[error("epoch {given} is not enough: the session is at {stored}")]
    EpochStale {
        /// The epoch of the request.
        given: u64,
        /// The epoch in the session's mark.
        stored: u64,
    },
    /// Another stream or a call with a larger epoch has raised the session's mark: what came on this stream
    /// is over, and nothing of it is tried again.
    #[error("the session's stream is superseded: its mark is at epoch {}", stored.epoch)]
    Superseded {
        /// The session.
        session: SessionId,
        /// The mark that was found.
        stored: AttachMark,
    },
    /// The request id names another request of this session.
    #[error("request {request} was made with another {field}")]
    RequestMismatch {
        /// The id.
        request: RequestId,
        /// What differs.
        field: &'static str,
    },
    /// The token is above the current lease's, or the hold is another session's.
    #[error("token {given} is not that of this session's lease")]
    StaleToken {
        /// The token given.
        given: FencingToken,
        /// The token of the lease that is held now, if any.
        current: Option<FencingToken>,
    },
    /// A queue or the store is full, and asking again at once will not help.
    #[error("{limit} is reached: {bound}")]
    LimitReached {
        /// The limit's name.
        limit: &'static str,
        /// Its value.
        bound: u64,
    },
    /// A guard's fence is too far ahead of the clock for the coordinator to step past it by itself.
    #[error("a fence is far ahead: {0}")]
    FenceAhead(GenerationError),
}
