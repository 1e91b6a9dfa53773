//! I13, bounded: looks at queues all along, and at what is left at the end. No queue is longer than its bound; when all is
//! quiet no session, lease, place, task or stream is left.

use super::log::State;
use super::{Violation, broken};
use crate::history::{Census, Decision, History, What};

const I13: &str = "I13 bounded";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut state = State::default();
    let most = usize::try_from(history.setting.max_waiters).unwrap_or(usize::MAX);
    for (index, entry) in history.entries.iter().enumerate() {
        state.apply(entry);
        match &entry.what {
            What::Log {
                decision: Decision::Queued { resource, .. },
                ..
            } if state.waiting(resource) > most => {
                let what = format!("{} wait, and {most} may", state.waiting(resource));
                return broken(I13, Some(resource), index, what);
            }
            What::Census(census) if *census != Census::default() => {
                let what = format!("when all was quiet there was left: {census:?}");
                let name = census.leases.first().map(|(name, _)| name);
                return broken(I13, name, index, what);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::by_hand::{ByHand, queued, r, token};
    use super::check;
    use crate::history::{Census, What};

    #[test]
    fn nothing_left_fits() {
        let quiet = ByHand::new().log(queued(10, 1, 10));
        quiet.note(What::Census(Census::default())).fits(check);
    }

    #[test]
    fn whatever_is_left_is_seen() {
        let none = Census::default;
        let left = [
            Census {
                sessions: 1,
                ..none()
            },
            Census {
                places: 1,
                ..none()
            },
            Census {
                streams: 1,
                ..none()
            },
            Census {
                tasks: vec!["waiter"],
                ..none()
            },
            Census {
                leases: vec![(r(), token(1))],
                ..none()
            },
        ];
        for census in left {
            ByHand::new().note(What::Census(census)).breaks(check);
        }
    }

    #[test]
    fn a_queue_that_is_too_long_is_seen() {
        let bound = |most| ByHand::new().with(|history| history.setting.max_waiters = most);
        let two = |history: ByHand| history.log(queued(10, 1, 10)).log(queued(11, 2, 11));
        two(bound(2)).fits(check);
        two(bound(1)).breaks(check);
    }
}
