use clap::Args;

use super::ClientArgs;

/// Look at leases live, in the terminal.
///
/// Shows who holds what and who waits, with the events as they come and how the coordinator stands. It only
/// looks: nothing can be revoked or released from here. `?` shows the keys.
///
/// It needs a terminal that can be drawn on. In a pipe, in a script or with TERM=dumb use `palisade list` for
/// what stands and `palisade watch` for what happens. It ends with `q`, and with 0.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade top
  palisade top orders/")]
pub(crate) struct TopArgs {
    /// What the names of the resources begin with; end it with / to stay within a segment
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    #[command(flatten)]
    pub(crate) client: ClientArgs,
}
