//! SQLite, in a file of the bench's own.

use std::fs;
use std::path::PathBuf;

use palisade_guard::sqlite::{Guard, Sealed};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqliteConnection, SqlitePool};

use super::load::{self, Writer};
use super::postgres::{HOT, grant};
use super::tell::Findings;
use super::writer::ROWS;
use crate::args::GuardBenchArgs;
use crate::failure::Failure;

/// The shapes of transactions, by statements; each without and with the guard.
pub(super) const VARIANTS: [(u32, bool, &str); 4] = [
    (4, false, "unguarded-4"),
    (4, true, "guarded-4"),
    (1, false, "unguarded"),
    (1, true, "guarded"),
];

/// A file that is deleted in the end, with what SQLite keeps beside it.
#[derive(Debug)]
pub(super) struct Scratch(pub(super) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        for beside in ["", "-wal", "-shm"] {
            let mut path = self.0.clone().into_os_string();
            path.push(beside);
            // What was never made, or is gone with its directory, need not be deleted.
            drop(fs::remove_file(path));
        }
    }
}

/// Each variant once: one writer, as SQLite has it.
pub(super) async fn round(
    file: &Scratch,
    args: &GuardBenchArgs,
    number: u32,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .connect_with(
            SqliteConnectOptions::new()
                .filename(&file.0)
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                // A commit is on the disk, as on a PostgreSQL with its defaults.
                .synchronous(SqliteSynchronous::Full),
        )
        .await?;
    let sealed = prepare(&pool).await?;
    let mut order = VARIANTS;
    if number.is_multiple_of(2) {
        order.reverse();
    }
    for (statements, is_guarded, name) in order {
        let writer = SqliteWriter {
            pool: pool.clone(),
            sealed: is_guarded.then(|| sealed.clone()),
            statements,
        };
        let sample = load::run(load::window(args.round), vec![writer], &[]).await?;
        findings.sqlite(name, statements, sample);
    }
    pool.close().await;
    Ok(())
}

async fn prepare(pool: &SqlitePool) -> Result<Sealed, Failure> {
    let guard = Guard::new();
    guard.install(pool).await?;
    for table in ["unguarded", "guarded"] {
        let text = format!(
            "CREATE TABLE IF NOT EXISTS {table} (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(text))
            .execute(pool)
            .await?;
    }
    let hot = grant(HOT, 1)?;
    let sealed = guard.seal(pool, &hot).await?;
    let mut tx = guard.begin(pool, &sealed).await?;
    for id in 0..i64::from(ROWS) {
        for text in [
            "INSERT OR IGNORE INTO unguarded VALUES (?, 0)",
            "INSERT OR IGNORE INTO guarded VALUES (?, 0)",
        ] {
            sqlx::query(text).bind(id).execute(&mut *tx).await?;
        }
    }
    tx.commit().await?;
    guard.protect(pool, "guarded", &hot.resource).await?;
    Ok(sealed)
}

#[derive(Debug)]
struct SqliteWriter {
    pool: SqlitePool,
    /// None without the guard.
    sealed: Option<Sealed>,
    statements: u32,
}

impl Writer for SqliteWriter {
    async fn write(&mut self, turn: u64) -> Result<(), Failure> {
        match &self.sealed {
            Some(sealed) => {
                let text = "UPDATE guarded SET value = value + 1 WHERE id = ?";
                let mut tx = Guard::new().begin(&self.pool, sealed).await?;
                self.updates(&mut tx, text, turn).await?;
                tx.commit().await?;
            }
            None => {
                let text = "UPDATE unguarded SET value = value + 1 WHERE id = ?";
                let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
                self.updates(&mut tx, text, turn).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

impl SqliteWriter {
    async fn updates(
        &self,
        connection: &mut SqliteConnection,
        text: &'static str,
        turn: u64,
    ) -> Result<(), Failure> {
        for statement in 0..self.statements {
            let row = turn.wrapping_mul(u64::from(self.statements)) + u64::from(statement);
            let row = i64::try_from(row % u64::from(ROWS)).unwrap_or_default();
            sqlx::query(text)
                .bind(row)
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }
}
