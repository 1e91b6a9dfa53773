use palisade_token::ResourceName;
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool};

use super::immediate::Immediate;
use super::{Guard, errors};
use crate::GuardError;

const EVENTS: [&str; 3] = ["insert", "update", "delete"];

impl Guard {
    /// Refuses every change of a row of the table (INSERT, also OR REPLACE, UPDATE, DELETE, upserts and
    /// cascades) by a transaction without an entry for `resource`. `table` is its plain name in the main
    /// database. Protecting it again for the same resource changes nothing.
    ///
    /// # Errors
    /// [`GuardError::Misuse`] if there is no such table, or it is protected for another resource;
    /// [`GuardError::Serialization`] if another writer was in the way for too long; [`GuardError::Backend`].
    pub async fn protect(
        &self,
        pool: &SqlitePool,
        table: &str,
        resource: &ResourceName,
    ) -> Result<(), GuardError> {
        let mut tx = Immediate::begin(pool).await?;
        let table = &ordinary(&mut tx, table).await?;
        let present = guards(&mut tx, table).await?;
        for event in EVENTS {
            let prefix = trigger_name("", event);
            let condition = condition(resource);
            match present.iter().find(|(name, _)| name.starts_with(&prefix)) {
                Some((_, text)) if text.contains(&condition) => {}
                Some(_) => {
                    return Err(GuardError::Misuse(
                        "the table is protected for another resource: unprotect it first",
                    ));
                }
                None => {
                    vacant(&mut tx, &trigger_name(table, event)).await?;
                    sqlx::raw_sql(AssertSqlSafe(trigger(table, event, resource)))
                        .execute(&mut *tx)
                        .await
                        .map_err(errors::plain)?;
                }
            }
        }
        tx.commit().await.map(drop)
    }

    /// Takes the protection off the table. Nothing is refused afterwards.
    ///
    /// ```
    /// # use palisade_guard::sqlite::Guard;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let file = folder.path().join("app.db");
    /// # let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    /// # let pool = sqlx::SqlitePool::connect_with(options.create_if_missing(true)).await?;
    /// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
    /// # let table = "CREATE TABLE orders (id INTEGER PRIMARY KEY, paid INTEGER)";
    /// # sqlx::raw_sql(table).execute(&pool).await?;
    /// # let guard = Guard::new();
    /// # guard.install(&pool).await?;
    /// guard.protect(&pool, "orders", &grant.resource).await?;
    /// guard.unprotect(&pool, "orders").await?;
    /// // By anybody, from now on.
    /// sqlx::query("INSERT INTO orders (id, paid) VALUES (7, 1)").execute(&pool).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Guard::protect`].
    pub async fn unprotect(&self, pool: &SqlitePool, table: &str) -> Result<(), GuardError> {
        let mut tx = Immediate::begin(pool).await?;
        let table = &ordinary(&mut tx, table).await?;
        for (name, _) in guards(&mut tx, table).await? {
            let name = identifier(&name);
            sqlx::raw_sql(AssertSqlSafe(format!("DROP TRIGGER main.{name}")))
                .execute(&mut *tx)
                .await
                .map_err(errors::plain)?;
        }
        tx.commit().await.map(drop)
    }
}

/// The table's name as it was created: SQLite does not tell names apart by case.
async fn ordinary(connection: &mut SqliteConnection, table: &str) -> Result<String, GuardError> {
    let name: Option<String> = sqlx::query_scalar(
        "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name = ? COLLATE NOCASE \
         AND name NOT LIKE 'palisade\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%'",
    )
    .bind(table)
    .fetch_optional(connection)
    .await
    .map_err(errors::plain)?;
    name.ok_or(GuardError::Misuse(
        "there is no such table, or it is one that cannot be protected",
    ))
}

/// Name and text of the guard's triggers on a table. By table: a table that was renamed since has triggers
/// with its old name in theirs.
async fn guards(
    connection: &mut SqliteConnection,
    table: &str,
) -> Result<Vec<(String, String)>, GuardError> {
    sqlx::query_as(
        "SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' \
         AND tbl_name = ? COLLATE NOCASE AND name GLOB 'zz_palisade_guard_*'",
    )
    .bind(table)
    .fetch_all(connection)
    .await
    .map_err(errors::plain)
}

/// Refuses a name that a trigger of another table has.
async fn vacant(connection: &mut SqliteConnection, trigger: &str) -> Result<(), GuardError> {
    let taken: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema \
         WHERE type = 'trigger' AND name = ? COLLATE NOCASE)",
    )
    .bind(trigger)
    .fetch_one(connection)
    .await
    .map_err(errors::plain)?;
    if taken {
        return Err(GuardError::Misuse(
            "a table that had this name before is still protected under it: unprotect that one, and \
             protect it again",
        ));
    }
    Ok(())
}

fn trigger_name(table: &str, event: &str) -> String {
    format!("zz_palisade_guard_{event}_{table}")
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What tells one resource's triggers from another's; SQLite rewrites the rest when a table is renamed.
fn condition(resource: &ResourceName) -> String {
    format!("WHERE e.resource = '{resource}')")
}

/// Two lookups in tables of a few rows for each row written. The names are of the trigger's own database:
/// no temporary table can stand in for them.
fn trigger(table: &str, event: &str, resource: &ResourceName) -> String {
    let (name, table) = (identifier(&trigger_name(table, event)), identifier(table));
    let (unguarded, refused) = (errors::UNGUARDED, errors::REFUSED);
    let condition = condition(resource);
    format!(
        "CREATE TRIGGER main.{name} BEFORE {event} ON {table} \
         WHEN NOT EXISTS (SELECT 1 FROM palisade_entry AS e JOIN palisade_fence AS f \
         ON f.resource = e.resource AND f.token = e.token AND f.holder = e.holder \
         {condition} BEGIN \
         SELECT CASE WHEN EXISTS (SELECT 1 FROM palisade_entry WHERE resource = '{resource}') \
         THEN RAISE(ABORT, '{refused}{resource}') \
         ELSE RAISE(ABORT, '{unguarded}{resource}') END; END"
    )
}

/// What protects a table `orders` for a resource of that name.
pub(super) fn example() -> String {
    let orders = ResourceName::new("orders").expect("it is a name");
    EVENTS
        .map(|event| trigger("orders", event, &orders) + ";\n")
        .concat()
}
