use sqlx::pool::PoolConnection;
use sqlx::postgres::PgRow;
use sqlx::{PgPool, Postgres};

use super::{errors, sql};
use crate::GuardError;

/// A connection from the pool that is closed when dropped, unless it was given back clean: whatever is
/// cut short in between, no later user of the pool meets a transaction or a lock of ours.
pub(super) struct Lent(Option<PoolConnection<Postgres>>);

impl Lent {
    pub(super) async fn from(pool: &PgPool) -> Result<Self, GuardError> {
        Ok(Self(Some(pool.acquire().await.map_err(errors::plain)?)))
    }

    pub(super) fn connection(&mut self) -> &mut PoolConnection<Postgres> {
        self.0.as_mut().expect("only give_back takes it, by value")
    }

    /// The connection is in no transaction: another may have it.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }

    /// The connection is in a transaction that its new owner ends.
    pub(super) fn hand_over(mut self) -> PoolConnection<Postgres> {
        self.0.take().expect("only give_back takes it, by value")
    }

    /// Sends one message that leaves no transaction behind if it succeeds, and gives the connection back.
    pub(super) async fn run(self, text: sqlx::SqlStr) -> Result<(), sqlx::Error> {
        self.fetch(text).await.map(drop)
    }

    /// As [`Lent::run`], and gives all rows.
    pub(super) async fn fetch(mut self, text: sqlx::SqlStr) -> Result<Vec<PgRow>, sqlx::Error> {
        let result = sqlx::raw_sql(text)
            .fetch_all(&mut **self.connection())
            .await;
        match result {
            Ok(rows) => {
                self.give_back();
                Ok(rows)
            }
            Err(error) => {
                self.recover(&error).await;
                Err(error)
            }
        }
    }

    /// Gives the connection back after an error: rolled back if the server still listens, else closed.
    pub(super) async fn recover(mut self, error: &sqlx::Error) {
        if errors::is_refused(error)
            && sqlx::raw_sql(sql::message("ROLLBACK".to_owned()))
                .execute(&mut **self.connection())
                .await
                .is_ok()
        {
            self.give_back();
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}
