//! The one place that prints: data on stdout, everything else on stderr.
#![allow(
    clippy::print_stderr,
    reason = "this module is what the rest of the crate prints through"
)]

use std::fmt::Display;
use std::io::{self, Write};
use std::ops::ControlFlow;

use serde::Serialize;

use crate::failure::Failure;
use crate::progress;

pub(crate) use colour::{has_colour, is_dumb, painted};
pub(crate) use confirm::confirm;

mod colour;
mod confirm;

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

/// Prints a line of data that others will follow. Breaks off where nobody reads them.
pub(crate) fn next(line: impl Display) -> Result<ControlFlow<()>, Failure> {
    match put(line) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        result => result
            .map(ControlFlow::Continue)
            .map_err(Failure::io("write to stdout")),
    }
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

/// Prints bytes that are data as they stand. A reader that has gone away has seen what it wanted.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    match write(|stdout| stdout.write_all(bytes)) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::io("write to stdout")(error))
        }
        _ => Ok(()),
    }
}

fn put(line: impl Display) -> io::Result<()> {
    write(|stdout| writeln!(stdout, "{line}"))
}

fn write(text: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> io::Result<()> {
    progress::aside(|| {
        let mut stdout = io::stdout().lock();
        text(&mut stdout)?;
        stdout.flush()
    })
}

/// Tells people something. Nobody may be listening, which is no reason to stop.
pub(crate) fn note(line: impl Display) {
    progress::aside(|| {
        let mut stderr = io::stderr().lock();
        drop(writeln!(stderr, "{line}"));
    });
}
