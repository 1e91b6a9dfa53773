//! What follows after a run of the command has ended: pure.

use std::time::Duration;

use super::watch::Why;

#[cfg(test)]
mod tests;

/// The first pause before a restart; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// What ends at once, again and again, is tried twice a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What ran as long as this is not about to fail at once again.
const LONG_RUN: Duration = Duration::from_secs(30);

/// Shells' codes for what cannot be executed, and for what was not found.
pub(crate) const CANNOT_EXECUTE: u8 = 126;
pub(crate) const NOT_FOUND: u8 = 127;

/// How often the command is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Once,
    Restart,
}

/// Why a run was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The lease's session expired, ended, or went to somebody else, or the lease alone was lost.
    Lost,
    /// It could not be renewed in time.
    NotRenewed,
    /// An operator wants it back.
    Wanted,
    /// The guardian died.
    Unguarded,
}

impl Cause {
    /// What the guardian's reason says of the lease.
    pub(crate) fn of(why: Why) -> Option<Self> {
        match why {
            Why::Deadline => Some(Self::NotRenewed),
            Why::Asked | Why::Orphaned => Some(Self::Lost),
            Why::Finished => None,
        }
    }
}

/// How a run of the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// Its exit code, or 128 + N for signal N.
    pub(crate) code: u8,
    /// Why it was ended, unless it did so by itself.
    pub(crate) cause: Option<Cause>,
    /// Whether nobody of its group is left.
    pub(crate) is_empty: bool,
    /// Whether a signal that ends programs was passed on to it.
    pub(crate) was_told_to_end: bool,
    /// How long it ran.
    pub(crate) ran: Duration,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Release, and exit with the command's code.
    Exit(u8),
    /// Exit: the lease is lost, or given back.
    Lost(Cause),
    /// Exit without a release: somebody of the group may still be at work.
    Stuck,
    /// Exit: without a guardian nothing is promised.
    Unguarded,
    /// Start again under the same lease, after a pause.
    Again(Duration),
    /// Acquire again.
    Acquire(Cause),
}

/// Counts restarts.
#[derive(Debug, Default)]
pub(crate) struct Course {
    quick_ends: u32,
}

impl Course {
    pub(crate) fn after(&mut self, mode: Mode, run: Run, is_held: bool) -> Next {
        if !run.is_empty {
            return Next::Stuck;
        }
        let restarts = mode == Mode::Restart && !run.was_told_to_end;
        match (run.cause, restarts) {
            (None, false) => Next::Exit(run.code),
            (None, true) if matches!(run.code, CANNOT_EXECUTE | NOT_FOUND) => Next::Exit(run.code),
            (None, true) if !is_held => Next::Acquire(Cause::Lost),
            (None | Some(Cause::Unguarded), true) if is_held => Next::Again(self.pause(run.ran)),
            (Some(Cause::Unguarded), false) => Next::Unguarded,
            (Some(cause), false) => Next::Lost(cause),
            (cause, true) => Next::Acquire(cause.unwrap_or(Cause::Lost)),
        }
    }

    fn pause(&mut self, ran: Duration) -> Duration {
        if ran >= LONG_RUN {
            self.quick_ends = 0;
        }
        let factor = 1_u32.checked_shl(self.quick_ends).unwrap_or(u32::MAX);
        self.quick_ends = self.quick_ends.saturating_add(1);
        FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
    }
}
