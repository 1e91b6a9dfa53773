//! I1, exclusive in the log: looks at the store's log alone. A lease is granted only while the resource is vacant and to
//! a session that lives; only a lease that is held ends.

use super::log::State;
use super::{Violation, broken};
use crate::history::{Decision, History, What};

const I1: &str = "I1 exclusive in the log";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut state = State::default();
    for (index, entry) in history.entries.iter().enumerate() {
        let What::Log { decision, .. } = &entry.what else {
            continue;
        };
        let name = decision.resource();
        match decision {
            Decision::Granted(granted) => {
                if let Some(held) = state.holds.get(&granted.resource) {
                    let what = format!("{granted:?} is granted while {held:?} is held");
                    return broken(I1, name, index, what);
                }
                if !state.sessions.contains_key(&granted.session) {
                    let what = format!("{granted:?} is granted to a session that does not live");
                    return broken(I1, name, index, what);
                }
            }
            Decision::Over {
                resource, token, ..
            } => {
                let held = state.holds.get(resource);
                if held.is_none_or(|held| held.token != *token) {
                    let what = format!("the lease of token {token} ends, and {held:?} is held");
                    return broken(I1, name, index, what);
                }
            }
            Decision::Ended { session } => {
                // Its leases end with it, in the same transaction.
                let same = history.entries[index + 1..].iter().take_while(|later| {
                    matches!((&later.what, &entry.what),
                        (What::Log { revision, .. }, What::Log { revision: ended, .. }) if revision == ended)
                });
                let mut after = state.clone();
                same.for_each(|later| after.apply(later));
                if let Some(held) = after.holds.values().find(|hold| hold.session == *session) {
                    let what = format!("{held:?} outlives its session");
                    return broken(I1, Some(&held.resource), index, what);
                }
            }
            _ => {}
        }
        state.apply(entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{ByHand, ended, granted, hold, kept, over};
    use super::check;

    #[test]
    fn one_after_the_other_fits() {
        let first = ByHand::new().log(granted(10, 1));
        first
            .log(over(10, LeaseEnd::Released))
            .also(granted(12, 2))
            .log(ended(2))
            .also(over(12, LeaseEnd::Expired))
            .fits(check);
    }

    #[test]
    fn a_grant_of_what_is_held_is_seen() {
        let first = ByHand::new().log(granted(10, 1));
        first.log(granted(11, 2)).breaks(check);
    }

    #[test]
    fn a_grant_to_a_dead_session_is_seen() {
        let dead = ByHand::new().log(ended(1));
        dead.log(granted(10, 1)).breaks(check);
    }

    #[test]
    fn a_lease_that_outlives_its_session_is_seen() {
        let first = ByHand::new().log(granted(10, 1));
        first
            .log(ended(1))
            .log(over(10, LeaseEnd::Expired))
            .breaks(check);
    }

    #[test]
    fn the_end_of_a_lease_that_is_not_held_is_seen() {
        ByHand::new()
            .log(over(10, LeaseEnd::Released))
            .breaks(check);
    }

    #[test]
    fn a_restore_brings_back_what_was_held() {
        let first = ByHand::new().log(granted(10, 1));
        let revived = first
            .log(over(10, LeaseEnd::Released))
            .restored(kept(vec![hold(10, 1)], &[1, 2]));
        revived
            .clone()
            .log(over(10, LeaseEnd::Released))
            .fits(check);
        revived.log(granted(20, 2)).breaks(check);
    }
}
