//! What an error of etcd's means: whether the write may have happened, and whether the connection is of
//! further use. Decided by codes alone, never by texts.

use etcd_client::Error;
use tonic::Code;

use crate::store::{Failure, Outcome, StoreError};

/// An error, judged.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) source: Error,
}

/// What a caller does about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A key was to be put on a lease that is gone: the state moved on; look again. Nothing happened.
    LeaseGone,
    /// The lease is there already. Nothing happened.
    LeaseExists,
    /// Too many requests, or no space left. It may have happened.
    Exhausted,
    /// etcd refused the request as such. Nothing happened.
    Refused,
    /// What was asked for is outside of what etcd has: an old revision that was compacted. Nothing happened.
    Compacted,
    /// Anything else: it may have happened, and the connection is not used again.
    Broken,
}

impl Fault {
    pub(super) fn of(source: Error) -> Self {
        let kind = match &source {
            Error::GRpcStatus(status) => Self::kind_of(status.code()),
            Error::LeaseKeepAliveError(_) => Kind::LeaseGone,
            _ => Kind::Broken,
        };
        Self { kind, source }
    }

    /// The fault of a transaction that writes: it names no revision, so what is out of range is its reply.
    pub(super) fn of_write(self) -> Self {
        let kind = match self.kind {
            Kind::Compacted => Kind::Broken,
            kind => kind,
        };
        Self { kind, ..self }
    }

    fn kind_of(code: Code) -> Kind {
        match code {
            Code::NotFound => Kind::LeaseGone,
            Code::FailedPrecondition => Kind::LeaseExists,
            Code::ResourceExhausted => Kind::Exhausted,
            Code::OutOfRange => Kind::Compacted,
            Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::AlreadyExists
            | Code::Unimplemented => Kind::Refused,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Kind::Broken,
        }
    }

    /// As the store's error, where the call that failed only reads: the write was never sent.
    pub(super) fn into_unsent(self) -> StoreError {
        StoreError::Failed {
            failure: Failure::Unavailable,
            outcome: Outcome::NotApplied,
            source: Some(Box::new(self.source)),
        }
    }

    /// As the store's error, where the caller has no better answer.
    pub(super) fn into_error(self) -> StoreError {
        let (failure, outcome) = match self.kind {
            Kind::LeaseGone | Kind::LeaseExists | Kind::Refused | Kind::Compacted => {
                (Failure::Unavailable, Outcome::NotApplied)
            }
            Kind::Exhausted => (Failure::NoSpace, Outcome::Unknown),
            Kind::Broken => (Failure::Unavailable, Outcome::Unknown),
        };
        StoreError::Failed {
            failure,
            outcome,
            source: Some(Box::new(self.source)),
        }
    }
}
