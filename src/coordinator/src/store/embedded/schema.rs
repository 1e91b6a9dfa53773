//! What is in the file.

use sqlx::{Connection, Row, SqliteConnection};

/// "Pali" in ASCII: tells the file from other programs' databases.
pub(super) const APPLICATION: u32 = 0x5061_6c69;

/// The version of the tables below.
pub(super) const VERSION: i64 = 2;

/// Records are JSON: whoever opens the file with the `sqlite3` shell can read them.
const TABLES: &str = "
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL,
    generation TEXT
) STRICT;
INSERT INTO state (one, revision) VALUES (1, 0);
CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    session TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE holds (
    resource TEXT PRIMARY KEY,
    granted INTEGER NOT NULL,
    generation TEXT NOT NULL,
    claim TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE queue (
    resource TEXT NOT NULL,
    since INTEGER NOT NULL,
    claim TEXT NOT NULL,
    PRIMARY KEY (resource, since)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = 1348562025;
";

/// What version 1 did not have.
const SINCE_2: &str = "
CREATE TABLE delays (
    resource TEXT PRIMARY KEY,
    is_running INTEGER NOT NULL,
    last TEXT NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 2;
";

/// What a file turned out to be.
pub(super) enum Found {
    /// A store that this build reads.
    Ours,
    /// A database of another program.
    Foreign,
    /// A store of a newer build.
    Newer(i64),
    /// A store whose pages do not fit together.
    Torn,
}

/// Takes SQLite's lock, looks what the file is, and makes the tables in an empty one.
pub(super) async fn prepare(connection: &mut SqliteConnection) -> Result<Found, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN EXCLUSIVE").await?;
    let application = number(&mut transaction, "PRAGMA application_id").await?;
    let version = number(&mut transaction, "PRAGMA user_version").await?;
    let tables = number(&mut transaction, "SELECT count(*) FROM sqlite_schema").await?;
    let is_ours = application == i64::from(APPLICATION);
    let found = match (is_ours, version, tables) {
        (false, 0, 0) if application == 0 => {
            sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
            sqlx::raw_sql(SINCE_2).execute(&mut *transaction).await?;
            Found::Ours
        }
        (true, 1, _) => {
            sqlx::raw_sql(SINCE_2).execute(&mut *transaction).await?;
            Found::Ours
        }
        (true, VERSION, _) => Found::Ours,
        (true, version, _) if version > VERSION => return Ok(Found::Newer(version)),
        _ => return Ok(Found::Foreign),
    };
    transaction.commit().await?;
    let check = sqlx::query("PRAGMA quick_check(1)").fetch_one(connection);
    let verdict: String = check.await?.try_get(0)?;
    Ok(if verdict == "ok" { found } else { Found::Torn })
}

async fn number(connection: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    let row = sqlx::query(sql).fetch_one(connection).await?;
    row.try_get(0)
}

#[cfg(test)]
mod tests {
    use super::{APPLICATION, SINCE_2, TABLES, VERSION};

    #[test]
    fn the_script_and_the_constants_agree() {
        assert!(TABLES.contains(&format!("application_id = {APPLICATION};")));
        assert!(SINCE_2.contains(&format!("user_version = {VERSION};")));
    }
}
