use std::time::Duration;

use sqlx::{PgPool, Row};

use crate::GuardError;
use crate::metrics::{self, Purged, Rows, StoreKind};
use crate::postgres::lent::Lent;
use crate::postgres::{Guard, errors, sql};

impl Guard {
    /// How many answers one transaction of a purge deletes: few enough that nobody waits for it, and that
    /// its locks and log stay small.
    pub const PURGE_BATCH: u32 = 1_000;

    /// Deletes answers whose lifetime is over, the oldest first, in transactions of
    /// [`Guard::PURGE_BATCH`], until none is left or `most` are deleted. Returns how many were deleted.
    ///
    /// Attempts that are not finished are never deleted, whatever their age: that a call may have been made is
    /// not forgotten. Any number of purges may run at once, and need no lease. The gauges of keys are set besides
    /// (`metrics`): run it every few minutes.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, postgres::Guard};
    /// # async fn purge(pool: &sqlx::PgPool) -> Result<(), GuardError> {
    /// let purged = Guard::new().purge_effects(pool, 100_000).await?;
    /// println!("{purged} answers are forgotten"); // if all 100,000: come again soon
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::Backend`]; what was deleted before it stays deleted.
    pub async fn purge_effects(&self, pool: &PgPool, most: u64) -> Result<u64, GuardError> {
        let mut purged = 0;
        while purged < most {
            let batch = u64::from(Self::PURGE_BATCH).min(most - purged);
            let text = format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
                 SELECT palisade.purge_effects({batch}) AS purged; COMMIT"
            );
            let rows = Lent::from(pool).await?.fetch(sql::message(text)).await;
            let rows = rows.map_err(errors::plain)?;
            let deleted: i64 = match rows.first() {
                Some(row) => row.try_get("purged").map_err(errors::plain)?,
                None => 0,
            };
            let deleted = u64::try_from(deleted).unwrap_or_default();
            metrics::purged(StoreKind::Postgres, Purged::Keys, deleted);
            purged += deleted;
            if deleted < batch {
                break;
            }
        }
        observe(pool).await?;
        Ok(purged)
    }
}

/// Sets the gauges of effects: whoever purges does it often enough for them.
async fn observe(pool: &PgPool) -> Result<(), GuardError> {
    let text = "SELECT rows, (extract(epoch FROM oldest_unfinished) * 1000)::bigint AS oldest \
                FROM palisade.effects_backlog()";
    let row = sqlx::raw_sql(text)
        .fetch_one(pool)
        .await
        .map_err(errors::plain)?;
    let rows: i64 = row.try_get("rows").map_err(errors::plain)?;
    let oldest: Option<i64> = row.try_get("oldest").map_err(errors::plain)?;
    let oldest = u64::try_from(oldest.unwrap_or_default()).unwrap_or_default();
    metrics::rows(
        StoreKind::Postgres,
        Rows::Keys,
        u64::try_from(rows).unwrap_or_default(),
    );
    metrics::oldest_in_progress(StoreKind::Postgres, Duration::from_millis(oldest));
    Ok(())
}
