//! What Redis' errors mean here. Refusals are replies; an error is the server's own, or the link's.

use ::redis::{ErrorKind, RedisError};

use crate::GuardError;

pub(super) fn plain(error: RedisError) -> GuardError {
    GuardError::Backend(Box::new(error))
}

/// Of a write: the server has refused to run it at all, or nobody knows.
pub(super) fn of_write(error: RedisError) -> GuardError {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed => {
            plain(error)
        }
        _ => unknown(error),
    }
}

pub(super) fn unknown(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> GuardError {
    GuardError::CommitUnknown {
        transaction: None,
        source: source.into(),
    }
}
