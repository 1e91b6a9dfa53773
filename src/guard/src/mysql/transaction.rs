use std::fmt;
use std::ops::{Deref, DerefMut};

use futures::TryStreamExt as _;
use palisade_token::Grant;
use sqlx::pool::PoolConnection;
use sqlx::{Either, MySql, MySqlConnection};
use sqlx_core::transaction::TransactionManager as _;
use tracing::Instrument as _;

use super::begin::Manager;
use super::{Sealed, errors, sql};
use crate::metrics::{self, Operation, StoreKind, Timer, Unended};
use crate::{GuardError, spans};

/// A transaction whose writes carry a sealed grant, from [`Guard::begin`](super::Guard::begin).
///
/// It dereferences to sqlx's [`MySqlConnection`]: `&mut *tx` is an executor, and `tx.begin()` makes a
/// savepoint. Do not send COMMIT, ROLLBACK, START TRANSACTION or DDL (which commits) through it: what comes
/// after would not be guarded, and [`GuardedTx::commit`] reports it.
///
/// Dropped without a commit it is rolled back. Its connection returns to the pool in no transaction, or
/// is closed.
///
/// ```no_run
/// use palisade_guard::GuardError;
/// use palisade_guard::mysql::{Guard, Sealed};
///
/// # async fn example(pool: &sqlx::MySqlPool, sealed: &Sealed) -> Result<(), GuardError> {
/// let mut tx = Guard::new().begin(pool, sealed).await?;
/// let paid = sqlx::query("UPDATE orders SET paid = 1 WHERE id = ?").bind(7_i64);
/// if let Err(error) = paid.execute(&mut *tx).await {
///     return Err(tx.refusal(error)); // says whether to step down or to run it again
/// }
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[must_use = "a transaction that is not committed is rolled back"]
pub struct GuardedTx {
    connection: Option<PoolConnection<MySql>>,
    sealed: Vec<Sealed>,
    /// While a COMMIT or ROLLBACK is on its way: dropped then, the connection is closed.
    unsettled: bool,
    unended: Unended,
}

/// The commit of a guarded transaction: it was admitted, and it happened.
///
/// As an answer it says that nothing is left to be done:
///
/// ```no_run
/// use palisade_guard::GuardError;
/// use palisade_guard::mysql::{Committed, Guard, Sealed};
/// use sqlx::MySqlPool;
///
/// async fn pay(pool: &MySqlPool, sealed: &Sealed, order: i64) -> Result<Committed, GuardError> {
///     let mut tx = Guard::new().begin(pool, sealed).await?;
///     sqlx::query("UPDATE orders SET paid = 1 WHERE id = ?").bind(order).execute(&mut *tx).await?;
///     tx.commit().await
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Committed {}

/// How far the commit message came.
#[derive(Default)]
struct Progress {
    /// Statements that the server has completed: the check is the first, COMMIT the second.
    completed: u32,
    error: Option<sqlx::Error>,
}

impl GuardedTx {
    pub(super) const fn new(connection: PoolConnection<MySql>, sealed: Vec<Sealed>) -> Self {
        Self {
            connection: Some(connection),
            sealed,
            unsettled: false,
            unended: Unended::new(StoreKind::Mysql),
        }
    }

    /// The grants that this transaction carries, ordered by resource.
    pub fn grants(&self) -> impl Iterator<Item = &Grant> {
        self.sealed.iter().map(Sealed::grant)
    }

    /// Says what the error of a query in this transaction means. A refusal of one of its grants kills
    /// every clone of that [`Sealed`].
    #[must_use]
    pub fn refusal(&self, error: sqlx::Error) -> GuardError {
        let error = self.learn(self.known(error));
        metrics::refused(StoreKind::Mysql, &error);
        error
    }

    /// A long name is cut in a message: of the grants here, the one that it is the beginning of is meant.
    fn known(&self, error: sqlx::Error) -> GuardError {
        let cut = errors::refusal(&error).and_then(|refusal| {
            let facts = errors::facts(&error)?;
            let is_meant = |grant: &&Grant| {
                let begins = facts
                    .cut()
                    .is_some_and(|cut| grant.resource.as_str().starts_with(cut));
                begins && facts.is_of(grant.token)
            };
            let grant = self.grants().find(is_meant)?;
            facts.with_resource(&grant.resource).into_error(refusal)
        });
        cut.unwrap_or_else(|| errors::plain(error))
    }

    fn learn(&self, error: GuardError) -> GuardError {
        self.sealed
            .iter()
            .fold(error, |error, sealed| sealed.learn(error))
    }

