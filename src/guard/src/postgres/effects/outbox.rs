//! Staging messages, and what became of those that failed.

use std::time::{Duration, SystemTime};

use palisade_token::{FencingToken, ResourceName};
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::super::GuardedTx;
use super::ask::{key, message as parts, name, optional, surprising};
use crate::GuardError;
use crate::effects::{
    DeadLetter, Envelope, Message, Name, Undelivered, Verdict, error_chain, is_fenced,
};
use crate::metrics::{self, DeadLetter as Happened, StoreKind};

impl GuardedTx {
    /// Stages a message in an outbox, in the transaction of its effect: it is published if that commits, and
    /// otherwise never was. Returns its id. Messages of one aggregate are published in the order of the
    /// commits of their transactions, which therefore wait for each other (as do those of some neighbours: the
    /// locks are striped); take aggregates in one order where a transaction has several.
    ///
    /// The payload is part of the statement's text, which sqlx logs at DEBUG, and at WARN when it was slow: see to
    /// `log_slow_statements` and `log_statements` of the pool's options if payloads are not for logs.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, effects::{Message, Name}, postgres::GuardedTx};
    /// # async fn pay(mut tx: GuardedTx, outbox: Name) -> Result<(), Box<dyn std::error::Error>> {
    /// sqlx::query("UPDATE orders SET paid = true WHERE id = 7").execute(&mut *tx).await?;
    /// let paid = Message::new(Name::new("payments")?, r#"{"order":7}"#)?;
    /// let id = tx.stage(&outbox, &paid.in_order_of(Name::new("order-7")?)).await?;
    /// tx.commit().await?; // from here on the message `id` will be published
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The refusal of the grant; [`GuardError::Serialization`]; [`GuardError::Backend`].
    pub async fn stage(&mut self, outbox: &Name, message: &Message) -> Result<Name, GuardError> {
        let [topic, payload, aggregate, key, headers] = parts(message)?;
        let id = optional(message.id.as_ref());
        let arguments = [name(outbox), topic, payload, aggregate, key, headers, id];
        let id: String = self.value("stage", &arguments).await?;
        Name::new(id).map_err(|_| surprising("stage"))
    }

    /// Records that a consumer has failed to handle a message. Roll the failed transaction back first, and
    /// do this in one of its own; a later success ([`GuardedTx::inbox`]) forgets it. At the attempt number
    /// `most` (1: at once) the message is a dead letter, and the consumer goes past it by its offset. If the
    /// message was handled after all, that is no failure: [`Verdict::Again`], and the inbox tells.
    ///
    /// The message needs its id.
    ///
    /// # Errors
    /// [`GuardError::Misuse`] if the failure is the guard's final refusal of a grant, somewhere among its
    /// causes ([`is_fenced`]): the holder is to blame and not the message. Also without an id. Else as
    /// [`GuardedTx::stage`].
    pub async fn failed(
        &mut self,
        consumer: &Name,
        message: &Message,
        most: u32,
        failure: &(dyn std::error::Error + 'static),
    ) -> Result<Verdict, GuardError> {
        if is_fenced(failure) {
            return Err(GuardError::Misuse(
                "a holder that was replaced is no failure of the message: step down",
            ));
        }
        let Some(id) = &message.id else {
            return Err(GuardError::Misuse(
                "a message that failed is known by its id",
            ));
        };
        let [topic, payload, aggregate, key, headers] = parts(message)?;
        let most = i32::try_from(most).unwrap_or(i32::MAX).to_string();
        let error = super::super::sql::literal(&error_chain(failure));
        let head = [name(consumer), name(id), error, "false".to_owned(), most];
        let arguments: Vec<_> = head
            .into_iter()
            .chain([topic, payload, aggregate, key, headers])
            .collect();
        let answer: String = self.value("consumer_failed", &arguments).await?;
        verdict(&answer)
    }

    /// Takes a dead letter out, to handle it in this transaction under its own key. If the transaction rolls
    /// back it is there as before. `None` if there is none of this number. Ask the [inbox](GuardedTx::inbox) for
    /// its message, as for any: a later delivery may have been handled meanwhile.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, effects::{Name, Receipt}, postgres::GuardedTx};
    /// # async fn again(mut tx: GuardedTx, consumer: Name, id: i64) -> Result<(), GuardError> {
    /// if let Some(letter) = tx.take_dead_letter(id).await? {
    ///     if tx.inbox(&consumer, &letter.message, None).await? == Receipt::New {
    ///         println!("{} bytes to handle, under {:?}", letter.payload.len(), letter.key);
    ///     }
    /// }
    /// # tx.commit().await.map(drop) }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedTx::stage`].
    pub async fn take_dead_letter(&mut self, id: i64) -> Result<Option<DeadLetter>, GuardError> {
        let rows = self.rows("take_dead_letter", &[id.to_string()]).await?;
        let letter = rows.first().map(letter).transpose()?;
        if letter.is_some() {
            metrics::dead_letter(StoreKind::Postgres, Happened::Replayed);
        }
        Ok(letter)
    }

    /// Stages a dead letter of an outbox again, with its id, key and headers, and the grant of this
    /// transaction; its attempts count anew. `None` if there is none of this number that an outbox gave up.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, postgres::GuardedTx};
    /// # async fn replay(mut tx: GuardedTx, id: i64) -> Result<(), GuardError> {
    /// match tx.replay_dead_letter(id).await? {
    ///     Some(message) => println!("{message} is staged again"),
    ///     None => println!("no outbox has given up a message of this number"),
    /// }
    /// # tx.commit().await.map(drop) }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedTx::stage`].
    pub async fn replay_dead_letter(&mut self, id: i64) -> Result<Option<Name>, GuardError> {
        let staged: Option<String> = self.value("replay_dead_letter", &[id.to_string()]).await?;
        if staged.is_some() {
            metrics::dead_letter(StoreKind::Postgres, Happened::Replayed);
        }
        staged
            .map(|id| Name::new(id).map_err(|_| surprising("replay_dead_letter")))
            .transpose()
    }
}

pub(super) fn verdict(answer: &str) -> Result<Verdict, GuardError> {
    match answer {
        "again" => Ok(Verdict::Again),
        "dead" => {
            metrics::dead_letter(StoreKind::Postgres, Happened::Buried);
            Ok(Verdict::Dead)
        }
        _ => Err(surprising("a verdict")),
    }
}

/// Reads the columns by their names; all of them are written by this library.
struct Columns<'r>(&'r PgRow);

