use std::fmt;
use std::ops::{Deref, DerefMut};

use futures::TryStreamExt as _;
use palisade_token::{Grant, ResourceName};
use sqlx::pool::PoolConnection;
use sqlx::{Either, PgConnection, Postgres, Row};
use sqlx_core::transaction::TransactionManager as _;
use tracing::Instrument as _;

use super::begin::Manager;
use super::{Sealed, errors, sql};
use crate::metrics::{self, Operation, StoreKind, Timer, Unended};
use crate::{GuardError, spans};

/// A transaction whose writes carry a sealed grant, from [`Guard::begin`](super::Guard::begin).
///
/// It dereferences to sqlx's [`PgConnection`]: `&mut *tx` is an executor, and `tx.begin()` makes a
/// savepoint. Do not send BEGIN, COMMIT, ROLLBACK or PREPARE TRANSACTION through it: what comes after
/// would not be guarded, and [`GuardedTx::commit`] reports it. Nor CLOSE ALL: a cursor, `palisade_admitted`, is
/// what the commit is checked by.
///
/// Dropped without a commit it is rolled back. Its connection returns to the pool in no transaction, or
/// is closed.
///
/// ```no_run
/// use palisade_guard::GuardError;
/// use palisade_guard::postgres::{Guard, Sealed};
///
/// # async fn example(pool: &sqlx::PgPool, sealed: &Sealed) -> Result<(), GuardError> {
/// let mut tx = Guard::new().begin(pool, sealed).await?;
/// let paid = sqlx::query("UPDATE orders SET paid = true WHERE id = $1").bind(7_i64);
/// if let Err(error) = paid.execute(&mut *tx).await {
///     return Err(tx.refusal(error)); // says whether to step down or to run it again
/// }
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[must_use = "a transaction that is not committed is rolled back"]
pub struct GuardedTx {
    connection: Option<PoolConnection<Postgres>>,
    sealed: Vec<Sealed>,
    transaction: Option<i64>,
    /// Which resource effects belong to, where there are several.
    acting_for: Option<ResourceName>,
    /// While a COMMIT or ROLLBACK is on its way: dropped then, the connection is closed.
    unsettled: bool,
    unended: Unended,
}

/// The commit of a guarded transaction: it was admitted, and it happened.
///
/// ```no_run
/// # use palisade_guard::GuardError;
/// # use palisade_guard::postgres::{Guard, Sealed};
/// # async fn example(pool: &sqlx::PgPool, sealed: &Sealed) -> Result<(), GuardError> {
/// let tx = Guard::new().begin(pool, sealed).await?;
/// let committed = tx.commit().await?;
/// println!("committed as {:?}", committed.transaction);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {
    /// The id of the transaction in PostgreSQL, as the check before COMMIT told it.
    pub transaction: Option<i64>,
}

/// How far the commit message came.
#[derive(Default)]
struct Progress {
    /// Statements that the server has completed: the check is the first, COMMIT the second.
    completed: u32,
    error: Option<sqlx::Error>,
}

impl GuardedTx {
    pub(super) const fn new(connection: PoolConnection<Postgres>, sealed: Vec<Sealed>) -> Self {
        Self {
            connection: Some(connection),
            sealed,
            transaction: None,
            acting_for: None,
            unsettled: false,
            unended: Unended::new(StoreKind::Postgres),
        }
    }

