use std::ffi::OsString;
use std::num::NonZeroI32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use palisade_token::ResourceName;

use super::{ClientArgs, parse_timeout};
use crate::units::parse_duration;

/// Run a command for as long as a resource is held.
///
/// Acquires RESOURCE, waiting for it if need be, and runs CMD in a process group of its own. When the group is
/// gone the lease is released. If the lease cannot be renewed, the group gets SIGTERM, and SIGKILL before
/// the coordinator can grant the resource to anybody else. A second process, the guardian, sees to that
/// even if this one is killed or stopped.
///
/// CMD finds the grant in its environment: show it to the guard of whatever it writes to. Only the guard stops
/// a write that comes late; ending CMD keeps most such writes from being tried.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade run reports/nightly -- ./nightly.sh
  palisade run orders/eu-1 --try -- sh -c 'echo \"token $PALISADE_TOKEN\"'
  palisade run orders/eu-1 --restart --ttl 10s --grace 2s -- ./worker --queue eu-1
  palisade run orders/eu-1 --on-lost 'logger \"lost orders/eu-1\"' -- ./worker

Environment of CMD:
  PALISADE_RESOURCE     what is held
  PALISADE_TOKEN        the fencing token
  PALISADE_HOLDER       the holder's id
  PALISADE_GRANT        all three as a guard takes them: resource#token#holder
  PALISADE_DEADLINE_UNIX_MS
                        when CMD is killed unless the lease is renewed, as it
                        was when CMD was started
  PALISADE_STATUS_FILE  a file with a line of JSON, replaced when it changes and
                        removed at the end: state (held, suspect, stopping,
                        lost), deadline_unix_ms, token and more

Exit codes:
    N  CMD's own, and 128 + N where signal N ended it
    1  the guardian was killed (and CMD with it), --on-acquired failed, or
       anything without a code of its own
    2  the command line, or a value in it, cannot be used
   69  no coordinator, or none with its store, can be reached
   70  the lease was lost, or an operator wanted it back: CMD was ended
   75  another session holds the resource, and the wait was over
  126  CMD cannot be executed
  127  CMD was not found
  129, 130, 143  ended by SIGHUP, SIGINT or SIGTERM before CMD was started

Signals: TERM, INT, HUP, QUIT, USR1, USR2 and WINCH are passed on to CMD's group;
after one of the first four --restart starts nothing again. On a terminal CMD's
group is in the foreground; what Ctrl-C ends is not started again either. Ctrl-Z
stops CMD and this program, so the lease is not renewed: CMD is ended at the
deadline unless it is continued before.

What CMD leaves running in its group when it ends gets SIGTERM, and SIGKILL after
--grace. Processes that have left the group (setsid) are killed with it when the
lease is lost, as far as they are found, and else left alone: nothing is promised
of them. If the group cannot be emptied, the lease is not released.")]
pub(crate) struct RunArgs {
    /// What to acquire
    #[arg(value_name = "RESOURCE")]
    pub(crate) resource: ResourceName,
    /// What to run while it is held
    #[arg(value_name = "CMD", last = true, required = true)]
    pub(crate) command: Vec<OsString>,
    /// Ask once, and exit with 75 if others hold it
    #[arg(long = "try", conflicts_with = "wait")]
    pub(crate) only_try: bool,
    /// How long to wait while others hold it, on top of --timeout; without it, without end
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) wait: Option<Duration>,
    /// How long the lease stands without a renewal
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub(crate) ttl: Duration,
    /// How long CMD has from SIGTERM to SIGKILL: at most a third of --ttl [default: a fifth of it]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) grace: Option<Duration>,
    /// Run CMD once and exit as it does: the default
    #[arg(long, conflicts_with = "restart")]
    pub(crate) once: bool,
    /// Start CMD again when it ends, pausing longer each time it ends soon; acquire again when the lease is lost
    #[arg(long)]
    pub(crate) restart: bool,
    /// Run this by `sh -c` before CMD, with its environment; if it fails CMD is not started
    #[arg(long, value_name = "CMD")]
    pub(crate) on_acquired: Option<String>,
    /// Run this by `sh -c` when the lease was lost and CMD is gone; `$PALISADE_LOSS` says why
    #[arg(long, value_name = "CMD")]
    pub(crate) on_lost: Option<String>,
    /// How long --on-acquired and --on-lost may take before they are killed
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_timeout)]
    pub(crate) hook_timeout: Duration,
    /// A name for people who look at the lease
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}

impl RunArgs {
    /// From SIGTERM to SIGKILL. Of the TTL's tenth for the margin, its hundredth for drift and a third until the
    /// next renewal enough is left that one renewal may fail.
    pub(crate) fn grace(&self) -> Result<Duration, String> {
        let most = self.ttl / 3;
        match self.grace {
            None => Ok(self.ttl / 5),
            Some(grace) if grace <= most => Ok(grace),
            Some(_) => Err(format!(
                "--grace must be at most a third of --ttl, here {} ms: else CMD would be told to end \
                 between two renewals",
                most.as_millis()
            )),
        }
    }
}

/// The guardian of `palisade run`: starts and ends a process group, as it is told over its stdin.
#[derive(Debug, Args)]
pub(crate) struct GuardianArgs {
    /// When the group must be gone, in nanoseconds on `CLOCK_BOOTTIME`
    #[arg(long)]
    pub(crate) deadline_ns: u64,
    /// From SIGTERM to SIGKILL
    #[arg(long)]
    pub(crate) grace_ns: u64,
    /// What to remove at the end if nobody else is left to
    #[arg(long)]
    pub(crate) litter: Option<PathBuf>,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// Becomes the command, once the kernel is told to kill it with its guardian.
#[derive(Debug, Args)]
pub(crate) struct StageArgs {
    /// The guardian's process id
    #[arg(long)]
    pub(crate) guardian: NonZeroI32,
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}
