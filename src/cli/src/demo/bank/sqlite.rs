use std::path::Path;

use async_trait::async_trait;
use palisade_guard::sqlite::{Guard, Sealed};
use palisade_token::{Grant, ResourceName};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::{Bank, BankError, OPENING_BALANCE, not_sealed};

const GUARDED: &str = "guarded_account";

pub(super) async fn found(file: &Path, guarded_for: &ResourceName) -> Result<(), BankError> {
    let pool = connect(
        SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true),
    )
    .await?;
    for table in [
        "CREATE TABLE guarded_account (balance INTEGER NOT NULL)",
        "CREATE TABLE plain_account (balance INTEGER NOT NULL)",
    ] {
        sqlx::query(table).execute(&pool).await?;
    }
    for account in [
        "INSERT INTO guarded_account (balance) VALUES (?)",
        "INSERT INTO plain_account (balance) VALUES (?)",
    ] {
        sqlx::query(account)
            .bind(OPENING_BALANCE)
            .execute(&pool)
            .await?;
    }
    Guard::new().install(&pool).await?;
    Guard::new().protect(&pool, GUARDED, guarded_for).await?;
    pool.close().await;
    Ok(())
}

async fn connect(options: SqliteConnectOptions) -> Result<SqlitePool, BankError> {
    // A worker does one thing at a time.
    Ok(SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?)
}

pub(super) struct SqliteBank {
    pool: SqlitePool,
    guarded: bool,
    sealed: Option<Sealed>,
}

impl SqliteBank {
    pub(super) async fn open(file: &Path, guarded: bool) -> Result<Self, BankError> {
        Ok(Self {
            pool: connect(SqliteConnectOptions::new().filename(file)).await?,
            guarded,
            sealed: None,
        })
    }
}

#[async_trait]
impl Bank for SqliteBank {
    async fn seal(&mut self, grant: &Grant) -> Result<(), BankError> {
        if self.guarded {
            self.sealed = Some(Guard::new().seal(&self.pool, grant).await?);
        }
        Ok(())
    }

    async fn balance(&mut self) -> Result<i64, BankError> {
        let query = if self.guarded {
            "SELECT balance FROM guarded_account"
        } else {
            "SELECT balance FROM plain_account"
        };
        Ok(sqlx::query_scalar(query).fetch_one(&self.pool).await?)
    }

    async fn write(&mut self, balance: i64) -> Result<(), BankError> {
        if !self.guarded {
            let query = sqlx::query("UPDATE plain_account SET balance = ?").bind(balance);
            query.execute(&self.pool).await?;
            return Ok(());
        }
        let sealed = self.sealed.as_ref().ok_or_else(not_sealed)?;
        let mut tx = Guard::new().begin(&self.pool, sealed).await?;
        let query = sqlx::query("UPDATE guarded_account SET balance = ?").bind(balance);
        if let Err(error) = query.execute(&mut *tx).await {
            return Err(tx.refusal(error).into());
        }
        tx.commit().await?;
        Ok(())
    }
}
