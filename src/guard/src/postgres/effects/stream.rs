//! Sequences, offsets, versions and the inbox.

use palisade_token::FencingToken;
use sqlx::Row;

use super::super::GuardedTx;
use super::ask::{name, position, surprising};
use crate::GuardError;
use crate::effects::position::Sequence;
use crate::effects::{Name, Origin, Receipt, SeqOutcome};
use crate::metrics::{self, Inbox, Position, Sequence as Met, StoreKind};

const STORE: StoreKind = StoreKind::Postgres;

impl GuardedTx {
    /// Shows a producer's number, and says whether its effect is to be written in this transaction. Numbers
    /// count from 0, each once, and go on over takeovers (the rule: [`crate::effects::position::number`]). A
    /// producer belongs to the resource: two resources may have producers of one name.
    ///
    /// Another transaction that shows a number of the same producer waits for this one.
    ///
    /// # Errors
    /// [`GuardError::SequenceGap`]; the refusal of the grant; [`GuardError::Misuse`] for 2^53 or more. After
    /// any error the transaction can only be rolled back.
    pub async fn accept(&mut self, producer: &Name, number: u64) -> Result<SeqOutcome, GuardError> {
        let arguments = [name(producer), position(number)?];
        let answer = self.value::<String>("accept", &arguments).await;
        let (met, result) = match answer.as_deref() {
            Ok("applied") => (Met::Applied, Ok(SeqOutcome::Applied)),
            Ok("duplicate") => (Met::Duplicate, Ok(SeqOutcome::Duplicate)),
            Ok(_) => return Err(surprising("accept")),
            Err(GuardError::SequenceGap { .. }) => {
                (Met::Gap, answer.map(|_| SeqOutcome::Duplicate))
            }
            Err(GuardError::Stale { .. }) => (Met::Fenced, answer.map(|_| SeqOutcome::Duplicate)),
            Err(_) => return answer.map(|_| SeqOutcome::Duplicate),
        };
        metrics::sequence(STORE, met);
        result
    }

    /// Lets a producer count from 0 again, if its numbers were last moved under an earlier token; else
    /// nothing is changed, so that it may be repeated. Returns the number that comes next. What the earlier
    /// holders sent under their numbers is not known any more.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, effects::Name, postgres::GuardedTx};
    /// # async fn anew(mut tx: GuardedTx, producer: Name) -> Result<(), GuardError> {
    /// let next = tx.restart_sequence(&producer).await?; // 0, unless it has gone on since
    /// tx.accept(&producer, next).await?;
    /// # tx.commit().await.map(drop) }
    /// ```
    ///
    /// # Errors
    /// As [`GuardedTx::accept`].
    pub async fn restart_sequence(&mut self, producer: &Name) -> Result<u64, GuardError> {
        let next: i64 = self.value("restart_sequence", &[name(producer)]).await?;
        number(next)
    }

    /// Where a producer's numbers are. After a seal this is where the new holder goes on.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, effects::Name, postgres::GuardedTx};
    /// # use palisade_guard::effects::position::Sequence;
    /// # async fn go_on(tx: &mut GuardedTx, producer: Name) -> Result<(), GuardError> {
    /// let next = tx.last_sequence(&producer).await?.map_or(0, Sequence::next);
    /// tx.accept(&producer, next).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::RolledBack`] if the transaction has failed, [`GuardError::Backend`].
    pub async fn last_sequence(&mut self, producer: &Name) -> Result<Option<Sequence>, GuardError> {
        let rows = self.rows("last_sequence", &[name(producer)]).await?;
        let Some(row) = rows.first() else {
            return Ok(None);
        };
        let read = |index: usize| row.try_get::<i64, _>(index);
        let (token, last) = read(0)
            .and_then(|token| Ok((token, read(1)?)))
            .map_err(|error| self.refusal(error))?;
        Ok(Some(Sequence {
            token: FencingToken::try_from(token).map_err(|_| surprising("last_sequence"))?,
            last: Some(number(last)?),
        }))
    }

    /// Moves the offset of a consumer from `expected` to `next`, in the transaction of what it has consumed:
    /// both happen or neither does. An offset that was never moved is 0; store the end of what was consumed.
    /// The source must be able to go back to the offset after a takeover.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, effects::Name, postgres::{Guard, Sealed}};
    /// # async fn consume(pool: &sqlx::PgPool, sealed: &Sealed, cursor: Name)
    /// #     -> Result<(), GuardError> {
    /// let mut tx = Guard::new().begin(pool, sealed).await?;
    /// let from = tx.offset(&cursor).await?;
    /// let write = sqlx::query("UPDATE totals SET paid = paid + 10"); // what 10 messages come to
    /// write.execute(&mut *tx).await?;
    /// tx.advance_offset(&cursor, from, from + 10).await?;
    /// tx.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::OffsetConflict`] if it is elsewhere; the refusal of the grant; [`GuardError::Misuse`]
    /// unless `next` is above `expected` and below 2^53. After any error the transaction can only be rolled back.
    pub async fn advance_offset(
        &mut self,
        cursor: &Name,
        expected: u64,
        next: u64,
    ) -> Result<(), GuardError> {
        if next <= expected {
            return Err(GuardError::Misuse("an offset moves forward"));
        }
        let arguments = [name(cursor), position(expected)?, position(next)?];
        let moved = self.rows("advance_offset", &arguments).await.map(drop);
        match &moved {
            Ok(()) => metrics::position(STORE, Position::OffsetAdvanced),
            Err(GuardError::OffsetConflict { .. }) => {
                metrics::position(STORE, Position::OffsetConflict);
            }
            Err(_) => {}
        }
        moved
    }

