//! What clients were told, compared with etcd's log.

use std::collections::{BTreeMap, BTreeSet};

use super::load::Told;
use super::log::Held;

/// Holds of a resource are disjoint, and their tokens grow (I1, I3).
pub(super) fn log(holds: &[Held]) -> Vec<String> {
    let mut found = Vec::new();
    let mut last: BTreeMap<&str, &Held> = BTreeMap::new();
    let mut granted: BTreeMap<[&str; 3], &Held> = BTreeMap::new();
    for held in holds {
        if let Some(before) = last.insert(&held.resource, held) {
            if before.token >= held.token {
                found.push(format!("I3: {before:?} before {held:?}"));
            }
            if before.ended.is_none_or(|ended| ended > held.granted) {
                found.push(format!("I1: {before:?} during {held:?}"));
            }
        }
        let request = [&*held.resource, &*held.session, &*held.request];
        if let Some(before) = granted.insert(request, held) {
            found.push(format!("I4: granted twice: {before:?} and {held:?}"));
        }
    }
    found
}

/// What was granted after something else was told has the greater token, whatever became of the store between (I3).
pub(super) fn tokens_grow_as_told(told: &[Told]) -> Vec<String> {
    let mut found = Vec::new();
    for told in by_resource(told).values() {
        let mut by_answer = told.clone();
        by_answer.sort_by_key(|one| one.told);
        let mut by_question = told.clone();
        by_question.sort_by_key(|one| one.asked);
        let mut answered = by_answer.into_iter().peekable();
        let mut greatest: Option<&Told> = None;
        for one in by_question {
            while let Some(before) = answered.next_if(|before| before.told < one.asked) {
                if greatest.is_none_or(|greatest| greatest.grant.token < before.grant.token) {
                    greatest = Some(before);
                }
            }
            if let Some(before) = greatest
                && before.grant.token >= one.grant.token
            {
                found.push(format!("I3: {one:?} after {before:?}"));
            }
        }
    }
    found
}

/// Every grant that was told is in the log as it was told, and each token was told once (I4, I7).
pub(super) fn told_is_in_the_log(histories: &[Vec<Held>], told: &[Told]) -> Vec<String> {
    let mut found = Vec::new();
    let name = |held: &Held| (held.resource.clone(), held.token);
    let holds: BTreeMap<_, _> = histories
        .iter()
        .flatten()
        .map(|held| (name(held), held))
        .collect();
    // Of a history that was lost, an end may be lost, too: it ended with it.
    let last: BTreeSet<_> = histories.iter().rev().take(1).flatten().map(name).collect();
    let mut seen = BTreeSet::new();
    for one in told {
        let Some(held) = holds.get(&one.name()) else {
            found.push(format!("I7: told, and not in the log: {one:?}"));
            continue;
        };
        let holder = one.grant.holder.to_string();
        if (&held.session, &held.request, &held.holder) != (&one.session, &one.request, &holder) {
            found.push(format!("I4: told {one:?}, in the log is {held:?}"));
        }
        if held.ended.is_none() && last.contains(&one.name()) {
            found.push(format!("I5: not ended: {held:?}"));
        }
        if !seen.insert(one.name()) {
            found.push(format!("I4: told twice: {one:?}"));
        }
    }
    found
}

/// No two clients believed at once that they hold a resource (I8).
pub(super) fn nobody_believed_at_once(told: &[Told]) -> Vec<String> {
    let mut found = Vec::new();
    for told in by_resource(told).values_mut() {
        told.sort_by_key(|one| one.grant.token);
        for pair in told.windows(2) {
            if pair[0].believed >= pair[1].told {
                found.push(format!("I8: two believed at once: {pair:?}"));
            }
        }
    }
    found
}

fn by_resource(told: &[Told]) -> BTreeMap<&str, Vec<&Told>> {
    let mut resources: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for one in told {
        let resource = one.grant.resource.as_str();
        resources.entry(resource).or_default().push(one);
    }
    resources
}
