use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};

use super::{BenchOutput, parse_round};

/// Time guarded writes against the same writes without a guard.
///
/// They take turns. On PostgreSQL it makes a database of its own and drops it at the end, and in a round of
/// each kind writes through transactions of one and of four statements, all with one token for one resource:
/// without a guard, with this one, with `SELECT ... FOR SHARE` on a fence row and with an upsert of it, which
/// are what is usually written by hand; and through single statements with and without the check in them. Then
/// it seals under busy writers, of the resource and of another. SQLite writes to a file of its own. All figures
/// are medians over the rounds; server, load and database share this machine where the server runs on it, so
/// quote the ratios of one run.
///
/// `ratio` is the guarded transactions of four statements a second over the unguarded ones, with the most
/// connections.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade bench guard --postgres postgres://postgres@127.0.0.1/postgres
  palisade bench guard --postgres \"$DATABASE\" --output jsonl
  palisade bench guard --only sqlite,memory")]
pub(crate) struct GuardBenchArgs {
    /// The PostgreSQL server to measure on, as somebody who may create databases; not measured without this
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
    /// The SQLite file to make and delete; in a directory of its own without this
    #[arg(long, value_name = "FILE")]
    pub(crate) sqlite: Option<PathBuf>,
    /// Measure nothing else
    #[arg(
        long,
        value_enum,
        value_name = "STORE[,STORE...]",
        value_delimiter = ','
    )]
    pub(crate) only: Vec<BenchStore>,
    /// How many connections at once: 1 to 200 each
    #[arg(
        long,
        value_name = "N[,N...]",
        default_value = "8,32",
        value_delimiter = ','
    )]
    #[arg(value_parser = value_parser!(u32).range(1..=200))]
    pub(crate) concurrency: Vec<u32>,
    /// How many rounds for each: 1 to 100
    #[arg(long, value_name = "N", default_value_t = 9)]
    #[arg(value_parser = value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// How long each round is measured: 100ms to 10m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_round)]
    pub(crate) round: Duration,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: BenchOutput,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum BenchStore {
    /// PostgreSQL
    Postgres,
    /// A SQLite file
    Sqlite,
    /// The in-memory fence table
    Memory,
}

impl GuardBenchArgs {
    pub(crate) fn measures(&self, store: BenchStore) -> bool {
        if self.only.is_empty() {
            return store != BenchStore::Postgres || self.postgres.is_some();
        }
        self.only.contains(&store)
    }
}
