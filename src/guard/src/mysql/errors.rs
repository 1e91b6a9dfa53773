//! What MySQL's errors mean here. Decided by SQLSTATE and error number only.

use palisade_token::{FencingToken, ResourceName};
use serde::Deserialize;
use sqlx::mysql::MySqlDatabaseError;

use crate::GuardError;

/// Ends a name that was cut to fit into a message. No name has it.
const CUT: char = '~';

/// What a refusal is about: the message of ZF001 to ZF004, and `@palisade_refusal`.
#[derive(Deserialize)]
pub(super) struct Facts {
    resource: String,
    presented: Option<i64>,
    fence: Option<i64>,
    table: Option<String>,
}

impl Facts {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// What a cut name must begin with; `None` if it was not cut.
    pub(super) fn cut(&self) -> Option<&str> {
        self.resource.strip_suffix(CUT)
    }

    pub(super) fn with_resource(self, resource: &ResourceName) -> Self {
        Self {
            resource: resource.as_str().to_owned(),
            ..self
        }
    }

    pub(super) fn is_of(&self, token: FencingToken) -> bool {
        self.presented == Some(token.as_i64())
    }

    pub(super) fn into_error(self, refusal: Refusal) -> Option<GuardError> {
        if refusal == Refusal::Unguarded {
            return Some(GuardError::Unguarded {
                resource: self.resource,
                table: self.table,
            });
        }
        let resource = ResourceName::new(&self.resource).ok()?;
        let presented = FencingToken::try_from(self.presented?).ok()?;
        let fence = self.fence.and_then(|fence| fence.try_into().ok());
        Some(match refusal {
            Refusal::Stale => GuardError::Stale {
                resource,
                presented,
                fence: fence?,
            },
            Refusal::Unsealed => GuardError::Unsealed {
                resource,
                presented,
                fence,
            },
            _ => GuardError::Collision {
                resource,
                token: presented,
            },
        })
    }
}

/// How the guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Stale,
    Unsealed,
    Unguarded,
    Collision,
}

fn database(error: &sqlx::Error) -> Option<&MySqlDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

pub(super) fn number(error: &sqlx::Error) -> Option<u16> {
    database(error).map(MySqlDatabaseError::number)
}

/// Whether the server itself has refused the statement, which says that the session lives on, and that nothing
/// after it in the message was done.
pub(super) fn is_refused(error: &sqlx::Error) -> bool {
    number(error).is_some_and(is_the_servers)
}

/// A proxy in between tells of a server that it has lost by an error packet of its own: with a number of the
/// client library (2000 to 2999) or of its own (`ProxySQL`: 9000 to 9999). The server may have gone on.
const fn is_the_servers(number: u16) -> bool {
    !matches!(number, 2000..=2999 | 9000..=9999)
}

/// How the guard has refused, if it has. Both must agree: a number or a state alone may be anybody's.
pub(super) fn refusal(error: &sqlx::Error) -> Option<Refusal> {
    let error = database(error)?;
    match (error.code()?, error.number()) {
        ("ZF001", 51_001) => Some(Refusal::Stale),
        ("ZF002", 51_002) => Some(Refusal::Unsealed),
        ("ZF003", 51_003) => Some(Refusal::Unguarded),
        ("ZF004", 51_004) => Some(Refusal::Collision),
        _ => None,
    }
}

/// What a refusal is about, as far as its message tells: data, that nothing is decided by.
pub(super) fn facts(error: &sqlx::Error) -> Option<Facts> {
    Facts::parse(database(error)?.message())
}

/// `palisade_leave`: the transaction was rolled back before.
pub(super) const OVER: u16 = 51_005;

/// A lock was not granted in time.
pub(super) const LOCK_WAIT: u16 = 1205;

/// A statement ran into its own time limit: MariaDB's, MySQL's.
pub(super) const STATEMENT_LIMITS: [u16; 2] = [1969, 3024];

/// `ER_LOCK_DEADLOCK`, `ER_CHECKREAD` (a locking read found what its snapshot has not, MariaDB 11), and
/// `ER_LOCK_NOWAIT`.
const MET_ANOTHER: [u16; 3] = [1213, 1020, 3572];

/// The error as a [`GuardError`], or itself if nothing is known of it.
pub(crate) fn known(error: sqlx::Error) -> Result<GuardError, sqlx::Error> {
    if let Some(refusal) = refusal(&error) {
        let told =
            facts(&error).filter(|facts| refusal == Refusal::Unguarded || facts.cut().is_none());
        return told
            .and_then(|facts| facts.into_error(refusal))
            .ok_or(error);
    }
    match number(&error) {
        Some(OVER) => Ok(GuardError::RolledBack(None)),
        Some(number) if number == LOCK_WAIT || MET_ANOTHER.contains(&number) => {
            Ok(GuardError::Serialization(Box::new(error)))
        }
        _ => Err(error),
    }
}

pub(super) fn plain(error: sqlx::Error) -> GuardError {
    known(error).unwrap_or_else(|error| GuardError::Backend(Box::new(error)))
}

/// A message that a server, or what stands between, has made, after the number of how it refuses.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_refusal(input: &[u8]) {
    let Some((number, text)) = input.split_first() else {
        return;
    };
    let refusals = [
        Refusal::Stale,
        Refusal::Unsealed,
        Refusal::Unguarded,
        Refusal::Collision,
    ];
    let refusal = refusals[usize::from(*number) % refusals.len()];
    let facts = std::str::from_utf8(text).ok().and_then(Facts::parse);
    let Some(facts) = facts else {
        return;
    };
    let is_cut = facts.cut().is_some();
    if let Some(error) = facts.into_error(refusal) {
        // A name that was cut is nobody's resource.
        assert!(!is_cut || refusal == Refusal::Unguarded);
        crate::fuzz::can_be_told(error);
    }
}

#[cfg(test)]
mod tests {
    use super::is_the_servers;

    #[test]
    fn what_a_proxy_says_of_a_lost_server_is_no_refusal() {
        for own in [1053, 1213, 1644, 3024, 4031, 51_001, 51_005] {
            assert!(is_the_servers(own), "{own}");
        }
        for other in [2006, 2013, 9001, 9999] {
            assert!(!is_the_servers(other), "{other}");
        }
    }
}
