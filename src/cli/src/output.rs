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
    put(format_args!("{line}\n"))
}

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    data(to_json(value, serde_json::to_string)?)
}

/// Prints a value as JSON for people.
pub(crate) fn pretty_json(value: &impl Serialize) -> Result<(), Failure> {
    data(to_json(value, serde_json::to_string_pretty)?)
}

fn to_json<T: Serialize>(
    value: &T,
    write: fn(&T) -> serde_json::Result<String>,
) -> Result<String, Failure> {
    write(value).map_err(|error| Failure::other(format!("cannot write JSON: {error}")))
}

fn put(text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_fmt(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write to stdout")(error))
        }
        _ => Ok(()),
    }
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
