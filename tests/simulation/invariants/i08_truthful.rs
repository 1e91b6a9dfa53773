//! I8, truthful client: looks at what the client library said, by true time. It never says that a lease is held, nor
//! gives its grant out, once the store has ended it because its time was over; and never again once it has said that
//! it is lost.

use std::collections::{BTreeMap, BTreeSet};

use palisade_coordinator::domain::{LeaseEnd, SessionId};
use palisade_token::{FencingToken, ResourceName};

use super::{Violation, broken};
use crate::history::{Decision, History, What};

const I8: &str = "I8 truthful client";

pub(crate) fn check(history: &History) -> Result<(), Violation> {
    let mut expired: BTreeSet<(ResourceName, FencingToken)> = BTreeSet::new();
    let mut holders: BTreeMap<(ResourceName, FencingToken), SessionId> = BTreeMap::new();
    let mut expired_sessions: BTreeSet<SessionId> = BTreeSet::new();
    let mut lost = BTreeSet::new();
    for (index, entry) in history.entries.iter().enumerate() {
        match &entry.what {
            What::Log { decision, .. } => match decision {
                Decision::Granted(hold) => {
                    holders.insert((hold.resource.clone(), hold.token), hold.session);
                }
                Decision::Over {
                    resource,
                    token,
                    end: LeaseEnd::Expired,
                } => {
                    let lease = (resource.clone(), *token);
                    expired_sessions.extend(holders.get(&lease));
                    expired.insert(lease);
                }
                Decision::Restored(kept) => {
                    // What had ended there lives again.
                    expired_sessions
                        .retain(|session| !kept.sessions.iter().any(|(live, _)| live == session));
                    expired.retain(|(resource, token)| {
                        let is_it = |hold: &crate::history::Granted| {
                            hold.resource == *resource && hold.token == *token
                        };
                        !kept.holds.iter().any(is_it)
                    });
                }
                _ => {}
            },
            What::Said {
                host,
                session,
                lease,
                standing,
            } => {
                let name = lease.as_ref().map(|(name, _)| name);
                let about = (*host, *session, lease.clone());
                if !standing.is_held() {
                    lost.insert(about);
                    continue;
                }
                if lost.contains(&about) {
                    let what =
                        format!("{host:?} says {standing:?} after it had said that it is lost");
                    return broken(I8, name, index, what);
                }
                let is_over = match lease {
                    Some(lease) => expired.contains(lease),
                    None => expired_sessions.contains(session),
                };
                if is_over {
                    let what = format!(
                        "{host:?} says {standing:?} of {lease:?} in {session}, and its time is over"
                    );
                    return broken(I8, name, index, what);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use palisade_client::LostReason;
    use palisade_coordinator::domain::LeaseEnd;

    use super::super::by_hand::{ByHand, CLIENT, ended, granted, hold, kept, over, session};
    use super::check;
    use crate::history::{Standing, What};

    fn held() -> ByHand {
        let held = ByHand::new().log(granted(10, 1));
        held.say(1, 10, Standing::Held).say(1, 10, Standing::Gave)
    }

    fn expired() -> ByHand {
        held().log(ended(1)).also(over(10, LeaseEnd::Expired))
    }

    #[test]
    fn held_then_suspect_then_lost_fits() {
        let suspect = held()
            .say(1, 10, Standing::Suspect)
            .say(1, 10, Standing::Held);
        suspect.say(1, 10, Standing::Expired).fits(check);
        expired().say(1, 10, Standing::Expired).fits(check);
    }

    #[test]
    fn held_after_the_store_has_ended_it_is_seen() {
        expired().say(1, 10, Standing::Suspect).breaks(check);
        expired().say(1, 10, Standing::Gave).breaks(check);
        let of_session = What::Said {
            host: CLIENT,
            session: session(1),
            lease: None,
            standing: Standing::Held,
        };
        expired().note(of_session).breaks(check);
    }

    #[test]
    fn held_after_lost_is_seen() {
        let lost = held().say(1, 10, Standing::Lost(LostReason::Ended));
        lost.say(1, 10, Standing::Held).breaks(check);
    }

    #[test]
    fn what_an_operator_ended_is_not_known_at_once() {
        let revoked = held().log(over(10, LeaseEnd::Revoked));
        revoked.say(1, 10, Standing::Held).fits(check);
    }

    #[test]
    fn what_a_restore_has_revived_is_held() {
        let revived = expired().restored(kept(vec![hold(10, 1)], &[1]));
        revived.say(1, 10, Standing::Held).fits(check);
    }
}
