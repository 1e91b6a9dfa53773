//! What a person sees of the demo: who did what, and when.

use std::io;

use crate::clock::Stopwatch;
use crate::failure::Failure;
use crate::output::{self, painted};

const DIM: u8 = 2;
const BOLD: u8 = 1;
const GREEN: u8 = 32;
const RED: u8 = 31;

/// Who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Stage,
    Ann,
    Bob,
    Account,
}

impl Who {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Stage => "demo",
            Self::Ann => "ann",
            Self::Bob => "bob",
            Self::Account => "account",
        }
    }

    const fn colour(self) -> u8 {
        match self {
            Self::Stage => DIM,
            Self::Ann => 36,
            Self::Bob => 33,
            Self::Account => 35,
        }
    }
}

/// Prints to stdout, and keeps count of what did not happen as told.
#[derive(Debug)]
pub(crate) struct Timeline {
    since: Stopwatch,
    coloured: bool,
    held: u32,
    failed: u32,
}

impl Timeline {
    pub(crate) fn start() -> Self {
        Self {
            since: Stopwatch::start(),
            coloured: output::has_colour(&io::stdout()),
            held: 0,
            failed: 0,
        }
    }

    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        output::data(text)
    }

    pub(crate) fn act(&self, title: &str) -> Result<(), Failure> {
        output::data(format_args!("\n{}\n", self.painted(title, BOLD)))
    }

    /// Something happened just now.
    pub(crate) fn event(&self, who: Who, what: &str) -> Result<(), Failure> {
        let seconds = self.since.elapsed().as_secs_f64();
        let name = self.painted(&format!("{:<8}", who.name()), who.colour());
        output::data(format_args!("{seconds:7.2} s  {name} {what}"))
    }

    /// Something had to hold.
    pub(crate) fn check(&mut self, holds: bool, what: &str) -> Result<(), Failure> {
        let mark = if holds {
            self.held += 1;
            self.painted("ok      ", GREEN)
        } else {
            self.failed += 1;
            self.painted("NOT SO  ", RED)
        };
        output::data(format_args!("           {mark} {what}"))
    }

    /// Whether all of it did.
    pub(crate) fn outcome(&self) -> Result<(), Failure> {
        if self.failed == 0 {
            return Ok(());
        }
        let (failed, all) = (self.failed, self.held + self.failed);
        Err(Failure::other(format!(
            "{failed} of {all} expectations of the demo did not hold"
        )))
    }

    /// The last words, once all is cleared away.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        let all = self.held;
        let seconds = self.since.elapsed().as_secs();
        let line = format!("All {all} expectations held, in {seconds} s. Nothing is left behind.");
        output::data(format_args!(
            "
No check that ann makes can help: she can be paused right after it. What stopped her was the
database, which had seen a greater token. The lease saves work; the guard keeps the data.

{}",
            self.painted(&line, GREEN)
        ))
    }

    /// Shows what the processes logged, when the story could not be told to its end.
    pub(crate) fn broken(&self, log: Vec<String>) {
        for line in log {
            output::note(format_args!("  log  {line}"));
        }
    }

    fn painted(&self, text: &str, colour: u8) -> String {
        painted(text, self.coloured.then_some(colour))
    }
}
