//! A worker as a process of its own, so that it can be frozen and killed at any line.
//!
//! It is driven over stdin and stdout, a line each. At every `go` it stands still until it is told to go on: that
//! is where a fault can strike.
//!
//! | it says | and hears |
//! |---|---|
//! | `idle` | `job NUMBER`, or `stop` |
//! | `ready TOKEN`: it has acquired (and sealed), has read, and the lease is held | `go` |
//! | `committing`: it has written | `go` |
//! | `committed RECEIPT` | `go`: it is acknowledged |
//! | `stale`, `lost`, `unknown`, `failed`, each with why: refused by the guard; lease lost before the write; may have happened; has not happened | |

mod end;

use std::time::Duration;

use clap::Args;
use palisade_client::{AcquireOptions, Client, Lease, Session, SessionOptions};
use palisade_guard::GuardError;
use palisade_guard::effects::{Fingerprint, IdempotencyKey};
use palisade_guard::postgres::{Guard, SealPolicy, Sealed};
use palisade_test_support::within;
use palisade_token::{Grant, ResourceName};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgConnection, PgPool};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, Stdin, Stdout, stdin, stdout};

use crate::workload::{Failed, Workload};
use end::{End, Tx};

/// Longer than any run.
const WAIT: Duration = Duration::from_secs(3600);
/// A release that is not answered goes on in the background.
const RELEASE_LIMIT: Duration = Duration::from_secs(2);
/// A transaction that is frozen keeps a seal waiting; it is tried again for as long as the lease is held.
const SEAL_LIMIT: Duration = Duration::from_secs(1);
/// One works, one seals, one is broken.
const CONNECTIONS: u32 = 3;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The coordinators' addresses.
    #[arg(long, value_delimiter = ',')]
    coordinators: Vec<String>,
    #[arg(long)]
    postgres: String,
    #[arg(long)]
    workload: Workload,
    /// Seal, begin and commit with the guard.
    #[arg(long)]
    guarded: bool,
    /// A planted bug: sets are committed without the guard's check, payments without their key.
    #[arg(long)]
    plant: bool,
    /// The prefix of the rows' resources.
    #[arg(long)]
    prefix: String,
    #[arg(long)]
    row: i64,
    #[arg(long)]
    ttl_s: u64,
}

struct Worker {
    options: Options,
    client: Client,
    session: Option<Session>,
    pool: PgPool,
    guard: Guard,
    resource: ResourceName,
    wire: Wire,
}

struct Wire {
    heard: Lines<BufReader<Stdin>>,
    said: Stdout,
}

/// A lease whose row has been read.
struct Held {
    lease: Lease,
    grant: Grant,
    sealed: Option<Sealed>,
    read: Read,
}

enum Read {
    /// All elements of the row.
    Elements(Vec<i64>),
    /// The payment's receipt, if there is one already.
    Receipt(Option<i64>),
}

pub(crate) async fn run(options: Options) -> Result<(), Failed> {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect_lazy(&options.postgres)?;
    let mut worker = Worker {
        client: Client::builder()
            .endpoints(options.coordinators.clone())
            .connect()?,
        session: None,
        pool,
        guard: Guard::new().with_seal_policy(SealPolicy::Timeout(SEAL_LIMIT)),
        resource: format!("{}/{}", options.prefix, options.row).parse()?,
        wire: Wire {
            heard: BufReader::new(stdin()).lines(),
            said: stdout(),
        },
        options,
    };
    while let Some(number) = worker.next_job().await? {
        let held = match worker.hold(number).await {
            Ok(held) => held,
            Err(end) => {
                worker.wire.say(&end.line()).await?;
                continue;
            }
        };
        let said = match worker.write(number, &held).await {
            Ok(receipt) => worker.wire.ask(&format!("committed {receipt}")).await,
            Err(end) => worker.wire.say(&end.line()).await,
        };
        said?;
        worker.give_back(held.lease).await;
    }
    if let Some(session) = worker.session.take() {
        // It would end by itself.
        drop(within("the session's end", RELEASE_LIMIT, session.close()).await);
    }
    Ok(())
}

impl Worker {
    async fn next_job(&mut self) -> Result<Option<i64>, Failed> {
        self.wire.say("idle").await?;
        let line = self.wire.hear().await?;
        line.strip_prefix("job ")
            .map(|number| Ok(number.parse()?))
            .transpose()
    }

    /// Acquire, seal, read; and a last look at the lease, as near to the write as a look can be.
    async fn hold(&mut self, number: i64) -> Result<Held, End> {
        let lease = self.acquire().await?;
        let grant = lease.grant().map_err(|lost| End::Lost(lost.to_string()))?;
        let sealed = match self.options.guarded {
            true => Some(self.seal(&lease, &grant).await?),
            false => None,
        };
        let read = self.read(number).await?;
        match lease.grant() {
            Ok(_held) => {}
            Err(lost) => return Err(End::Lost(lost.to_string())),
        }
        Ok(Held {
            lease,
            grant,
            sealed,
            read,
        })
    }

    async fn acquire(&mut self) -> Result<Lease, End> {
        let session = match self.session.take() {
            Some(session) if session.state().is_held() => session,
            _ => {
                let ttl = Duration::from_secs(self.options.ttl_s);
                let options = SessionOptions::default().ttl(ttl);
                self.client.open_session(options).await?
            }
        };
        let options = AcquireOptions::default().wait(WAIT);
        let lease = session.acquire(&self.resource, options).await?;
        self.session = Some(session);
        Ok(lease)
    }

