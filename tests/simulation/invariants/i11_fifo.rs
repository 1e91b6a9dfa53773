//! I11, FIFO: looks at queues in the store's log. A lease goes to whoever has waited longest, and past the queue to
//! nobody; places are given in the order in which they are committed.

use std::collections::BTreeMap;

use palisade_coordinator::domain::{RequestId, Revision, SessionId};
use palisade_token::ResourceName;

use super::log::State;
use super::{Violation, broken};
use crate::history::{Decision, Granted, History, What};

const I11: &str = "I11 FIFO";

/// Who left a queue in this transaction, and from which place.
type Gone = BTreeMap<(ResourceName, SessionId, RequestId), Revision>;

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut state = State::default();
    let mut gone = Gone::new();
    let mut last: BTreeMap<ResourceName, Revision> = BTreeMap::new();
    for (index, entry) in history.entries.iter().enumerate() {
        let What::Log {
            revision, decision, ..
        } = &entry.what
        else {
            continue;
        };
        if matches!(decision, Decision::Renewed { .. }) {
            continue;
        }
        if state.revision != *revision {
            gone.clear();
        }
        match decision {
            Decision::Restored(_) => last.clear(),
            Decision::Left { resource, place } => {
                let queue = state.queues.get(resource);
                if let Some((session, request)) = queue.and_then(|queue| queue.get(place)) {
                    let key = (resource.clone(), *session, request.clone());
                    gone.insert(key, *place);
                }
            }
            Decision::Queued {
                resource, place, ..
            } => {
                let before = last.insert(resource.clone(), *place);
                if before.is_some_and(|before| before >= *place) {
                    let what = format!("place {place:?} is given after {before:?}");
                    return broken(I11, Some(resource), index, what);
                }
            }
            Decision::Granted(hold) => {
                if let Some(first) = passed_over(&state, &gone, hold) {
                    let what = format!("{hold:?} is granted before {first:?}, who waited longer");
                    return broken(I11, Some(&hold.resource), index, what);
                }
            }
            _ => {}
        }
        state.apply(entry);
    }
    Ok(())
}

/// Who waits longer than somebody who is granted the resource.
fn passed_over<'a>(
    state: &'a State,
    gone: &Gone,
    hold: &Granted,
) -> Option<&'a (SessionId, RequestId)> {
    let queue = state.queues.get(&hold.resource)?;
    let (place, first) = queue.first_key_value()?;
    let own = (hold.session, hold.request.clone());
    if *first == own {
        return None;
    }
    let left = gone.get(&(hold.resource.clone(), own.0, own.1));
    left.is_none_or(|left| left > place).then_some(first)
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{ByHand, ended, granted, left, over, queued};
    use super::check;

    fn two_wait() -> ByHand {
        let held = ByHand::new().log(granted(10, 1));
        held.log(queued(21, 2, 11)).log(queued(22, 1, 12))
    }

    #[test]
    fn the_first_is_served_first() {
        let handed = two_wait().log(over(10, LeaseEnd::Released));
        handed
            .clone()
            .also(left(11))
            .also(granted(21, 2))
            .fits(check);
        handed.also(granted(21, 2)).also(left(11)).fits(check);
    }

    #[test]
    fn whoever_leaves_is_not_waited_for() {
        let left = two_wait().log(left(11)).log(over(10, LeaseEnd::Released));
        left.log(granted(22, 1)).fits(check);
    }

    #[test]
    fn the_last_served_first_is_seen() {
        let handed = two_wait().log(over(10, LeaseEnd::Released));
        handed.also(left(12)).also(granted(22, 1)).breaks(check);
    }

    #[test]
    fn whoever_never_waited_and_is_served_is_seen() {
        let vacant = two_wait().log(over(10, LeaseEnd::Released));
        vacant.log(granted(30, 1)).breaks(check);
    }

    #[test]
    fn a_dead_session_leaves_first() {
        let dies = two_wait().log(ended(2)).also(left(11));
        let handed = dies.log(over(10, LeaseEnd::Released)).also(left(12));
        handed.also(granted(22, 1)).fits(check);
    }

    #[test]
    fn places_out_of_order_are_seen() {
        let held = ByHand::new().log(granted(10, 1));
        held.log(queued(21, 2, 12))
            .log(queued(22, 1, 11))
            .breaks(check);
    }
}