impl Columns<'_> {
    fn get<'s, T>(&'s self, column: &'static str) -> Result<T, GuardError>
    where
        T: sqlx::Decode<'s, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        let value = self.0.try_get_unchecked(column);
        value.map_err(|error| GuardError::Backend(Box::new(error)))
    }

    fn name(&self, column: &'static str) -> Result<Name, GuardError> {
        Name::new(self.get::<&str>(column)?).map_err(|_| surprising(column))
    }

    fn optional_name(&self, column: &'static str) -> Result<Option<Name>, GuardError> {
        let text = self.get::<Option<&str>>(column)?;
        text.map(|text| Name::new(text).map_err(|_| surprising(column)))
            .transpose()
    }

    fn resource(&self, column: &'static str) -> Result<ResourceName, GuardError> {
        ResourceName::new(self.get::<&str>(column)?).map_err(|_| surprising(column))
    }

    fn token(&self) -> Result<FencingToken, GuardError> {
        FencingToken::try_from(self.get::<i64>("token")?).map_err(|_| surprising("token"))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, column: &'static str) -> Result<T, GuardError> {
        serde_json::from_str(self.get::<&str>(column)?).map_err(|_| surprising(column))
    }

    fn count(&self) -> Result<u32, GuardError> {
        u32::try_from(self.get::<i32>("attempts")?).map_err(|_| surprising("attempts"))
    }

    fn time(&self, column: &'static str) -> Result<SystemTime, GuardError> {
        let micros = u64::try_from(self.get::<i64>(column)?).map_err(|_| surprising(column))?;
        SystemTime::UNIX_EPOCH
            .checked_add(Duration::from_micros(micros))
            .ok_or_else(|| surprising(column))
    }
}

pub(super) fn letter(row: &PgRow) -> Result<DeadLetter, GuardError> {
    let row = Columns(row);
    let undelivered = match row.optional_name("outbox")? {
        Some(outbox) => Undelivered::Outbox(outbox),
        None => Undelivered::Consumer(row.name("consumer")?),
    };
    Ok(DeadLetter {
        id: row.get("id")?,
        undelivered,
        message: row.name("message")?,
        topic: row.name("topic")?,
        aggregate: row.optional_name("aggregate")?,
        key: key(row.get("key")?)?,
        resource: row.resource("resource_name")?,
        token: row.token()?,
        headers: row.json("headers")?,
        payload: row.get("payload")?,
        attempts: row.count()?,
        errors: row.json("errors")?,
        first_attempt: row.time("first_attempt_micros")?,
        last_attempt: row.time("last_attempt_micros")?,
    })
}

/// The number of the row, and the message in it.
pub(super) fn envelope(row: &PgRow) -> Result<(i64, Envelope), GuardError> {
    let row = Columns(row);
    let envelope = Envelope {
        id: row.name("message")?,
        topic: row.name("topic")?,
        aggregate: row.optional_name("aggregate")?,
        key: key(row.get("key")?)?,
        resource: row.resource("resource_name")?,
        token: row.token()?,
        headers: row.json("headers")?,
        payload: row.get("payload")?,
        attempts: row.count()?,
    };
    Ok((row.get("id")?, envelope))
}