    /// Where the offset of a consumer is; 0 if it was never moved.
    ///
    /// # Errors
    /// [`GuardError::RolledBack`] if the transaction has failed, [`GuardError::Backend`].
    pub async fn offset(&mut self, cursor: &Name) -> Result<u64, GuardError> {
        self.position_of('c', cursor).await
    }

    /// Makes sure that nobody has changed an entity since its version was read, and gives it the next
    /// version, which is returned. 0 is the version of an entity that has none yet. Whoever else expects a
    /// version of it waits for this transaction.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, effects::Name, postgres::GuardedTx};
    /// # async fn change(mut tx: GuardedTx, order: Name, read_at: u64) -> Result<(), GuardError> {
    /// match tx.expect_version(&order, read_at).await {
    ///     Ok(next) => println!("it has version {next} when this commits"),
    ///     Err(GuardError::VersionConflict { .. }) => return tx.rollback().await, // read it again
    ///     Err(error) => return Err(error),
    /// }
    /// # tx.commit().await.map(drop) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::VersionConflict`] if it has another version; the refusal of the grant;
    /// [`GuardError::Misuse`] beyond 2^53. After any error the transaction can only be rolled back.
    pub async fn expect_version(&mut self, entity: &Name, version: u64) -> Result<u64, GuardError> {
        position(version.saturating_add(1))?;
        let arguments = [name(entity), position(version)?];
        let next = self.value::<i64>("expect_version", &arguments).await;
        match &next {
            Ok(_) => metrics::position(STORE, Position::VersionAdvanced),
            Err(GuardError::VersionConflict { .. }) => {
                metrics::position(STORE, Position::VersionConflict);
            }
            Err(_) => {}
        }
        number(next?)
    }

    /// The version of an entity; 0 if it has none yet.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, effects::Name, postgres::{Guard, Sealed}};
    /// # async fn read(pool: &sqlx::PgPool, sealed: &Sealed, order: Name)
    /// #     -> Result<(), GuardError> {
    /// let mut tx = Guard::new().begin(pool, sealed).await?;
    /// let read_at = tx.version(&order).await?; // what `expect_version` takes later
    /// # println!("{read_at}");
    /// # tx.commit().await.map(drop) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::RolledBack`] if the transaction has failed, [`GuardError::Backend`].
    pub async fn version(&mut self, entity: &Name) -> Result<u64, GuardError> {
        self.position_of('v', entity).await
    }

    async fn position_of(&mut self, kind: char, of: &Name) -> Result<u64, GuardError> {
        let resource = self.acting()?.resource.to_string();
        let text = format!(
            "SELECT palisade.position_of('{kind}', '{resource}', {})",
            name(of)
        );
        let row = sqlx::raw_sql(super::super::sql::message(text))
            .fetch_one(&mut **self)
            .await;
        let at = row.and_then(|row| row.try_get::<i64, _>(0));
        number(at.map_err(|error| self.refusal(error))?)
    }

    /// Records that a consumer handles a message, and says whether it has to: its work is done in this same
    /// transaction, so that the message counts as seen exactly if the work is committed. Another
    /// transaction with the same message waits for this one.
    ///
    /// With an `origin` a message is late when the consumer has seen a greater token of the same resource:
    /// it was made by a holder that was replaced, and its successor's messages have been handled already.
    /// Consumers of one name then take the messages of one origin one after the other.
    ///
    /// # Errors
    /// The refusal of the grant; [`GuardError::Serialization`]; [`GuardError::Backend`].
    pub async fn inbox(
        &mut self,
        consumer: &Name,
        message: &Name,
        origin: Option<&Origin>,
    ) -> Result<Receipt, GuardError> {
        let mut arguments = vec![name(consumer), name(message)];
        if let Some(Origin { resource, token }) = origin {
            arguments.extend([format!("'{resource}'"), token.to_string()]);
        }
        let (receipt, met) = match self.value::<String>("inbox", &arguments).await?.as_str() {
            "new" => (Receipt::New, Inbox::Accepted),
            "seen" => (Receipt::Seen, Inbox::Duplicate),
            "late" => (Receipt::Late, Inbox::Late),
            _ => return Err(surprising("inbox")),
        };
        metrics::inbox(STORE, met);
        Ok(receipt)
    }
}

fn number(number: i64) -> Result<u64, GuardError> {
    u64::try_from(number).map_err(|_| surprising("a negative position"))
}