    /// The grants that this transaction carries, ordered by resource.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.sealed.iter().map(Sealed::grant)
    }

    pub(super) fn first_grant(&self) -> &Grant {
        self.sealed[0].grant()
    }

    pub(super) const fn acting_for(&self) -> Option<&ResourceName> {
        self.acting_for.as_ref()
    }

    pub(super) fn set_acting_for(&mut self, resource: ResourceName) {
        self.acting_for = Some(resource);
    }

    /// Asks for the id of this transaction: one round trip, once. Whoever has it can find out what became
    /// of a commit whose answer was lost ([`GuardError::CommitUnknown`]).
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::postgres::{Guard, Sealed};
    /// # use palisade_guard::postgres::Outcome;
    /// # async fn example(pool: &sqlx::PgPool, sealed: &Sealed) -> Result<(), GuardError> {
    /// # let guard = Guard::new();
    /// let mut tx = guard.begin(pool, sealed).await?;
    /// let id = tx.transaction_id().await?;
    /// sqlx::query("UPDATE orders SET paid = true").execute(&mut *tx).await?;
    /// match tx.commit().await {
    ///     Err(lost @ GuardError::CommitUnknown { .. }) => match guard.outcome(pool, id).await? {
    ///         Outcome::Committed => {}
    ///         Outcome::Aborted => return Err(GuardError::RolledBack(None)), // run it again
    ///         _ => return Err(lost), // it still runs, or is forgotten: it may have happened
    ///     },
    ///     answer => drop(answer?),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::RolledBack`] if the transaction has failed, [`GuardError::Backend`].
    pub async fn transaction_id(&mut self) -> Result<i64, GuardError> {
        if let Some(transaction) = self.transaction {
            return Ok(transaction);
        }
        let text = "SELECT pg_catalog.pg_current_xact_id()::text::bigint AS xact";
        let transaction = sqlx::raw_sql(text)
            .fetch_one(&mut **self)
            .await
            .and_then(|row| row.try_get("xact"))
            .map_err(errors::plain)?;
        self.transaction = Some(transaction);
        Ok(transaction)
    }

    /// Says what the error of a query in this transaction means. A refusal of one of its grants kills
    /// every clone of that [`Sealed`].
    #[must_use]
    pub fn refusal(&self, error: sqlx::Error) -> GuardError {
        let error = self.learn(errors::plain(error));
        metrics::refused(StoreKind::Postgres, &error);
        error
    }

    fn learn(&self, error: GuardError) -> GuardError {
        self.sealed
            .iter()
            .fold(error, |error, sealed| sealed.learn(error))
    }

    /// Checks all grants and commits, in one message. `Ok` means committed, and nothing else does.
    ///
    /// If the future is dropped before it is ready, the transaction may or may not be committed.
    ///
    /// # Errors
    /// [`GuardError::CommitUnknown`] if the answer was lost: it may have happened. After every other error
    /// nothing was committed: a refusal ([`GuardError::Stale`] and so on), [`GuardError::Serialization`],
    /// or [`GuardError::RolledBack`] when an earlier statement had failed or the store refused.
    /// [`GuardError::Unguarded`] means that the transaction was ended by hand before.
    pub async fn commit(mut self) -> Result<Committed, GuardError> {
        self.unended.end();
        let first = self.sealed.first().map(Sealed::grant);
        let span = spans::commit(StoreKind::Postgres, first, self.sealed.len());
        let committed = self.check_and_commit().instrument(span).await;
        metrics::settled(StoreKind::Postgres, &committed);
        committed
    }

    async fn check_and_commit(mut self) -> Result<Committed, GuardError> {
        if let Some(refused) = self.sealed.iter().find_map(|sealed| sealed.alive().err()) {
            self.end().await;
            return Err(refused);
        }
        let grants: Vec<&Grant> = self.sealed.iter().map(Sealed::grant).collect();
        let text = sql::commit(&grants);
        self.unsettled = true;
        let timer = Timer::start();
        let Progress { completed, error } = self.send_commit(text).await;
        metrics::store_answered(StoreKind::Postgres, Operation::Commit, timer);
        match error {
            None if completed >= 2 => Ok(self.committed()),
            // The error is of what came after COMMIT, as a cancel that came too late.
            Some(_) if completed >= 2 => {
                let committed = Committed {
                    transaction: self.transaction,
                };
                self.end().await;
                Ok(committed)
            }
            Some(error) if errors::is_refused(&error) => Err(self.refused(error, completed).await),
            error => Err(GuardError::CommitUnknown {
                transaction: self.transaction,
                source: error
                    .map_or_else(|| Box::from("the server's answer ended early"), Box::from),
            }),
        }
    }

    async fn send_commit(&mut self, text: sqlx::SqlStr) -> Progress {
        let mut progress = Progress::default();
        let connection = self.connection.as_mut().expect("taken by value only");
        let mut answers = sqlx::raw_sql(text).fetch_many(&mut **connection);
        loop {
            match answers.try_next().await {
                Ok(Some(Either::Left(_))) => progress.completed += 1,
                Ok(Some(Either::Right(row))) => {
                    self.transaction = row.try_get("xact").ok().or(self.transaction);
                }
                Ok(None) => return progress,
                Err(error) => {
                    progress.error = Some(error);
                    return progress;
                }
            }
        }
    }

    fn committed(mut self) -> Committed {
        self.unsettled = false;
        Committed {
            transaction: self.transaction,
        }
    }

    /// Not committed: ends the transaction and finds out why.
    async fn refused(mut self, error: sqlx::Error, completed: u32) -> GuardError {
        let code = errors::code(&error);
        let aborted = code == Some("25P02");
        // invalid_cursor_name: the grant was not admitted, or this is another transaction than was begun.
        let closed = completed == 0 && code == Some("34000");
        let mut reason = match errors::plain(error) {
            GuardError::Backend(_) if closed => GuardError::Unguarded {
                resource: self.first_grant().resource.to_string(),
                table: None,
            },
            // Refused by the store itself at commit, as by a deferred constraint.
            GuardError::Backend(source) => GuardError::RolledBack(Some(source)),
            other => other,
        };
        let grants: Vec<&Grant> = self.sealed.iter().map(Sealed::grant).collect();
        let diagnosis = sql::diagnose(&grants);
        if self.end_transaction().await && (aborted || closed) {
            // The statement that failed told its own caller; ask whether it was for a grant refused.
            let connection = self.connection.as_mut().expect("taken by value only");
            if let Err(error) = sqlx::raw_sql(diagnosis).execute(&mut **connection).await {
                match errors::plain(error) {
                    GuardError::Backend(_) => {}
                    refusal => reason = refusal,
                }
            }
        }
        self.learn(reason)
    }

    /// Rolls back. Not needed before a drop, but it says when it is done.
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::postgres::{Guard, Sealed};
    /// # async fn example(pool: &sqlx::PgPool, sealed: &Sealed) -> Result<(), GuardError> {
    /// let tx = Guard::new().begin(pool, sealed).await?;
    /// for grant in tx.grants() {
    ///     println!("nothing to write for {grant}");
    /// }
    /// tx.rollback().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::Backend`] if the server did not answer; nothing was committed all the same.
    pub async fn rollback(mut self) -> Result<(), GuardError> {
        self.unended.end();
        if self.end_transaction().await {
            Ok(())
        } else {
            Err(GuardError::Backend(Box::from(
                "the connection was lost during ROLLBACK",
            )))
        }
    }

    async fn end(mut self) {
        self.end_transaction().await;
    }

    /// Leaves the transaction, whatever its state; says whether the connection is usable.
    async fn end_transaction(&mut self) -> bool {
        // Closed by drop if this is cut short or fails.
        self.unsettled = true;
        let connection = self.connection.as_mut().expect("taken by value only");
        while Manager::get_transaction_depth(connection) > 1 {
            Manager::start_rollback(connection);
        }
        let ended = Manager::rollback(connection).await.is_ok();
        self.unsettled = !ended;
        ended
    }
}

impl Drop for GuardedTx {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.unsettled {
            connection.close_on_drop();
            return;
        }
        // Queued now, sent when the pool takes the connection back. Also savepoints that were leaked.
        while Manager::get_transaction_depth(&connection) > 0 {
            Manager::start_rollback(&mut connection);
        }
    }
}

impl Deref for GuardedTx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("taken by value only")
    }
}

impl DerefMut for GuardedTx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("taken by value only")
    }
}

impl fmt::Debug for GuardedTx {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GuardedTx")
            .field("sealed", &self.sealed)
            .field("transaction", &self.transaction)
            .finish_non_exhaustive()
    }
}
