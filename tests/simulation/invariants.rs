//! What must hold of every history: one file for each invariant, each a pure function.

use std::fmt::{self, Write as _};

use palisade_token::ResourceName;

use crate::history::{Asked, CallId, History, What};

#[cfg(test)]
mod by_hand;
mod calls;
mod i01_exclusive;
mod i02_guarded;
mod i03_monotonic;
mod i04_idempotent;
mod i05_no_orphans;
mod i06_takeover;
mod i07_durable;
mod i08_truthful;
mod i09_fails_closed;
mod i10_linearizable;
mod i11_fifo;
mod i12_isolation;
mod i13_bounded;
mod i14_exactly_once;
mod log;
mod progress;

pub(crate) use i10_linearizable::undecided;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Of which invariant.
    pub invariant: &'static str,
    /// Of which resource, where it is of one.
    pub resource: Option<ResourceName>,
    /// Which entry of the history shows it.
    pub entry: usize,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.invariant, self.what)
    }
}

/// A look at a history.
pub(crate) type Check = fn(&History) -> Result<(), Violation>;

/// All of them.
pub(crate) const CHECKS: [Check; 15] = [
    i01_exclusive::check,
    i02_guarded::check,
    i03_monotonic::check,
    i04_idempotent::check,
    i05_no_orphans::check,
    i06_takeover::check,
    i07_durable::check,
    i08_truthful::check,
    i09_fails_closed::check,
    i10_linearizable::check,
    i11_fifo::check,
    i12_isolation::check,
    i13_bounded::check,
    i14_exactly_once::check,
    progress::check,
];

/// What is wrong with a history: at most one violation of each invariant.
pub(crate) fn violations(history: &History) -> Vec<Violation> {
    let checked = CHECKS.iter().filter_map(|check| check(history).err());
    checked.collect()
}

/// How much of a history is printed after what shows a violation.
const SHOWN_AFTER: usize = 5;

/// What is wrong, how to see it again, and so many entries of what led to it.
pub(crate) fn report(history: &History, violation: &Violation, before: usize) -> String {
    let setting = &history.setting;
    let mut text = format!(
        "{violation}\nseed {}, configuration {}; again:\nPALISADE_SEED={} cargo test -p palisade-tests --test simulation \
         seeds::{} -- --nocapture\n",
        setting.seed, setting.configuration, setting.seed, setting.configuration
    );
    let concerning: Vec<usize> = (0..history.entries.len())
        .filter(|&index| concerns(history, index, violation.resource.as_ref()))
        .collect();
    let until = concerning.partition_point(|&index| index <= violation.entry);
    let from = until.saturating_sub(before);
    let to = concerning.len().min(until + SHOWN_AFTER);
    for &index in &concerning[from..to] {
        let mark = if index == violation.entry { '>' } else { ' ' };
        writeln!(text, "{mark}{index:6} {:?}", history.entries[index])
            .expect("text can be written");
    }
    text
}

/// Whether an entry is about a resource, or about everything.
fn concerns(history: &History, index: usize, resource: Option<&ResourceName>) -> bool {
    let Some(resource) = resource else {
        return true;
    };
    let about = match &history.entries[index].what {
        What::Log { decision, .. } => decision.resource(),
        What::Asked(asked) => Some(&asked.resource),
        What::Told { call, .. } => asked(history, *call).map(|(_, asked)| &asked.resource),
        What::Said { lease, .. } => lease.as_ref().map(|(name, _)| name),
        What::Guarded { grant, .. } => Some(&grant.resource),
        What::Fault(_) | What::Phase(_) | What::Census(_) => None,
    };
    about.is_none_or(|name| name == resource)
}

/// The entry that a call was made with.
fn asked(history: &History, call: CallId) -> Option<(usize, &Asked)> {
    let entries = history.entries.iter().enumerate();
    entries
        .into_iter()
        .find_map(|(index, entry)| match &entry.what {
            What::Asked(asked) if asked.call == call => Some((index, asked)),
            _ => None,
        })
}

/// Builds a violation.
fn broken<T>(
    invariant: &'static str,
    resource: Option<&ResourceName>,
    entry: usize,
    what: String,
) -> Result<T, Violation> {
    Err(Violation {
        invariant,
        resource: resource.cloned(),
        entry,
        what,
    })
}
