use clap::{Args, ValueEnum};
use palisade_token::ResourceName;

use super::{ClientArgs, TimeArgs};

/// As many waiters as a coordinator lists at once.
const MOST_LISTED: i64 = 1_000;

/// Show who holds a resource, and who waits for it.
///
/// Where nobody holds it: how the last lease ended, as far as the coordinator that is asked has seen that, and
/// what is left of its lock-delay. Coordinators keep no history beyond that; `palisade watch` tells what
/// happens from now on, and a coordinator's audit log what operators did.
///
/// It is true at the revision shown. By the time it is read it may be otherwise: no ground to write on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade get orders/eu-1
  palisade get orders/eu-1 --queue 100 --time iso
  palisade get orders/eu-1 --output json | jq -r .lease.token")]
pub(crate) struct GetArgs {
    /// What to look at
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceName,
    /// How many waiters are listed, from the head of the queue: 0 to 1000 [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=MOST_LISTED))]
    pub(crate) queue: Option<u16>,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) time: TimeArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Show the resources that are held.
///
/// With --watch it goes on: on a terminal as a screen that is always as it is now, until Ctrl-C; elsewhere, or
/// with -o jsonl, as the lines of JSON that `palisade watch` prints.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade list
  palisade list orders/ --output jsonl
  palisade list orders/ --watch")]
pub(crate) struct ListArgs {
    /// What their names begin with; end it with / to stay within a segment
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Show them as they change
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) time: TimeArgs,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Columns, for people
    #[default]
    Table,
    /// One JSON document
    Json,
    /// One line of JSON for each
    Jsonl,
}
