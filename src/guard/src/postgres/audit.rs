use sqlx::{PgPool, Row, postgres::PgRow};

use super::{Guard, errors};
use crate::GuardError;

/// Whether a [`Finding`] is a hole.
///
/// A check before a deployment, which holes fail:
///
/// ```no_run
/// use palisade_guard::postgres::{Guard, Severity};
///
/// # async fn example(pool: &sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
/// let findings = Guard::new().audit(pool).await?;
/// if findings.iter().any(|finding| finding.severity == Severity::Error) {
///     return Err("a stale write could pass".into());
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// It is open now: a stale write could pass.
    Error,
    /// It is not open, but something is amiss, or could come to be.
    Warning,
}

/// What [`Guard::audit`] has found, and what to do about it.
///
/// ```no_run
/// use palisade_guard::postgres::{Finding, Guard};
///
/// # async fn example(pool: &sqlx::PgPool) -> Result<(), palisade_guard::GuardError> {
/// for finding in Guard::new().audit(pool).await? {
///     let Finding { kind, object, problem, advice, .. } = finding;
///     println!("{kind} at {object}: {problem}. {advice}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Whether it is a hole.
    pub severity: Severity,
    /// What kind it is: `weak-trigger`, `open-below`, `other-history`, … Stable, for programs.
    pub kind: String,
    /// The table, setting or other thing that it is about.
    pub object: String,
    /// What is protected there: a resource, or as `accounts/{id}` one for each row.
    pub resource: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub advice: String,
}

impl Guard {
    /// Looks for what goes past the guard: partitions, parents and children without it, triggers that are
    /// disabled, altered or not ALWAYS, tables that logical replication writes, a fence that does not keep
    /// itself, fences that were sealed before a restore or a failover; and for settings that put seals at
    /// risk. Errors come first. It sees tables that are protected, or are above or below one: a table
    /// that should be and is not, it cannot know.
    ///
    /// # Errors
    /// [`GuardError::Backend`], also for a role that may not ask (`palisade.grant_owner` lets it).
    pub async fn audit(&self, pool: &PgPool) -> Result<Vec<Finding>, GuardError> {
        let rows = sqlx::raw_sql("SELECT * FROM palisade.audit()")
            .fetch_all(pool)
            .await
            .map_err(errors::plain)?;
        rows.iter()
            .map(finding)
            .collect::<Result<_, _>>()
            .map_err(errors::plain)
    }
}

fn finding(row: &PgRow) -> Result<Finding, sqlx::Error> {
    let severity: String = row.try_get("severity")?;
    Ok(Finding {
        severity: match severity.as_str() {
            "warning" => Severity::Warning,
            _ => Severity::Error,
        },
        kind: row.try_get("finding")?,
        object: row.try_get("object")?,
        resource: row.try_get("resource")?,
        problem: row.try_get("problem")?,
        advice: row.try_get("advice")?,
    })
}
