//! What operators do.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use palisade_token::{FencingToken, ResourceName};

use super::{ClientArgs, Format, TimeArgs};
use crate::units::{parse_address, parse_duration};

/// Why something is done, and by whom.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Why; it is logged, and told to whom it concerns
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Who does it; it is logged beside the credentials [default: this user and machine]
    #[arg(long, value_name = "TEXT", env = "PALISADE_ACTOR")]
    pub(crate) actor: Option<String>,
}

/// End a lease of another process.
///
/// With --cooperative its holder is asked first to release it; when that time is over, or at once without it, the
/// lease is ended by force and the next in the queue is granted the resource.
///
/// It stops no writer. The holder may be paused, or not have heard: what it writes is refused only once the
/// next holder has sealed. Only the lease with the token named is ended, so to try again is safe.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["token", "current"]))]
#[command(after_help = "\
Examples:
  palisade revoke orders/eu-1 --current --reason 'host 7 is taken down' --cooperative 30s
  palisade revoke orders/eu-1 --token 1795273200000042 --reason 'stuck import' --yes --output json")]
pub(crate) struct RevokeArgs {
    /// What it is the lease of
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceName,
    /// The lease with this token, and no other
    #[arg(long, value_name = "TOKEN")]
    pub(crate) token: Option<FencingToken>,
    /// The lease that stands now
    #[arg(long)]
    pub(crate) current: bool,
    /// How long its holder is asked to release it before it is forced: at most 10m
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub(crate) cooperative: Duration,
    #[command(flatten)]
    pub(crate) why: WhyArgs,
    /// Do not ask; needed where there is no terminal
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How the outcome is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Show what tokens are made from, or push them ahead.
///
/// `token = base + (revision of the grant - since_revision)`. Coordinators make generations by themselves; to
/// advance one by hand is for a wrong clock, or a guard's database that was restored or is another's.
#[derive(Debug, Args)]
pub(crate) struct GenerationArgs {
    #[command(subcommand)]
    pub(crate) command: GenerationCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GenerationCommand {
    Show(ShowArgs),
    Advance(AdvanceArgs),
}

/// Show the generation that a coordinator trusts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade generation show
  palisade generation show --output json | jq .highest_token")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) time: TimeArgs,
    /// How it is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Make all further tokens larger than a given one.
///
/// It makes a new generation, for all resources. Leases that stand keep their tokens. Tokens that are passed
/// over are used up for good, so more than a day past the coordinator's clock needs --force, and above 2^52 is
/// refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade generation advance --past 1795273200000042 --reason 'orders database restored'")]
pub(crate) struct AdvanceArgs {
    /// The token to be passed: the highest fence of the guard's database
    #[arg(long, value_name = "TOKEN")]
    pub(crate) past: FencingToken,
    #[command(flatten)]
    pub(crate) why: WhyArgs,
    /// Also more than a day past the coordinator's clock
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask; needed where there is no terminal
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// How the outcome is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Send a coordinator's clients elsewhere, before it is stopped.
///
/// It is no longer ready, takes nothing new, and asks its streams to go to another coordinator. No lease is
/// ended. The process stays until it is stopped; to take it into use again, start it again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade drain 10.0.0.1:7650 --reason 'kernel update' --within 30s")]
pub(crate) struct DrainArgs {
    /// The coordinator, in place of --addr
    #[arg(value_name = "ADDR", value_parser = parse_address)]
    pub(crate) coordinator: String,
    /// How long its streams have to go by themselves: at most 10m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(crate) within: Duration,
    #[command(flatten)]
    pub(crate) why: WhyArgs,
    /// How the outcome is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

/// Say how a token stands to a resource.
///
/// One of current, stale, vacant and ahead. For people and tools only: between this answer and a write anything
/// may happen, so it replaces no guard.
///
/// The exit code is 0 if it is current, 70 if its lease has ended, and 1 if it is above any token issued.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade check orders/eu-1 1795273200000042")]
pub(crate) struct CheckTokenArgs {
    /// The resource
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceName,
    /// The token
    #[arg(value_name = "TOKEN")]
    pub(crate) token: FencingToken,
    /// How the answer is shown
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) output: Format,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
