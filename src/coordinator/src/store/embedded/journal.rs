//! The ledger's changes as rows.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use palisade_token::ResourceName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, SqliteConnection};
use tracing::warn;

use super::{OpenError, file, schema};
use crate::domain::{Change, Claim, Delay, GrantNote, Hold, Ledger, Place, Revision, Session};
use crate::store::local::Journal;
use crate::store::{Failure, Outcome, StoreError};

const PAGE_BYTES: u32 = 4096;

/// A process that was told to stop may still be closing the file when the next one opens it.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// The journal file keeps this much between transactions: enough for a release on a disk that has no
/// space left, little enough not to matter.
const KEPT_JOURNAL_BYTES: u32 = 1 << 20;

/// What a lease's row has in its claim: files of an earlier build have no note there.
#[derive(Serialize, Deserialize)]
struct Noted {
    #[serde(flatten)]
    claim: Claim,
    #[serde(flatten)]
    note: GrantNote,
}

/// The file of an embedded store.
#[derive(Debug)]
pub(in crate::store) struct File {
    path: PathBuf,
    max_pages: Option<u64>,
    /// Absent after a failure, until it is opened anew, and after the end.
    connection: Option<SqliteConnection>,
    /// The connection was only just opened: what it reads is what is durable.
    is_fresh: bool,
    /// Held to the end; absent after it. Dropped last.
    lock: Option<fs::File>,
}

impl File {
    pub(super) async fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = file::lock(path)?;
        file::make(path)?;
        let mut file = Self {
            path: path.to_path_buf(),
            max_pages: None,
            connection: None,
            is_fresh: true,
            lock: Some(lock),
        };
        let mut connection = file.connect().await.map_err(|error| refused(path, error))?;
        let found = schema::prepare(&mut connection).await;
        let path = path.to_path_buf();
        match found.map_err(|error| refused(&path, error))? {
            schema::Found::Ours => {}
            schema::Found::Foreign => return Err(OpenError::NotAStore { path }),
            schema::Found::Newer(found) => {
                return Err(OpenError::NewerSchema {
                    path,
                    found,
                    known: schema::VERSION,
                });
            }
            schema::Found::Torn => {
                return Err(OpenError::Damaged {
                    path,
                    what: "its pages do not fit together",
                });
            }
        }
        file.connection = Some(connection);
        Ok(file)
    }

    async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        let mut options = SqliteConnectOptions::new()
            .filename(&self.path)
            .page_size(PAGE_BYTES)
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Persist)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_WAIT)
            .pragma("journal_size_limit", KEPT_JOURNAL_BYTES.to_string())
            .disable_statement_logging();
        if let Some(pages) = self.max_pages {
            options = options.pragma("max_page_count", pages.to_string());
        }
        options.connect().await
    }

    pub(super) async fn limit_size(&mut self, bytes: u64) -> Result<(), StoreError> {
        let pages = bytes.div_ceil(u64::from(PAGE_BYTES)).max(1);
        self.max_pages = Some(pages);
        let sql = AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        let limited = sqlx::raw_sql(sql).execute(self.connected()?).await;
        limited
            .map(drop)
            .map_err(|error| failed(error, Outcome::NotApplied))
    }

    pub(super) async fn close(&mut self) {
        self.disconnect().await;
        self.lock = None;
    }

    async fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            warn!(%error, "the file was not closed in order");
        }
    }

    fn connected(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        let away = || StoreError::not_applied(Failure::Unavailable);
        self.connection.as_mut().ok_or_else(away)
    }
}

#[async_trait]
impl Journal for File {
    async fn write(&mut self, revision: Revision, changes: &[Change]) -> Result<(), StoreError> {
        let not_applied = |error| failed(error, Outcome::NotApplied);
        let connection = self.connected()?;
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(not_applied)?;
        for change in changes {
            write(&mut transaction, change).await.map_err(not_applied)?;
        }
        sqlx::query("UPDATE state SET revision = ?")
            .bind(column(revision).map_err(not_applied)?)
            .execute(&mut *transaction)
            .await
            .map_err(not_applied)?;
        let committed = transaction.commit().await;
        committed.map_err(|error| failed(error, Outcome::Unknown))
    }

