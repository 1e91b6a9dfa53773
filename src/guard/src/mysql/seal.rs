use palisade_token::{Grant, ResourceName};
use sqlx::{MySqlPool, Row};
use tracing::Instrument as _;

use super::lent::Lent;
use super::{Guard, Sealed, errors, sql};
use crate::metrics::{self, StoreKind, Timer};
use crate::{Blocker, GuardError, spans};

impl Guard {
    /// Raises the fence to the grant and commits that: once this returns, no write with a lower token
    /// commits (I2). Do it before the first read. Waits for the guarded transactions that are running; new
    /// ones wait behind it. The same grant may be sealed any number of times.
    ///
    /// If the future is dropped before it is ready, it may be sealed or not, as late as its wait is long.
    ///
    /// # Errors
    /// [`GuardError::Stale`] and [`GuardError::Collision`] are final; [`GuardError::SealTimeout`] names who
    /// keeps it waiting; [`GuardError::Serialization`] after a deadlock: seal again; after
    /// [`GuardError::Backend`] it may be sealed or not: seal again.
    pub async fn seal(&self, pool: &MySqlPool, grant: &Grant) -> Result<Sealed, GuardError> {
        let timer = Timer::start();
        let sealed = self
            .raise(pool, grant)
            .instrument(spans::seal(StoreKind::Mysql, grant))
            .await;
        metrics::seal(StoreKind::Mysql, timer, &sealed);
        sealed
    }

    async fn raise(&self, pool: &MySqlPool, grant: &Grant) -> Result<Sealed, GuardError> {
        let wait = self.wait();
        let mut lent = Lent::from(pool).await?;
        let Err(error) = lent.run(sql::seal(grant, wait)).await else {
            lent.give_back_after(sql::AFTER_SEAL).await;
            return Ok(Sealed::new(grant.clone()));
        };
        let number = errors::number(&error);
        let too_long = number.is_some_and(|number| {
            number == errors::LOCK_WAIT || errors::STATEMENT_LIMITS.contains(&number)
        });
        if too_long {
            lent.give_back_after(sql::AFTER_SEAL).await;
            return Err(GuardError::SealTimeout {
                resource: grant.resource.clone(),
                waited: wait,
                blockers: blockers(pool, &grant.resource).await?,
            });
        }
        if !errors::is_refused(&error) {
            return Err(errors::plain(error));
        }
        let error = lent.explain(error).await;
        lent.give_back_after(sql::AFTER_SEAL).await;
        Err(error)
    }
}

async fn blockers(pool: &MySqlPool, resource: &ResourceName) -> Result<Vec<Blocker>, GuardError> {
    let rows = sqlx::raw_sql(sql::blockers(resource))
        .fetch_all(pool)
        .await
        .map_err(errors::plain)?;
    rows.iter()
        .map(|row| {
            let id: i64 = row.try_get("id")?;
            let application = row.try_get("application")?;
            let state = row.try_get("state")?;
            Ok(id.try_into().ok().map(|pid| Blocker::Session {
                pid,
                application,
                state,
            }))
        })
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()
        .map_err(errors::plain)
}
