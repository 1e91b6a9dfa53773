//! A leader as a process of its own, so that a scenario can freeze it at any line.
//!
//! Usage: `scenario-worker COORDINATOR POSTGRES RESOURCE TABLE guarded|unguarded [TTL_SECONDS]`. It reads commands
//! from stdin, one a line, and answers each with a line on stdout:
//!
//! | command | answer |
//! |---|---|
//! | `lead` | `leading TOKEN`, once the lease is granted and, where guarded, sealed |
//! | `read` | `read BALANCE` |
//! | `write BALANCE` | `wrote TOKEN`, or `stale PRESENTED FENCE`, or `failed REASON` |
//! | `release` | `released` |

use std::error::Error;
use std::time::Duration;

use palisade_client::{AcquireOptions, Client, Lease, SessionOptions};
use palisade_guard::GuardError;
use palisade_guard::postgres::{Guard, Sealed};
use palisade_token::{Grant, ResourceName};
use sqlx::{AssertSqlSafe, PgPool};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, Stdout, stdin, stdout};

type Failed = Box<dyn Error + Send + Sync>;

/// Longer than any scenario.
const WAIT: Duration = Duration::from_secs(3600);
/// Unless told otherwise.
const TTL: Duration = Duration::from_secs(5);

struct Worker {
    client: Client,
    pool: PgPool,
    resource: ResourceName,
    table: String,
    guarded: bool,
    ttl: Duration,
    led: Option<Led>,
}

struct Led {
    lease: Lease,
    grant: Grant,
    sealed: Option<Sealed>,
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [coordinator, postgres, resource, table, mode, ttl @ ..] = args.as_slice() else {
        return Err("COORDINATOR POSTGRES RESOURCE TABLE guarded|unguarded [TTL_SECONDS]".into());
    };
    let ttl = match ttl.first() {
        Some(seconds) => Duration::from_secs(seconds.parse()?),
        None => TTL,
    };
    let mut worker = Worker {
        client: Client::connect(coordinator)?,
        pool: PgPool::connect_lazy(postgres)?,
        resource: resource.parse()?,
        table: table.clone(),
        guarded: mode == "guarded",
        ttl,
        led: None,
    };
    worker
        .serve(BufReader::new(stdin()).lines(), stdout())
        .await
}

impl Worker {
    async fn serve(
        &mut self,
        mut commands: Lines<BufReader<Stdin>>,
        mut answers: Stdout,
    ) -> Result<(), Failed> {
        while let Some(command) = commands.next_line().await? {
            let answer = match command.split_once(' ') {
                None if command == "lead" => self.lead().await,
                None if command == "read" => self.read().await,
                None if command == "release" => self.release().await,
                Some(("write", balance)) => self.write(balance.parse()?).await,
                _ => Err(format!("unknown command {command}").into()),
            };
            let line = answer.unwrap_or_else(|error| format!("failed {error}"));
            answers.write_all(format!("{line}\n").as_bytes()).await?;
            answers.flush().await?;
        }
        Ok(())
    }

    async fn lead(&mut self) -> Result<String, Failed> {
        let session = self
            .client
            .open_session(SessionOptions::default().ttl(self.ttl))
            .await?;
        let lease = session
            .acquire(&self.resource, AcquireOptions::default().wait(WAIT))
            .await?;
        let grant = lease.grant()?;
        let sealed = match self.guarded {
            true => Some(Guard::new().seal(&self.pool, &grant).await?),
            false => None,
        };
        let token = grant.token;
        self.led = Some(Led {
            lease,
            grant,
            sealed,
        });
        Ok(format!("leading {token}"))
    }

    async fn read(&self) -> Result<String, Failed> {
        let query = format!("SELECT balance FROM {}", self.table);
        let balance: i64 = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&self.pool)
            .await?;
        Ok(format!("read {balance}"))
    }

    async fn write(&self, balance: i64) -> Result<String, Failed> {
        let led = self.led.as_ref().ok_or("not leading")?;
        let update = format!(
            "UPDATE {} SET balance = $1, writes = writes + 1",
            self.table
        );
        let Some(sealed) = &led.sealed else {
            sqlx::query(AssertSqlSafe(update))
                .bind(balance)
                .execute(&self.pool)
                .await?;
            return Ok(format!("wrote {}", led.grant.token));
        };
        let done = async {
            let mut transaction = Guard::new().begin(&self.pool, sealed).await?;
            sqlx::query(AssertSqlSafe(update))
                .bind(balance)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        };
        match done.await {
            Ok(_committed) => Ok(format!("wrote {}", led.grant.token)),
            Err(GuardError::Stale {
                presented, fence, ..
            }) => Ok(format!("stale {presented} {fence}")),
            Err(other) => Err(other.into()),
        }
    }

    async fn release(&mut self) -> Result<String, Failed> {
        let led = self.led.take().ok_or("not leading")?;
        led.lease.release().await?;
        Ok("released".to_owned())
    }
}
