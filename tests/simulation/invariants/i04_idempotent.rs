//! I4, idempotent acquire: looks at what clients were told of one request, and at grants and places in the store's log
//! for which nobody asks any more. All answers to one request carry one token; what was told is granted or queued no
//! more, as long as the store was not put back since, and the session is the one that was opened first. (A copy of an
//! opening that outlives its session opens it anew, as if for somebody else: nothing is left that tells them apart.)

use std::collections::{BTreeMap, BTreeSet};

use palisade_coordinator::domain::{RequestId, SessionId};
use palisade_token::ResourceName;

use super::calls::{Calls, Standing};
use super::{Violation, broken};
use crate::history::{Decision, History, Outcome, What};

const I4: &str = "I4 idempotent acquire";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut calls = Calls::of(history);
    let mut tokens = BTreeMap::new();
    let mut opened = BTreeSet::new();
    let mut anew = BTreeSet::new();
    for (index, entry) in history.entries.iter().enumerate() {
        if let What::Log {
            incarnation,
            decision,
            ..
        } = &entry.what
        {
            if let Decision::Restored(kept) = decision {
                opened = kept.sessions.iter().map(|(session, _)| *session).collect();
            }
            if let Decision::Opened { session, .. } = decision
                && !opened.insert(*session)
            {
                anew.insert(*session);
            }
            if let Some((session, resource, request)) = begun(decision)
                && !anew.contains(&session)
                && is_ghost(&calls, session, (resource, request), *incarnation)
            {
                let what = format!("nobody asks any more for {decision:?}");
                return broken(I4, Some(resource), index, what);
            }
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
        ByHand, acquire, acquired, ended, granted, holder, kept, opened, over, queued, request,
        token,
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
    fn a_session_that_is_opened_anew_is_another_one() {
        let ended = told().log(ended(1));
        let anew = ended.clone().log(opened(1));
        anew.log(granted_again()).fits(check);
        // Whoever else is opened.
        ended.log(opened(3)).log(granted_again()).breaks(check);
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
