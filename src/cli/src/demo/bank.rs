//! The bank: one account, in SQLite or PostgreSQL, with the guard or without.

mod postgres;
mod sqlite;

use async_trait::async_trait;
use palisade_guard::GuardError;
use palisade_token::{FencingToken, Grant, ResourceName};

use super::script::Books;
use crate::failure::Failure;

/// What the account holds at first.
pub(crate) const OPENING_BALANCE: i64 = 100;

/// The account as a worker sees it. To change it, a worker reads the balance, works out the next one
/// and writes that: what happens in between is what the guard is for.
#[async_trait]
pub(crate) trait Bank: Send {
    /// Shuts out all holders before this one, where the account is guarded. Before the first read.
    async fn seal(&mut self, grant: &Grant) -> Result<(), BankError>;

    async fn balance(&mut self) -> Result<i64, BankError>;

    async fn write(&mut self, balance: i64) -> Result<(), BankError>;
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum BankError {
    /// A later holder has sealed the account.
    #[error("stale token {presented}: the fence is at {fence}")]
    Stale {
        presented: FencingToken,
        fence: FencingToken,
    },
    #[error("{0}")]
    Other(String),
}

impl From<GuardError> for BankError {
    fn from(error: GuardError) -> Self {
        match error {
            GuardError::Stale {
                presented, fence, ..
            } => Self::Stale { presented, fence },
            other => Self::Other(Failure::from(other).to_string()),
        }
    }
}

impl From<sqlx::Error> for BankError {
    fn from(error: sqlx::Error) -> Self {
        Self::Other(Failure::from(error).to_string())
    }
}

/// Makes both accounts, and guards one of them for the resource.
pub(crate) async fn found(books: &Books, guarded_for: &ResourceName) -> Result<(), BankError> {
    match books {
        Books::Sqlite { file } => sqlite::found(file, guarded_for).await,
        Books::Postgres { server, database } => {
            postgres::found(server, database, guarded_for).await
        }
    }
}

/// Opens one of the accounts.
pub(crate) async fn open(books: &Books, guarded: bool) -> Result<Box<dyn Bank>, BankError> {
    Ok(match books {
        Books::Sqlite { file } => Box::new(sqlite::SqliteBank::open(file, guarded).await?),
        Books::Postgres { server, database } => {
            Box::new(postgres::PostgresBank::open(server, database, guarded).await?)
        }
    })
}

/// A worker that writes a guarded account has sealed it before.
fn not_sealed() -> BankError {
    BankError::Other("the account is guarded, and this worker has not sealed it".to_owned())
}
