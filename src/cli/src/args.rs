use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use palisade_coordinator::domain::SessionId;
use palisade_token::{FencingToken, ResourceName};

use crate::units::{parse_address, parse_duration};
use etcd_url::EtcdUrl;

pub(crate) use about::{ENVIRONMENT, EXIT_CODES, FILES, GROUPS, command};
pub(crate) use bench::{
    BenchArgs, BenchCommand, BenchOutput, BenchStore, CoordinatorBench, GuardBenchArgs, Rounds,
    SessionVariant, SessionsArgs, Target, Variant,
};

pub(crate) use completions::CompletionsArgs;
pub(crate) use doctor::DoctorArgs;
pub(crate) use etcd_access::Switch;
pub(crate) use guard::{
    Dialect, GuardArgs, GuardCommand, GuardProtectArgs, GuardSealArgs, StoreArgs,
};
pub(crate) use leases::{Format, GetArgs, ListArgs};
pub(crate) use man::ManArgs;
pub(crate) use operator::{
    AdvanceArgs, CheckTokenArgs, DrainArgs, GenerationArgs, GenerationCommand, RevokeArgs, ShowArgs,
};
#[cfg(target_os = "linux")]
pub(crate) use run::{GuardianArgs, RunArgs, StageArgs};
pub(crate) use settings::{
    CheckArgs, ConfigArgs, ConfigCommand, DumpArgs, DumpFormat, SettingsArgs, Words,
};
pub(crate) use time::TimeArgs;
pub(crate) use top::TopArgs;
pub(crate) use watch::{Until, WatchArgs, Watched};

mod about;
mod bench;
mod completions;
mod doctor;
mod etcd_access;
mod etcd_url;
mod guard;
mod leases;
mod man;
mod operator;
#[cfg(target_os = "linux")]
mod run;
mod settings;
#[cfg(test)]
mod tests;
mod time;
mod top;
mod watch;

/// Where clients look for a coordinator unless told otherwise.
pub(crate) const DEFAULT_ADDR: &str = "http://127.0.0.1:7650";

/// Leases with fencing tokens, and the guard that makes them count.
#[derive(Debug, Parser)]
#[command(name = "palisade", version, max_term_width = 100)]
#[command(after_help = about::HINT, after_long_help = about::long())]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(ServeArgs),
    Dev(DevArgs),
    Demo(DemoArgs),
    Acquire(AcquireArgs),
    Release(ReleaseArgs),
    Get(GetArgs),
    List(ListArgs),
    Watch(WatchArgs),
    #[cfg(target_os = "linux")]
    Run(RunArgs),
    Top(TopArgs),
    Check(CheckTokenArgs),
    Revoke(RevokeArgs),
    Generation(GenerationArgs),
    Drain(DrainArgs),
    Doctor(DoctorArgs),
    Guard(GuardArgs),
    Bench(BenchArgs),
    Config(ConfigArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// A worker of `palisade demo`: reads what to do from stdin.
    #[command(hide = true)]
    DemoWorker,
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    RunGuardian(GuardianArgs),
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    RunStage(StageArgs),
}

/// Run a coordinator.
///
/// With --etcd its state is in etcd, and any number of coordinators may run side by side. Without, it is
/// in a file that one coordinator alone uses: `palisade.db` in `$STATE_DIRECTORY` if a service manager sets
/// that, else in the current directory.
///
/// Flags come before the environment (`PALISADE_LISTEN`, `PALISADE_LIMITS__MAX_TTL` and so on), and that before
/// the file; `deploy/palisade.toml` has every key, and `palisade config` looks at them. Certificates, keys and
/// tokens are read again while it runs.
///
/// SIGTERM, SIGINT and SIGHUP let calls end before it does; a second one ends it at once. With certificates or
/// tokens SIGHUP makes it read them again instead. Once it listens, it
/// prints where: `PALISADE_ADDR=...` and `PALISADE_HTTP_ADDR=...`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade serve --etcd http://10.0.0.1:2379,http://10.0.0.2:2379,http://10.0.0.3:2379
  palisade serve --embedded /var/lib/palisade/palisade.db --log-format json
  palisade serve --config /etc/palisade/palisade.toml --set limits.max_ttl=2m")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    /// End when stdin is closed: for a parent that must not leave this process behind
    #[arg(long, hide = true)]
    pub(crate) end_with_stdin: bool,
}

/// Run a coordinator to try things out, and forget its state.
///
/// Its state is in a directory that is deleted at the end.
/// Takes free ports with --listen 127.0.0.1:0 --http 127.0.0.1:0, and prints where it listens.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade dev
  palisade dev --listen 127.0.0.1:0 --http 127.0.0.1:0")]
pub(crate) struct DevArgs {
    #[command(flatten)]
    pub(crate) faces: Faces,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Where a coordinator is met.
#[derive(Debug, Args)]
pub(crate) struct Faces {
    /// Serve gRPC here; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "PALISADE_LISTEN",
        default_value = "127.0.0.1:7650"
    )]
    pub(crate) listen: SocketAddr,
    /// Serve health (/livez, /readyz) over HTTP here; port 0 takes a free one
    #[arg(
        long,
        value_name = "ADDR",
        env = "PALISADE_HTTP",
        default_value = "127.0.0.1:7651"
    )]
    pub(crate) http: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// How log lines on stderr look
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people
    #[default]
    Text,
    /// A line of JSON
    Json,
}

