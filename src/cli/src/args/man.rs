use std::path::PathBuf;

use clap::Args;

/// Print the manual, or write all its pages into a directory.
///
/// There is a page for the whole and one for each command: palisade(1), palisade-acquire(1),
/// palisade-guard-install(1) and so on.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade man | man -l -
  palisade man guard install | man -l -
  palisade man --dir ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// The command whose page is printed; without one, that of the whole
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(crate) of: Vec<String>,
    /// Write all pages into this directory; it is made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
