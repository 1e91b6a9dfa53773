//! `palisade completions`.

use clap::Command;

use crate::args::{self, CompletionsArgs};
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let whole = args::command();
    let mut command = shown(&whole)
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true);
    // clap would end the program where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, whole.get_name(), &mut script);
    output::bytes(&script)
}

/// The same without what is hidden: shells would offer it.
fn shown(command: &Command) -> Command {
    // clap takes names that stay. It is done once, and the process ends.
    let name: &'static str = command.get_name().to_owned().leak();
    let about = command.get_about().cloned().unwrap_or_default();
    let arguments = command.get_arguments().filter(|one| !one.is_hide_set());
    let commands = command.get_subcommands().filter(|one| !one.is_hide_set());
    Command::new(name)
        .about(about)
        .args(arguments.cloned())
        .subcommands(commands.map(shown))
        .disable_help_subcommand(true)
}
