use std::sync::{Arc, Weak};
use std::time::Duration;

use palisade_guard::postgres::{Guard, Sealed};
use palisade_guard::{Class, GuardError};
use palisade_test_support::{Postgres, eventually};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use tokio::sync::Mutex;

/// Two busy cores run many tests at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// The server lives as long as a test that uses it.
static SERVER: Mutex<Weak<Postgres>> = Mutex::const_new(Weak::new());

async fn server() -> Arc<Postgres> {
    let mut shared = SERVER.lock().await;
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Postgres::builder()
        .fsync(false)
        .setting("max_connections", "300")
        .setting("max_prepared_transactions", "10")
        // The guard's waits are bounded by itself; a deadlock must show as such, and soon.
        .setting("deadlock_timeout", "100ms")
        .start()
        .await
        .expect("PostgreSQL starts");
    let server = Arc::new(server);
    *shared = Arc::downgrade(&server);
    server
}

/// A database of the test's own, with the guard installed.
pub(crate) struct Db {
    pub(crate) guard: Guard,
    pub(crate) pool: PgPool,
    pub(crate) server: Arc<Postgres>,
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Db {
    pub(crate) async fn empty() -> Self {
        let name: String = std::thread::current()
            .name()
            .expect("a test's thread has its name")
            .chars()
            .map(|letter| {
                if letter.is_ascii_alphanumeric() {
                    letter
                } else {
                    '_'
                }
            })
            .take(60)
            .collect();
        let server = server().await;
        let url = server.create_database(&name).await.unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(40)
            .acquire_timeout(PATIENCE)
            .connect(&url)
            .await
            .unwrap();
        Self {
            guard: Guard::new(),
            pool,
            server,
            url,
            name,
        }
    }

    pub(crate) async fn new() -> Self {
        let db = Self::empty().await;
        db.guard.install(&db.pool).await.unwrap();
        db
    }

    /// With a table `orders` that is protected for `orders`.
    pub(crate) async fn with_orders() -> Self {
        let db = Self::new().await;
        db.run("CREATE TABLE orders (id bigint, token bigint)")
            .await;
        db.guard
            .protect(&db.pool, "orders", &name("orders"))
            .await
            .unwrap();
        db
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// Runs SQL that must succeed, on some connection of the pool.
    pub(crate) async fn run(&self, sql: &str) {
        self.pool
            .execute(sqlx::raw_sql(AssertSqlSafe(sql)))
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) async fn seal(&self, grant: &Grant) -> Sealed {
        self.guard.seal(&self.pool, grant).await.unwrap()
    }

    /// How many sessions of this database wait for a lock.
    pub(crate) async fn waiters(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity \
                   WHERE wait_event_type = 'Lock' AND datname = current_database()";
        self.number(sql).await
    }

    /// Waits until that many sessions of this database wait for a lock.
    pub(crate) async fn waiting(&self, sessions: i64) {
        let are_there = async || self.waiters().await == sessions;
        eventually("sessions wait", PATIENCE, are_there)
            .await
            .unwrap();
    }
}

pub(crate) fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

/// A grant whose holder follows from its token.
pub(crate) fn grant(resource: &str, token: u64) -> Grant {
    Grant {
        resource: name(resource),
        token: FencingToken::new(token).unwrap(),
        holder: HolderId::from_bytes([u8::try_from(token % 251).unwrap(); 16]),
    }
}

/// The arguments of the SQL functions for a grant.
pub(crate) fn sql(grant: &Grant) -> String {
    format!("'{}', {}, '{}'", grant.resource, grant.token, grant.holder)
}

/// The grant as the library sends it with BEGIN.
pub(crate) fn words(grant: &Grant) -> String {
    format!("' {} {} {}'", grant.resource, grant.token, grant.holder)
}

/// Runs SQL as one message; the SQLSTATE if it fails.
pub(crate) async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), String> {
    let result = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
    result.map(drop).map_err(|error| code(&error))
}

pub(crate) fn code(error: &sqlx::Error) -> String {
    error
        .as_database_error()
        .and_then(|error| error.code())
        .unwrap_or_else(|| panic!("not the server's answer: {error}"))
        .into_owned()
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
