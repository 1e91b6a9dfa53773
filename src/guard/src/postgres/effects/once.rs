use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;

use super::{RELEASE, UNDO, arguments, count, from_json, to_answer};
use crate::GuardError;
use crate::effects::{Claim, Fingerprint, IdempotencyKey, KeyPolicy, Outcome, Rejections};
use crate::metrics::{self, Idempotency, Operation, StoreKind, Timer};
use crate::postgres::{GuardedTx, sql};

impl GuardedTx {
    /// Applies an effect once: runs `f` in this transaction if the key is new, else gives the answer of the
    /// first time and runs nothing (I14). Key, answer and what `f` writes commit together, or none of them.
    ///
    /// What `f` returns as `Ok` is stored (as JSON, at most [`KeyPolicy::MAX_ANSWER_BYTES`]) and replayed; the first
    /// caller, too, gets it as it is read back from there. After
    /// an `Err` the key is free, and what `f` wrote is undone; the transaction goes on and may commit other
    /// effects. A refusal that is to be replayed is a value, or see
    /// [`GuardedTx::once_or_reject`]. The type of an
    /// operation's answers belongs to its contract: older ones are read with it.
    ///
    /// Nothing waits: while another transaction has the key in its hands, the answer is
    /// [`GuardError::InProgress`] at once. Each effect keeps one advisory lock until the transaction ends, and
    /// the server's lock table is shared: thousands of effects in one transaction need a greater
    /// `max_locks_per_transaction`.
    ///
    /// `f` must not end the transaction: a claim without an answer does not commit.
    ///
    /// The answer is part of the statement's text, which sqlx logs at DEBUG, and at WARN when the statement was
    /// slow: keep secrets out of answers, or quiet that log.
    ///
    /// ```no_run
    /// # async fn pay(pool: &sqlx::PgPool, sealed: &palisade_guard::postgres::Sealed) -> Result<(), palisade_guard::GuardError> {
    /// use palisade_guard::GuardError;
    /// use palisade_guard::effects::{Fingerprint, IdempotencyKey};
    /// use palisade_guard::postgres::Guard;
    ///
    /// let key = IdempotencyKey::new("tenant-7", "pay", "5f0c8d1e42aa7b90").expect("a key");
    /// let asked = Fingerprint::of(&[("order", b"7"), ("amount", b"100")]);
    /// let mut tx = Guard::new().begin(pool, sealed).await?;
    /// let paid = tx
    ///     .once(&key, &asked, async |connection| {
    ///         let row = sqlx::query_scalar("UPDATE orders SET paid = 100 WHERE id = 7 RETURNING receipt");
    ///         let receipt: String = row.fetch_one(connection).await?;
    ///         Ok::<_, GuardError>(receipt)
    ///     })
    ///     .await?;
    /// tx.commit().await?;
    /// println!("receipt {}", paid.into_value());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `f`'s own; [`GuardError::InProgress`], [`GuardError::FingerprintMismatch`] and
    /// [`GuardError::KeyExpired`], after which the transaction goes on; [`GuardError::Answer`] and
    /// [`GuardError::AnswerTooLarge`], when what `f` wrote was undone; refusals of the grant,
    /// [`GuardError::Serialization`] and others, after which it can only be rolled back.
    pub async fn once<T, E, F>(
        &mut self,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        f: F,
    ) -> Result<Outcome<T>, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<GuardError>,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        self.once_with(key, fingerprint, &KeyPolicy::new(), f).await
    }

    /// As [`GuardedTx::once`], with lifetimes of one's own.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use palisade_guard::{GuardError, effects::*, postgres::GuardedTx};
    /// # async fn pay(mut tx: GuardedTx, key: IdempotencyKey, asked: Fingerprint)
    /// #     -> Result<(), GuardError> {
    /// let month = KeyPolicy::new().with_answer_lifetime(Duration::from_secs(30 * 86_400));
    /// let paid = tx.once_with(&key, &asked, &month, async |connection| {
    ///     sqlx::query("UPDATE orders SET paid = true WHERE id = 7").execute(connection).await?;
    ///     Ok::<_, GuardError>("paid".to_owned())
    /// });
    /// println!("{}", paid.await?.into_value());
    /// # tx.commit().await.map(drop) }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedTx::once`].
    pub async fn once_with<T, E, F>(
        &mut self,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        policy: &KeyPolicy,
        f: F,
    ) -> Result<Outcome<T>, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<GuardError>,
        F: AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    {
        if let Some(replayed) = self.claim_once(key, fingerprint, policy).await? {
            return Ok(replayed);
        }
        match f(&mut *self).await {
            Ok(value) => {
                let answer = self.answer_once(key, &value, RELEASE).await?;
                Ok(Outcome::Executed(answer))
            }
            Err(error) => {
                self.undo_once(key).await;
                Err(error)
            }
        }
    }

    /// As [`GuardedTx::once_with`], for an effect that its own rules may refuse: `Ok(Err(rejection))` is what
    /// they refuse at every try. What `f` wrote is undone then, and the policy's [`Rejections`] say whether the
    /// rejection is stored and replayed. Answers are stored as the JSON of `Result<T, R>`.
    ///
    /// # Errors
    /// As [`GuardedTx::once`].
    pub async fn once_or_reject<T, R, E, F>(
        &mut self,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        policy: &KeyPolicy,
        f: F,
    ) -> Result<Outcome<Result<T, R>>, E>
    where
        T: Serialize + DeserializeOwned,
        R: Serialize + DeserializeOwned,
        E: From<GuardError>,
        F: AsyncFnOnce(&mut PgConnection) -> Result<Result<T, R>, E>,
    {
        if let Some(replayed) = self.claim_once(key, fingerprint, policy).await? {
            return Ok(replayed);
        }
        let result = f(&mut *self).await;
        let result = match result {
            Ok(value @ Ok(_)) => Ok(self.answer_once(key, &value, RELEASE).await?),
            Ok(value @ Err(_)) if policy.rejections() == Rejections::Replay => {
                Ok(self.answer_once(key, &value, UNDO).await?)
            }
            Ok(Err(_)) | Err(_) => {
                self.undo_once(key).await;
                result
            }
        };
        result.map(Outcome::Executed)
    }

    /// The answer, if the key has one; else the key is claimed.
    async fn claim_once<T: DeserializeOwned>(
        &mut self,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        policy: &KeyPolicy,
    ) -> Result<Option<Outcome<T>>, GuardError> {
        let timer = Timer::start();
        // Any of the grants: the commit checks them all.
        let grant = self.first_grant().clone();
        let claimed = self.claim(&grant, key, fingerprint, policy, false).await?;
        metrics::store_answered(StoreKind::Postgres, Operation::Key, timer);
        if claimed.claim != Claim::Replayed {
            return Ok(None);
        }
        Ok(Some(Outcome::Replayed {
            value: from_json(claimed.answer.as_deref())?,
            first_seen: claimed.first_seen,
        }))
    }

    /// Stores the answer and ends the savepoint, by keeping or undoing what the effect wrote. Returns the answer
    /// as it will be replayed.
    async fn answer_once<T: Serialize + DeserializeOwned>(
        &mut self,
        key: &IdempotencyKey,
        value: &T,
        end: &'static str,
    ) -> Result<T, GuardError> {
        let stored = match to_answer(value) {
            Ok((answer, value)) => {
                let (key, answer) = (arguments(key), sql::literal(&answer));
                self.send(format!(
                    "{end}; SELECT palisade.once_finish({key}, {answer})"
                ))
                .await
                .map(|()| value)
            }
            Err(error) => Err(error),
        };
        match stored {
            Ok(_) => count(Idempotency::Executed),
            // Also when the effect has hidden that a statement of its own had failed.
            Err(_) => self.undo_once(key).await,
        }
        stored
    }

    /// As if the effect had not begun. If that fails, so does the commit.
    async fn undo_once(&mut self, key: &IdempotencyKey) {
        let text = format!("{UNDO}; SELECT palisade.once_cancel({})", arguments(key));
        if let Err(error) = self.send(text).await {
            tracing::debug!(%error, "the effect could not be undone; its transaction cannot commit");
        }
    }
}
