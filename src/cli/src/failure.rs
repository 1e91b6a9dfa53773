//! How commands fail. What parts of this program and servers say is told in the words of the command line.

use std::error::Error;
use std::{fmt, io};

use palisade_client::LeaseError;

mod client;
mod database;
mod settings;

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
    /// No coordinator, or none whose store can be reached, served the call; or the database is away.
    Unreachable,
    /// The lease was lost while it was held.
    Lost,
    /// Another session holds the resource, and the wait was over.
    Busy,
    /// A coordinator's settings, in a file or in the environment, cannot be used.
    Config,
    /// Stopped by this signal before the work was done.
    Signal(u8),
    /// A command that was run for the user ended with this code.
    Child(u8),
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
            Self::Config => 78,
            Self::Signal(number) => 128_u8.saturating_add(number),
            Self::Child(code) => code,
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

    /// What is nothing to tell: the code says it all.
    pub(crate) fn silent(kind: Kind) -> Self {
        Self::new(kind, "")
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    /// The same failure, and what it was that failed.
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> Self {
        let message = format!("{} ({what})", self.message);
        Self { message, ..self }
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

impl Error for Failure {}

impl From<LeaseError> for Failure {
    fn from(error: LeaseError) -> Self {
        Self::new(Kind::Lost, error.to_string())
    }
}

/// An error and the one that caused it.
pub(crate) fn with_cause(error: &dyn Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {source}"),
    }
}
