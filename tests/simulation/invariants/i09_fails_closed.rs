//! I9, fails closed: looks at what was granted while history was in doubt. Between a restore and the next generation
//! nothing is granted, each token is one of the generation in force, and no client is told of a lease that the store
//! did not decide on.

use std::collections::{BTreeMap, BTreeSet};

use super::log::State;
use super::{Violation, broken};
use crate::history::{Decision, History, Outcome, What};

const I9: &str = "I9 fails closed";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut state = State::default();
    let mut granted = BTreeSet::new();
    let mut asked = BTreeMap::new();
    for (index, entry) in history.entries.iter().enumerate() {
        match &entry.what {
            What::Log {
                revision,
                decision: Decision::Granted(hold),
                ..
            } => {
                let (name, token) = (&hold.resource, hold.token);
                let Some((base, since)) = state.generation else {
                    let what =
                        format!("token {token} is granted, and nobody has made a generation");
                    return broken(I9, Some(name), index, what);
                };
                let most = base.saturating_add(revision.0.saturating_sub(since.0));
                if !(base..=most).contains(&token.get()) {
                    let what = format!(
                        "token {token} is none of the generation, which has {base} to {most}"
                    );
                    return broken(I9, Some(name), index, what);
                }
                granted.insert((hold.resource.clone(), token));
            }
            What::Asked(call) => {
                asked.insert(call.call, call.resource.clone());
            }
            What::Told {
                call,
                outcome: Outcome::Acquired { token, .. },
            } => {
                let lease = asked.get(call).map(|name| (name.clone(), *token));
                if let Some(lease) = lease.filter(|lease| !granted.contains(lease)) {
                    let what = format!("token {token} was told, and the store has not granted it");
                    return broken(I9, Some(&lease.0), index, what);
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
    use palisade_coordinator::domain::Revision;

    use super::super::by_hand::{ByHand, acquire, acquired, granted, kept};
    use super::check;
    use crate::history::Decision;

    fn restored() -> ByHand {
        ByHand::new()
            .log(granted(10, 1))
            .restored(kept(Vec::new(), &[1, 2]))
    }

    fn generation(base: u64) -> Decision {
        Decision::Generation {
            base,
            since: Revision(0),
        }
    }

    #[test]
    fn grants_of_the_generation_in_force_fit() {
        restored()
            .log(generation(0))
            .log(granted(20, 1))
            .fits(check);
        let asked = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        asked.tell(1, acquired(10)).fits(check);
    }

    #[test]
    fn a_grant_before_the_next_generation_is_seen() {
        restored().log(granted(20, 1)).breaks(check);
    }

    #[test]
    fn a_token_of_another_generation_is_seen() {
        restored()
            .log(generation(1000))
            .log(granted(20, 1))
            .breaks(check);
    }

    #[test]
    fn a_lease_that_only_the_client_knows_is_seen() {
        let asked = ByHand::new().ask(1, 1, acquire(10));
        asked.tell(1, acquired(10)).breaks(check);
    }
}
