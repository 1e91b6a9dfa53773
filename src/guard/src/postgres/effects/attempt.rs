use palisade_token::{Grant, ResourceName};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{PgConnection, PgPool, Row};

use super::{
    RELEASE, SAVEPOINT, UNDO, arguments, count, from_json, interval, read_grant, read_time,
    to_answer, unreadable,
};
use crate::GuardError;
use crate::effects::{
    Attempt, Begun, Claim, Fingerprint, IdempotencyKey, KeyPolicy, Outcome, Unfinished,
};
use crate::metrics::{self, Idempotency, Operation, StoreKind, Timer};
use crate::postgres::{Guard, GuardedTx, Sealed, errors, sql};

impl Guard {
    /// Records, in a guarded transaction of its own, that an external call is about to be made for this key.
    /// When it returns an [`Attempt`], that is committed: make the call with [`Attempt::external_key`], then
    /// [`GuardedTx::complete`] the attempt.
    ///
    /// An attempt that was begun and not finished is begun again only by who holds its *own* resource: by a
    /// later holder, whose seal has put the fence above the attempt's token, or by the same grant when the
    /// attempt's lifetime is over. Everybody else gets [`GuardError::InProgress`], however long ago it was.
    ///
    /// # Errors
    /// [`GuardError::InProgress`], [`GuardError::FingerprintMismatch`], [`GuardError::KeyExpired`], and those of
    /// [`Guard::begin`] and [`GuardedTx::commit`]. After [`GuardError::CommitUnknown`] the attempt may be
    /// recorded: make no call, and begin it again; that may have to wait for the attempt's lifetime.
    pub async fn begin_attempt<T: DeserializeOwned>(
        &self,
        pool: &PgPool,
        sealed: &Sealed,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        policy: &KeyPolicy,
    ) -> Result<Begun<T>, GuardError> {
        let timer = Timer::start();
        let grant = sealed.grant().clone();
        let mut tx = self.begin(pool, sealed).await?;
        let claimed = match tx.claim(&grant, key, fingerprint, policy, true).await {
            Ok(claimed) => claimed,
            Err(error) => {
                // Not needed for safety: so that its drop is not counted as a transaction forgotten.
                tx.rollback().await?;
                return Err(error);
            }
        };
        tx.commit().await?;
        metrics::store_answered(StoreKind::Postgres, Operation::Attempt, timer);
        if claimed.claim == Claim::Replayed {
            return Ok(Begun::Replayed {
                value: from_json(claimed.answer.as_deref())?,
                first_seen: claimed.first_seen,
            });
        }
        Ok(Begun::Attempt(Attempt {
            key: key.clone(),
            grant,
            number: claimed.attempt,
            policy: *policy,
            first_seen: claimed.first_seen,
        }))
    }

    /// Lists the attempts of a resource that were begun and not finished, oldest first, at most `most`. A new
    /// holder begins them again after its seal.
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn unfinished(
        &self,
        pool: &PgPool,
        resource: &ResourceName,
        most: u16,
    ) -> Result<Vec<Unfinished>, GuardError> {
        let text = format!(
            "SELECT tenant, operation, key, {resource} AS resource, token, holder, attempt, \
             (extract(epoch FROM first_seen) * 1000000)::bigint AS first_seen, \
             (extract(epoch FROM attempt_until) * 1000000)::bigint AS until \
             FROM palisade.unfinished({resource}, {most})",
            resource = sql::literal(resource.as_str()),
        );
        let rows = sqlx::raw_sql(sql::message(text))
            .fetch_all(pool)
            .await
            .map_err(errors::plain)?;
        rows.iter()
            .map(|row| {
                let [tenant, operation, key] = ["tenant", "operation", "key"]
                    .map(|column| row.try_get::<String, _>(column).unwrap_or_default());
                Ok(Unfinished {
                    key: IdempotencyKey::new(&tenant, &operation, &key)
                        .map_err(|_| unreadable("a key that is none"))?,
                    by: read_grant(row, "resource", "token", "holder")
                        .ok_or_else(|| unreadable("a grant that is none"))?,
                    number: row.try_get("attempt").map_err(errors::plain)?,
                    first_seen: read_time(row, "first_seen")?,
                    until: read_time(row, "until")?,
                })
            })
            .collect()
    }
}

