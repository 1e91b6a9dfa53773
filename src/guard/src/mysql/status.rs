use palisade_token::ResourceName;
use sqlx::{MySqlPool, Row};

use super::{Guard, errors, sql};
use crate::{Fence, GuardError};

/// A setting of the server with which a seal, or another acknowledged commit, can be lost
/// ([`Guard::weaknesses`]).
///
/// ```no_run
/// use palisade_guard::mysql::{Guard, Weakness};
///
/// # async fn example(pool: &sqlx::MySqlPool) -> Result<(), Box<dyn std::error::Error>> {
/// for weakness in Guard::new().weaknesses(pool).await? {
///     match weakness {
///         Weakness::LogNotFlushed => return Err(weakness.into()), // a seal would not be safe
///         other => eprintln!("{other}"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Weakness {
    /// `InnoDB` does not flush its log at each commit.
    #[error("innodb_flush_log_at_trx_commit is not 1: a crash of the machine can take a seal back")]
    LogNotFlushed,
    /// The binary log is not flushed at each commit: a crash can take commits from replicas and from recovery.
    #[error(
        "sync_binlog is not 1: a crash of the machine can take a seal back from the binary log"
    )]
    BinaryLogNotFlushed,
    /// Replicas run statements, and their triggers with them.
    #[error("binlog_format is STATEMENT: replicas would fire the guard's triggers")]
    StatementReplication,
}

impl Guard {
    /// Reads the fence of a resource, `None` if it was never sealed.
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::mysql::Guard;
    /// # async fn example(
    /// #     pool: &sqlx::MySqlPool,
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
        pool: &MySqlPool,
        resource: &ResourceName,
    ) -> Result<Option<Fence>, GuardError> {
        let rows = sqlx::raw_sql(sql::status(resource))
            .fetch_all(pool)
            .await
            .map_err(errors::plain)?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let token: i64 = row.try_get("token").map_err(errors::plain)?;
        let holder: String = row.try_get("holder").map_err(errors::plain)?;
        let micros: i64 = row.try_get("sealed_at").map_err(errors::plain)?;
        Fence::from_store(resource, token, &holder, micros)
            .map(Some)
            .ok_or_else(|| GuardError::Backend(Box::from("palisade_fence holds what is no fence")))
    }

    /// The settings of the server with which a seal can be lost, none if it is set up well.
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn weaknesses(&self, pool: &MySqlPool) -> Result<Vec<Weakness>, GuardError> {
        let text = "SELECT CAST(@@GLOBAL.innodb_flush_log_at_trx_commit AS SIGNED) AS log, \
                    CAST(@@GLOBAL.log_bin AS SIGNED) AS logged, CAST(@@GLOBAL.sync_binlog AS SIGNED) AS sync, \
                    CAST(@@GLOBAL.binlog_format = 'STATEMENT' AS SIGNED) AS statements";
        let row = sqlx::raw_sql(text)
            .fetch_one(pool)
            .await
            .map_err(errors::plain)?;
        let number = |name| row.try_get::<i64, _>(name).map_err(errors::plain);
        let is_logged = number("logged")? == 1;
        let found = [
            (number("log")? != 1, Weakness::LogNotFlushed),
            (
                is_logged && number("sync")? != 1,
                Weakness::BinaryLogNotFlushed,
            ),
            (
                is_logged && number("statements")? == 1,
                Weakness::StatementReplication,
            ),
        ];
        Ok(found
            .into_iter()
            .filter_map(|(is_found, weakness)| is_found.then_some(weakness))
            .collect())
    }
}
