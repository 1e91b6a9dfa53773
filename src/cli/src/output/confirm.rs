//! Asking before something that cannot be taken back.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Read, Write};

use crate::failure::Failure;

/// Longer than any answer: what comes after it is not read.
const MOST_BYTES: u64 = 64;

/// Asks a person on the terminal, unless `yes` was said beforehand (`--yes`). Where nobody can be asked that is an
/// error, and so is any answer but yes: a script must never do by silence what a person would be asked.
///
/// Blocks the thread. Ask before signals are listened for: until then Ctrl-C ends the question, too.
pub(crate) fn confirm(question: impl Display, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Failure::usage(format!(
            "{question} There is no terminal to ask on: say --yes to go on"
        )));
    }
    let mut answer = String::new();
    write!(stderr, "{question} [y/N] ")
        .and_then(|()| stderr.flush())
        .and_then(|()| stdin.lock().take(MOST_BYTES).read_line(&mut answer))
        .map_err(Failure::io("ask"))?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::other("not confirmed: nothing was changed")),
    }
}
