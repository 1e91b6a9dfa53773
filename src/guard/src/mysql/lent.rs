use sqlx::pool::PoolConnection;
use sqlx::{MySql, MySqlPool, Row};

use super::errors::{self, Facts};
use super::sql;
use crate::GuardError;

/// A connection from the pool that is closed when dropped, unless it was given back clean: whatever is
/// cut short in between, no later user of the pool meets a transaction, a lock or a setting of ours.
pub(super) struct Lent(Option<PoolConnection<MySql>>);

impl Lent {
    pub(super) async fn from(pool: &MySqlPool) -> Result<Self, GuardError> {
        Ok(Self(Some(pool.acquire().await.map_err(errors::plain)?)))
    }

    pub(super) fn connection(&mut self) -> &mut PoolConnection<MySql> {
        self.0.as_mut().expect("only give_back takes it, by value")
    }

    /// The connection is in no transaction: another may have it.
    pub(super) fn give_back(mut self) {
        drop(self.0.take());
    }

    /// The connection is in a transaction that its new owner ends.
    pub(super) fn hand_over(mut self) -> PoolConnection<MySql> {
        self.0.take().expect("only give_back takes it, by value")
    }

    pub(super) async fn run(&mut self, text: sqlx::SqlStr) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(text)
            .execute(&mut **self.connection())
            .await
            .map(drop)
    }

    /// What an error means; asks the session what a refusal was about.
    pub(super) async fn explain(&mut self, error: sqlx::Error) -> GuardError {
        let Some(refusal) = errors::refusal(&error) else {
            return errors::plain(error);
        };
        let facts = sqlx::raw_sql(sql::REFUSAL)
            .fetch_one(&mut **self.connection())
            .await
            .and_then(|row| row.try_get::<Option<String>, _>("refusal"));
        match facts {
            Ok(facts) => facts
                .as_deref()
                .and_then(Facts::parse)
                .and_then(|facts| facts.into_error(refusal))
                .unwrap_or_else(|| errors::plain(error)),
            Err(_lost) => errors::plain(error),
        }
    }

    /// Gives the connection back after this message, else closes it.
    pub(super) async fn give_back_after(mut self, text: &'static str) {
        if self.run(sqlx::SqlSafeStr::into_sql_str(text)).await.is_ok() {
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
