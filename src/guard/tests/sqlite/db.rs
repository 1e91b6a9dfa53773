use std::time::Duration;

use palisade_guard::sqlite::{Guard, Sealed};
use palisade_guard::{Class, GuardError};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, SqliteConnection, SqlitePool};
use tempfile::TempDir;

pub(crate) const RAISED: &str = "1811";
pub(crate) const BUSY: &str = "5";

/// A database file with tables `orders` and `bills`, each protected for its own name.
pub(crate) struct Db {
    pub(crate) guard: Guard,
    pub(crate) pool: SqlitePool,
    pub(crate) options: SqliteConnectOptions,
    _directory: TempDir,
}

impl Db {
    pub(crate) async fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("data.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.clone())
            .await
            .unwrap();
        Self {
            guard: Guard::new(),
            pool,
            options,
            _directory: directory,
        }
    }

    pub(crate) async fn new() -> Self {
        let db = Self::empty().await;
        db.guard.install(&db.pool).await.unwrap();
        let tables = "CREATE TABLE orders (id INTEGER PRIMARY KEY, token INTEGER); \
                      CREATE TABLE bills (id INTEGER)";
        run(&mut db.connect().await, tables).await.unwrap();
        for table in ["orders", "bills"] {
            db.guard
                .protect(&db.pool, table, &name(table))
                .await
                .unwrap();
        }
        db
    }

    pub(crate) async fn connect(&self) -> SqliteConnection {
        self.options.connect().await.unwrap()
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    pub(crate) async fn seal(&self, grant: &Grant) -> Sealed {
        self.guard.seal(&self.pool, grant).await.unwrap()
    }
}

pub(crate) fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

pub(crate) fn grant(resource: &str, token: u64) -> Grant {
    Grant {
        resource: name(resource),
        token: FencingToken::new(token).unwrap(),
        holder: HolderId::from_bytes([u8::try_from(token % 251).unwrap(); 16]),
    }
}

pub(crate) fn enter(grant: &Grant) -> String {
    format!(
        "INSERT INTO palisade_entry (resource, token, holder) VALUES ('{}', {}, '{}')",
        grant.resource, grant.token, grant.holder
    )
}

/// Runs SQL; the extended result code if it fails.
pub(crate) async fn run(connection: &mut SqliteConnection, sql: &str) -> Result<(), String> {
    let result = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    result.map(drop).map_err(|error| {
        let server = error
            .as_database_error()
            .unwrap_or_else(|| panic!("{sql}: {error}"));
        server.code().unwrap().into_owned()
    })
}

#[track_caller]
pub(crate) fn assert_stale(error: &GuardError, presented: u64, at: u64) {
    assert!(
        matches!(error, GuardError::Stale { presented: p, fence, .. }
            if p.get() == presented && fence.get() == at),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Fatal);
}
