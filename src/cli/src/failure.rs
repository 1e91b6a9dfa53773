use std::fmt;
use std::io;

use palisade_client::{ClientError, LeaseError, Unavailable};
use palisade_guard::GuardError;

/// Why a command ended without success: a sentence for people, and the code for scripts.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    message: String,
}

/// What a script may decide by. The codes are documented in `palisade --help`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anything that has no code of its own.
    Other,
    /// The command line, or a value in it, cannot be used.
    Usage,
    /// No coordinator, or none whose store can be reached, served the call.
    Unreachable,
    /// The lease was lost while it was held.
    Lost,
    /// Another session holds the resource, and the wait was over.
    Busy,
    /// Stopped by this signal before the work was done.
    Signal(u8),
}

impl Kind {
    /// The exit code: from sysexits.h where it has one, and 128 + N for signal N as shells have it.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::Unreachable => 69,
            Self::Lost => 70,
            Self::Busy => 75,
            Self::Signal(number) => 128_u8.saturating_add(number),
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Says what was being done when the operating system refused.
    pub(crate) fn io(doing: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::other(format!("cannot {doing}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        tracing::debug!(?error, "the call failed");
        let kind = match &error {
            ClientError::Held { .. } | ClientError::WaitExpired { .. } => Kind::Busy,
            ClientError::Invalid { .. } => Kind::Usage,
            ClientError::SessionLost { .. } => Kind::Lost,
            ClientError::Unavailable { .. } => Kind::Unreachable,
            _ => Kind::Other,
        };
        let message = match &error {
            ClientError::Unavailable {
                cause,
                may_have_happened,
                ..
            } => unavailable(*cause, *may_have_happened),
            ClientError::SessionLost { .. } => {
                "the session has ended, and all its leases with it; open a new one".to_owned()
            }
            other => other.to_string(),
        };
        Self::new(kind, message)
    }
}

fn unavailable(cause: Unavailable, may_have_happened: bool) -> String {
    let what = match cause {
        Unavailable::Unreachable => {
            "no coordinator can be reached; start one (`palisade dev`), or name it with --addr or \
             PALISADE_ADDR"
        }
        Unavailable::NoAnswer => {
            "the coordinator did not answer in time; try again, or allow more (--timeout)"
        }
        Unavailable::Store => {
            "the coordinator cannot reach its store; look at its /readyz, and try again"
        }
        Unavailable::Draining => {
            "the coordinator is shutting down; try again, or name another with --addr"
        }
        Unavailable::HistoryRegressed => {
            "the coordinator grants nothing until it trusts its store's history; look at its log"
        }
        Unavailable::WrongCluster => {
            "the coordinator grants nothing: its etcd endpoints are of different clusters; look at its log"
        }
        _ => {
            "the coordinator did not serve the call; try again, and look at its log if that does not help"
        }
    };
    let doubt = if may_have_happened {
        " (the call may have taken effect all the same)"
    } else {
        ""
    };
    format!("{what}{doubt}")
}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        Self::new(Kind::Lost, error.to_string())
    }
}

impl From<GuardError> for Failure {
    fn from(error: GuardError) -> Self {
        Self::other(with_cause(&error))
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::other(format!("the database cannot be used: {error}"))
    }
}

/// An error and the one that caused it: a database is the caller's own here, so its words may be shown.
pub(crate) fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {source}"),
    }
}
