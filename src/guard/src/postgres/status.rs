use palisade_token::ResourceName;
use sqlx::{PgPool, Row};

use super::{Guard, errors, sql};
use crate::{Fence, GuardError};

/// What became of a transaction ([`Guard::outcome`]).
///
/// ```no_run
/// use palisade_guard::GuardError;
/// use palisade_guard::postgres::{Guard, Outcome};
///
/// /// What to do after a COMMIT that was not answered.
/// async fn next(guard: &Guard, pool: &sqlx::PgPool, id: i64) -> Result<&'static str, GuardError> {
///     Ok(match guard.outcome(pool, id).await? {
///         Outcome::Committed => "go on",
///         Outcome::Aborted => "run it again",
///         Outcome::InProgress => "ask again, and run nothing until then",
///         _ => "look into the data: the server does not remember", // `Forgotten`
///     })
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It has committed.
    Committed,
    /// It was rolled back, or ended with its server.
    Aborted,
    /// It still runs: ask again.
    InProgress,
    /// It is older than what the server remembers.
    Forgotten,
}

impl Guard {
    /// Reads the fence of a resource, `None` if it was never sealed.
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::postgres::Guard;
    /// # async fn example(
    /// #     pool: &sqlx::PgPool,
    /// #     grant: &palisade_token::Grant,
    /// # ) -> Result<(), GuardError> {
    /// match Guard::new().fence(pool, &grant.resource).await? {
    ///     Some(fence) => println!("{} was sealed at {:?}", fence.token, fence.sealed_at),
    ///     None => println!("{} was never sealed", grant.resource),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn fence(
        &self,
        pool: &PgPool,
        resource: &ResourceName,
    ) -> Result<Option<Fence>, GuardError> {
        let text = format!(
            "SELECT token, holder, (extract(epoch FROM sealed_at) * 1000000)::bigint AS sealed_at \
             FROM palisade.status({})",
            sql::literal(resource.as_str())
        );
        let row = sqlx::raw_sql(sql::message(text))
            .fetch_optional(pool)
            .await
            .map_err(errors::plain)?;
        row.map(|row| {
            let token: i64 = row.try_get("token").map_err(errors::plain)?;
            let holder: String = row.try_get("holder").map_err(errors::plain)?;
            let micros: i64 = row.try_get("sealed_at").map_err(errors::plain)?;
            Fence::from_store(resource, token, &holder, micros).ok_or_else(|| {
                GuardError::Backend(Box::from("palisade.fence holds what is no fence"))
            })
        })
        .transpose()
    }

    /// Says what became of a transaction whose COMMIT was not answered, by the id in
    /// [`GuardError::CommitUnknown`]. Ask the server that ran it: after a failover to one that has lost
    /// acknowledged commits the answer counts for what that server holds.
    ///
    /// # Errors
    /// [`GuardError::Backend`], also for an id from the future.
    pub async fn outcome(&self, pool: &PgPool, transaction: i64) -> Result<Outcome, GuardError> {
        let text = format!("SELECT pg_xact_status('{transaction}'::xid8) AS status");
        let status: Option<String> = sqlx::raw_sql(sql::message(text))
            .fetch_one(pool)
            .await
            .and_then(|row| row.try_get("status"))
            .map_err(errors::plain)?;
        Ok(match status.as_deref() {
            Some("committed") => Outcome::Committed,
            Some("aborted") => Outcome::Aborted,
            Some(_) => Outcome::InProgress,
            None => Outcome::Forgotten,
        })
    }
}
