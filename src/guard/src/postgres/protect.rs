use palisade_token::ResourceName;
use sqlx::PgPool;

use super::lent::Lent;
use super::{Guard, errors, sql};
use crate::GuardError;

impl Guard {
    /// Refuses every statement that writes the table, or one of its present partitions and children, in
    /// a transaction that has not entered `resource`: INSERT, UPDATE (also of no rows), DELETE, TRUNCATE,
    /// COPY, MERGE, cascades and replica sessions. Run it again after partitions were added. `table` is
    /// written as in SQL, with schema and quotes where needed. Only its owner can do this.
    ///
    /// It waits for the transactions that write the table now, as long as the seal policy says.
    ///
    /// # Errors
    /// [`GuardError::Backend`]: no such table, not its owner, a partition (protect its root), protected
    /// for another resource already, or the wait was too long.
    pub async fn protect(
        &self,
        pool: &PgPool,
        table: &str,
        resource: &ResourceName,
    ) -> Result<(), GuardError> {
        let call = format!(
            "palisade.protect({}::regclass, {})",
            sql::literal(table),
            sql::literal(resource.as_str())
        );
        self.define(pool, &call).await
    }

    /// Takes the protection off the table and its partitions. Nothing is refused afterwards.
    ///
    /// # Errors
    /// As [`Guard::protect`].
    pub async fn unprotect(&self, pool: &PgPool, table: &str) -> Result<(), GuardError> {
        let call = format!("palisade.unprotect({}::regclass)", sql::literal(table));
        self.define(pool, &call).await
    }

    async fn define(&self, pool: &PgPool, call: &str) -> Result<(), GuardError> {
        let wait = self.seal_policy.wait().as_millis();
        let text = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {wait}; \
             SELECT {call}; COMMIT"
        );
        let lent = Lent::from(pool).await?;
        lent.run(sql::message(text)).await.map_err(errors::plain)
    }
}
