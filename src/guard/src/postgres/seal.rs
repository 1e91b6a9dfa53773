use palisade_token::{Grant, ResourceName};
use sqlx::{PgPool, Row};
use tracing::Instrument as _;

use super::lent::Lent;
use super::{Guard, SealPolicy, Sealed, errors, sql};
use crate::metrics::{self, StoreKind, Timer};
use crate::{Blocker, GuardError, spans};

impl Guard {
    /// Raises the fence to the grant and commits that durably: once this returns, no write with a lower
    /// token commits (I2). Do it before the first read. Waits for the guarded transactions that are
    /// running; new ones wait behind it. The same grant may be sealed any number of times.
    ///
    /// # Errors
    /// [`GuardError::Stale`] and [`GuardError::Collision`] are final; [`GuardError::SealTimeout`] names who
    /// kept it waiting; after [`GuardError::Backend`] it may be sealed or not: seal again.
    pub async fn seal(&self, pool: &PgPool, grant: &Grant) -> Result<Sealed, GuardError> {
        let timer = Timer::start();
        let sealing = self.raise(pool, grant);
        let sealed = sealing.instrument(spans::seal(StoreKind::Postgres, grant));
        let sealed = sealed.await;
        metrics::seal(StoreKind::Postgres, timer, &sealed);
        sealed
    }

    async fn raise(&self, pool: &PgPool, grant: &Grant) -> Result<Sealed, GuardError> {
        let wait = self.seal_policy.wait();
        let mut attempt = 1;
        loop {
            let lent = Lent::from(pool).await?;
            let Err(error) = lent.run(sql::seal(grant, wait.as_millis())).await else {
                tracing::debug!(resource = %grant.resource, token = %grant.token, "sealed");
                return Ok(Sealed::new(grant.clone()));
            };
            // lock_not_available, and query_canceled by a statement_timeout that is shorter.
            if !matches!(errors::code(&error), Some("55P03" | "57014")) {
                return Err(errors::plain(error));
            }
            let blockers = blockers(pool, &grant.resource).await?;
            let again = match self.seal_policy {
                SealPolicy::Wait | SealPolicy::Timeout(_) => false,
                SealPolicy::Terminate { .. } => {
                    attempt < SealPolicy::ATTEMPTS && end(pool, &grant.resource, &blockers).await
                }
            };
            attempt += 1;
            if !again {
                return Err(GuardError::SealTimeout {
                    resource: grant.resource.clone(),
                    waited: wait,
                    blockers,
                });
            }
        }
    }
}

async fn blockers(pool: &PgPool, resource: &ResourceName) -> Result<Vec<Blocker>, GuardError> {
    let text = format!(
        "SELECT pid, gid, application, state FROM palisade.blockers({})",
        sql::literal(resource.as_str())
    );
    let rows = sqlx::raw_sql(sql::message(text))
        .fetch_all(pool)
        .await
        .map_err(errors::plain)?;
    rows.iter()
        .map(|row| {
            Ok(match row.try_get("pid")? {
                Some(pid) => Some(Blocker::Session {
                    pid,
                    application: row.try_get("application")?,
                    state: row.try_get("state")?,
                }),
                None => row
                    .try_get::<Option<String>, _>("gid")?
                    .map(|gid| Blocker::Prepared { gid }),
            })
        })
        .filter_map(Result::transpose)
        .collect::<Result<_, _>>()
        .map_err(errors::plain)
}

/// Ends the sessions that hold the lock now, and the prepared transactions that were seen to. Says
/// whether it had the rights to.
async fn end(pool: &PgPool, resource: &ResourceName, blockers: &[Blocker]) -> bool {
    tracing::warn!(%resource, ?blockers, "ending what keeps the seal waiting");
    // In the statement that finds them: a pid seen earlier may belong to somebody else by now.
    let sessions = format!(
        "SELECT pg_terminate_backend(pid) FROM palisade.blockers({}) WHERE pid IS NOT NULL",
        sql::literal(resource.as_str())
    );
    let prepared = blockers.iter().filter_map(|blocker| match blocker {
        Blocker::Prepared { gid } => Some(format!("ROLLBACK PREPARED {}", sql::literal(gid))),
        Blocker::Session { .. } => None,
    });
    for text in std::iter::once(sessions).chain(prepared) {
        match sqlx::raw_sql(sql::message(text)).execute(pool).await {
            Ok(_) => {}
            // undefined_object: it ended meanwhile.
            Err(error) if errors::code(&error) == Some("42704") => {}
            Err(error) => {
                tracing::warn!(%resource, %error, "could not end what keeps the seal waiting");
                return false;
            }
        }
    }
    true
}
