mod guard;

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, value_parser};

use super::etcd_url::EtcdUrl;
use crate::units::parse_duration;

pub(crate) use guard::{BenchStore, GuardBenchArgs};

/// Measure a coordinator against etcd's locks, or the guard's cost.
///
/// A coordinator is measured on the same etcd as etcd's own lock service: the bench starts one of its own, and
/// takes turns: a round through etcd's v3lock, a round through the coordinator, and again; all figures are
/// medians over the rounds. etcd, coordinator and load share this machine where etcd runs on it, so quote the
/// ratios of one run, never the absolute figures.
///
/// It keeps to keys below a prefix of its own and deletes them at the end, but it loads etcd as much as it can:
/// name one that nobody else relies on.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    #[command(flatten)]
    Coordinator(CoordinatorBench),
    Guard(GuardBenchArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CoordinatorBench {
    Lease(LeaseArgs),
    Handoff(HandoffArgs),
    Sessions(SessionsArgs),
}

/// Time acquires and releases, each task with its own resource.
///
/// Cycles a second, and the time of one. `ratio` is the stream's cycles a second over v3lock's, with the most
/// tasks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade bench lease --etcd http://127.0.0.1:2379
  palisade bench lease --etcd http://127.0.0.1:2379 --concurrency 1,64 --output jsonl")]
pub(crate) struct LeaseArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many tasks at once, in one process: 1 to 1000 each
    #[arg(
        long,
        value_name = "N[,N...]",
        default_value = "1,256",
        value_delimiter = ','
    )]
    #[arg(value_parser = value_parser!(u32).range(1..=MOST_TASKS))]
    pub(crate) concurrency: Vec<u32>,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// Time the hand-overs of one resource between many clients.
///
/// Hand-overs a second, and the time from release to the next client's grant. Each client has a session of its
/// own; with v3lock, an etcd lease of its own. `ratio` is the stream's hand-overs a second over v3lock's.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade bench handoff --etcd http://127.0.0.1:2379
  palisade bench handoff --etcd http://127.0.0.1:2379 --concurrency 8,64 --output jsonl")]
pub(crate) struct HandoffArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many clients: 1 to 1000 each
    #[arg(
        long,
        value_name = "N[,N...]",
        default_value = "64",
        value_delimiter = ','
    )]
    #[arg(value_parser = value_parser!(u32).range(1..=MOST_TASKS))]
    pub(crate) concurrency: Vec<u32>,
    #[command(flatten)]
    pub(crate) rounds: Rounds,
}

/// Keep many sessions alive, and count those that end all the same.
///
/// Besides, the coordinator's memory for one of them, and renewals. Each session is a stream of its own and is
/// renewed each third of its TTL. `ratio` is the share of the sessions that live to the end: 1 if none expired.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade bench sessions --etcd http://127.0.0.1:2379
  palisade bench sessions --etcd http://127.0.0.1:2379 --sessions 50000 --for 10m")]
pub(crate) struct SessionsArgs {
    #[command(flatten)]
    pub(crate) target: Target,
    /// How many sessions: 1 to 100000
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    #[arg(value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) sessions: u32,
    /// The sessions' time to live: 5s to 5m
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_ttl)]
    pub(crate) ttl: Duration,
    /// For how long, once all are open: up to 1h
    #[arg(long = "for", value_name = "TIME", default_value = "2m", value_parser = parse_period)]
    pub(crate) period: Duration,
    /// How the sessions are kept alive
    #[arg(long, value_enum, value_name = "VARIANT", default_value = "stream")]
    pub(crate) variant: SessionVariant,
    /// How many sessions share a connection: 1, as clients of their own, to 10000, as behind one proxy
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    #[arg(value_parser = value_parser!(u32).range(1..=10_000))]
    pub(crate) per_connection: u32,
}

/// What is measured, and how it is told.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The etcd cluster to measure on
    #[arg(
        long,
        value_name = "URL[,URL...]",
        value_delimiter = ',',
        required = true
    )]
    #[arg(value_parser = EtcdUrl::Clear)]
    pub(crate) etcd: Vec<String>,
    /// etcd's processes, for their CPU time; found without this where etcd listens on this machine's loopback
    #[arg(long, value_name = "PID[,PID...]", value_delimiter = ',')]
    pub(crate) etcd_pid: Vec<u32>,
    /// One more argument for the coordinator's `serve`; may be repeated
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub(crate) coordinator_arg: Vec<String>,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: BenchOutput,
}

/// How often and how long.
#[derive(Debug, Args)]
pub(crate) struct Rounds {
    /// What takes turns
    #[arg(
        long,
        value_enum,
        value_name = "VARIANT[,VARIANT...]",
        value_delimiter = ','
    )]
    #[arg(default_value = "v3lock,stream,unary")]
    pub(crate) variants: Vec<Variant>,
    /// How many rounds for each: 1 to 100
    #[arg(long, value_name = "N", default_value_t = 15)]
    #[arg(value_parser = value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// How long each round is measured: 100ms to 10m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_round)]
    pub(crate) round: Duration,
}

/// What a renewal of one session's stream can name.
const MOST_TASKS: i64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Variant {
    /// etcd's own lock service, each lease granted once and used again
    V3lock,
    /// A coordinator, over session streams
    Stream,
    /// A coordinator, a call for each step
    Unary,
}

impl Variant {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V3lock => "v3lock",
            Self::Stream => "stream",
            Self::Unary => "unary",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SessionVariant {
    /// A stream for each
    Stream,
    /// A call for each renewal
    Unary,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum BenchOutput {
    /// Columns, for people
    #[default]
    Table,
    /// One line of JSON for each variant, and one for the ratios
    Jsonl,
}

fn parse_round(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(600));
    between(text, least, most, "it must be 100ms to 10m")
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(5), Duration::from_secs(300));
    between(text, least, most, "it must be 5s to 5m")
}

fn parse_period(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(3_600));
    between(text, least, most, "it must be 100ms to 1h")
}

fn between(text: &str, least: Duration, most: Duration, bound: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        time if (least..=most).contains(&time) => Ok(time),
        _ => Err(bound.to_owned()),
    }
}
