//! I10, linearizable: looks at each resource from outside, at calls and their outcomes, and searches for an order in which
//! the fenced mutex would have told just that (see [`crate::linearizable`]).

use super::{Violation, broken};
use crate::history::History;
use crate::linearizable::{Verdict, mutex};

const I10: &str = "I10 linearizable";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    for resource in mutex::resources(history) {
        let (calls, verdict) = mutex::check(history, &resource);
        if let Verdict::Broken { placed, stuck } = verdict {
            let span = &calls[stuck];
            let what = format!(
                "no order explains {:?}, made at entry {} and told at {:?}; {} of {} calls could be put in order",
                span.call,
                span.from,
                span.to,
                placed.len(),
                calls.len(),
            );
            let entry = span.to.unwrap_or(span.from);
            let entry = usize::try_from(entry).expect("a history fits into memory");
            return broken(I10, Some(&resource), entry, what);
        }
    }
    Ok(())
}

/// For how many resources the search was given up.
pub(crate) fn undecided(history: &History) -> usize {
    let resources = mutex::resources(history).into_iter();
    let verdicts = resources.map(|resource| mutex::check(history, &resource).1);
    verdicts
        .filter(|verdict| *verdict == Verdict::Undecided)
        .count()
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{
        ByHand, acquire, acquired, granted, hold, kept, left, over, queued, token,
    };
    use super::check;
    use crate::history::{Operation, Outcome, Reason};

    fn held() -> ByHand {
        let asked = ByHand::new().ask(1, 1, acquire(10));
        asked.log(granted(10, 1)).tell(1, acquired(10))
    }

    #[test]
    fn a_hand_over_fits() {
        let waits = held().ask(2, 2, acquire(12)).log(queued(12, 2, 11));
        let released = waits.ask(3, 1, Operation::Release { token: token(10) });
        let handed = released.log(over(10, LeaseEnd::Released)).also(left(11));
        let handed = handed.log(granted(12, 2));
        handed
            .tell(2, acquired(12))
            .tell(3, Outcome::Ended)
            .fits(check);
    }

    #[test]
    fn two_that_were_told_at_once_are_seen() {
        let second = held().ask(2, 2, acquire(12)).tell(2, acquired(12));
        second.breaks(check);
    }

    #[test]
    fn an_expiry_that_the_log_shows_lets_the_next_one_in() {
        let expired = held()
            .log(over(10, LeaseEnd::Expired))
            .ask(2, 2, acquire(12));
        expired
            .log(granted(12, 2))
            .tell(2, acquired(12))
            .fits(check);
    }

    #[test]
    fn a_release_that_nobody_heard_of_counts_when_it_happened() {
        let unheard = held().ask(2, 1, Operation::Release { token: token(10) });
        let unheard = unheard.tell(2, Outcome::Unknown);
        let refused = |history: ByHand| {
            let asked = history.ask(3, 2, acquire(12));
            asked.tell(3, Outcome::Refused(Reason::LeaseHeld))
        };
        refused(unheard.clone()).fits(check);
        refused(unheard.log(over(10, LeaseEnd::Released))).breaks(check);
    }

    #[test]
    fn a_restore_may_bring_a_lease_back() {
        let over = held().log(over(10, LeaseEnd::Released));
        let revived = over
            .restored(kept(vec![hold(10, 1)], &[1, 2]))
            .ask(2, 2, acquire(12));
        revived
            .tell(2, Outcome::Refused(Reason::LeaseHeld))
            .fits(check);
    }

    #[test]
    fn who_was_told_that_a_lease_is_over_may_say_so_after_a_restore() {
        let over = held().log(over(10, LeaseEnd::Revoked));
        let release = || Operation::Release { token: token(10) };
        let says = |history: ByHand| history.ask(2, 1, release()).tell(2, Outcome::NotHeld);
        says(over.restored(kept(vec![hold(10, 1)], &[1, 2]))).fits(check);
        says(held().restored(kept(vec![hold(10, 1)], &[1, 2]))).breaks(check);
    }
}
