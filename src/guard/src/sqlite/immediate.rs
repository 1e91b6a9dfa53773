use std::ops::{Deref, DerefMut};

use futures::TryStreamExt as _;
use sqlx::pool::PoolConnection;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Either, Executor as _};
use sqlx::{Sqlite, SqliteConnection, SqlitePool};
use sqlx_core::transaction::TransactionManager as _;

use super::errors;
use crate::GuardError;

type Manager = <Sqlite as sqlx::Database>::TransactionManager;

/// A transaction that holds SQLite's write lock from its first statement. Dropped, it is rolled back.
pub(super) struct Immediate(Option<PoolConnection<Sqlite>>);

impl Immediate {
    pub(super) async fn begin(pool: &SqlitePool) -> Result<Self, GuardError> {
        Self::begin_on(pool.acquire().await.map_err(errors::plain)?).await
    }

    pub(super) async fn begin_on(
        mut connection: PoolConnection<Sqlite>,
    ) -> Result<Self, GuardError> {
        repair(&mut connection).await;
        let begun = Manager::begin(
            &mut connection,
            Some(sqlx::SqlSafeStr::into_sql_str("BEGIN IMMEDIATE")),
        );
        begun.await.map_err(errors::plain)?;
        Ok(Self(Some(connection)))
    }

    /// Runs a query of some statements, a check, COMMIT, and BEGIN, in one message: each costs a change of
    /// threads. `before` is the number of those before COMMIT. The check has not held if it ends in
    /// `SQLITE_ERROR`.
    ///
    /// The last BEGIN is for sqlx, which counts a transaction until it has rolled one back itself: this one is
    /// empty, and nobody waits for it.
    pub(super) async fn commit_by(
        mut self,
        query: Query<'_, Sqlite, SqliteArguments>,
        before: usize,
    ) -> Result<(), GuardError> {
        let mut unsettled = Unsettled(self.0.take());
        let mut done = 0;
        let ended = {
            let mut results = unsettled.connection().fetch_many(query);
            loop {
                match results.try_next().await {
                    Ok(Some(Either::Left(_))) => done += 1,
                    Ok(Some(Either::Right(_))) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            }
        };
        let tx = Self(Some(unsettled.settled()));
        let committed = match ended {
            Ok(()) if done == before + 2 => return Ok(()),
            // The connection's thread is gone.
            Ok(()) => Err(uncommitted(sqlx::Error::WorkerCrashed)),
            // What is left is the empty transaction, or none.
            Err(_) if done > before => Ok(()),
            Err(error) if done == before => Err(uncommitted(error)),
            Err(error) => {
                let has_not_held =
                    done + 1 == before && errors::primary(&error) == Some(errors::ERROR);
                Err(GuardError::RolledBack(
                    (!has_not_held).then(|| error.into()),
                ))
            }
        };
        drop(tx.rollback().await);
        committed
    }

    /// Is what sqlx would commit the transaction itself, and no savepoint?
    pub(super) fn is_outermost(&self) -> bool {
        Manager::get_transaction_depth(self) == 1
    }

    /// Commits; gives the connection back. After an error nothing was committed, unless the error is
    /// [`GuardError::CommitUnknown`].
    pub(super) async fn commit(mut self) -> Result<PoolConnection<Sqlite>, GuardError> {
        let connection = self.0.as_mut().expect("taken by value only");
        if Manager::get_transaction_depth(connection) != 1 {
            // sqlx would release the savepoint and call that a commit.
            drop(self.rollback().await);
            return Err(GuardError::Misuse("a savepoint was left open at commit"));
        }
        let Err(error) = Manager::commit(connection).await else {
            return Ok(self.0.take().expect("taken by value only"));
        };
        drop(self.rollback().await);
        Err(uncommitted(error))
    }

    /// Leaves the transaction, also one that SQLite has rolled back by itself.
    pub(super) async fn rollback(mut self) -> PoolConnection<Sqlite> {
        let mut connection = self.0.take().expect("taken by value only");
        while Manager::get_transaction_depth(&connection) > 0 {
            if Manager::rollback(&mut connection).await.is_err() {
                repair(&mut connection).await;
                break;
            }
        }
        connection
    }
}

/// What an error of COMMIT means.
fn uncommitted(error: sqlx::Error) -> GuardError {
    match errors::primary(&error) {
        // Refused before anything was written: a reader in the way, a deferred constraint.
        Some(errors::BUSY | errors::LOCKED | errors::CONSTRAINT) => {
            GuardError::RolledBack(Some(Box::new(error)))
        }
        // A commit record that is on disk may count after the next recovery.
        _ => GuardError::CommitUnknown {
            transaction: None,
            source: Box::new(error),
        },
    }
}

/// A connection that is being told to end a transaction past sqlx's count. Who stops waiting in between does not
/// know how far it has come: then it is left in none, before others get it.
struct Unsettled(Option<PoolConnection<Sqlite>>);

impl Unsettled {
    fn connection(&mut self) -> &mut PoolConnection<Sqlite> {
        self.0.as_mut().expect("taken by value only")
    }

    fn settled(mut self) -> PoolConnection<Sqlite> {
        self.0.take().expect("taken by value only")
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(mut connection) = self.0.take() {
            // As the pool does it with what is given back.
            sqlx_core::rt::spawn(async move { repair(&mut connection).await });
        }
    }
}

/// SQLite ends a transaction by itself after some errors; sqlx then counts one that is not there, and
/// cannot roll it back. An empty one in its place can be.
async fn repair(connection: &mut PoolConnection<Sqlite>) {
    let depth = Manager::get_transaction_depth(connection);
    for _ in 0..depth {
        let begun = sqlx::raw_sql("BEGIN").execute(&mut **connection).await;
        let ended = Manager::rollback(connection).await;
        tracing::debug!(?begun, ?ended, "left a transaction that SQLite had ended");
    }
    if Manager::get_transaction_depth(connection) > 0 {
        connection.close_on_drop();
    }
}

impl Drop for Immediate {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else {
            return;
        };
        // Queued, so that the depth does not change meanwhile.
        for _ in 0..Manager::get_transaction_depth(&connection) {
            Manager::start_rollback(&mut connection);
        }
    }
}

impl Deref for Immediate {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.0.as_ref().expect("taken by value only")
    }
}

impl DerefMut for Immediate {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.0.as_mut().expect("taken by value only")
    }
}
