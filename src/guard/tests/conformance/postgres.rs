use std::cell::Cell;

use palisade_guard::GuardError;
use palisade_guard::conformance::{Subject, resources, run_all};
use palisade_guard::decide::Mark;
use palisade_guard::postgres::{Guard, GuardedTx, Sealed};
use palisade_test_support::Postgres;
use palisade_token::{Grant, ResourceName};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Transaction};
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
    postgres: Mutex<Postgres>,
    databases: Cell<u32>,
}

/// A database with a table of one row for each resource, each protected for it.
struct Database<'a> {
    server: &'a Server,
    guard: Guard,
    pool: PgPool,
    name: String,
    check: Check,
}

enum Write {
    Guarded(GuardedTx),
    Plain(Transaction<'static, sqlx::Postgres>),
}

impl Server {
    async fn start() -> Self {
        let server = Postgres::builder().fsync(false).start();
        let new = Self {
            postgres: Mutex::new(server.await.unwrap()),
            databases: Cell::new(0),
        };
        for (template, is_protected) in [("open", false), ("protected", true)] {
            new.sql(&format!("CREATE DATABASE {template}")).await;
            let pool = new.connect(template).await;
            let guard = Guard::new();
            guard.install(&pool).await.unwrap();
            for resource in resources() {
                make_table(&guard, &pool, &resource, is_protected).await;
            }
            pool.close().await;
        }
        new
    }

    async fn sql(&self, text: &str) {
        let server = self.postgres.lock().await;
        server.psql("postgres", text).await.unwrap();
    }

    async fn connect(&self, database: &str) -> PgPool {
        let url = self.postgres.lock().await.url_for(database);
        let options = PgPoolOptions::new().max_connections(12);
        let options = options.acquire_timeout(PATIENCE);
        options.connect(&url).await.unwrap()
    }

    async fn subject(&self, check: Check) -> Database<'_> {
        let template = if check == Check::Whole {
            "protected"
        } else {
            "open"
        };
        self.databases.set(self.databases.get() + 1);
        let name = format!("case_{}", self.databases.get());
        self.sql(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await;
        Database {
            server: self,
            guard: Guard::new(),
            pool: self.connect(&name).await,
            name,
            check,
        }
    }
}

async fn make_table(guard: &Guard, pool: &PgPool, resource: &ResourceName, is_protected: bool) {
    let mut connection = pool.acquire().await.unwrap();
    run(&mut connection, &sql::create(resource)).await.unwrap();
    drop(connection);
    if is_protected {
        let table = sql::table(resource);
        guard.protect(pool, &table, resource).await.unwrap();
    }
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<(), GuardError> {
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

    async fn plain(&self) -> Result<Write, GuardError> {
        Ok(Write::Plain(self.pool.begin().await?))
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
        let sql = sql::set(resource, value);
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
        self.run(&sql::set(resource, value)).await
    }

    /// `enter` answers instead of raising: it is the trigger that refuses.
    async fn show(&self, grant: &Grant, value: u64) -> Result<(), GuardError> {
        let enter = format!(
            "BEGIN; SELECT palisade.enter('{}', {}, '{}')",
            grant.resource, grant.token, grant.holder
        );
        let mut connection = self.pool.acquire().await?.detach();
        run(&mut connection, &enter).await?;
        run(&mut connection, &sql::set(&grant.resource, value)).await?;
        run(&mut connection, "COMMIT").await
    }

    fn is_live(&self, sealed: &Sealed) -> bool {
        sealed.is_live()
    }

    async fn restart(&mut self) {
        self.server
            .postgres
            .lock()
            .await
            .start_again()
            .await
            .unwrap();
    }

    async fn back_up(&mut self) {
        let name = &self.name;
        self.pool.close().await;
        let copy = format!("CREATE DATABASE {name}_backup TEMPLATE {name}");
        self.server.sql(&copy).await;
        self.pool = self.server.connect(name).await;
    }

    async fn restore(&mut self) {
        let name = &self.name;
        self.pool.close().await;
        for text in [
            format!("DROP DATABASE {name} WITH (FORCE)"),
            format!("CREATE DATABASE {name} TEMPLATE {name}_backup"),
        ] {
            self.server.sql(&text).await;
        }
        self.pool = self.server.connect(name).await;
    }

    async fn delete_data(&mut self) {
        for resource in resources() {
            self.run(&sql::drop(&resource)).await.unwrap();
            let is_protected = self.check == Check::Whole;
            make_table(&self.guard, &self.pool, &resource, is_protected).await;
        }
    }
}
