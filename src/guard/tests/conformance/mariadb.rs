use std::cell::Cell;
use std::process::Command;

use palisade_guard::GuardError;
use palisade_guard::conformance::{Subject, resources, run_all};
use palisade_guard::decide::Mark;
use palisade_guard::mysql::{Guard, GuardedTx, Sealed};
use palisade_test_support::MariaDb;
use palisade_token::{Grant, ResourceName};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{AssertSqlSafe, MySqlConnection, MySqlPool, Transaction};
use tokio::sync::Mutex;

use crate::broken::{
    BYPASSED, CHECKED_EARLY, Check, PATIENCE, PAUSE, UNCHECKED, UNLOCKED, fails, pass,
};
use crate::sql;

#[tokio::test]
async fn it_does_what_every_store_must() {
    let server = Server::start().await;
    run_all(|| server.subject(Check::Whole)).await;
}

#[tokio::test]
async fn without_its_check_it_fails() {
    let server = Server::start().await;
    fails(|| server.subject(Check::NotByTheStore), &[BYPASSED]).await;
    fails(|| server.subject(Check::BeforeTheWrite), &[CHECKED_EARLY]).await;
    let all: &[_] = &[BYPASSED, UNCHECKED, UNLOCKED];
    fails(|| server.subject(Check::Never), all).await;
}

struct Server {
    mariadb: Mutex<MariaDb>,
    databases: Cell<u32>,
}

/// A database with a table of one row for each resource, each protected for it.
struct Database<'a> {
    server: &'a Server,
    guard: Guard,
    pool: MySqlPool,
    name: String,
    check: Check,
}

enum Write {
    Guarded(GuardedTx),
    Plain(Transaction<'static, sqlx::MySql>),
}

impl Server {
    async fn start() -> Self {
        Self {
            mariadb: Mutex::new(MariaDb::start().await.unwrap()),
            databases: Cell::new(0),
        }
    }

    async fn connect(&self, database: &str) -> MySqlPool {
        let url = self.mariadb.lock().await.url_for(database);
        let options = MySqlPoolOptions::new().max_connections(12);
        let options = options.acquire_timeout(PATIENCE);
        options.connect(&url).await.unwrap()
    }

    async fn subject(&self, check: Check) -> Database<'_> {
        self.databases.set(self.databases.get() + 1);
        let name = format!("case_{}", self.databases.get());
        let made = self.mariadb.lock().await.create_database(&name).await;
        made.unwrap();
        let new = Database {
            server: self,
            guard: Guard::new(),
            pool: self.connect(&name).await,
            name,
            check,
        };
        new.guard.install(&new.pool).await.unwrap();
        for resource in resources() {
            new.make_table(&resource).await;
        }
        new
    }
}

fn set(resource: &ResourceName, value: u64) -> String {
    let table = sql::table(resource);
    format!("INSERT INTO {table} VALUES (1, {value}) ON DUPLICATE KEY UPDATE value = {value}")
}

async fn run(connection: &mut MySqlConnection, sql: &str) -> Result<(), GuardError> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

impl Database<'_> {
    async fn run(&self, sql: &str) -> Result<(), GuardError> {
        let mut connection = self.pool.acquire().await?;
        run(&mut connection, sql).await
    }

    async fn make_table(&self, resource: &ResourceName) {
        self.run(&sql::create(resource)).await.unwrap();
        if self.check == Check::Whole {
            let table = sql::table(resource);
            let protected = self.guard.protect(&self.pool, &table, resource);
            protected.await.unwrap();
        }
    }

    async fn plain(&self) -> Result<Write, GuardError> {
        Ok(Write::Plain(self.pool.begin().await?))
    }

    /// Stops the server, and does something with its files.
    async fn stopped(&mut self, work: impl FnOnce(&std::path::Path)) {
        self.pool.close().await;
        let mut server = self.server.mariadb.lock().await;
        server.stop().await.unwrap();
        work(server.socket_dir());
        server.start_again().await.unwrap();
        drop(server);
        self.pool = self.server.connect(&self.name).await;
    }
}

impl Subject for Database<'_> {
    type Sealed = Sealed;
    type Write = Write;

    async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        self.guard.seal(&self.pool, grant).await
    }

    async fn begin(&self, sealed: &[&Sealed]) -> Result<Write, GuardError> {
        if self.check == Check::Never {
            return self.plain().await;
        }
        let tx = self.guard.begin_all(&self.pool, sealed).await?;
        if self.check == Check::BeforeTheWrite {
            tx.commit().await?;
            return self.plain().await;
        }
        Ok(Write::Guarded(tx))
    }

    async fn put(
        &self,
        write: &mut Write,
        resource: &ResourceName,
        value: u64,
    ) -> Result<(), GuardError> {
        let sql = set(resource, value);
        match write {
            Write::Plain(tx) => run(tx, &sql).await,
            Write::Guarded(tx) => {
                let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut **tx).await;
                done.map(drop).map_err(|error| tx.refusal(error))
            }
        }
    }

    async fn commit(&self, write: Write) -> Result<(), GuardError> {
        match write {
            Write::Plain(tx) => Ok(tx.commit().await?),
            Write::Guarded(tx) => tx.commit().await.map(drop),
        }
    }

    async fn get(&self, resource: &ResourceName) -> Option<u64> {
        let value: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql::get(resource)))
            .fetch_optional(&self.pool)
            .await
            .unwrap();
        value.map(|value| value.try_into().unwrap())
    }

    async fn fence(&self, resource: &ResourceName) -> Option<Mark> {
        let fence = self.guard.fence(&self.pool, resource).await.unwrap()?;
        Some(Mark {
            token: fence.token,
            holder: fence.holder,
        })
    }

    async fn patience(&self) {
        pass(PATIENCE).await;
    }

    async fn pause(&self) {
        pass(PAUSE).await;
    }

    async fn unguarded(&self, resource: &ResourceName, value: u64) -> Result<(), GuardError> {
        self.run(&set(resource, value)).await
    }

    async fn show(&self, grant: &Grant, value: u64) -> Result<(), GuardError> {
        let mut connection = self.pool.acquire().await?.detach();
        if !matches!(self.check, Check::Never | Check::NotByTheStore) {
            let enter = format!(
                "START TRANSACTION; CALL palisade_enter('{}', {}, '{}')",
                grant.resource, grant.token, grant.holder
            );
            run(&mut connection, &enter).await?;
        }
        run(&mut connection, &set(&grant.resource, value)).await?;
        run(&mut connection, "COMMIT").await
    }

    fn is_live(&self, sealed: &Sealed) -> bool {
        sealed.is_live()
    }

    async fn restart(&mut self) {
        let restarted = self.server.mariadb.lock().await.start_again().await;
        restarted.unwrap();
    }

    async fn back_up(&mut self) {
        self.stopped(|home| copy(home, "data", "backup")).await;
    }

    async fn restore(&mut self) {
        self.stopped(|home| copy(home, "backup", "data")).await;
    }

    async fn delete_data(&mut self) {
        for resource in resources() {
            self.run(&sql::drop(&resource)).await.unwrap();
            self.make_table(&resource).await;
        }
    }
}

/// With its owner, who may be another user.
fn copy(home: &std::path::Path, from: &str, to: &str) {
    let target = home.join(to);
    if target.exists() {
        std::fs::remove_dir_all(target).unwrap();
    }
    let copied = Command::new("cp")
        .args(["-a", from, to])
        .current_dir(home)
        .status();
    assert!(copied.unwrap().success());
}
