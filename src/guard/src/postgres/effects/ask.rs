//! How the methods of this directory ask the server.

use palisade_token::{Grant, ResourceName};
use sqlx::postgres::PgRow;
use sqlx::{Decode, Postgres, Row, Type};

use super::super::{GuardedTx, sql};
use crate::GuardError;
use crate::effects::{IdempotencyKey, Message, Name};

impl GuardedTx {
    /// The grant that the next effect belongs to.
    pub(super) fn acting(&self) -> Result<&Grant, GuardError> {
        let mut grants = self.grants();
        match (self.acting_for(), grants.next(), grants.next()) {
            (Some(resource), ..) => self.grant_of(resource),
            (None, Some(grant), None) => Ok(grant),
            _ => Err(GuardError::Misuse(
                "an effect belongs to one resource: say which with act_for",
            )),
        }
    }

    /// Says which of its resources the effects that follow belong to. Needed in a transaction of several
    /// resources; with one there is no question.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, effects::Name, postgres::{Guard, Sealed}};
    /// # async fn take(pool: &sqlx::PgPool, orders: &Sealed, stock: &Sealed, producer: Name)
    /// #     -> Result<(), GuardError> {
    /// let mut tx = Guard::new().begin_all(pool, &[orders, stock]).await?;
    /// tx.act_for(&orders.grant().resource)?;
    /// tx.accept(&producer, 7).await?; // a number of the producer of `orders`
    /// # tx.commit().await.map(drop) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::Misuse`] if the transaction has no grant of it.
    pub fn act_for(&mut self, resource: &ResourceName) -> Result<(), GuardError> {
        self.grant_of(resource)?;
        self.set_acting_for(resource.clone());
        Ok(())
    }

    fn grant_of(&self, resource: &ResourceName) -> Result<&Grant, GuardError> {
        let mut grants = self.grants();
        grants
            .find(|grant| grant.resource == *resource)
            .ok_or(GuardError::Misuse(
                "the transaction has no grant of that resource",
            ))
    }

    /// Calls a function of the schema with the resource of the effect before the other arguments.
    pub(super) async fn rows(
        &mut self,
        function: &str,
        arguments: &[String],
    ) -> Result<Vec<PgRow>, GuardError> {
        let mut all = vec![sql::literal(self.acting()?.resource.as_str())];
        all.extend_from_slice(arguments);
        let text = format!("SELECT * FROM palisade.{function}({})", all.join(", "));
        let rows = sqlx::raw_sql(sql::message(text))
            .fetch_all(&mut **self)
            .await;
        rows.map_err(|error| self.refusal(error))
    }

    /// The same for a function that answers with one value.
    pub(super) async fn value<T>(
        &mut self,
        function: &str,
        arguments: &[String],
    ) -> Result<T, GuardError>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let rows = self.rows(function, arguments).await?;
        let row = rows.first().ok_or_else(|| surprising(function))?;
        row.try_get(0).map_err(|error| self.refusal(error))
    }
}

/// The schema is not the one of this library.
pub(super) fn surprising(what: &str) -> GuardError {
    GuardError::Backend(format!("palisade: an answer that cannot be: {what}").into())
}

pub(super) fn name(name: &Name) -> String {
    sql::literal(name.as_str())
}

pub(super) fn optional<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(
        || "NULL".to_owned(),
        |value| sql::literal(&value.to_string()),
    )
}

/// Beyond the greatest position the server refuses it.
pub(super) fn position(number: u64) -> Result<String, GuardError> {
    if number > crate::effects::MAX_POSITION {
        return Err(GuardError::Misuse("a position is below 2^53"));
    }
    Ok(number.to_string())
}

/// Topic, payload, aggregate, key and headers: as the functions have them.
pub(super) fn message(message: &Message) -> Result<[String; 5], GuardError> {
    let mut hex = String::with_capacity(2 * message.payload.len() + 16);
    hex.push_str("'\\x");
    for byte in &message.payload {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    hex.push_str("'::bytea");
    let headers = serde_json::to_string(&message.headers)
        .map_err(|error| GuardError::Backend(Box::new(error)))?;
    Ok([
        name(&message.topic),
        // With a doubled backslash an E literal reads the same whatever standard_conforming_strings is.
        format!("E{}", hex.replacen('\\', "\\\\", 1)),
        optional(message.aggregate.as_ref()),
        optional(message.key.as_ref()),
        format!("{}::jsonb", sql::literal(&headers)),
    ])
}

/// A key as the store has it: its three parts, which have no spaces, with spaces between.
pub(super) fn key(text: Option<&str>) -> Result<Option<IdempotencyKey>, GuardError> {
    let Some(text) = text else { return Ok(None) };
    let mut parts = text.splitn(3, ' ');
    let mut part = || parts.next().unwrap_or_default();
    IdempotencyKey::new(part(), part(), part())
        .map(Some)
        .map_err(|_| surprising("a key"))
}
