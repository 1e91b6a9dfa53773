use sqlx::SqlitePool;

use super::immediate::Immediate;
use super::{Guard, errors, protect};
use crate::GuardError;

const BOOTSTRAP: &str = "CREATE TABLE IF NOT EXISTS main.palisade_migration (
    version INTEGER NOT NULL PRIMARY KEY,
    applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
)";

/// Version and text of each step. A published step never changes; a new one is added at the end.
const MIGRATIONS: &[(i64, &str)] = &[(1, include_str!("../../sql/sqlite/0001_guard.sql"))];

/// What another language sends, as comments.
const USAGE: &str = include_str!("../../sql/sqlite/usage.sql");

/// All that [`Guard::install`] does, as one text for `sqlite3`, and what another language sends. Where some
/// of it is installed before, it fails and changes nothing, if the client stops at the first error.
///
/// The triggers in it are those of a table `orders` for the resource of the same name.
///
/// ```
/// let script = palisade_guard::sqlite::script();
/// assert!(script.starts_with("BEGIN IMMEDIATE;") && script.contains("palisade_fence"));
/// ```
#[must_use]
pub fn script() -> String {
    let mut script = format!("BEGIN IMMEDIATE;\n{BOOTSTRAP};\n");
    for (version, text) in MIGRATIONS {
        script += &format!(
            "INSERT INTO main.palisade_migration (version) VALUES ({version});\n\n{text}\n"
        );
    }
    script += "COMMIT;\n\n";
    script += USAGE;
    for line in protect::example().lines() {
        script += &format!("-- {line}\n");
    }
    script
}

impl Guard {
    /// Creates the tables `palisade_*`, or brings them up to date: all of it or nothing. Any number of
    /// installers may run at once.
    ///
    /// # Errors
    /// [`GuardError::Newer`] if a newer library made them, [`GuardError::Serialization`] if another writer
    /// was in the way for too long, [`GuardError::Backend`].
    pub async fn install(&self, pool: &SqlitePool) -> Result<(), GuardError> {
        let mut tx = Immediate::begin(pool).await?;
        sqlx::raw_sql(BOOTSTRAP)
            .execute(&mut *tx)
            .await
            .map_err(errors::plain)?;
        let found: i64 =
            sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM main.palisade_migration")
                .fetch_one(&mut *tx)
                .await
                .map_err(errors::plain)?;
        let known = MIGRATIONS.last().map_or(0, |(version, _)| *version);
        if found > known {
            return Err(GuardError::Newer { found, known });
        }
        for (version, text) in MIGRATIONS {
            if *version > found {
                sqlx::raw_sql(*text)
                    .execute(&mut *tx)
                    .await
                    .map_err(errors::plain)?;
                sqlx::query("INSERT INTO main.palisade_migration (version) VALUES (?)")
                    .bind(version)
                    .execute(&mut *tx)
                    .await
                    .map_err(errors::plain)?;
            }
        }
        tx.commit().await.map(drop)
    }
}
