use std::ops::{Deref, DerefMut};

use sqlx::pool::PoolConnection;
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
        let error = match errors::primary(&error) {
            // Refused before anything was written: a reader in the way, a deferred constraint.
            Some(errors::BUSY | errors::LOCKED | errors::CONSTRAINT) => {
                GuardError::RolledBack(Some(Box::new(error)))
            }
            // A commit record that is on disk may count after the next recovery.
            _ => GuardError::CommitUnknown {
                transaction: None,
                source: Box::new(error),
            },
        };
        drop(self.rollback().await);
        Err(error)
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
