use std::path::PathBuf;

use clap::Args;

use super::etcd_access::EtcdCredentialsArgs;
use super::etcd_url::EtcdUrl;
use super::{ClientArgs, Format};

/// Look for what is wrong, and say what to do.
///
/// Each coordinator of --addr is asked by itself. With --etcd the endpoints behind them are looked at as well:
/// versions and their known faults, alarms, space, members, and how long a linearizable read takes. With
/// --postgres or --sqlite it is looked at what goes past the guard there.
///
/// Nothing is changed, but for --write. Each line is OK, WARN or FAIL. The exit code is 1 if anything is FAIL.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade doctor
  palisade doctor --addr 10.0.0.1:7650,10.0.0.2:7650 --etcd http://10.0.0.3:2379 --write
  palisade doctor --postgres postgres://owner@127.0.0.1:5432/orders
  palisade doctor --output jsonl | jq -r 'select(.verdict != \"ok\").advice'")]
pub(crate) struct DoctorArgs {
    /// The etcd behind the coordinators, each endpoint
    #[arg(long, value_name = "URL[,URL...]", value_delimiter = ',', value_parser = EtcdUrl::Any)]
    pub(crate) etcd: Vec<String>,
    /// What the coordinators' keys in etcd begin with
    #[arg(long, value_name = "TEXT", default_value = palisade_coordinator::config::StoreChoice::DEFAULT_PREFIX)]
    pub(crate) etcd_prefix: String,
    #[command(flatten)]
    pub(crate) credentials: EtcdCredentialsArgs,
    /// Also write one small key of its own below the prefix in etcd, and remove it: tells how long a write
    /// takes and the shortest TTL that etcd gives
    #[arg(long, requires = "etcd")]
    pub(crate) write: bool,
    /// The guard in this PostgreSQL database
    #[arg(
        long,
        value_name = "URL",
        env = "PALISADE_POSTGRES",
        hide_env_values = true
    )]
    pub(crate) postgres: Option<String>,
    /// The guard in this SQLite file
    #[arg(long, value_name = "FILE")]
    pub(crate) sqlite: Option<PathBuf>,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
