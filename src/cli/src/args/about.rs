//! What `palisade --help` and the manual page say of the program as a whole.

use clap::{Command, CommandFactory};

use super::Cli;

/// The commands in the order in which people meet them. Every one is in one of these.
pub(crate) const GROUPS: [(&str, &[&str]); 6] = [
    ("Run a coordinator", &["serve", "dev", "demo"]),
    ("Hold leases", &["acquire", "run", "release"]),
    ("Look at leases", &["get", "list", "watch", "top", "check"]),
    (
        "Operate",
        &["revoke", "generation", "drain", "doctor", "config"],
    ),
    ("Guard data", &["guard"]),
    ("Other commands", &["bench", "completions", "man"]),
];

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  anything without a code of its own
   2  the command line, or a value in it, cannot be used
  69  no coordinator, or none with its store, or no database can be reached
  70  the lease was lost
  75  another session holds the resource, and the wait was over
  78  a coordinator's settings, in a file or in the environment, cannot be used
 126, 127  the command of `run` cannot be executed, or was not found; else `run` exits as it does
 129, 130, 143  ended by SIGHUP, SIGINT or SIGTERM before it was done";

/// Variables that count for more than one command. A flag comes before its variable, and that before a file.
pub(crate) const ENVIRONMENT: [(&str, &str); 10] = [
    ("PALISADE_ADDR", "the coordinators, as --addr"),
    (
        "PALISADE_CA_FILE, PALISADE_CERT_FILE, PALISADE_KEY_FILE, PALISADE_TOKEN_FILE",
        "how to trust them, and what to show them",
    ),
    ("PALISADE_SECRET", "a session's secret, for `release`"),
    (
        "PALISADE_ACTOR",
        "who does it, for `revoke`, `generation advance` and `drain`",
    ),
    (
        "PALISADE_POSTGRES",
        "the database of the commands of `guard`, and of `doctor`",
    ),
    (
        "PALISADE_CONFIG",
        "a coordinator's settings: a TOML file, for `serve` and `config`",
    ),
    (
        "PALISADE_LISTEN, PALISADE_HTTP, PALISADE_LIMITS__MAX_TTL, ...",
        "every key of that file has a variable of its own",
    ),
    (
        "PALISADE_LOG, RUST_LOG",
        "what is logged to stderr, such as `debug` or `palisade=trace`",
    ),
    (
        "NO_COLOR, CLICOLOR_FORCE, TERM",
        "whether there are colours: never, always, none if `dumb`",
    ),
    (
        "TMPDIR",
        "where `dev`, `demo` and `bench` keep what they throw away",
    ),
];

/// Files that count for more than one command.
pub(crate) const FILES: [(&str, &str); 3] = [
    (
        "palisade.db",
        "the state of `serve` without --etcd, in $STATE_DIRECTORY or the current directory",
    ),
    (
        "palisade.db.lock",
        "keeps a second process out; do not delete it while one runs",
    ),
    (
        "/etc/palisade/palisade.env",
        "the settings of the service `palisade.service`",
    ),
];

const MORE: &str = "\
SIGHUP, of a terminal that goes away, ends a command as SIGTERM does, but not under `nohup`.
Data goes to stdout, everything else to stderr. What asks before it acts does so on a terminal
only; elsewhere say --yes. `palisade man` prints the manual.";

pub(super) const HINT: &str = "\
`palisade COMMAND --help` has examples, `palisade --help` the exit codes.";

/// The command line as it is parsed, told and completed.
pub(crate) fn command() -> Command {
    let command = Cli::command();
    let template = template(&command);
    command.help_template(template)
}

/// The end of `palisade --help`.
pub(super) fn long() -> String {
    // Longer names stand on a line of their own.
    const WIDTH: usize = 17;
    let mut text = format!("{EXIT_CODES}\n\nEnvironment:\n");
    for (names, meaning) in ENVIRONMENT {
        text += &if names.len() > WIDTH {
            format!("  {names}\n  {:WIDTH$}  {meaning}\n", "")
        } else {
            format!("  {names:WIDTH$}  {meaning}\n")
        };
    }
    text + "\n" + MORE
}

/// clap lists all subcommands under one heading: here each group has its own.
fn template(command: &Command) -> String {
    let (heading, literal) = (
        *command.get_styles().get_header(),
        *command.get_styles().get_literal(),
    );
    let shown = || command.get_subcommands().filter(|one| !one.is_hide_set());
    let width = shown().map(|one| one.get_name().len()).max().unwrap_or(0);
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n".to_owned();
    for (group, names) in GROUPS {
        text += &format!("\n{heading}{group}:{heading:#}\n");
        for name in names {
            let Some(one) = shown().find(|one| one.get_name() == *name) else {
                continue;
            };
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            text += &format!("  {literal}{name:width$}{literal:#}  {about}\n");
        }
    }
    text + &format!("\n{heading}Options:{heading:#}\n{{options}}{{after-help}}\n")
}