impl GuardedTx {
    /// Finishes an attempt in this transaction: runs `f`, which writes what follows from the external call and
    /// returns the answer, and stores that. If the attempt was finished before (a commit whose answer was
    /// lost, a later attempt), `f` is not run, and that answer is returned.
    ///
    /// Nobody but the grant that has begun the attempt last can finish it. If this future is dropped before it is
    /// ready, the transaction does not commit.
    ///
    /// # Errors
    /// [`GuardError::Stale`] if a later holder has sealed the resource: it takes the attempt over.
    /// [`GuardError::Superseded`] if the same holder has begun it again; the transaction goes on. Otherwise as
    /// [`GuardedTx::once`]; after an error of `f` the attempt is unfinished still.
    pub async fn complete<T, E, F>(&mut self, attempt: &Attempt, f: F) -> Result<Outcome<T>, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<GuardError>,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        let timer = Timer::start();
        self.carries(attempt)?;
        if let Some(replayed) = self.open(attempt).await? {
            return Ok(replayed);
        }
        metrics::store_answered(StoreKind::Postgres, Operation::Attempt, timer);
        match f(&mut *self).await {
            Ok(value) => Ok(Outcome::Executed(self.finish(attempt, &value).await?)),
            Err(error) => {
                self.undo().await;
                Err(error)
            }
        }
    }

    /// Ends an attempt without an answer: the call has failed in a way that may go otherwise next time. What it
    /// did outside may have happened all the same, so the key stays begun, and only its holder may begin it
    /// again: now, without waiting for the attempt's lifetime.
    ///
    /// # Errors
    /// As [`GuardedTx::complete`].
    pub async fn give_up(&mut self, attempt: &Attempt) -> Result<(), GuardError> {
        self.carries(attempt)?;
        let text = format!(
            "SELECT palisade.attempt_finish({}, NULL) AS ended",
            of(attempt)
        );
        let row = self.ask(text).await?;
        match row.try_get("ended").map_err(errors::plain)? {
            true => Ok(()),
            false => Err(superseded(attempt)),
        }
    }

    /// Says whether this transaction is of the grant that has begun the attempt.
    fn carries(&self, attempt: &Attempt) -> Result<(), GuardError> {
        let begun: &Grant = &attempt.grant;
        match self.grants().find(|grant| grant.resource == begun.resource) {
            Some(grant) if grant == begun => Ok(()),
            // The caller was replaced by itself: its earlier grant is as stale as anybody's.
            Some(grant) if grant.token > begun.token => Err(GuardError::Stale {
                resource: begun.resource.clone(),
                presented: begun.token,
                fence: grant.token,
            }),
            _ => Err(GuardError::Misuse(
                "an attempt is finished in a transaction of the grant that has begun it",
            )),
        }
    }

    /// The answer, if the attempt was finished before; else it is locked for this transaction.
    async fn open<T: DeserializeOwned>(
        &mut self,
        attempt: &Attempt,
    ) -> Result<Option<Outcome<T>>, GuardError> {
        let text = format!(
            "{SAVEPOINT}; SELECT outcome, answer, \
             (extract(epoch FROM first_seen) * 1000000)::bigint AS first_seen \
             FROM palisade.attempt_open({})",
            of(attempt)
        );
        let row = self.ask(text).await?;
        let outcome: String = row.try_get("outcome").map_err(errors::plain)?;
        if outcome != "open" {
            self.send(RELEASE.to_owned()).await?;
        }
        match outcome.as_str() {
            "open" => Ok(None),
            "replayed" => {
                count(Idempotency::Replayed);
                let answer: Option<String> = row.try_get("answer").map_err(errors::plain)?;
                Ok(Some(Outcome::Replayed {
                    value: from_json(answer.as_deref())?,
                    first_seen: read_time(&row, "first_seen")?,
                }))
            }
            _ => Err(superseded(attempt)),
        }
    }

    async fn finish<T: Serialize + DeserializeOwned>(
        &mut self,
        attempt: &Attempt,
        value: &T,
    ) -> Result<T, GuardError> {
        let stored = match to_answer(value) {
            Ok((answer, value)) => {
                let text = format!(
                    "{RELEASE}; SELECT palisade.attempt_finish({}, {}, {}) AS ended",
                    of(attempt),
                    sql::literal(&answer),
                    interval(attempt.policy.answer_lifetime()),
                );
                self.ask(text).await.map(|_| value)
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok(_) => count(Idempotency::Executed),
            Err(_) => self.undo().await,
        }
        stored
    }

    async fn undo(&mut self) {
        if let Err(error) = self.send(UNDO.to_owned()).await {
            tracing::debug!(%error, "the effect could not be undone; its transaction cannot commit");
        }
    }
}

/// The arguments of the SQL functions for an attempt.
fn of(attempt: &Attempt) -> String {
    format!(
        "{}, {}, {}",
        sql::literal(attempt.grant.resource.as_str()),
        arguments(&attempt.key),
        attempt.number
    )
}

fn superseded(attempt: &Attempt) -> GuardError {
    count(Idempotency::Lost);
    GuardError::Superseded {
        key: attempt.key.clone(),
    }
}
