//! I5, no orphans: looks at holds and places in the store's log that no client knows of: nobody waits for them, and
//! nobody was told of them, or has tried to release them and does not try any more. Once faults have ended such a thing is gone
//! within one renewal interval and a second, as long as its session is renewed. (With its session it goes: I6.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use palisade_coordinator::domain::{RequestId, SessionId};
use palisade_token::{FencingToken, ResourceName};

use super::calls::{Calls, Standing};
use super::log::State;
use super::{Violation, broken};
use crate::history::{At, Decision, History, Operation, Outcome, Phase, What};

const I5: &str = "I5 no orphans";
const SLACK: Duration = Duration::from_secs(1);
/// What is under way when the faults end may have lost its answer, and is given up after so long.
const CALL: Duration = Duration::from_secs(5);

type Request = (SessionId, ResourceName, RequestId);

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut reading = Reading {
        calls: Calls::of(history),
        ..Reading::default()
    };
    for (index, entry) in history.entries.iter().enumerate() {
        reading.take(entry.at, &entry.what);
        reading.state.apply(entry);
        let What::Log {
            decision: Decision::Renewed { session },
            ..
        } = entry.what
        else {
            continue;
        };
        let Some(healthy) = reading.healthy else {
            continue;
        };
        let bound = history.setting.renewal + SLACK;
        if let Some((resource, since)) = reading.orphan(session)
            && since.max(healthy).after(bound) < entry.at
        {
            let what = format!(
                "{resource} is held or awaited by {session}, which nobody has known since {since:?}"
            );
            return broken(I5, Some(&resource), index, what);
        }
    }
    Ok(())
}

#[derive(Default)]
struct Reading {
    calls: Calls,
    state: State,
    /// Leases that a client was told of, and has not tried to release in vain.
    known: BTreeSet<(ResourceName, FencingToken)>,
    /// When holds and places came to be, or were last to be released.
    begun: BTreeMap<Request, At>,
    /// Which request a client was granted what for, and whether it is releasing that.
    granted: BTreeMap<(ResourceName, FencingToken), Request>,
    releasing: BTreeSet<Request>,
    healthy: Option<At>,
}

impl Reading {
    fn take(&mut self, at: At, what: &What) {
        match what {
            What::Phase(Phase::FaultsEnd) => self.healthy = Some(at.after(CALL)),
            What::Asked(asked) => {
                if let Operation::Release { token } = asked.operation {
                    let request = self.granted.get(&(asked.resource.clone(), token));
                    self.releasing.extend(request.cloned());
                }
            }
            What::Log { decision, .. } => {
                let begun = match decision {
                    Decision::Granted(hold) => {
                        Some((hold.session, hold.resource.clone(), hold.request.clone()))
                    }
                    Decision::Queued {
                        resource,
                        session,
                        request,
                        ..
                    } => Some((*session, resource.clone(), request.clone())),
                    _ => None,
                };
                self.begun.extend(begun.map(|key| (key, at)));
            }
            _ => {}
        }
        let Some(asked) = self.calls.apply(at, what) else {
            return;
        };
        let What::Told { outcome, .. } = what else {
            return;
        };
        match (&asked.operation, outcome) {
            (Operation::Acquire { .. }, Outcome::Acquired { token, request, .. }) => {
                let lease = (asked.resource.clone(), *token);
                if let (Some(session), Some(request)) = (asked.session, request) {
                    let request = (session, asked.resource.clone(), request.clone());
                    self.granted.insert(lease.clone(), request);
                }
                self.known.insert(lease);
            }
            (Operation::Release { token }, _) => {
                let lease = (asked.resource.clone(), *token);
                self.known.remove(&lease);
                if let Some(request) = self.granted.get(&lease) {
                    self.releasing.remove(request);
                    self.begun.insert(request.clone(), at);
                }
            }
            _ => {}
        }
    }

    /// What nobody has known of for longest, of all that a session has, and since when.
    fn orphan(&self, session: SessionId) -> Option<(ResourceName, At)> {
        let holds = self.state.holds.values().filter(|hold| {
            let name = (hold.resource.clone(), hold.token);
            hold.session == session && !self.known.contains(&name)
        });
        let holds = holds.map(|hold| (&hold.resource, &hold.request));
        let queues = self.state.queues.iter();
        let places = queues.flat_map(|(resource, queue)| {
            let own = queue.values().filter(|(of, _)| *of == session);
            own.map(move |(_, request)| (resource, request))
        });
        let all = holds.chain(places).filter_map(|(resource, request)| {
            let since = self.forgotten(session, resource, request)?;
            Some((resource.clone(), since))
        });
        all.min_by_key(|(_, since)| *since)
    }

