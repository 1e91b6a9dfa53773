//! What the rounds came to, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Times;
use crate::field::TTL;

/// Who is killed with SIGKILL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kill {
    Holder,
    Coordinator,
    Follower,
    Leader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Probe {
    /// Until the next in the queue has the lease. Where the holder lives, it releases at the kill.
    NextGrant,
    /// Until another client that comes at the kill has acquired what nobody holds.
    NewAcquire,
    /// Until the holder's lease is known to be renewed.
    HolderRenewed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum System {
    Palisade,
    EtcdLock,
}

impl Kill {
    pub(super) const ALL: [Self; 4] = [
        Self::Holder,
        Self::Coordinator,
        Self::Follower,
        Self::Leader,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Holder => "holder",
            Self::Coordinator => "coordinator",
            Self::Follower => "etcd-follower",
            Self::Leader => "etcd-leader",
        }
    }
}

impl Probe {
    const fn words(self) -> &'static str {
        match self {
            Self::NextGrant => "next grant to a waiter",
            Self::NewAcquire => "new acquire by another client",
            Self::HolderRenewed => "holder renewed",
        }
    }
}

impl System {
    const fn word(self) -> &'static str {
        match self {
            Self::Palisade => "palisade",
            Self::EtcdLock => "etcd-lock",
        }
    }
}

/// All times by what was killed, what was waited for, and whose it is. `None` did not come.
#[derive(Debug, Default)]
pub(super) struct Figures {
    times: BTreeMap<(Kill, Probe, System), Vec<Option<Duration>>>,
}

impl Figures {
    pub(super) fn add(&mut self, kill: Kill, system: System, probe: Probe, time: Option<Duration>) {
        self.times
            .entry((kill, probe, system))
            .or_default()
            .push(time);
    }

    pub(super) fn add_all(&mut self, kill: Kill, system: System, times: Times) {
        self.add(kill, system, Probe::NextGrant, times.next_grant);
        self.add(kill, system, Probe::NewAcquire, times.new_acquire);
        self.add(kill, system, Probe::HolderRenewed, times.holder_renewed);
    }

    /// Whether Palisade recovered every time.
    pub(super) fn holds(&self) -> bool {
        let ours = self
            .times
            .iter()
            .filter(|((_, _, system), _)| *system == System::Palisade);
        ours.flat_map(|(_, times)| times).all(Option::is_some)
    }

    pub(super) fn print(&self) {
        println!(
            "\n  {:<14}{:<32}{:>22}{:>22}",
            "kill -9 of", "seconds until", "Palisade", "etcd's lock"
        );
        println!(
            "  {:<46}{:>22}{:>22}",
            "", "median / worst", "median / worst"
        );
        for kill in Kill::ALL {
            for probe in [Probe::NextGrant, Probe::NewAcquire, Probe::HolderRenewed] {
                let cell = |system| {
                    self.times
                        .get(&(kill, probe, system))
                        .map(|times| cell(times))
                };
                let (ours, theirs) = (cell(System::Palisade), cell(System::EtcdLock));
                if ours.is_some() || theirs.is_some() {
                    println!(
                        "  {:<14}{:<32}{:>22}{:>22}",
                        kill.word(),
                        probe.words(),
                        ours.unwrap_or_else(|| "-".to_owned()),
                        theirs.unwrap_or_else(|| "-".to_owned())
                    );
                }
            }
        }
    }

    pub(super) fn to_json(&self, rounds: u32, seed: u64) -> Value {
        let rows: Vec<Value> = self
            .times
            .iter()
            .map(|((kill, probe, system), times)| {
                let (came, missing) = sorted(times);
                let ms: Vec<u64> = came.iter().map(|time| millis(*time)).collect();
                json!({
                    "kill": kill.word(),
                    "until": probe.words(),
                    "system": system.word(),
                    "median_ms": median(&came).map(millis),
                    "worst_ms": came.last().copied().map(millis),
                    "missing": missing,
                    "ms": ms,
                })
            })
            .collect();
        json!({
            "part": "recovery",
            "rounds": rounds,
            "seed": seed,
            "ttl_s": TTL.as_secs(),
            "holds": self.holds(),
            "rows": rows,
        })
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn sorted(times: &[Option<Duration>]) -> (Vec<Duration>, usize) {
    let mut came: Vec<Duration> = times.iter().flatten().copied().collect();
    came.sort_unstable();
    let missing = times.len() - came.len();
    (came, missing)
}

/// Of an even number the mean of the two in the middle.
fn median(sorted: &[Duration]) -> Option<Duration> {
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some((lower + upper) / 2)
}

fn cell(times: &[Option<Duration>]) -> String {
    let (came, missing) = sorted(times);
    let worst = came.last().copied();
    let (Some(median), Some(worst)) = (median(&came), worst) else {
        return format!("never, {missing} times");
    };
    let mut cell = format!("{:.2} / {:.2}", median.as_secs_f64(), worst.as_secs_f64());
    if missing > 0 {
        cell = format!("{cell}, {missing} never");
    }
    cell
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{cell, median};

    #[test]
    fn the_median_is_the_middle() {
        let of = |seconds: &[u64]| {
            let times: Vec<_> = seconds.iter().copied().map(Duration::from_secs).collect();
            median(&times)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[1, 2, 9]), Some(Duration::from_secs(2)));
        assert_eq!(of(&[1, 2, 4, 9]), Some(Duration::from_secs(3)));
    }

    #[test]
    fn what_never_came_is_said() {
        let times = [
            Some(Duration::from_millis(1500)),
            None,
            Some(Duration::from_secs(1)),
        ];
        assert_eq!(cell(&times), "1.25 / 1.50, 1 never");
        assert_eq!(cell(&[None]), "never, 1 times");
    }
}
