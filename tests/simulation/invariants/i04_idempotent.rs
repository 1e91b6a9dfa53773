//! I4, idempotent acquire: looks at what clients were told of one request, and at grants and places in the store's log
//! for which nobody asks any more. All answers to one request carry one token; what was told is granted or queued no
//! more, as long as the store was not put back since. (A place that was given while somebody asked may be served after
//! an answer to an earlier try: no delayed copy, but an orphan, which is looked at in I5.)

use std::collections::{BTreeMap, BTreeSet};

use palisade_coordinator::domain::{RequestId, SessionId};
use palisade_token::ResourceName;

use super::calls::{Calls, Standing};
use super::log::State;
use super::{Violation, broken};
use crate::history::{Decision, History, Outcome, What};

const I4: &str = "I4 idempotent acquire";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut calls = Calls::of(history);
    let mut tokens = BTreeMap::new();
    let mut state = State::default();
    // Whose place was taken out in this transaction.
    let mut served = BTreeSet::new();
    for (index, entry) in history.entries.iter().enumerate() {
        if let What::Log {
            incarnation,
            revision,
            decision,
        } = &entry.what
        {
            if state.revision != *revision {
                served.clear();
            }
            if let Decision::Left { resource, place } = decision {
                let queue = state.queues.get(resource);
                let own = queue.and_then(|queue| queue.get(place));
                served.extend(own.map(|own| (resource.clone(), own.clone())));
            }
            if let Some((session, resource, request)) = begun(decision)
                && !served.contains(&(resource.clone(), (session, request.clone())))
                && is_ghost(&calls, session, (resource, request), *incarnation)
            {
                let what = format!("nobody asks any more for {decision:?}");
                return broken(I4, Some(resource), index, what);
            }
            state.apply(entry);
        }
        let Some(asked) = calls.apply(entry.at, &entry.what) else {
            continue;
        };
        if let What::Told {
            outcome:
                Outcome::Acquired {
                    token,
                    request: Some(request),
                    ..
                },
            ..
        } = &entry.what
        {
            let key = (asked.session, asked.resource.clone(), request.clone());
            let first = *tokens.entry(key).or_insert(*token);
            if first != *token {
                let what = format!("request {request} was told both {first} and {token}");
                return broken(I4, Some(&asked.resource), index, what);
            }
        }
    }
    Ok(())
}

/// Whose request a decision grants or queues.
fn begun(decision: &Decision) -> Option<(SessionId, &ResourceName, &RequestId)> {
    match decision {
        Decision::Granted(granted) => Some((granted.session, &granted.resource, &granted.request)),
        Decision::Queued {
            resource,
            session,
            request,
            ..
        } => Some((*session, resource, request)),
        _ => None,
    }
}

fn is_ghost(
    calls: &Calls,
    session: SessionId,
    (resource, request): (&ResourceName, &RequestId),
    incarnation: u32,
) -> bool {
    let mut of_request = calls.of_request(session, resource, request).peekable();
    // A history that does not say who asked for what cannot show it.
    of_request.peek().is_some()
        && of_request.all(|wanted| match wanted.standing {
            Standing::Open | Standing::Forgotten => false,
            Standing::Told(told) => told == incarnation,
        })
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{
        ByHand, acquire, acquired, granted, holder, kept, left, over, queued, request, token,
    };
    use super::check;
    use crate::history::{Outcome, Reason};

    fn told() -> ByHand {
        let asked = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        let told = asked.tell(1, acquired(10));
        told.log(over(10, LeaseEnd::Released))
    }

    #[test]
    fn a_grant_for_whoever_asks_fits() {
        told()
            .ask(2, 1, acquire(12))
            .log(granted(12, 1))
            .fits(check);
    }

    #[test]
    fn a_request_that_was_finished_and_is_granted_again_is_seen() {
        told().log(granted_again()).breaks(check);
    }

    #[test]
    fn a_place_for_a_request_that_was_refused_is_seen() {
        let refused = ByHand::new().ask(1, 1, acquire(10));
        let refused = refused.tell(1, Outcome::Refused(Reason::WaitExpired));
        refused.log(queued(10, 1, 12)).breaks(check);
    }

    #[test]
    fn a_request_whose_outcome_nobody_knows_may_be_granted_later() {
        let unknown = ByHand::new().ask(1, 1, acquire(10));
        unknown
            .tell(1, Outcome::Unknown)
            .log(granted(10, 1))
            .fits(check);
    }

    #[test]
    fn a_copy_of_an_older_history_costs_only_an_orphan() {
        let restored = told().restored(kept(Vec::new(), &[1, 2]));
        let mut again = super::super::by_hand::hold(20, 1);
        again.request = request(10);
        restored
            .log(crate::history::Decision::Granted(again))
            .fits(check);
    }

    #[test]
    fn what_an_older_history_granted_may_be_told_late() {
        let asked = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        let restored = asked.restored(kept(Vec::new(), &[1, 2]));
        // Its stream asks again, while the answer is on its way.
        let told = restored.log(queued(10, 1, 12)).tell(1, acquired(10));
        let mut again = super::super::by_hand::hold(20, 1);
        again.request = request(10);
        told.log(crate::history::Decision::Granted(again))
            .fits(check);
    }

    #[test]
    fn a_place_given_while_somebody_asked_may_be_served_later() {
        let tried_again = told_late().also(left(12)).also(granted_again());
        tried_again.fits(check);
        // It left: what comes now is a copy.
        told_late().log(left(12)).log(granted_again()).breaks(check);
    }

    /// The answer to a first try comes while the second waits.
    fn told_late() -> ByHand {
        let asked = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        let over = asked
            .log(over(10, LeaseEnd::Revoked))
            .log(queued(10, 1, 12));
        over.tell(1, acquired(10))
            .log(super::super::by_hand::renewed(2))
    }

    fn granted_again() -> crate::history::Decision {
        let mut again = super::super::by_hand::hold(20, 1);
        again.request = request(10);
        crate::history::Decision::Granted(again)
    }

    #[test]
    fn two_tokens_for_one_request_are_seen() {
        let asked = told().ask(2, 1, acquire(10));
        let other = Outcome::Acquired {
            token: token(12),
            holder: holder(10),
            request: Some(request(10)),
        };
        asked.tell(2, other).breaks(check);
    }
}
