//! I12, isolation: looks at every refusal. Each has a cause of its own: at some moment while the call was under way, its own
//! session or its own resource was so that it had to be refused. And what makes no sense is refused as such, while
//! nothing else is.

use std::collections::BTreeMap;

use super::log::State;
use super::{Violation, broken};
use crate::history::{Asked, CallId, History, Operation, Outcome, Reason, What};

const I12: &str = "I12 isolation";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut state = State::default();
    let mut open: BTreeMap<CallId, (&Asked, Causes)> = BTreeMap::new();
    let most = usize::try_from(history.setting.max_waiters).unwrap_or(usize::MAX);
    for (index, entry) in history.entries.iter().enumerate() {
        match &entry.what {
            What::Log { .. } => {
                state.apply(entry);
                for (asked, causes) in open.values_mut() {
                    causes.look(&state, asked, most);
                }
            }
            What::Asked(asked) => {
                let mut causes = Causes::default();
                causes.look(&state, asked, most);
                open.insert(asked.call, (asked, causes));
            }
            What::Told { call, outcome } => {
                let Some((asked, causes)) = open.remove(call) else {
                    continue;
                };
                if let Some(what) = causes.wrong(asked, outcome) {
                    return broken(I12, Some(&asked.resource), index, what);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What was so at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Causes {
    has_no_session: bool,
    is_taken: bool,
    is_own: bool,
    is_another_lease: bool,
    is_full: bool,
}

impl Causes {
    fn look(&mut self, state: &State, asked: &Asked, most: usize) {
        let hold = state.holds.get(&asked.resource);
        let waiting = state.waiting(&asked.resource);
        let is_live = |session| state.sessions.contains_key(&session);
        self.has_no_session |= !asked.session.is_some_and(is_live);
        self.is_taken |= hold.is_some() || waiting > 0;
        self.is_taken |= state.delayed.contains_key(&asked.resource);
        self.is_own |= hold.is_some_and(|hold| Some(hold.session) == asked.session);
        self.is_full |= waiting >= most;
        if let Operation::Release { token } | Operation::Revoke { token } = asked.operation {
            let is_it = |hold: &crate::history::Granted| {
                hold.token == token && asked.session.is_none_or(|session| session == hold.session)
            };
            self.is_another_lease |= !hold.is_some_and(is_it);
        }
    }

    /// What is wrong with an outcome, if anything is.
    fn wrong(self, asked: &Asked, outcome: &Outcome) -> Option<String> {
        let is_nonsense = asked.operation == Operation::Nonsense;
        let has_cause = match outcome {
            Outcome::Refused(reason) => match reason {
                Reason::SessionEnded => self.has_no_session,
                Reason::LeaseHeld => self.is_taken,
                Reason::AlreadyHeld => self.is_own,
                Reason::StaleToken => self.is_another_lease,
                Reason::LimitReached => self.is_full,
                Reason::Invalid => is_nonsense,
                Reason::WaitExpired => {
                    matches!(asked.operation, Operation::Acquire { waits: true, .. })
                }
                Reason::Unavailable | Reason::Other => true,
            },
            Outcome::Unknown => true,
            Outcome::Acquired { .. } | Outcome::Ended | Outcome::NotHeld => !is_nonsense,
        };
        let what = || format!("{asked:?} was told {outcome:?} without a cause of its own");
        (!has_cause).then(what)
    }
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{ByHand, acquire, acquired, ended, granted, over, token};
    use super::check;
    use crate::history::{Operation, Outcome, Reason};

    #[test]
    fn refusals_with_a_cause_fit() {
        let held = ByHand::new().log(granted(10, 1));
        let refused = held.ask(1, 2, acquire(11));
        let refused = refused.tell(1, Outcome::Refused(Reason::LeaseHeld));
        let own = refused.ask(2, 1, acquire(12));
        let own = own.tell(2, Outcome::Refused(Reason::AlreadyHeld));
        let dies = own.ask(3, 2, acquire(13)).log(ended(2));
        let dead = dies.tell(3, Outcome::Refused(Reason::SessionEnded));
        let nonsense = dead.ask(4, 1, Operation::Nonsense);
        nonsense
            .tell(4, Outcome::Refused(Reason::Invalid))
            .fits(check);
    }

    #[test]
    fn a_cause_that_was_there_for_a_moment_counts() {
        let held = ByHand::new().log(granted(10, 1)).ask(1, 2, acquire(11));
        let over = held.log(over(10, LeaseEnd::Released));
        over.tell(1, Outcome::Refused(Reason::LeaseHeld))
            .fits(check);
    }

    #[test]
    fn a_refusal_for_a_neighbours_sake_is_seen() {
        let reasons = [
            Reason::LeaseHeld,
            Reason::AlreadyHeld,
            Reason::SessionEnded,
            Reason::LimitReached,
            Reason::Invalid,
        ];
        for reason in reasons {
            let asked = ByHand::new().ask(1, 1, acquire(10));
            asked.tell(1, Outcome::Refused(reason)).breaks(check);
        }
        let held = ByHand::new().log(granted(10, 1));
        let release = held.ask(1, 1, Operation::Release { token: token(10) });
        release
            .tell(1, Outcome::Refused(Reason::StaleToken))
            .breaks(check);
    }

    #[test]
    fn nonsense_that_is_done_is_seen() {
        let nonsense = ByHand::new().ask(1, 1, Operation::Nonsense);
        nonsense.tell(1, acquired(10)).breaks(check);
    }
}