    async fn load(&mut self) -> Result<Ledger, StoreError> {
        if !std::mem::take(&mut self.is_fresh) {
            self.disconnect().await;
        }
        if self.connection.is_none() {
            if self.lock.is_none() {
                return Err(StoreError::not_applied(Failure::Unavailable));
            }
            let connection = self.connect().await;
            self.connection = Some(connection.map_err(|error| failed(error, Outcome::NotApplied))?);
        }
        let loaded = load(self.connected()?).await;
        loaded.map_err(|error| match error {
            // The statements are right, so the tables are not.
            sqlx::Error::Database(_) if primary_code(&error) == Some(SQLITE_ERROR) => {
                damaged(error, Outcome::NotApplied)
            }
            error => failed(error, Outcome::NotApplied),
        })
    }

    async fn probe(&mut self) -> Result<Revision, StoreError> {
        let row = sqlx::query("SELECT revision FROM state").fetch_one(self.connected()?);
        let revision = row.await.and_then(|row| number(&row, "revision"));
        revision.map_err(|error| failed(error, Outcome::NotApplied))
    }
}

async fn write(connection: &mut SqliteConnection, change: &Change) -> Result<(), sqlx::Error> {
    let query = match change {
        Change::PutSession(session) => {
            sqlx::query("INSERT OR REPLACE INTO sessions (id, session) VALUES (?, ?)")
                .bind(session.id.to_string())
                .bind(json(session)?)
        }
        Change::DropSession(id) => {
            sqlx::query("DELETE FROM sessions WHERE id = ?").bind(id.to_string())
        }
        Change::PutHold(hold) => sqlx::query(
            "INSERT OR REPLACE INTO holds (resource, granted, generation, claim)
             VALUES (?, ?, ?, ?)",
        )
        .bind(hold.claim.resource.as_str().to_owned())
        .bind(column(hold.granted)?)
        .bind(json(&hold.generation)?)
        .bind(json(&Noted {
            claim: hold.claim.clone(),
            note: hold.note.clone(),
        })?),
        Change::DropHold(ending) => sqlx::query("DELETE FROM holds WHERE resource = ?")
            .bind(ending.resource.as_str().to_owned()),
        Change::PutPlace(place) => {
            sqlx::query("INSERT INTO queue (resource, since, claim) VALUES (?, ?, ?)")
                .bind(place.claim.resource.as_str().to_owned())
                .bind(column(place.since)?)
                .bind(json(&place.claim)?)
        }
        Change::DropPlace(place) => {
            sqlx::query("DELETE FROM queue WHERE resource = ? AND since = ?")
                .bind(place.claim.resource.as_str().to_owned())
                .bind(column(place.since)?)
        }
        Change::PutGeneration(generation) => {
            sqlx::query("UPDATE state SET generation = ?").bind(json(generation)?)
        }
        Change::PutDelay(resource, delay) => sqlx::query(
            "INSERT OR REPLACE INTO delays (resource, is_running, last) VALUES (?, ?, ?)",
        )
        .bind(resource.as_str().to_owned())
        .bind(delay.is_running)
        .bind(json(&delay.last)?),
        Change::DropDelay(resource) => {
            sqlx::query("DELETE FROM delays WHERE resource = ?").bind(resource.as_str().to_owned())
        }
    };
    query.execute(connection).await.map(drop)
}

