//! What a run came to.

use serde_json::{Value, json};

use crate::schedule::{Fault, Faults};
use crate::workload::Found;

/// Counts of one run of one workload.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) attempts: u64,
    pub(crate) acknowledged: u64,
    pub(crate) unknown: u64,
    /// Refused by the guard, for its token.
    pub(crate) stale: u64,
    /// The lease was lost before the write, and the worker saw it.
    pub(crate) lease_lost: u64,
    /// Anything else that has not happened.
    pub(crate) failed: u64,
    /// The worker was killed before it had begun to write.
    pub(crate) killed: u64,
    /// Delivered again although it was acknowledged, or because it was not.
    pub(crate) delivered_again: u64,
    pub(crate) faults: Faults,
    /// Of the pauses and cuts, those during which another holder wrote.
    pub(crate) overtaken: u64,
    pub(crate) found: Found,
    /// Why jobs failed that no fault explains; a few of them.
    pub(crate) reasons: Vec<String>,
}

/// Enough to see what it is about.
const REASONS: usize = 5;

impl Tally {
    pub(crate) fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(crate) fn count_of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or_default()
    }

    pub(crate) fn failure(&mut self, why: &str) {
        self.failed += 1;
        if self.reasons.len() < REASONS && !self.reasons.iter().any(|reason| reason == why) {
            self.reasons.push(why.to_owned());
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let faults: serde_json::Map<String, Value> = self
            .faults
            .iter()
            .map(|(fault, count)| (fault.to_string(), json!(count)))
            .collect();
        json!({
            "attempts": self.attempts,
            "acknowledged": self.acknowledged,
            "unknown": self.unknown,
            "refused_as_stale": self.stale,
            "lease_lost_before_write": self.lease_lost,
            "failed": self.failed,
            "killed_before_write": self.killed,
            "delivered_again": self.delivered_again,
            "faults": faults,
            "overtaken": self.overtaken,
            "lost": self.found.lost,
            "applied_twice": self.found.twice,
            "unfounded": self.found.unfounded,
            "stale_writes_let_in": self.found.stale,
            "receipts_contradicted": self.found.contradicted,
            "reasons": self.reasons,
        })
    }
}
