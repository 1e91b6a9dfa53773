//! The one place that prints: data on stdout, everything else on stderr.
#![allow(
    clippy::print_stderr,
    reason = "this module is what the rest of the crate prints through"
)]

use std::env;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::Failure;

/// Prints a line of data. A reader that has gone away has seen what it wanted.
pub(crate) fn data(line: impl Display) -> Result<(), Failure> {
    match put(line) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write to stdout")(error))
        }
        _ => Ok(()),
    }
}

/// Prints a line of data that is told only once: without a reader that is a failure.
pub(crate) fn data_once(line: impl Display) -> Result<(), Failure> {
    put(line).map_err(Failure::io("write to stdout"))
}

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    data(json_line(value)?)
}

/// Prints a value as JSON for people.
pub(crate) fn pretty_json(value: &impl Serialize) -> Result<(), Failure> {
    data(serde_json::to_string_pretty(value).map_err(no_json)?)
}

/// A value as one line of JSON.
pub(crate) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(no_json)
}

#[expect(clippy::needless_pass_by_value, reason = "what map_err gives")]
fn no_json(error: serde_json::Error) -> Failure {
    Failure::other(format!("cannot write JSON: {error}"))
}

fn put(line: impl Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Tells people something. Nobody may be listening, which is no reason to stop.
pub(crate) fn note(line: impl Display) {
    let mut stderr = io::stderr().lock();
    drop(writeln!(stderr, "{line}"));
}

/// Whether to show colours there: a terminal that can, and nobody who asked for none.
pub(crate) fn has_colour(stream: &impl IsTerminal) -> bool {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    stream.is_terminal() && !refused && !dumb
}

/// Text with an ANSI colour, or as it is.
pub(crate) fn painted(text: &str, colour: Option<u8>) -> String {
    colour.map_or_else(
        || text.to_owned(),
        |code| format!("\u{1b}[{code}m{text}\u{1b}[0m"),
    )
}