/// See a paused leader be refused, and what is lost otherwise.
///
/// Starts a coordinator, two workers and a database, all thrown away at the end. The first worker becomes
/// leader and is frozen between its read and its write for longer than its lease; the second takes over
/// and writes; then the first wakes and writes, too. Told twice: with the guard, and without.
///
/// Exits 0 only if everything happened as told.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade demo
  palisade demo --etcd http://127.0.0.1:2379 --postgres postgres://postgres@127.0.0.1

With --etcd the coordinator uses keys below a prefix of its own, and deletes them at the end. With
--postgres it makes a database of its own beside the named one, and drops it at the end: the role
needs CREATEDB.")]
pub(crate) struct DemoArgs {
    /// Keep the leases in this etcd instead of a file
    #[arg(long, value_name = "URL[,URL...]", value_delimiter = ',', value_parser = EtcdUrl::Clear)]
    pub(crate) etcd: Vec<String>,
    /// Guard a table on this PostgreSQL server instead of an SQLite file
    #[arg(long, value_name = "URL")]
    pub(crate) postgres: Option<String>,
    /// How long a leader may be silent before another may follow: 5s to 60s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_demo_ttl)]
    pub(crate) ttl: Duration,
}

fn parse_demo_ttl(text: &str) -> Result<Duration, String> {
    let (least, most) = (Duration::from_secs(5), Duration::from_secs(60));
    match parse_duration(text)? {
        ttl if (least..=most).contains(&ttl) => Ok(ttl),
        _ => Err("it must be 5s to 60s".to_owned()),
    }
}

fn parse_session(text: &str) -> Result<String, String> {
    let id: SessionId = text.parse().map_err(|_| {
        "write the 16 hexadecimal digits, in lower case, that `acquire` has printed".to_owned()
    })?;
    Ok(id.to_string())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be above 0".to_owned()),
        timeout => Ok(timeout),
    }
}

/// How coordinators are reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Coordinators")]
pub(crate) struct ClientArgs {
    /// The coordinators
    #[arg(long, value_name = "URL[,URL...]", env = "PALISADE_ADDR", default_value = DEFAULT_ADDR)]
    #[arg(value_delimiter = ',', value_parser = parse_address)]
    pub(crate) addr: Vec<String>,
    /// Trust coordinators whose certificates are of these authorities (PEM), and no others
    #[arg(long, value_name = "FILE", env = "PALISADE_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Show coordinators this certificate (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "PALISADE_CERT_FILE",
        requires = "key_file"
    )]
    pub(crate) cert_file: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "PALISADE_KEY_FILE",
        requires = "cert_file"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// Show coordinators the bearer token in this file
    #[arg(long, value_name = "FILE", env = "PALISADE_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// How long a call is tried
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_timeout)]
    pub(crate) timeout: Duration,
}

/// Hold a resource until told to end, then release it.
///
/// SIGINT, SIGTERM and SIGHUP tell it to end. Prints the fencing token, or with `--output grant` the grant
/// (resource#token#holder) that a guard takes, and renews the lease in the foreground. The exit code is 70 if it is lost, and 75 if it is not granted.
///
/// With --detach it prints token, holder, grant, session, secret and epoch, and ends; the lease stands until it is
/// released or its TTL is over. The secret lets whoever has it release the lease.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade acquire orders/eu-1
  palisade acquire orders/eu-1 --ttl 10s --wait 30s --label nightly-import --output json
  held=$(palisade acquire orders/eu-1 --ttl 60s --detach) && eval \"$held\" && echo \"$grant\"")]
pub(crate) struct AcquireArgs {
    /// What to acquire
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceName,
    /// How long the lease stands without a renewal
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub(crate) ttl: Duration,
    /// How long to wait while others hold it, on top of --timeout; without it the answer comes at once
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub(crate) wait: Duration,
    /// A name for people who look at the lease
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// Anything, up to 4 KiB; shown to those who may read the lease
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) metadata: String,
    /// Print what is needed to release it, and end without releasing it
    #[arg(long)]
    pub(crate) detach: bool,
    /// What is printed
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: AcquireOutput,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum AcquireOutput {
    /// The token; with --detach, NAME=VALUE lines for a shell
    #[default]
    Text,
    /// resource#token#holder
    Grant,
    /// One line of JSON
    Json,
}

/// Give back a lease of another process, by its session's secret.
///
/// Named by its token, or by the request that asked for it, which also gives up that request's place in
/// the queue. To release what has ended already is no error.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("hold").required(true).args(["token", "request"]))]
#[command(after_help = "\
Examples:
  held=$(palisade acquire orders/eu-1 --detach) && eval \"$held\" || exit
  PALISADE_SECRET=\"$secret\" palisade release orders/eu-1 --token \"$token\" --session \"$session\"")]
pub(crate) struct ReleaseArgs {
    /// What to release
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceName,
    /// The lease with this token
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<FencingToken>,
    /// The lease or the place in the queue of this request
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// The session that holds it
    #[arg(long, value_name = "ID", value_parser = parse_session)]
    pub(crate) session: String,
    /// That session's secret, in hexadecimal; better given in the environment, where `ps` does not show it
    #[arg(
        long,
        value_name = "HEX",
        env = "PALISADE_SECRET",
        hide_env_values = true
    )]
    pub(crate) secret: String,
    /// The largest epoch that the session has used; 0 if it is not known
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) epoch: u64,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
