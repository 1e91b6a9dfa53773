use palisade_token::{Grant, ResourceName};
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use tracing::Instrument as _;

use super::immediate::Immediate;
use super::{Guard, Sealed, errors};
use crate::decide::{self, Mark, Sealing};
use crate::metrics::{self, StoreKind, Timer};
use crate::{Fence, GuardError, spans};

/// `PRAGMA synchronous` FULL: the least at which SQLite keeps a commit over a loss of power.
const FULL: i64 = 2;

impl Guard {
    /// Raises the fence to the grant and commits that durably: once this returns, no write with a lower
    /// token commits (I2). Do it before the first read. The same grant may be sealed any number of times.
    ///
    /// # Errors
    /// [`GuardError::Stale`] and [`GuardError::Collision`] are final; [`GuardError::Serialization`]: another
    /// writer was in the way for longer than the connection's `busy_timeout`; after
    /// [`GuardError::Backend`] or [`GuardError::CommitUnknown`] it may be sealed or not: seal again.
    pub async fn seal(&self, pool: &SqlitePool, grant: &Grant) -> Result<Sealed, GuardError> {
        let timer = Timer::start();
        let sealed = raise_durably(pool, grant).instrument(spans::seal(StoreKind::Sqlite, grant));
        let sealed = sealed.await;
        metrics::seal(StoreKind::Sqlite, timer, &sealed);
        sealed
    }

    /// Reads the fence of a resource, `None` if it was never sealed.
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn fence(
        &self,
        pool: &SqlitePool,
        resource: &ResourceName,
    ) -> Result<Option<Fence>, GuardError> {
        let mut connection = pool.acquire().await.map_err(errors::plain)?;
        read(&mut connection, resource).await
    }
}

async fn raise_durably(pool: &SqlitePool, grant: &Grant) -> Result<Sealed, GuardError> {
    let mut connection = pool.acquire().await.map_err(errors::plain)?;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&mut *connection)
        .await
        .map_err(errors::plain)?;
    if synchronous < FULL {
        // It cannot be changed in a transaction. Cut short before it is put back, it costs time only.
        sqlx::raw_sql("PRAGMA synchronous = FULL")
            .execute(&mut *connection)
            .await
            .map_err(errors::plain)?;
    }
    let (connection, raised) = raise(connection, grant).await?;
    if let (Some(mut connection), true) = (connection, synchronous < FULL) {
        let back = sqlx::AssertSqlSafe(format!("PRAGMA synchronous = {synchronous}"));
        if let Err(error) = sqlx::raw_sql(back).execute(&mut *connection).await {
            tracing::debug!(%error, "the connection stays at synchronous = FULL");
        }
    }
    raised?;
    Ok(Sealed::new(grant.clone()))
}

/// The connection, if it is known to be in no transaction, and whether the fence was raised.
async fn raise(
    connection: PoolConnection<Sqlite>,
    grant: &Grant,
) -> Result<(Option<PoolConnection<Sqlite>>, Result<(), GuardError>), GuardError> {
    let mut tx = Immediate::begin_on(connection).await?;
    let fence = read(&mut tx, &grant.resource).await?.map(mark);
    let refusal = match decide::seal(grant.into(), fence) {
        Sealing::Already => {
            write_again(&mut tx, &grant.resource).await?;
            None
        }
        Sealing::Raise => {
            write(&mut tx, grant).await?;
            None
        }
        Sealing::Stale { fence } => Some(GuardError::Stale {
            resource: grant.resource.clone(),
            presented: grant.token,
            fence,
        }),
        Sealing::Collision => Some(GuardError::Collision {
            resource: grant.resource.clone(),
            token: grant.token,
        }),
    };
    if let Some(refusal) = refusal {
        return Ok((Some(tx.rollback().await), Err(refusal)));
    }
    Ok(match tx.commit().await {
        Ok(connection) => (Some(connection), Ok(())),
        Err(error) => (None, Err(error)),
    })
}

async fn write(connection: &mut SqliteConnection, grant: &Grant) -> Result<(), GuardError> {
    sqlx::query(
        "INSERT INTO main.palisade_fence (resource, token, holder, sealed_at) \
         VALUES (?, ?, ?, CAST(strftime('%s', 'now') AS INTEGER) * 1000000) \
         ON CONFLICT (resource) DO UPDATE SET \
         token = excluded.token, holder = excluded.holder, sealed_at = excluded.sealed_at",
    )
    .bind(grant.resource.as_str())
    .bind(grant.token.as_i64())
    .bind(grant.holder.to_string())
    .execute(connection)
    .await
    .map(drop)
    .map_err(errors::plain)
}

/// A seal made with plain SQL may have been committed at less than FULL, and not be on the disk yet. A commit
/// that changes nothing would not flush it, and SQLite skips the write of a row that is as before: hence
/// the microsecond.
async fn write_again(
    connection: &mut SqliteConnection,
    resource: &ResourceName,
) -> Result<(), GuardError> {
    sqlx::query("UPDATE main.palisade_fence SET sealed_at = sealed_at + 1 WHERE resource = ?")
        .bind(resource.as_str())
        .execute(connection)
        .await
        .map(drop)
        .map_err(errors::plain)
}

pub(super) fn mark(fence: Fence) -> Mark {
    Mark {
        token: fence.token,
        holder: fence.holder,
    }
}

pub(super) async fn read(
    connection: &mut SqliteConnection,
    resource: &ResourceName,
) -> Result<Option<Fence>, GuardError> {
    let row: Option<(i64, String, i64)> = sqlx::query_as(
        "SELECT token, holder, sealed_at FROM main.palisade_fence WHERE resource = ?",
    )
    .bind(resource.as_str())
    .fetch_optional(connection)
    .await
    .map_err(errors::plain)?;
    answer(resource, row)
}

/// The fence that a row tells of.
pub(super) fn answer(
    resource: &ResourceName,
    rows: impl IntoIterator<Item = (i64, String, i64)>,
) -> Result<Option<Fence>, GuardError> {
    let row = rows.into_iter().next();
    row.map(|(token, holder, sealed_at)| {
        Fence::from_store(resource, token, &holder, sealed_at)
            .ok_or_else(|| GuardError::Backend(Box::from("palisade_fence holds what is no fence")))
    })
    .transpose()
}
