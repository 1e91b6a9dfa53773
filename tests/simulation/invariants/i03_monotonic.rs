//! I3, monotonic tokens: looks at every grant in the store's log. Each token of a resource is greater than all before,
//! across restarts and restores. What a client is told is looked at, too: a token that goes backwards there was issued.

use std::collections::BTreeMap;

use palisade_token::{FencingToken, HolderId, ResourceName};

use super::{Violation, broken};
use crate::history::{Decision, History, Outcome, What};

const I3: &str = "I3 monotonic tokens";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut last: BTreeMap<&ResourceName, FencingToken> = BTreeMap::new();
    let mut holders: BTreeMap<(&ResourceName, FencingToken), HolderId> = BTreeMap::new();
    let mut calls = BTreeMap::new();
    for (index, entry) in history.entries.iter().enumerate() {
        match &entry.what {
            What::Log {
                decision: Decision::Granted(granted),
                ..
            } => {
                let (name, token) = (&granted.resource, granted.token);
                if last.get(name).is_some_and(|last| token <= *last) {
                    let what = format!("token {token} is granted after {:?}", last.get(name));
                    return broken(I3, Some(name), index, what);
                }
                last.insert(name, token);
                holders.insert((name, token), granted.holder);
            }
            What::Asked(asked) => {
                calls.insert(asked.call, &asked.resource);
            }
            What::Told {
                call,
                outcome: Outcome::Acquired { token, holder, .. },
            } => {
                let Some(name) = calls.get(call) else {
                    continue;
                };
                let known = *holders.entry((name, *token)).or_insert(*holder);
                if known != *holder {
                    let what = format!("token {token} is of both {known} and {holder}");
                    return broken(I3, Some(name), index, what);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::over;
    use super::super::by_hand::{ByHand, acquire, acquired, granted, holder, kept, token};
    use super::check;
    use crate::history::Outcome;

    fn one_lease() -> ByHand {
        let first = ByHand::new().log(granted(10, 1));
        first.log(over(10, LeaseEnd::Released))
    }

    #[test]
    fn tokens_that_grow_fit() {
        one_lease().log(granted(12, 2)).fits(check);
        let restored = one_lease().restored(kept(Vec::new(), &[1, 2]));
        restored.log(granted(12, 2)).fits(check);
    }

    #[test]
    fn a_token_that_was_issued_before_is_seen() {
        one_lease().log(granted(10, 2)).breaks(check);
    }

    #[test]
    fn a_smaller_token_after_a_restore_is_seen() {
        let restored = one_lease().restored(kept(Vec::new(), &[1, 2]));
        restored.log(granted(9, 2)).breaks(check);
    }

    #[test]
    fn one_token_told_to_two_holders_is_seen() {
        let told = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        let told = told.tell(1, acquired(10)).ask(2, 2, acquire(11));
        let other = Outcome::Acquired {
            token: token(10),
            holder: holder(11),
            request: None,
        };
        told.tell(2, other).breaks(check);
    }
}
