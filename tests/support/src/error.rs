use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a server could not be started, steered or stopped.
///
/// `Debug` prints the whole story as text, because tests unwrap it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A program that tests need is not on this machine.
    #[error("{program} was not found: {advice}")]
    Missing {
        /// The program looked for.
        program: String,
        /// What to run or to set.
        advice: String,
    },
    /// The operating system refused something.
    #[error("could not {action}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A server ended when it should have run on.
    #[error("{name} ended ({status}); end of its log {}:\n{tail}", log.display())]
    Exited {
        /// Which server.
        name: String,
        /// How it ended.
        status: String,
        /// Its log file, gone with the server's directory unless logs are kept.
        log: PathBuf,
        /// The last lines of that log.
        tail: String,
    },
    /// Something awaited did not happen.
    #[error("not within {limit:?}: {what}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// For how long.
        limit: Duration,
    },
    /// A tool that was run to the end failed.
    #[error("{command} failed ({status}): {output}")]
    Command {
        /// The tool and its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote to stderr.
        output: String,
    },
    /// An answer was not of the expected form, or the request cannot be served by this version.
    #[error("{0}")]
    Unexpected(String),
}

impl Error {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Whether a server found its port taken, which a start on other ports cures.
    pub(crate) fn is_port_clash(&self) -> bool {
        matches!(self, Self::Exited { tail, .. }
            if tail.to_ascii_lowercase().contains("address already in use"))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
