//! I7, durable: looks at what clients were told, and at what the store shows when it starts again and at the end. A
//! lease that somebody was told of is in the log before that, and there after a restart; one whose end was told stays
//! ended. What is left at the end is what the log says. (A restore to an older point loses what came after: I3, I9.)

use std::collections::{BTreeMap, BTreeSet};

use palisade_token::{FencingToken, ResourceName};

use super::log::State;
use super::{Violation, broken};
use crate::history::{Asked, Census, Decision, Granted, History, Kept, Operation, Outcome, What};

const I7: &str = "I7 durable";

type Lease = (ResourceName, FencingToken);

#[derive(Default)]
struct Reading<'a> {
    state: State,
    /// With the incarnation of the store that they were made in.
    asked: BTreeMap<crate::history::CallId, (&'a Asked, u32)>,
    /// In which incarnation of the store they ended last.
    over: BTreeMap<Lease, u32>,
    told_held: BTreeSet<Lease>,
    told_over: BTreeSet<Lease>,
}

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut reading = Reading::default();
    for (index, entry) in history.entries.iter().enumerate() {
        let wrong = match &entry.what {
            What::Asked(asked) => {
                let made = (asked, reading.state.incarnation);
                reading.asked.insert(asked.call, made);
                None
            }
            What::Told { call, outcome } => reading.told(*call, outcome),
            What::Log {
                decision,
                incarnation,
                ..
            } => {
                let wrong = reading.decided(decision, *incarnation);
                reading.state.apply(entry);
                wrong
            }
            What::Census(census) => reading.counted(census),
            _ => None,
        };
        if let Some((resource, what)) = wrong {
            return broken(I7, Some(&resource), index, what);
        }
    }
    Ok(())
}

impl Reading<'_> {
    fn decided(&mut self, decision: &Decision, incarnation: u32) -> Option<(ResourceName, String)> {
        match decision {
            Decision::Over {
                resource, token, ..
            } => {
                self.over.insert((resource.clone(), *token), incarnation);
            }
            Decision::Restored(kept) => {
                // From here on what is kept is what there is.
                let holds = kept.holds.iter().map(name);
                let holds: BTreeSet<Lease> = holds.collect();
                self.told_over.retain(|lease| !holds.contains(lease));
            }
            Decision::Restarted(kept) => return self.restarted(kept),
            _ => {}
        }
        None
    }

    fn restarted(&self, kept: &Kept) -> Option<(ResourceName, String)> {
        let there: BTreeSet<Lease> = kept.holds.iter().map(name).collect();
        let held = self.state.holds.values().map(name);
        let lost = held.filter(|lease| self.told_held.contains(lease));
        if let Some(lease) = lost.into_iter().find(|lease| !there.contains(lease)) {
            let what = format!(
                "the lease of token {} was told, and lost in a crash",
                lease.1
            );
            return Some((lease.0, what));
        }
        let revived = there
            .into_iter()
            .find(|lease| self.told_over.contains(lease))?;
        let what = format!(
            "the end of token {} was told, and lost in a crash",
            revived.1
        );
        Some((revived.0, what))
    }

    fn told(
        &mut self,
        call: crate::history::CallId,
        outcome: &Outcome,
    ) -> Option<(ResourceName, String)> {
        let (asked, made) = *self.asked.get(&call)?;
        let resource = asked.resource.clone();
        match (&asked.operation, outcome) {
            (Operation::Acquire { .. }, Outcome::Acquired { token, .. }) => {
                self.told_held.insert((resource, *token));
                None
            }
            (Operation::Release { token } | Operation::Revoke { token }, Outcome::Ended) => {
                let lease = (resource, *token);
                let over = self.over.get(&lease).copied();
                // What ended before a restore may be told after it.
                if over == Some(self.state.incarnation) {
                    self.told_over.insert(lease.clone());
                }
                let what = || format!("token {token} was told to have ended, and did not");
                // How it ended before a restore that brought it back is no answer.
                let is_over = over.is_some_and(|over| over >= made);
                (!is_over).then(|| (lease.0, what()))
            }
            _ => None,
        }
    }

    fn counted(&self, census: &Census) -> Option<(ResourceName, String)> {
        let there: BTreeSet<Lease> = census.leases.iter().cloned().collect();
        let held: BTreeSet<Lease> = self.state.holds.values().map(name).collect();
        let lease = there.symmetric_difference(&held).next()?;
        let what = format!(
            "token {} is held either by the log or by the store alone",
            lease.1
        );
        Some((lease.0.clone(), what))
    }
}

fn name(hold: &Granted) -> Lease {
    (hold.resource.clone(), hold.token)
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{ByHand, acquire, acquired, granted, hold, kept, over, r, token};
    use super::check;
    use crate::history::{Census, Decision, Operation, Outcome, What};

    const RELEASE: fn() -> Operation = || Operation::Release { token: token(10) };

    fn held() -> ByHand {
        let asked = ByHand::new().ask(1, 1, acquire(10));
        asked.log(granted(10, 1)).tell(1, acquired(10))
    }

    fn released() -> ByHand {
        let asked = held().ask(2, 1, RELEASE());
        asked
            .log(over(10, LeaseEnd::Released))
            .tell(2, Outcome::Ended)
    }

    fn restarted(holds: Vec<crate::history::Granted>) -> Decision {
        Decision::Restarted(kept(holds, &[1, 2]))
    }

    #[test]
    fn what_was_told_and_is_kept_fits() {
        held().log(restarted(vec![hold(10, 1)])).fits(check);
        released().log(restarted(Vec::new())).fits(check);
    }

    #[test]
    fn a_lost_grant_is_seen_if_it_was_told() {
        held().log(restarted(Vec::new())).breaks(check);
        let untold = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        untold.log(restarted(Vec::new())).fits(check);
    }

    #[test]
    fn a_lost_release_is_seen() {
        released().log(restarted(vec![hold(10, 1)])).breaks(check);
        // A restore is no crash.
        released()
            .restored(kept(vec![hold(10, 1)], &[1]))
            .fits(check);
    }

    #[test]
    fn an_end_from_before_a_restore_may_be_told_after_it() {
        let asked = held().ask(2, 1, RELEASE());
        let over = asked.log(over(10, LeaseEnd::Released));
        let revived = over.restored(kept(vec![hold(10, 1)], &[1]));
        let told = revived.tell(2, Outcome::Ended);
        told.log(restarted(vec![hold(10, 1)])).fits(check);
    }

    #[test]
    fn an_end_from_before_a_restore_is_no_answer_to_who_asks_after_it() {
        let over = held().log(over(10, LeaseEnd::Revoked));
        let revived = over.restored(kept(vec![hold(10, 1)], &[1]));
        let asked = revived.ask(2, 1, RELEASE());
        asked.tell(2, Outcome::Ended).breaks(check);
    }

    #[test]
    fn a_release_that_was_told_and_is_in_no_log_is_seen() {
        held()
            .ask(2, 1, RELEASE())
            .tell(2, Outcome::Ended)
            .breaks(check);
    }

    #[test]
    fn a_lease_that_is_gone_without_a_word_is_seen() {
        let nothing = What::Census(Census::default());
        held().note(nothing).breaks(check);
        let still = What::Census(Census {
            leases: vec![(r(), token(10))],
            ..Census::default()
        });
        held().note(still).fits(check);
    }
}
