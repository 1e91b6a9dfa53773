//! Stores whose log decides wrong: what they keep is not what was planned.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use palisade_coordinator::domain::{Change, GrantNote, Hold, Ledger, Place};

use super::Planted;

/// Grants to those who would have to wait.
#[derive(Debug, Default)]
pub(super) struct GrantsWhatIsHeld;

impl Planted for GrantsWhatIsHeld {
    fn kept(&self, before: &Ledger, changes: Vec<Change>) -> Vec<Change> {
        let grants = changes.into_iter().map(|change| match change {
            Change::PutPlace(place) => granted(before, place),
            other => other,
        });
        grants.collect()
    }
}

fn granted(before: &Ledger, place: Place) -> Change {
    let Some(generation) = before.generation() else {
        return Change::PutPlace(place);
    };
    Change::PutHold(Hold {
        claim: place.claim,
        generation,
        granted: place.since,
        note: GrantNote::default(),
    })
}

/// Hands over to whoever came last.
#[derive(Debug, Default)]
pub(super) struct ServesTheLastFirst;

impl Planted for ServesTheLastFirst {
    fn kept(&self, before: &Ledger, changes: Vec<Change>) -> Vec<Change> {
        let granted = changes.iter().find_map(|change| match change {
            Change::PutHold(hold) => Some(hold.clone()),
            _ => None,
        });
        let Some(hold) = granted else { return changes };
        let queue: Vec<&Place> = before.queue(&hold.claim.resource).collect();
        let is_its = |place: &&&Place| place.claim == hold.claim;
        let (Some(first), Some(last)) = (queue.iter().find(is_its), queue.last()) else {
            return changes;
        };
        // A session that ends takes its own places with it.
        let is_gone = changes.iter().any(|change| {
            matches!(change, Change::DropPlace(place) if place == *last)
                || matches!(change, Change::DropSession(id) if *id == last.claim.session)
        });
        if is_gone {
            return changes;
        }
        let swapped = changes.iter().map(|change| match change {
            Change::DropPlace(place) if place == *first => Change::DropPlace((*last).clone()),
            Change::PutHold(one) if *one == hold => Change::PutHold(Hold {
                claim: last.claim.clone(),
                ..hold.clone()
            }),
            other => other.clone(),
        });
        swapped.collect()
    }
}

/// How many transactions a crash takes with it.
const LOST: usize = 6;

/// Acknowledges before it is durable.
#[derive(Debug, Default)]
pub(super) struct LosesTheLast {
    before: Mutex<VecDeque<Ledger>>,
}

impl Planted for LosesTheLast {
    fn kept(&self, before: &Ledger, changes: Vec<Change>) -> Vec<Change> {
        let mut kept = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(before.clone());
        if kept.len() > LOST {
            kept.pop_front();
        }
        changes
    }

    fn after_crash(&self, now: Ledger) -> Ledger {
        let kept = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        kept.front().cloned().unwrap_or(now)
    }
}
