use std::str::FromStr;

use async_trait::async_trait;
use palisade_guard::postgres::{Guard, Sealed};
use palisade_token::{Grant, ResourceName};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::{Bank, BankError, OPENING_BALANCE, not_sealed};

const GUARDED: &str = "guarded_account";

pub(super) async fn found(
    server: &str,
    database: &str,
    guarded_for: &ResourceName,
) -> Result<(), BankError> {
    let pool = connect(server, database).await?;
    for table in [
        "CREATE TABLE guarded_account (balance bigint NOT NULL)",
        "CREATE TABLE plain_account (balance bigint NOT NULL)",
    ] {
        sqlx::query(table).execute(&pool).await?;
    }
    for account in [
        "INSERT INTO guarded_account (balance) VALUES ($1)",
        "INSERT INTO plain_account (balance) VALUES ($1)",
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

async fn connect(server: &str, database: &str) -> Result<PgPool, BankError> {
    let options = PgConnectOptions::from_str(server)?.database(database);
    // A worker does one thing at a time.
    Ok(PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?)
}

pub(super) struct PostgresBank {
    pool: PgPool,
    guarded: bool,
    sealed: Option<Sealed>,
}

impl PostgresBank {
    pub(super) async fn open(
        server: &str,
        database: &str,
        guarded: bool,
    ) -> Result<Self, BankError> {
        Ok(Self {
            pool: connect(server, database).await?,
            guarded,
            sealed: None,
        })
    }
}

#[async_trait]
impl Bank for PostgresBank {
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
            let query = sqlx::query("UPDATE plain_account SET balance = $1").bind(balance);
            query.execute(&self.pool).await?;
            return Ok(());
        }
        let sealed = self.sealed.as_ref().ok_or_else(not_sealed)?;
        let mut tx = Guard::new().begin(&self.pool, sealed).await?;
        let query = sqlx::query("UPDATE guarded_account SET balance = $1").bind(balance);
        if let Err(error) = query.execute(&mut *tx).await {
            return Err(tx.refusal(error).into());
        }
        tx.commit().await?;
        Ok(())
    }
}
