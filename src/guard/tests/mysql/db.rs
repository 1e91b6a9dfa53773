use std::sync::{Arc, Weak};
use std::time::Duration;

use palisade_guard::mysql::{Guard, Sealed};
use palisade_guard::{Class, GuardError};
use palisade_test_support::{MariaDb, eventually};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection, MySqlPool};
use tokio::sync::Mutex;

/// Two busy cores run many tests at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const LEVELS: [&str; 4] = [
    "READ UNCOMMITTED",
    "READ COMMITTED",
    "REPEATABLE READ",
    "SERIALIZABLE",
];

/// The server lives as long as a test that uses it.
static SERVER: Mutex<Weak<MariaDb>> = Mutex::const_new(Weak::new());

async fn server() -> Arc<MariaDb> {
    let mut shared = SERVER.lock().await;
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(MariaDb::start().await.expect("MariaDB starts"));
    *shared = Arc::downgrade(&server);
    server
}

/// A database of the test's own.
pub(crate) struct Db {
    pub(crate) guard: Guard,
    pub(crate) pool: MySqlPool,
    pub(crate) server: Arc<MariaDb>,
    pub(crate) url: String,
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
        let pool = MySqlPoolOptions::new()
            .max_connections(20)
            .acquire_timeout(PATIENCE)
            .connect(&url)
            .await
            .unwrap();
        Self {
            guard: Guard::new(),
            pool,
            server,
            url,
        }
    }

    /// With a table `orders` that is protected for `orders`, and one `plain` that is not protected.
    pub(crate) async fn new() -> Self {
        let db = Self::empty().await;
        db.guard.install(&db.pool).await.unwrap();
        db.run(
            "CREATE TABLE orders (id INT PRIMARY KEY, token BIGINT) ENGINE = InnoDB; \
             CREATE TABLE plain (id INT) ENGINE = InnoDB",
        )
        .await;
        db.guard
            .protect(&db.pool, "orders", &name("orders"))
            .await
            .unwrap();
        db
    }

    pub(crate) async fn connect(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.url).await.unwrap()
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

    /// Waits until that many sessions of this server wait for a row lock.
    pub(crate) async fn waiting(&self, sessions: i64) {
        eventually("sessions wait", PATIENCE, async || {
            // Not innodb_trx: that is a copy, which is not renewed while it is looked at within 0.1 s.
            let sql = "SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status \
                       WHERE variable_name = 'INNODB_ROW_LOCK_CURRENT_WAITS'";
            self.number(sql).await == sessions
        })
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

/// A call of one of the procedures for a grant.
pub(crate) fn call(procedure: &str, grant: &Grant) -> String {
    format!(
        "CALL palisade_{procedure}('{}', {}, '{}')",
        grant.resource, grant.token, grant.holder
    )
}

/// Runs SQL as one message; the error number if it fails.
pub(crate) async fn run(connection: &mut MySqlConnection, sql: &str) -> Result<(), u16> {
    let result = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
    result.map(drop).map_err(|error| code(&error))
}

pub(crate) const STALE: u16 = 51_001;
pub(crate) const UNSEALED: u16 = 51_002;
pub(crate) const UNGUARDED: u16 = 51_003;
pub(crate) const COLLISION: u16 = 51_004;
pub(crate) const DEADLOCK: u16 = 1213;

pub(crate) fn code(error: &sqlx::Error) -> u16 {
    error
        .as_database_error()
        .and_then(|error| error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>())
        .unwrap_or_else(|| panic!("not the server's answer: {error}"))
        .number()
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
