use palisade_guard::GuardError;
use palisade_guard::conformance::{Subject, resources};
use palisade_guard::decide::{self, Admission, Mark};
use palisade_guard::sqlite::{Guard, GuardedTx, Sealed};
use palisade_token::{Grant, ResourceName};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, SqliteConnection, SqlitePool, Transaction};
use tempfile::TempDir;

use crate::broken::{BYPASSED, CHECKED_EARLY, Check, PATIENCE, PAUSE, UNCHECKED, fails, pass};
use crate::sql;

palisade_guard::conformance_tests!(
    #[tokio::test]
    Sqlite::fresh
);

#[tokio::test]
async fn without_triggers_it_fails() {
    fails(|| Sqlite::with(Check::NotByTheStore), &[BYPASSED]).await;
}

#[tokio::test]
async fn with_a_check_before_the_write_it_fails() {
    fails(|| Sqlite::with(Check::BeforeTheWrite), &[CHECKED_EARLY]).await;
}

#[tokio::test]
async fn without_the_check_it_fails() {
    fails(|| Sqlite::with(Check::Never), &[BYPASSED, UNCHECKED]).await;
}

/// A database file with a table of one row for each resource, each protected for it.
struct Sqlite {
    guard: Guard,
    pool: SqlitePool,
    directory: TempDir,
    crashes: u32,
    check: Check,
}

/// A transaction of a process that may have crashed since.
struct Write {
    tx: Tx,
    crashes: u32,
}

enum Tx {
    Guarded(GuardedTx),
    Plain(Transaction<'static, sqlx::Sqlite>),
}

impl Sqlite {
    async fn fresh() -> Self {
        Self::with(Check::Whole).await
    }

    async fn with(check: Check) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pool = connect(&directory).await;
        let guard = Guard::new();
        guard.install(&pool).await.unwrap();
        let new = Self {
            guard,
            pool,
            directory,
            crashes: 0,
            check,
        };
        new.make_tables().await;
        new
    }

    async fn make_tables(&self) {
        for resource in resources() {
            self.run(&sql::create(&resource)).await.unwrap();
            if self.check == Check::Whole {
                let table = sql::table(&resource);
                let protect = self.guard.protect(&self.pool, &table, &resource);
                protect.await.unwrap();
            }
        }
    }

    async fn run(&self, sql: &str) -> Result<(), GuardError> {
        let mut connection = self.pool.acquire().await?;
        run(&mut connection, sql).await
    }

    /// Stops all connections; the log of the database goes into its file.
    async fn stopped(&self, work: impl AsyncFnOnce(&std::path::Path)) -> SqlitePool {
        self.pool.close().await;
        work(self.directory.path()).await;
        connect(&self.directory).await
    }
}

async fn connect(directory: &TempDir) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("data.sqlite"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(PATIENCE);
    SqlitePoolOptions::new()
        .max_connections(8)
        .connect_with(options)
        .await
        .unwrap()
}

async fn run(connection: &mut SqliteConnection, sql: &str) -> Result<(), GuardError> {
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(connection)
        .await?;
    Ok(())
}

impl Subject for Sqlite {
    type Sealed = Sealed;
    type Write = Write;

    async fn seal(&self, grant: &Grant) -> Result<Sealed, GuardError> {
        self.guard.seal(&self.pool, grant).await
    }

    async fn begin(&self, sealed: &[&Sealed]) -> Result<Write, GuardError> {
        let checked = match self.check {
            Check::Never => None,
            _ => Some(self.guard.begin_all(&self.pool, sealed).await?),
        };
        let tx = match (self.check, checked) {
            (Check::Whole | Check::NotByTheStore, Some(tx)) => Tx::Guarded(tx),
            (_, Some(tx)) => {
                tx.rollback().await;
                Tx::Plain(self.pool.begin().await?)
            }
            (_, None) => Tx::Plain(self.pool.begin().await?),
        };
        Ok(Write {
            tx,
            crashes: self.crashes,
        })
    }

    async fn put(
        &self,
        write: &mut Write,
        resource: &ResourceName,
        value: u64,
    ) -> Result<(), GuardError> {
        let sql = sql::set(resource, value);
        match &mut write.tx {
            Tx::Guarded(tx) => run(tx, &sql).await,
            Tx::Plain(tx) => run(tx, &sql).await,
        }
    }

    async fn commit(&self, write: Write) -> Result<(), GuardError> {
        if write.crashes < self.crashes {
            return Err(GuardError::RolledBack(None));
        }
        match write.tx {
            Tx::Guarded(tx) => tx.commit().await.map(drop),
            Tx::Plain(tx) => Ok(tx.commit().await?),
        }
    }

    async fn get(&self, resource: &ResourceName) -> Option<u64> {
        let sql = sql::get(resource);
        let value: Option<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
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

    /// As the module's docs say it is done by hand.
    async fn show(&self, grant: &Grant, value: u64) -> Result<(), GuardError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let fence = self.fence(&grant.resource).await;
        let entry = format!(
            "INSERT INTO main.palisade_entry (resource, token, holder) VALUES ('{}', {}, '{}')",
            grant.resource, grant.token, grant.holder
        );
        run(&mut tx, &entry).await?;
        let written = run(&mut tx, &sql::set(&grant.resource, value)).await;
        // The trigger's text does not say why an entry does not count: the fence does.
        let (resource, presented) = (grant.resource.clone(), grant.token);
        match (written, decide::admit(grant.into(), fence)) {
            (Ok(()), _) => {}
            (Err(_), Admission::Stale { fence }) => {
                return Err(GuardError::Stale {
                    resource,
                    presented,
                    fence,
                });
            }
            (Err(_), Admission::Unsealed { fence }) => {
                return Err(GuardError::Unsealed {
                    resource,
                    presented,
                    fence,
                });
            }
            (Err(_), Admission::Collision) => {
                return Err(GuardError::Collision {
                    resource,
                    token: presented,
                });
            }
            (Err(error), Admission::Admitted) => return Err(error),
        }
        run(&mut tx, "DELETE FROM main.palisade_entry").await?;
        tx.commit().await?;
        Ok(())
    }

    fn is_live(&self, sealed: &Sealed) -> bool {
        sealed.is_live()
    }

    async fn restart(&mut self) {
        // A process that is gone keeps no lock, and leaves the log for the next one to recover.
        let crashed = tempfile::tempdir().unwrap();
        copy(self.directory.path(), crashed.path());
        self.pool = connect(&crashed).await;
        self.directory = crashed;
        self.crashes += 1;
    }

    async fn back_up(&mut self) {
        let pool = self.stopped(async |path| {
            let data = path.join("data.sqlite");
            std::fs::copy(&data, path.join("backup")).unwrap();
        });
        self.pool = pool.await;
    }

    async fn restore(&mut self) {
        let pool = self.stopped(async |path| {
            std::fs::copy(path.join("backup"), path.join("data.sqlite")).unwrap();
        });
        self.pool = pool.await;
    }

    async fn delete_data(&mut self) {
        for resource in resources() {
            self.run(&sql::drop(&resource)).await.unwrap();
        }
        self.make_tables().await;
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