async fn load(connection: &mut SqliteConnection) -> Result<Ledger, sqlx::Error> {
    let row = sqlx::query("SELECT revision, generation FROM state")
        .fetch_one(&mut *connection)
        .await?;
    let revision = number(&row, "revision")?;
    let mut changes = Vec::new();
    if let Some(text) = row.try_get::<Option<String>, _>("generation")? {
        changes.push(Change::PutGeneration(parse(&text)?));
    }
    let rows = sqlx::query("SELECT session FROM sessions").fetch_all(&mut *connection);
    for row in rows.await? {
        changes.push(Change::PutSession(record::<Session>(&row, "session")?));
    }
    let rows = sqlx::query("SELECT resource, granted, generation, claim FROM holds")
        .fetch_all(&mut *connection);
    for row in rows.await? {
        let Noted { claim, note } = record(&row, "claim")?;
        let hold = Hold {
            claim,
            generation: record(&row, "generation")?,
            granted: number(&row, "granted")?,
            note,
        };
        check_name(&row, &hold.claim.resource)?;
        changes.push(Change::PutHold(hold));
    }
    let rows = sqlx::query("SELECT resource, since, claim FROM queue").fetch_all(&mut *connection);
    for row in rows.await? {
        let place = Place {
            claim: record(&row, "claim")?,
            since: number(&row, "since")?,
        };
        check_name(&row, &place.claim.resource)?;
        changes.push(Change::PutPlace(place));
    }
    let rows =
        sqlx::query("SELECT resource, is_running, last FROM delays").fetch_all(&mut *connection);
    for row in rows.await? {
        let name = row.try_get::<String, _>("resource")?;
        let resource = ResourceName::new(&name).map_err(|e| sqlx::Error::Decode(e.into()))?;
        let delay = Delay {
            last: record(&row, "last")?,
            is_running: row.try_get("is_running")?,
        };
        changes.push(Change::PutDelay(resource, delay));
    }
    let mut ledger = Ledger::at(revision);
    ledger.apply(revision, &changes);
    Ok(ledger)
}

fn json(record: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(record).map_err(|error| sqlx::Error::Encode(error.into()))
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn record<T: DeserializeOwned>(row: &SqliteRow, name: &str) -> Result<T, sqlx::Error> {
    parse(&row.try_get::<String, _>(name)?)
}

fn number(row: &SqliteRow, name: &str) -> Result<Revision, sqlx::Error> {
    let number: i64 = row.try_get(name)?;
    let revision = u64::try_from(number).map_err(|error| sqlx::Error::Decode(error.into()))?;
    Ok(Revision(revision))
}

fn column(revision: Revision) -> Result<i64, sqlx::Error> {
    i64::try_from(revision.0).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// A row whose key and record differ would be written under one name and deleted under another.
fn check_name(row: &SqliteRow, resource: &ResourceName) -> Result<(), sqlx::Error> {
    if row.try_get::<String, _>("resource")? == resource.as_str() {
        return Ok(());
    }
    Err(sqlx::Error::Decode(
        "the row's key is not its record's".into(),
    ))
}

// Primary result codes of SQLite.
const SQLITE_ERROR: i64 = 1;
const SQLITE_PERM: i64 = 3;
const SQLITE_BUSY: i64 = 5;
const SQLITE_READONLY: i64 = 8;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_FULL: i64 = 13;
const SQLITE_NOTADB: i64 = 26;

fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

fn damaged(error: sqlx::Error, outcome: Outcome) -> StoreError {
    StoreError::Failed {
        failure: Failure::Damaged("the tables or records of the file are not what they should be"),
        outcome,
        source: Some(error.into()),
    }
}

fn failed(error: sqlx::Error, outcome: Outcome) -> StoreError {
    let failure = match primary_code(&error) {
        Some(SQLITE_FULL) => Failure::NoSpace,
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => return damaged(error, outcome),
        Some(_) => Failure::Unavailable,
        None if is_content(&error) => return damaged(error, outcome),
        None => Failure::Unavailable,
    };
    StoreError::Failed {
        failure,
        outcome,
        source: Some(error.into()),
    }
}

fn is_content(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound
    )
}

fn refused(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_path_buf();
    match primary_code(&error) {
        Some(SQLITE_BUSY) => OpenError::InUse { path },
        Some(SQLITE_NOTADB) => OpenError::NotAStore { path },
        Some(SQLITE_PERM | SQLITE_READONLY) => OpenError::Permission { path },
        Some(SQLITE_FULL) => OpenError::NoSpace { path },
        Some(SQLITE_CORRUPT) => OpenError::Damaged {
            path,
            what: "its pages do not fit together",
        },
        Some(_) | None => OpenError::Failed {
            path,
            source: error.into(),
        },
    }
}
