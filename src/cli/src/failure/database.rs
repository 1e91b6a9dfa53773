//! A database's own words may be shown, as it is the caller's own; those of the library that talks to it say
//! nothing to people. That library's are in the log (`PALISADE_LOG=debug`).

use palisade_guard::GuardError;

use super::{Failure, Kind, with_cause};

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        tracing::debug!(?error, "the database failed");
        told(&error)
    }
}

impl From<GuardError> for Failure {
    fn from(error: GuardError) -> Self {
        tracing::debug!(?error, "the guard failed");
        match (&error, cause(&error).map(told)) {
            // Its own words say nothing beyond those of the database.
            (GuardError::Backend(_), Some(cause)) => cause,
            (_, Some(cause)) => Self::new(cause.kind, format!("{error}: {cause}")),
            (_, None) => Self::other(with_cause(&error)),
        }
    }
}

/// The database's error behind a guard's.
fn cause(error: &GuardError) -> Option<&sqlx::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn told(error: &sqlx::Error) -> Failure {
    let away = |why: &dyn std::fmt::Display| {
        Failure::new(
            Kind::Unreachable,
            format!("the database cannot be reached: {why}"),
        )
    };
    match error {
        sqlx::Error::Io(error) => away(error),
        sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => away(&"it does not answer"),
        sqlx::Error::Database(error) => match error.code().as_deref() {
            // connection exceptions; too many connections; starting, ending, restarting.
            Some(code) if code.starts_with("08") || code == "53300" || code.starts_with("57P0") => {
                away(&error.message())
            }
            _ => Failure::other(format!("the database refused: {}", error.message())),
        },
        sqlx::Error::Tls(_) => {
            Failure::other("no TLS connection to the database; see sslmode in its URL")
        }
        sqlx::Error::Protocol(_) => Failure::other("what answers there is no such database"),
        _ => Failure::other("the database cannot be used; PALISADE_LOG=debug says more"),
    }
}
