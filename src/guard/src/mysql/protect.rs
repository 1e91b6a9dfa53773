use palisade_token::ResourceName;
use sqlx::{MySqlPool, Row};

use super::lent::Lent;
use super::{Guard, errors, sql};
use crate::GuardError;

const EVENTS: [&str; 3] = ["INSERT", "UPDATE", "DELETE"];

/// How the triggers' names begin; a number that the server gives once follows.
const PREFIX: &str = "palisade_guard_";

impl Guard {
    /// Refuses every change of a row of the table (INSERT, REPLACE, UPDATE, DELETE, LOAD DATA) in a transaction
    /// that has not entered `resource`. `table` is the plain name of an `InnoDB` table in the pool's database.
    /// Protecting it again for the same resource changes nothing; run it again after an error.
    ///
    /// It waits for the transactions that use the table now, as long as a seal would.
    ///
    /// # Errors
    /// [`GuardError::Misuse`] if there is no such table, or it is protected for another resource;
    /// [`GuardError::Serialization`] if the wait was too long; [`GuardError::Backend`].
    pub async fn protect(
        &self,
        pool: &MySqlPool,
        table: &str,
        resource: &ResourceName,
    ) -> Result<(), GuardError> {
        let mut lent = self.definer(pool).await?;
        let table = ordinary(&mut lent, table).await?;
        let present = guards(&mut lent, &table).await?;
        let condition = condition(resource);
        if present.iter().any(|guard| !guard.body.contains(&condition)) {
            return Err(GuardError::Misuse(
                "the table is protected for another resource: unprotect it first",
            ));
        }
        for event in EVENTS {
            if present.iter().any(|guard| guard.event == event) {
                continue;
            }
            let text = trigger(&mut lent, event, &table, resource).await?;
            lent.run(sql::message(text)).await.map_err(errors::plain)?;
        }
        Ok(())
    }

    /// Takes the protection off the table. Nothing is refused afterwards.
    ///
    /// ```no_run
    /// # use palisade_guard::GuardError;
    /// # use palisade_guard::mysql::Guard;
    /// # async fn example(
    /// #     pool: &sqlx::MySqlPool,
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
    pub async fn unprotect(&self, pool: &MySqlPool, table: &str) -> Result<(), GuardError> {
        let mut lent = self.definer(pool).await?;
        let table = ordinary(&mut lent, table).await?;
        for guard in guards(&mut lent, &table).await? {
            let drop = format!("DROP TRIGGER IF EXISTS {}", sql::identifier(&guard.name));
            lent.run(sql::message(drop)).await.map_err(errors::plain)?;
        }
        Ok(())
    }

    /// A connection for DDL, closed afterwards: its settings are not those of the pool.
    async fn definer(&self, pool: &MySqlPool) -> Result<Lent, GuardError> {
        let mut lent = Lent::from(pool).await?;
        lent.run(sql::before_ddl(self.wait()))
            .await
            .map_err(errors::plain)?;
        Ok(lent)
    }
}

/// The table's name as it was created: some servers do not tell names apart by case.
async fn ordinary(lent: &mut Lent, table: &str) -> Result<String, GuardError> {
    let name: Option<String> = sqlx::query_scalar(
        "SELECT CAST(table_name AS CHAR) FROM information_schema.tables \
         WHERE table_schema = DATABASE() AND table_name = ? AND table_type = 'BASE TABLE' \
         AND engine = 'InnoDB' AND table_name NOT LIKE 'palisade\\_%'",
    )
    .bind(table)
    .fetch_optional(&mut **lent.connection())
    .await
    .map_err(errors::plain)?;
    name.ok_or(GuardError::Misuse(
        "there is no such table, or it is one that cannot be protected: InnoDB alone takes a write back",
    ))
}

struct Present {
    name: String,
    event: String,
    body: String,
}

/// The guard's triggers on a table; a renamed table has taken its own along.
async fn guards(lent: &mut Lent, table: &str) -> Result<Vec<Present>, GuardError> {
    let rows = sqlx::query(
        "SELECT CAST(trigger_name AS CHAR) AS name, CAST(event_manipulation AS CHAR) AS event, \
         CAST(action_statement AS CHAR) AS body FROM information_schema.triggers \
         WHERE trigger_schema = DATABASE() AND event_object_table = ? \
         AND trigger_name LIKE 'palisade\\_guard\\_%'",
    )
    .bind(table)
    .fetch_all(&mut **lent.connection())
    .await
    .map_err(errors::plain)?;
    rows.iter()
        .map(|row| {
            Ok(Present {
                name: row.try_get("name")?,
                event: row.try_get("event")?,
                body: row.try_get("body")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(errors::plain)
}

/// What tells one resource's triggers from another's.
fn condition(resource: &ResourceName) -> String {
    format!("e.resource = '{resource}' LOCK")
}

/// Two lookups by key for each row written. The locking read sees what is committed last, also where the
/// entry is one that was left behind and its transaction's lock is gone.
async fn trigger(
    lent: &mut Lent,
    event: &str,
    table: &str,
    resource: &ResourceName,
) -> Result<String, GuardError> {
    let unique: u64 = sqlx::query_scalar("SELECT UUID_SHORT()")
        .fetch_one(&mut **lent.connection())
        .await
        .map_err(errors::plain)?;
    let (condition, told) = (condition(resource), sql::literal(table));
    let table = sql::identifier(table);
    Ok(format!(
        "CREATE TRIGGER {PREFIX}{unique} BEFORE {event} ON {table} FOR EACH ROW BEGIN \
         DECLARE v_good INT; \
         SELECT COUNT(*) INTO v_good FROM palisade_entry AS e JOIN palisade_fence AS f \
         ON f.resource = e.resource AND f.token = e.token AND f.holder = e.holder \
         WHERE e.stamp = @palisade_stamp AND {condition} IN SHARE MODE; \
         IF v_good = 0 THEN CALL palisade_enforce('{resource}', {told}); END IF; END"
    ))
}