    async fn seal(&self, lease: &Lease, grant: &Grant) -> Result<Sealed, End> {
        loop {
            match self.guard.seal(&self.pool, grant).await {
                Err(GuardError::SealTimeout { .. }) if lease.grant().is_ok() => {}
                result => return Ok(result?),
            }
        }
    }

    async fn read(&self, number: i64) -> Result<Read, End> {
        Ok(match self.options.workload {
            Workload::LockSet => Read::Elements(
                sqlx::query_scalar("SELECT elements FROM field WHERE id = $1")
                    .bind(self.options.row)
                    .fetch_one(&self.pool)
                    .await?,
            ),
            Workload::Effects => Read::Receipt(
                sqlx::query_scalar("SELECT min(receipt) FROM payment WHERE number = $1")
                    .bind(number)
                    .fetch_one(&self.pool)
                    .await?,
            ),
        })
    }

    /// Returns the receipt.
    async fn write(&mut self, number: i64, held: &Held) -> Result<i64, End> {
        self.wire
            .ask(&format!("ready {}", held.grant.token))
            .await?;
        let mut tx = match &held.sealed {
            Some(sealed) if self.checks() => {
                Tx::Guarded(Box::new(self.guard.begin(&self.pool, sealed).await?))
            }
            _ => Tx::Plain(self.pool.begin().await?),
        };
        let receipt = match &held.read {
            Read::Elements(elements) => self.add(&mut tx, elements, number, &held.grant).await?,
            Read::Receipt(found) => self.pay(&mut tx, *found, number, &held.grant).await?,
        };
        self.wire.ask("committing").await?;
        tx.commit().await?;
        Ok(receipt)
    }

    const fn checks(&self) -> bool {
        matches!(self.options.workload, Workload::Effects) || !self.options.plant
    }

    /// Writes the row that was read, and the new element.
    async fn add(
        &self,
        tx: &mut Tx,
        elements: &[i64],
        number: i64,
        grant: &Grant,
    ) -> Result<i64, End> {
        let mut elements = elements.to_vec();
        elements.push(number);
        let write = sqlx::query("UPDATE field SET elements = $2 WHERE id = $1")
            .bind(self.options.row)
            .bind(elements)
            .execute(tx.connection())
            .await;
        write.map_err(|error| tx.end_of(error))?;
        // While the row is locked: its order is that of the commits.
        let log = sqlx::query_scalar(
            "INSERT INTO accepted (id, token, holder, number) VALUES ($1, $2, $3, $4) RETURNING seq",
        )
        .bind(self.options.row)
        .bind(signed(grant)?)
        .bind(grant.holder.to_string())
        .bind(number)
        .fetch_one(tx.connection())
        .await;
        log.map_err(|error| tx.end_of(error))
    }

    /// With the guard the key decides; without it, what was found under the lease.
    async fn pay(
        &self,
        tx: &mut Tx,
        found: Option<i64>,
        number: i64,
        grant: &Grant,
    ) -> Result<i64, End> {
        let row = self.options.row;
        match tx {
            Tx::Guarded(tx) if self.options.plant => {
                let inserted = insert(tx, row, number, grant).await;
                Ok(inserted.map_err(|error| tx.refusal(error))?)
            }
            Tx::Guarded(tx) => {
                let key = IdempotencyKey::new("chaos", "pay", &number.to_string())
                    .map_err(|error| End::Failed(error.to_string()))?;
                let asked = Fingerprint::of(&[("number", &number.to_be_bytes())]);
                let paid = tx
                    .once(&key, &asked, async |connection| {
                        Ok::<_, GuardError>(insert(connection, row, number, grant).await?)
                    })
                    .await?;
                Ok(paid.into_value())
            }
            Tx::Plain(tx) => match found {
                Some(receipt) => Ok(receipt),
                None => Ok(insert(tx, row, number, grant).await?),
            },
        }
    }

    async fn give_back(&mut self, lease: Lease) {
        // Whatever comes of it, the lease ends with its session at the latest.
        drop(within("a release", RELEASE_LIMIT, lease.release()).await);
    }
}

async fn insert(
    connection: &mut PgConnection,
    row: i64,
    number: i64,
    grant: &Grant,
) -> Result<i64, sqlx::Error> {
    let token =
        i64::try_from(grant.token.get()).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query_scalar(
        "INSERT INTO payment (id, token, holder, number) VALUES ($1, $2, $3, $4) RETURNING receipt",
    )
    .bind(row)
    .bind(token)
    .bind(grant.holder.to_string())
    .bind(number)
    .fetch_one(connection)
    .await
}

fn signed(grant: &Grant) -> Result<i64, End> {
    i64::try_from(grant.token.get()).map_err(|error| End::Failed(error.to_string()))
}

impl Wire {
    async fn say(&mut self, line: &str) -> Result<(), Failed> {
        self.said.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.said.flush().await?)
    }

    async fn hear(&mut self) -> Result<String, Failed> {
        let line = self.heard.next_line().await?;
        line.ok_or_else(|| "whoever drives this worker is gone".into())
    }

    /// Stands still until it is told to go on.
    async fn ask(&mut self, line: &str) -> Result<(), Failed> {
        self.say(line).await?;
        match self.hear().await?.as_str() {
            "go" => Ok(()),
            other => Err(format!("{other:?} in place of go").into()),
        }
    }
}