    fn forgotten(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Option<At> {
        let key = (session, resource.clone(), request.clone());
        if self.releasing.contains(&key) {
            return None;
        }
        let mut since = *self.begun.get(&key)?;
        for wanted in self.calls.of_request(session, resource, request) {
            if wanted.standing == Standing::Open {
                return None;
            }
            since = since.max(wanted.since);
        }
        Some(since)
    }
}

#[cfg(test)]
mod tests {
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{
        ByHand, acquire, acquired, granted, hold, kept, left, over, queued, renewed, token,
    };
    use super::check;
    use crate::history::{Operation, Outcome, Phase};

    /// Long after the last fault.
    fn healthy() -> ByHand {
        ByHand::new().phase(Phase::FaultsEnd).at_ms(60_000)
    }

    fn forgotten() -> ByHand {
        let asked = healthy().ask(1, 1, acquire(10));
        asked.at_ms(61_000).tell(1, Outcome::Unknown)
    }

    #[test]
    fn what_somebody_waits_for_or_was_told_of_is_no_orphan() {
        let waits = ByHand::new().phase(Phase::FaultsEnd).ask(1, 1, acquire(10));
        let waits = waits.log(queued(10, 1, 9));
        waits.clone().at_ms(20_000).log(renewed(1)).fits(check);
        let told = waits.log(left(9)).log(granted(10, 1)).tell(1, acquired(10));
        told.at_ms(60_000).log(renewed(1)).fits(check);
    }

    #[test]
    fn an_orphan_is_given_back_in_time_or_seen() {
        let orphan = forgotten().log(granted(10, 1));
        orphan.clone().at_ms(63_900).log(renewed(1)).fits(check);
        orphan.at_ms(64_100).log(renewed(1)).breaks(check);
        let place = forgotten().log(queued(10, 1, 10));
        place.at_ms(64_100).log(renewed(1)).breaks(check);
    }

    #[test]
    fn while_there_are_faults_it_may_take_longer() {
        let asked = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        let unknown = asked.at_ms(1000).tell(1, Outcome::Unknown);
        let healed = unknown
            .at_ms(60_000)
            .log(renewed(1))
            .phase(Phase::FaultsEnd);
        healed.clone().at_ms(67_900).log(renewed(1)).fits(check);
        healed.at_ms(68_100).log(renewed(1)).breaks(check);
    }

    #[test]
    fn a_lease_whose_release_was_not_heard_is_nobodys() {
        let asked = healthy().ask(1, 1, acquire(10));
        let told = asked.log(granted(10, 1)).tell(1, acquired(10));
        let released = told.ask(2, 1, Operation::Release { token: token(10) });
        released.clone().at_ms(90_000).log(renewed(1)).fits(check);
        let unknown = released.tell(2, Outcome::Unknown);
        unknown.at_ms(64_000).log(renewed(1)).breaks(check);
    }

    #[test]
    fn what_a_restore_brings_back_is_given_back() {
        let asked = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        let told = asked.tell(1, acquired(10));
        let released = told.ask(2, 1, Operation::Release { token: token(10) });
        let over = released.log(over(10, LeaseEnd::Released));
        let revived = over
            .tell(2, Outcome::Ended)
            .restored(kept(vec![hold(10, 1)], &[1, 2]));
        let healed = revived.phase(Phase::FaultsEnd);
        healed.clone().at_ms(7900).log(renewed(1)).fits(check);
        healed.at_ms(8100).log(renewed(1)).breaks(check);
    }

    #[test]
    fn what_is_being_released_is_known_of() {
        let asked = ByHand::new().phase(Phase::FaultsEnd).ask(1, 1, acquire(10));
        let told = asked.log(granted(10, 1)).tell(1, acquired(10));
        let releasing = told.ask(2, 1, Operation::Release { token: token(10) });
        // As after a restore.
        let waits = releasing
            .log(over(10, LeaseEnd::Released))
            .log(queued(10, 1, 9));
        let heard = waits.at_ms(9000).log(renewed(1)).tell(2, Outcome::NotHeld);
        heard.clone().at_ms(11_900).log(renewed(1)).fits(check);
        heard.at_ms(12_100).log(renewed(1)).breaks(check);
    }
}
