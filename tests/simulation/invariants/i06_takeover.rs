//! I6, bounded takeover: looks at sessions that are renewed no more, and at resources that are vacant while somebody
//! waits, from the end of the faults on. A dead session ends within its time to live and a second (and another second
//! for each thousand that end at once); a vacant resource goes to whoever waits within that second.

use std::collections::BTreeMap;
use std::time::Duration;

use palisade_coordinator::domain::SessionId;
use palisade_token::ResourceName;

use super::log::{Live, State};
use super::{Violation, broken};
use crate::history::{At, History, Phase, What};

const I6: &str = "I6 bounded takeover";
/// Beyond the time to live.
const BEYOND: Duration = Duration::from_secs(1);
/// How many sessions may end in a second.
const ENDS_PER_SECOND: u32 = 1000;

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut state = State::default();
    let mut healthy = None;
    let mut vacant: BTreeMap<ResourceName, At> = BTreeMap::new();
    for (index, entry) in history.entries.iter().enumerate() {
        if let Some(healthy) = healthy {
            let (at, others) = (entry.at, crowd(state.sessions.len()));
            if let Some((session, due)) = overdue(&state, healthy, at, others) {
                let what = format!("session {session} should have ended by {due:?}");
                return broken(I6, None, index, what);
            }
            let late = vacant.iter().find(|(_, since)| {
                let since: At = **since;
                since.max(healthy).after(BEYOND + others) < at
            });
            if let Some((name, since)) = late {
                let what = format!("{name} is vacant since {since:?}, and somebody waits");
                return broken(I6, Some(name), index, what);
            }
        }
        if matches!(entry.what, What::Phase(Phase::FaultsEnd)) {
            healthy = Some(entry.at);
        }
        if matches!(entry.what, What::Log { .. }) {
            state.apply(entry);
            let is_vacant = |name: &ResourceName| {
                !state.holds.contains_key(name)
                    && !state.delayed.get(name).copied().unwrap_or_default()
            };
            let waiting = state.queues.iter().filter(|(_, queue)| !queue.is_empty());
            let waiting = waiting.filter(|(name, _)| is_vacant(name));
            let now = waiting.map(|(name, _)| {
                let since = vacant.get(name).copied().unwrap_or(entry.at);
                (name.clone(), since)
            });
            vacant = now.collect();
        }
    }
    Ok(())
}

fn crowd(sessions: usize) -> Duration {
    let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
    Duration::from_secs(1) * sessions / ENDS_PER_SECOND
}

fn overdue(state: &State, healthy: At, now: At, others: Duration) -> Option<(SessionId, At)> {
    let due = |live: &Live| live.renewed.max(healthy).after(live.ttl + BEYOND + others);
    let mut sessions = state.sessions.iter().map(|(id, live)| (*id, due(live)));
    sessions.find(|(_, due)| *due < now)
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{ByHand, ended, granted, over, queued, renewed};
    use super::check;
    use crate::history::Phase;

    fn healthy() -> ByHand {
        ByHand::new().phase(Phase::FaultsEnd)
    }

    #[test]
    fn a_session_that_ends_in_time_fits() {
        let ends = healthy()
            .at_ms(4000)
            .log(renewed(1))
            .at_ms(5900)
            .log(ended(2));
        ends.at_ms(9900).log(ended(1)).fits(check);
    }

    #[test]
    fn a_session_that_ends_late_is_seen() {
        let late = healthy().at_ms(4000).log(renewed(1)).log(renewed(2));
        late.clone()
            .at_ms(9900)
            .log(ended(1))
            .log(ended(2))
            .fits(check);
        late.at_ms(10_100).log(ended(1)).breaks(check);
    }

    #[test]
    fn one_that_never_ends_is_seen() {
        healthy().at_ms(60_000).phase(Phase::Quiet).breaks(check);
    }

    #[test]
    fn faults_may_take_longer() {
        let sick = ByHand::new().at_ms(60_000).phase(Phase::FaultsEnd);
        sick.clone()
            .at_ms(65_900)
            .log(ended(1))
            .log(ended(2))
            .fits(check);
        sick.at_ms(66_100).log(ended(1)).breaks(check);
    }

    #[test]
    fn a_vacant_resource_goes_to_whoever_waits() {
        let waits = healthy().log(granted(10, 1)).log(queued(11, 2, 11));
        let vacant = waits.log(over(10, LeaseEnd::Released));
        vacant.clone().at_ms(900).log(granted(13, 2)).fits(check);
        vacant.at_ms(1100).log(granted(13, 2)).breaks(check);
    }
}