    /// Checks that this is still the transaction that was admitted, and commits, in one message. `Ok` means
    /// committed, and nothing else does.
    ///
    /// If the future is dropped before it is ready, the transaction may or may not be committed.
    ///
    /// # Errors
    /// [`GuardError::CommitUnknown`] if the answer was lost, or COMMIT itself failed: it may have happened.
    /// After every other error this commit did nothing: [`GuardError::RolledBack`] when the server had ended
    /// the transaction after an earlier error (a deadlock), or it was rolled back by hand;
    /// [`GuardError::Unguarded`] when it was *committed* by hand or by DDL before.
    pub async fn commit(mut self) -> Result<Committed, GuardError> {
        self.unended.end();
        let first = self.sealed.first().map(Sealed::grant);
        let span = spans::commit(StoreKind::Mysql, first, self.sealed.len());
        let timer = Timer::start();
        let committed = self.check_and_commit().instrument(span).await;
        metrics::store_answered(StoreKind::Mysql, Operation::Commit, timer);
        metrics::settled(StoreKind::Mysql, &committed);
        committed
    }

    async fn check_and_commit(mut self) -> Result<Committed, GuardError> {
        if let Some(refused) = self.sealed.iter().find_map(|sealed| sealed.alive().err()) {
            self.end_transaction().await;
            return Err(refused);
        }
        if self.depth() != 1 {
            self.end_transaction().await;
            return Err(GuardError::Misuse("a savepoint was left open at commit"));
        }
        self.unsettled = true;
        let Progress { completed, error } = self.send_commit().await;
        match error {
            None if completed >= 2 => {
                self.unsettled = false;
                Ok(Committed {})
            }
            // The server stops at the first statement that fails: COMMIT was not reached.
            Some(error) if completed == 0 && errors::is_refused(&error) => {
                Err(self.refused(error).await)
            }
            error => match error.map(errors::known) {
                // The whole of it was rolled back, as a cluster does with the loser of two.
                Some(Ok(met @ GuardError::Serialization(_))) => {
                    self.end_transaction().await;
                    Err(met)
                }
                Some(Err(error)) => Err(unknown(error.into())),
                Some(Ok(known)) => Err(unknown(Box::new(known))),
                None => Err(unknown(Box::from("the server's answer ended early"))),
            },
        }
    }

    async fn send_commit(&mut self) -> Progress {
        let mut progress = Progress::default();
        let connection = self.connection.as_mut().expect("taken by value only");
        let mut answers = sqlx::raw_sql(sql::COMMIT).fetch_many(&mut **connection);
        loop {
            match answers.try_next().await {
                Ok(Some(Either::Left(_))) => progress.completed += 1,
                Ok(Some(Either::Right(_))) => {}
                Ok(None) => return progress,
                Err(error) => {
                    progress.error = Some(error);
                    return progress;
                }
            }
        }
    }

    /// Not committed: ends the transaction and says why.
    async fn refused(mut self, error: sqlx::Error) -> GuardError {
        let reason = match self.known(error) {
            GuardError::Backend(source) => GuardError::RolledBack(Some(source)),
            // The procedure knows of no name: no entry was for another resource.
            GuardError::Unguarded { .. } => GuardError::Unguarded {
                resource: self
                    .grants()
                    .next()
                    .map(|grant| grant.resource.to_string())
                    .unwrap_or_default(),
                table: None,
            },
            other => other,
        };
        self.end_transaction().await;
        self.learn(reason)
    }

    /// Rolls back. Not needed before a drop, but it says when it is done.
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::mysql::{Guard, Sealed};
    /// # async fn example(pool: &sqlx::MySqlPool, sealed: &Sealed) -> Result<(), GuardError> {
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

    fn depth(&self) -> usize {
        let connection = self.connection.as_ref().expect("taken by value only");
        Manager::get_transaction_depth(connection)
    }

    /// Leaves the transaction, whatever its state; says whether the connection is usable. One ROLLBACK for
    /// all: a savepoint may be gone with a transaction that the server has ended.
    async fn end_transaction(&mut self) -> bool {
        // Closed by drop if this is cut short or fails.
        self.unsettled = true;
        let connection = self.connection.as_mut().expect("taken by value only");
        let ended = sqlx::raw_sql("ROLLBACK AND NO CHAIN NO RELEASE")
            .execute(&mut **connection)
            .await
            .is_ok();
        self.unsettled = !ended;
        ended
    }
}

fn unknown(source: Box<dyn std::error::Error + Send + Sync>) -> GuardError {
    GuardError::CommitUnknown {
        transaction: None,
        source,
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
        // Queued now, sent when the pool takes the connection back. Also savepoints that were leaked: sqlx
        // counts them. After a commit there is nothing to roll back, and no harm in it.
        while Manager::get_transaction_depth(&connection) > 0 {
            Manager::start_rollback(&mut connection);
        }
    }
}

impl Deref for GuardedTx {
    type Target = MySqlConnection;

    fn deref(&self) -> &MySqlConnection {
        self.connection.as_ref().expect("taken by value only")
    }
}

impl DerefMut for GuardedTx {
    fn deref_mut(&mut self) -> &mut MySqlConnection {
        self.connection.as_mut().expect("taken by value only")
    }
}

impl fmt::Debug for GuardedTx {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GuardedTx")
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}
