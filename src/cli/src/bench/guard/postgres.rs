//! A database of the bench's own on somebody's server.

use std::str::FromStr;

use palisade_guard::postgres::{Guard, Sealed};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::load::{self, Sample};
use super::tell::Findings;
use super::writer::{Fencing, PostgresWriter, Variant, tables};
use crate::args::GuardBenchArgs;
use crate::bench::processes;
use crate::demo::{create_database, drop_database};
use crate::failure::Failure;

/// So that benches side by side, or one that was killed, do not meet.
const MARK_BYTES: usize = 6;

/// The one resource that all write.
pub(super) const HOT: &str = "bench/hot";

/// Named here, made by [`Database::make`], dropped by [`Database::strike`].
#[derive(Debug)]
pub(super) struct Database {
    server: String,
    name: String,
}

impl Database {
    pub(super) fn name(server: &str) -> Result<Self, Failure> {
        let mut mark = [0; MARK_BYTES];
        getrandom::fill(&mut mark)
            .map_err(|error| Failure::other(format!("no random numbers: {error}")))?;
        Ok(Self {
            server: server.to_owned(),
            name: format!("palisade_bench_{}", hex::encode(mark)),
        })
    }

    pub(super) async fn make(&self) -> Result<(), Failure> {
        create_database(&self.server, &self.name).await
    }

    pub(super) async fn strike(&self) -> Result<(), Failure> {
        drop_database(&self.server, &self.name).await
    }
}

/// The database with its tables, and connections to it.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) pool: PgPool,
    pub(super) sealed: Sealed,
    /// The server's processes behind the connections, where they can be seen from here.
    pub(super) server: Vec<u32>,
}

pub(super) fn grant(resource: &str, token: u64) -> Result<Grant, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::other(format!("no grant: {error}"));
    Ok(Grant {
        resource: ResourceName::new(resource).map_err(|error| wrong(&error))?,
        token: FencingToken::new(token).map_err(|error| wrong(&error))?,
        holder: HolderId::from_bytes([7; 16]),
    })
}

impl Stage {
    pub(super) async fn open(database: &Database, connections: u32) -> Result<Self, Failure> {
        let options = PgConnectOptions::from_str(&database.server)
            .map_err(|_| Failure::usage("--postgres is no URL of a PostgreSQL server"))?
            .database(&database.name);
        let pool = PgPoolOptions::new()
            // One for who seals, and one for who looks.
            .max_connections(connections + 2)
            .min_connections(connections + 2)
            // Else each transaction begins with a ping, which hides part of what is compared.
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        let guard = Guard::new();
        guard.install(&pool).await?;
        for text in tables(connections) {
            sqlx::raw_sql(text).execute(&pool).await?;
        }
        let hot = grant(HOT, 1)?;
        guard.protect(&pool, "guarded", &hot.resource).await?;
        for fence in [
            "INSERT INTO share_fence VALUES ($1, 1)",
            "INSERT INTO upsert_fence VALUES ($1, 1)",
        ] {
            sqlx::query(fence).bind(HOT).execute(&pool).await?;
        }
        sqlx::raw_sql("VACUUM ANALYZE").execute(&pool).await?;
        let sealed = guard.seal(&pool, &hot).await?;
        let server = backends(&pool).await?;
        Ok(Self {
            pool,
            sealed,
            server,
        })
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }

    /// Each variant once with each number of connections.
    pub(super) async fn round(
        &self,
        args: &GuardBenchArgs,
        number: u32,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let mut order = Variant::ALL;
        if number.is_multiple_of(2) {
            // Who comes after whom matters a little: both ways as often.
            order.reverse();
        }
        for tasks in &args.concurrency {
            for variant in order {
                let before = self.multixacts().await?;
                let sample = self.sample(variant, *tasks, args).await?;
                let made = self.multixacts().await?.saturating_sub(before);
                findings.multixacts(variant.fencing, made);
                findings.postgres(variant, *tasks, sample);
            }
        }
        Ok(())
    }

    async fn sample(
        &self,
        variant: Variant,
        tasks: u32,
        args: &GuardBenchArgs,
    ) -> Result<Sample, Failure> {
        let writers = (0..tasks).map(|number| PostgresWriter {
            pool: self.pool.clone(),
            variant,
            sealed: self.sealed.clone(),
            number,
        });
        load::run(load::window(args.round), writers.collect(), &self.server).await
    }

    /// How many multixacts the server has ever made; the bench is alone on it, or they are counted too.
    async fn multixacts(&self) -> Result<u64, Failure> {
        let made: i32 = sqlx::query_scalar("SELECT mxid_age('1'::xid)")
            .fetch_one(&self.pool)
            .await?;
        Ok(u64::try_from(made).unwrap_or_default())
    }

    /// The old versions that the writers have left of fences.
    pub(super) async fn tell_tuples(&self, findings: &mut Findings) -> Result<(), Failure> {
        // Each session reports what it has done within a second, at the latest when it has something to do.
        crate::clock::pause(std::time::Duration::from_millis(1_100)).await;
        let mut held = Vec::new();
        while let Some(mut connection) = self.pool.try_acquire() {
            sqlx::raw_sql("SELECT 1").execute(&mut *connection).await?;
            held.push(connection);
        }
        drop(held);
        for (fencing, table) in [
            (Fencing::Guarded, "palisade.fence"),
            (Fencing::Share, "share_fence"),
            (Fencing::Upsert, "upsert_fence"),
        ] {
            let dead: i64 = sqlx::query_scalar(
                "SELECT coalesce(max(n_tup_upd + n_tup_del), 0)::bigint FROM pg_stat_user_tables \
                 WHERE relid = $1::regclass",
            )
            .bind(table)
            .fetch_one(&self.pool)
            .await?;
            findings.dead_tuples(fencing, u64::try_from(dead).unwrap_or_default());
        }
        let version = "SELECT current_setting('server_version')";
        let version: String = sqlx::query_scalar(version).fetch_one(&self.pool).await?;
        let commit = "SELECT current_setting('synchronous_commit')";
        let commit: String = sqlx::query_scalar(commit).fetch_one(&self.pool).await?;
        findings.server(version, commit);
        Ok(())
    }
}

/// The processes of this database's sessions, if they are PostgreSQL's and on this machine.
async fn backends(pool: &PgPool) -> Result<Vec<u32>, Failure> {
    let pids: Vec<i32> = sqlx::query_scalar(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND client_port IS NOT NULL",
    )
    .fetch_all(pool)
    .await?;
    let pids: Vec<u32> = pids
        .into_iter()
        .filter_map(|pid| u32::try_from(pid).ok())
        .collect();
    let is_here = pids
        .iter()
        .all(|pid| processes::name(*pid).is_some_and(|name| name.starts_with("postgres")));
    Ok(if is_here { pids } else { Vec::new() })
}
