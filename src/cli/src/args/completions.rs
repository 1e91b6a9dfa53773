use clap::Args;
use clap_complete::Shell;

/// Print a script that completes commands and flags in a shell.
///
/// The shell reads it at its start, from the place where it keeps those of other programs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  palisade completions bash > ~/.local/share/bash-completion/completions/palisade
  palisade completions zsh > \"${fpath[1]}/_palisade\"
  palisade completions fish > ~/.config/fish/completions/palisade.fish
  source <(palisade completions bash)")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    pub(crate) shell: Shell,
}
