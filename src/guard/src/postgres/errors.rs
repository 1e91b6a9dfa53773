//! What PostgreSQL's errors mean here. Decided by SQLSTATE and severity only.

use palisade_token::{FencingToken, ResourceName};
use serde::Deserialize;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::GuardError;
use crate::effects::Name;

/// The detail of ZF001 to ZF007.
#[derive(Deserialize)]
struct Facts {
    resource: String,
    presented: Option<i64>,
    fence: Option<i64>,
    name: Option<String>,
    expected: Option<u64>,
    #[serde(alias = "got")]
    found: Option<u64>,
}

fn database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

/// Whether the server has refused the statement in a session that lives on. Whatever ends the session says
/// nothing about the statement: a pooler, for one, sends FATAL for a server that it has lost.
pub(super) fn is_refused(error: &sqlx::Error) -> bool {
    database(error)
        .is_some_and(|error| !matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}

pub(super) fn code(error: &sqlx::Error) -> Option<&str> {
    database(error).map(PgDatabaseError::code)
}

/// The error as it is, without knowing which grants the transaction had.
pub(crate) fn plain(error: sqlx::Error) -> GuardError {
    if let Some(refusal) = refusal(&error) {
        return refusal;
    }
    match code(&error) {
        // serialization_failure, deadlock_detected
        Some("40001" | "40P01") => GuardError::Serialization(Box::new(error)),
        // in_failed_sql_transaction: what failed before was told before.
        Some("25P02") => GuardError::RolledBack(Some(Box::new(error))),
        _ => GuardError::Backend(Box::new(error)),
    }
}

/// A refusal of the guard, with both tokens.
fn refusal(error: &sqlx::Error) -> Option<GuardError> {
    database(error).and_then(from_facts)
}

fn from_facts(error: &PgDatabaseError) -> Option<GuardError> {
    from_detail(error.code(), error.detail()?, error.table())
}

fn from_detail(code: &str, detail: &str, table: Option<&str>) -> Option<GuardError> {
    if !matches!(
        code,
        "ZF001" | "ZF002" | "ZF003" | "ZF004" | "ZF005" | "ZF006" | "ZF007"
    ) {
        return None;
    }
    let facts: Facts = serde_json::from_str(detail).ok()?;
    if code == "ZF003" {
        return Some(GuardError::Unguarded {
            resource: facts.resource,
            table: table
                .filter(|table| !table.is_empty())
                .map(ToOwned::to_owned),
        });
    }
    if matches!(code, "ZF005" | "ZF006" | "ZF007") {
        return mismatch(code, facts);
    }
    let resource = ResourceName::new(&facts.resource).ok()?;
    let presented = FencingToken::try_from(facts.presented?).ok()?;
    let fence = facts.fence.and_then(|fence| fence.try_into().ok());
    match code {
        "ZF001" => Some(GuardError::Stale {
            resource,
            presented,
            fence: fence?,
        }),
        "ZF002" => Some(GuardError::Unsealed {
            resource,
            presented,
            fence,
        }),
        _ => Some(GuardError::Collision {
            resource,
            token: presented,
        }),
    }
}

/// A position that is not where the caller believed.
fn mismatch(code: &str, facts: Facts) -> Option<GuardError> {
    let name = Name::new(facts.name?).ok()?;
    let (expected, found) = (facts.expected?, facts.found?);
    Some(match code {
        "ZF005" => GuardError::SequenceGap {
            producer: name,
            expected,
            got: found,
        },
        "ZF006" => GuardError::OffsetConflict {
            cursor: name,
            expected,
            found,
        },
        _ => GuardError::VersionConflict {
            entity: name,
            expected,
            found,
        },
    })
}

/// An error that a server, or what stands between, has made: SQLSTATE, detail, table, each a line.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_refusal(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let (code, detail) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    if let Some(error) = from_detail(code, detail, lines.next()) {
        assert!(code.starts_with("ZF00"), "{code}");
        crate::fuzz::can_be_told(error);
    }
}
