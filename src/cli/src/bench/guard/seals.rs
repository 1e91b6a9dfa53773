//! How long a seal takes while others write.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use palisade_guard::GuardError;
use palisade_guard::postgres::{Guard, Sealed};
use sqlx::PgPool;

use super::load::{self, Sample, Writer};
use super::postgres::{HOT, Stage, grant};
use super::tell::Findings;
use super::writer::{Fencing, PostgresWriter, Shape, Variant};
use crate::args::GuardBenchArgs;
use crate::bench::round::Window;
use crate::clock;
use crate::failure::Failure;
use crate::progress::Progress;

/// Between seals, so that the writers are at full speed again.
const PAUSE: Duration = Duration::from_millis(10);
/// A seal that starves is told as this long.
const LIMIT: &str = "SET statement_timeout = '3s'";

/// Who seals what while whom write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seals {
    /// This guard's, while all write another resource: what the load alone costs.
    Idle,
    /// This guard's, while all write the resource that is sealed.
    Busy,
    /// An update of the fence row that all lock FOR SHARE.
    Share,
    /// An update of the fence row that all upsert.
    Upsert,
}

impl Seals {
    const ALL: [Self; 4] = [Self::Idle, Self::Busy, Self::Share, Self::Upsert];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Idle => "seal-idle",
            Self::Busy => "seal-busy",
            Self::Share => "seal-share",
            Self::Upsert => "seal-upsert",
        }
    }
}

pub(super) async fn run(
    stage: &Stage,
    args: &GuardBenchArgs,
    tasks: u32,
    (findings, progress): (&mut Findings, &Progress),
) -> Result<(), Failure> {
    let elsewhere = elsewhere(&stage.pool).await?;
    let mut token = 1;
    for number in 1..=args.rounds {
        progress.step(&format!("seals: round {number} of {}", args.rounds));
        for seals in Seals::ALL {
            // Twice as long: there are far fewer of them than of transactions.
            let window = load::window(args.round * 2);
            let writes = |fencing| {
                (0..tasks).map(move |number| PostgresWriter {
                    pool: stage.pool.clone(),
                    variant: Variant {
                        shape: Shape::Transaction(1),
                        fencing,
                    },
                    sealed: stage.sealed.clone(),
                    number,
                })
            };
            let (loaded, sealed) = match seals {
                Seals::Idle | Seals::Busy => {
                    let resource = if seals == Seals::Idle {
                        &elsewhere
                    } else {
                        HOT
                    };
                    let shared = SharedSeal::new(&stage.pool, resource, token + 1).await?;
                    let writers = (0..tasks).map(|number| shared.writer(&stage.pool, number));
                    let load = load::run(window, writers.collect(), &stage.server);
                    token += 1;
                    tokio::join!(load, shared.seal(&stage.pool, window, &mut token))
                }
                Seals::Share => tokio::join!(
                    load::run(window, writes(Fencing::Share).collect(), &stage.server),
                    update(&stage.pool, window, Fencing::Share)
                ),
                Seals::Upsert => tokio::join!(
                    load::run(window, writes(Fencing::Upsert).collect(), &stage.server),
                    update(&stage.pool, window, Fencing::Upsert)
                ),
            };
            let writes: Sample = loaded?;
            tracing::debug!(seal = seals.name(), writes = writes.operations, "sealed");
            findings.seals(seals, tasks, sealed?, args.round * 2);
        }
    }
    Ok(())
}

/// A resource that shares no lock with the hot one.
async fn elsewhere(pool: &PgPool) -> Result<String, Failure> {
    let found: String = sqlx::query_scalar(
        "SELECT name FROM (SELECT 'bench/elsewhere-' || n AS name FROM generate_series(1, 10) AS n) AS names \
         WHERE palisade.stripe(name) <> palisade.stripe($1) LIMIT 1",
    )
    .bind(HOT)
    .fetch_one(pool)
    .await?;
    Ok(found)
}

/// What was sealed last, for writers that go on after each seal as a new holder would.
#[derive(Debug, Clone)]
struct SharedSeal(Arc<RwLock<Sealed>>);

impl SharedSeal {
    async fn new(pool: &PgPool, writes: &str, token: u64) -> Result<Self, Failure> {
        let sealed = Guard::new().seal(pool, &grant(writes, token)?).await?;
        Ok(Self(Arc::new(RwLock::new(sealed))))
    }

    fn current(&self) -> Sealed {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn writer(&self, pool: &PgPool, number: u32) -> Entering {
        Entering {
            pool: pool.clone(),
            sealed: self.clone(),
            number,
        }
    }

    /// Raises the fence of the hot resource again and again; how long each seal took.
    async fn seal(
        &self,
        pool: &PgPool,
        window: Window,
        token: &mut u64,
    ) -> Result<Vec<Duration>, Failure> {
        let is_theirs = self.current().grant().resource.as_str() == HOT;
        let mut times = Vec::new();
        while !window.is_over() {
            *token += 1;
            let began = window.clock.elapsed();
            let sealed = Guard::new().seal(pool, &grant(HOT, *token)?).await?;
            let ended = window.clock.elapsed();
            if is_theirs {
                *self.0.write().unwrap_or_else(PoisonError::into_inner) = sealed;
            }
            if window.counts(ended) {
                times.push(ended.saturating_sub(began));
            }
            clock::pause(PAUSE).await;
        }
        Ok(times)
    }
}

/// Writes with what was sealed last.
#[derive(Debug)]
struct Entering {
    pool: PgPool,
    sealed: SharedSeal,
    number: u32,
}

impl Writer for Entering {
    async fn write(&mut self, turn: u64) -> Result<(), Failure> {
        match self.try_write(turn).await {
            // Sealed meanwhile: a new holder would begin with its own.
            Err(GuardError::Stale { .. }) => Ok(()),
            other => Ok(other?),
        }
    }
}

impl Entering {
    async fn try_write(&self, turn: u64) -> Result<(), GuardError> {
        let sealed = self.sealed.current();
        let mut tx = Guard::new().begin(&self.pool, &sealed).await?;
        let row = i64::from(self.number) * 64 + i64::try_from(turn % 64).unwrap_or_default();
        // The table that no resource protects: the check at commit is the same, and both loads write it.
        let written = sqlx::query("UPDATE elsewhere SET value = value + 1 WHERE id = $1")
            .bind(row)
            .execute(&mut *tx)
            .await;
        if let Err(error) = written {
            return Err(tx.refusal(error));
        }
        tx.commit().await?;
        Ok(())
    }
}

/// Seals as the variant would: an update of its fence row.
async fn update(pool: &PgPool, window: Window, fencing: Fencing) -> Result<Vec<Duration>, Failure> {
    let text = match fencing {
        Fencing::Share => "UPDATE share_fence SET token = token + 1",
        _ => "UPDATE upsert_fence SET token = token + 1",
    };
    let mut connection = pool.acquire().await?;
    sqlx::raw_sql(LIMIT).execute(&mut *connection).await?;
    let mut times = Vec::new();
    while !window.is_over() {
        let began = window.clock.elapsed();
        match sqlx::query(text).execute(&mut *connection).await {
            Ok(_) => {}
            // query_canceled: it has starved.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("57014") => {}
            Err(error) => return Err(error.into()),
        }
        // Also what ends late: a seal that starves ends after all.
        times.push(window.clock.elapsed().saturating_sub(began));
        clock::pause(PAUSE).await;
    }
    sqlx::raw_sql("RESET statement_timeout")
        .execute(&mut *connection)
        .await?;
    Ok(times)
}
