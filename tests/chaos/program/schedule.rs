//! Which holder of a row meets which fault: decided by the seed alone, so that both runs, with the guard and
//! without, meet the same.

use std::collections::BTreeMap;
use std::fmt;

use fastrand::Rng;

/// What a holder meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// SIGSTOP between its read and its write; SIGCONT once another holder has written.
    Pause,
    /// SIGSTOP between its write and its commit, past the TTL.
    PauseInCommit,
    /// kill -9 between its read and its write.
    Kill,
    /// kill -9 while its commit is under way.
    KillInCommit,
    /// kill -9 between its commit and its acknowledgement.
    KillBeforeAck,
    /// Its links to the coordinators go silent between its read and its write, until another holder has written.
    Cut,
    /// The database's answer to its commit is lost.
    LostReply,
}

impl Fault {
    const REST: [Self; 5] = [
        Self::PauseInCommit,
        Self::Kill,
        Self::KillInCommit,
        Self::KillBeforeAck,
        Self::Cut,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pause => "SIGSTOP between read and write",
            Self::PauseInCommit => "SIGSTOP between write and commit",
            Self::Kill => "kill -9 between read and write",
            Self::KillInCommit => "kill -9 during the commit",
            Self::KillBeforeAck => "kill -9 before the acknowledgement",
            Self::Cut => "links to the coordinators silent",
            Self::LostReply => "answer to the commit lost",
        })
    }
}

/// How many faults of each kind were made.
pub(crate) type Faults = BTreeMap<Fault, u64>;

/// A row's faults, without end.
#[derive(Debug)]
pub(crate) struct Schedule {
    rng: Rng,
    /// Those to come of this round, last first.
    round: Vec<Fault>,
    /// How many holders are left alone before the next.
    spared: u32,
}

impl Schedule {
    pub(crate) fn new(seed: u64, row: usize) -> Self {
        let mut rng = Rng::with_seed(seed ^ u64::try_from(row).unwrap_or(0).rotate_left(32));
        let spared = rng.u32(1..4);
        Self {
            rng,
            round: Vec::new(),
            spared,
        }
    }

    /// The fault that the row's next holder meets, if it meets one.
    pub(crate) fn next_holder(&mut self) -> Option<Fault> {
        if self.spared > 0 {
            self.spared -= 1;
            return None;
        }
        if self.round.is_empty() {
            // The short one and the one that matters most come first, so that a bounded run has both.
            self.round.extend(Fault::REST);
            self.rng.shuffle(&mut self.round);
            self.round.extend([Fault::Pause, Fault::LostReply]);
        }
        self.spared = self.rng.u32(1..6);
        self.round.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, Schedule};

    fn faults(seed: u64, row: usize) -> Vec<Option<Fault>> {
        let mut schedule = Schedule::new(seed, row);
        (0..100).map(|_| schedule.next_holder()).collect()
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(faults(7, 1), faults(7, 1));
        assert_ne!(faults(7, 1), faults(8, 1));
        assert_ne!(faults(7, 1), faults(7, 2));
    }

    #[test]
    fn every_round_has_every_fault_and_the_pause_is_early() {
        for seed in 0..50 {
            let met: Vec<Fault> = faults(seed, 0).into_iter().flatten().take(7).collect();
            assert_eq!(met[..2], [Fault::LostReply, Fault::Pause]);
            for fault in Fault::REST {
                assert!(met.contains(&fault), "{fault} is missing from {met:?}");
            }
        }
    }
}
