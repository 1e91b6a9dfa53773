//! What PostgreSQL's errors mean here. Decided by SQLSTATE and severity only.

use palisade_token::{FencingToken, ResourceName};
use serde::Deserialize;
use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::GuardError;

/// Whether the server has answered, or the session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It refused the statement; the session lives.
    Refused,
    /// It ended the session (FATAL) after all statements that it had answered before.
    Ended,
    /// Nothing is known of what it did.
    Lost,
}

/// The detail of ZF001 to ZF004.
#[derive(Deserialize)]
struct Facts {
    resource: String,
    presented: Option<i64>,
    fence: Option<i64>,
}

fn database(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

pub(super) fn answer(error: &sqlx::Error) -> Answer {
    match database(error).map(PgDatabaseError::severity) {
        Some(PgSeverity::Fatal | PgSeverity::Panic) => Answer::Ended,
        Some(_) => Answer::Refused,
        None => Answer::Lost,
    }
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
    let code = error.code();
    if !matches!(code, "ZF001" | "ZF002" | "ZF003" | "ZF004") {
        return None;
    }
    let facts: Facts = serde_json::from_str(error.detail()?).ok()?;
    if code == "ZF003" {
        return Some(GuardError::Unguarded {
            resource: facts.resource,
        });
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
