//! I5, no orphans: looks at holds and places in the store's log that no client knows of: nobody waits for them, and
//! nobody was told of them, or has tried to release them and not heard. Once faults have ended such a thing is gone
//! within one renewal interval and a second, as long as its session is renewed. (With its session it goes: I6. What a
//! restore brings back of a session that is renewed by calls stays as long: calls name nothing.)

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use palisade_coordinator::domain::{RequestId, SessionId};
use palisade_token::{FencingToken, ResourceName};

use super::calls::{Calls, Standing};
use super::log::State;
use super::{Violation, broken};
use crate::history::{At, Decision, History, Kept, Operation, Outcome, Phase, What};

const I5: &str = "I5 no orphans";
const SLACK: Duration = Duration::from_secs(1);

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
    /// When holds and places came to be.
    begun: BTreeMap<(SessionId, ResourceName, RequestId), At>,
    healthy: Option<At>,
    by_call: BTreeSet<SessionId>,
    /// What restores brought back.
    revived: BTreeSet<(SessionId, ResourceName, RequestId)>,
}

impl Reading {
    fn take(&mut self, at: At, what: &What) {
        match what {
            What::Phase(Phase::FaultsEnd) => self.healthy = Some(at),
            What::ByCall { session } => {
                self.by_call.insert(*session);
            }
            What::Log {
                decision: Decision::Restored(kept),
                ..
            } => self.revive(kept),
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
            (Operation::Acquire { .. }, Outcome::Acquired { token, .. }) => {
                self.known.insert((asked.resource.clone(), *token));
            }
            (Operation::Release { token }, _) => {
                self.known.remove(&(asked.resource.clone(), *token));
            }
            _ => {}
        }
    }

    fn revive(&mut self, kept: &Kept) {
        let holds = kept.holds.iter();
        let holds = holds.map(|hold| (hold.session, &hold.resource, &hold.request));
        let places = kept.places.iter();
        let places = places.map(|(resource, _, session, request)| (*session, resource, request));
        let all = holds.chain(places);
        self.revived
            .extend(all.map(|(of, resource, request)| (of, resource.clone(), request.clone())));
    }

    /// Something of a session that nobody knows of, and since when.
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
        holds.chain(places).find_map(|(resource, request)| {
            let since = self.forgotten(session, resource, request)?;
            Some((resource.clone(), since))
        })
    }

    fn forgotten(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Option<At> {
        let key = (session, resource.clone(), request.clone());
        if self.by_call.contains(&session) && self.revived.contains(&key) {
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
        ByHand, acquire, acquired, granted, hold, kept, left, over, queued, renewed, session, token,
    };
    use super::check;
    use crate::history::{Operation, Outcome, Phase, What};

    fn forgotten() -> ByHand {
        let asked = ByHand::new().phase(Phase::FaultsEnd).ask(1, 1, acquire(10));
        asked.at_ms(1000).tell(1, Outcome::Unknown)
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
        orphan.clone().at_ms(3900).log(renewed(1)).fits(check);
        orphan.at_ms(4100).log(renewed(1)).breaks(check);
        let place = forgotten().log(queued(10, 1, 10));
        place.at_ms(4100).log(renewed(1)).breaks(check);
    }

    #[test]
    fn while_there_are_faults_it_may_take_longer() {
        let asked = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        let unknown = asked.at_ms(1000).tell(1, Outcome::Unknown);
        let healed = unknown
            .at_ms(60_000)
            .log(renewed(1))
            .phase(Phase::FaultsEnd);
        healed.clone().at_ms(62_000).log(renewed(1)).fits(check);
        healed.at_ms(64_000).log(renewed(1)).breaks(check);
    }

    #[test]
    fn a_lease_whose_release_was_not_heard_is_nobodys() {
        let asked = ByHand::new().phase(Phase::FaultsEnd).ask(1, 1, acquire(10));
        let told = asked.log(granted(10, 1)).tell(1, acquired(10));
        let released = told.ask(2, 1, Operation::Release { token: token(10) });
        released.clone().at_ms(9000).log(renewed(1)).fits(check);
        let unknown = released.tell(2, Outcome::Unknown);
        unknown.at_ms(9000).log(renewed(1)).breaks(check);
    }

    #[test]
    fn what_a_restore_brings_back_is_given_back_where_requests_are_named() {
        let asked = ByHand::new().ask(1, 1, acquire(10)).log(granted(10, 1));
        let told = asked.tell(1, acquired(10));
        let released = told.ask(2, 1, Operation::Release { token: token(10) });
        let over = released
            .log(over(10, LeaseEnd::Released))
            .tell(2, Outcome::Ended);
        let revived = over.restored(kept(vec![hold(10, 1)], &[1, 2]));
        let healed = revived.phase(Phase::FaultsEnd).at_ms(9000);
        healed.clone().log(renewed(1)).breaks(check);
        let by_call = healed.note(What::ByCall {
            session: session(1),
        });
        by_call.log(renewed(1)).fits(check);
    }
}
