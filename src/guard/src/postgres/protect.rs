use palisade_token::ResourceName;
use sqlx::PgPool;

use super::lent::Lent;
use super::{Guard, errors, sql};
use crate::GuardError;

impl Guard {
    /// Refuses every statement that writes the table, or one of its present partitions and children, in
    /// a transaction that has not entered `resource`: INSERT, UPDATE (also of no rows), DELETE, TRUNCATE,
    /// COPY, MERGE, cascades and replica sessions. `table` is written as in SQL, with schema and quotes where
    /// needed. Only its owner can do this. Run again it puts right what was weakened since.
    ///
    /// Partitions that come later are guarded as they come, if a superuser has installed the guard (or has
    /// called `palisade.watch_partitions()`); else they are open until this is run again, and
    /// [`Guard::audit`] names them. So is one made by a transaction at REPEATABLE READ or SERIALIZABLE whose
    /// snapshot is older than the protection: it cannot see that there is one.
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

    /// Guards each row for a resource of its own: `prefix`, if there is one, and the values of `columns`, as
    /// text, joined by `/`; `accounts/eu/17`, say. A row that is inserted, changed or deleted needs an entry
    /// for its resource, one that moves needs one for either. TRUNCATE is refused, and so is a row whose
    /// value is NULL or has a `/` in it: through an entry for another resource it would pass. A statement
    /// that touches no row passes, having written nothing.
    ///
    /// It costs more than [`Guard::protect`], once for each row. Beyond that it guards against
    /// logical replication, too, and new partitions have it from the start (for TRUNCATE see there).
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::postgres::Guard;
    /// # async fn example(pool: &sqlx::PgPool) -> Result<(), GuardError> {
    /// // The row of account 17 in `eu` is written by the holder of `accounts/eu/17`.
    /// let prefix = "accounts".parse().expect("a resource name");
    /// Guard::new().protect_rows(pool, "accounts", Some(&prefix), &["region", "id"]).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Guard::protect`], also for a column that the table does not have, for one whose text depends on the
    /// settings of a session (floats, dates and times, `bytea`, …: one row would have several resources), and for
    /// none or more than 8.
    pub async fn protect_rows(
        &self,
        pool: &PgPool,
        table: &str,
        prefix: Option<&ResourceName>,
        columns: &[&str],
    ) -> Result<(), GuardError> {
        let columns: Vec<String> = columns.iter().map(|column| sql::literal(column)).collect();
        let prefix =
            prefix.map_or_else(|| "NULL".to_owned(), |prefix| sql::literal(prefix.as_str()));
        let call = format!(
            "palisade.protect({}::regclass, ARRAY[{}]::text[], {prefix})",
            sql::literal(table),
            columns.join(", ")
        );
        self.define(pool, &call).await
    }

    /// Takes the protection off the table and its partitions. Nothing is refused afterwards.
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::postgres::Guard;
    /// # async fn example(
    /// #     pool: &sqlx::PgPool,
    /// #     orders_eu: &palisade_token::ResourceName,
    /// # ) -> Result<(), GuardError> {
    /// // The table goes over to another resource, while nobody writes it.
    /// let guard = Guard::new();
    /// guard.unprotect(pool, "orders").await?;
    /// guard.protect(pool, "orders", orders_eu).await?;
    /// # Ok(()) }
    /// ```
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
