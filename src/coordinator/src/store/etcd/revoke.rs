//! Operators end leases. Whoever watches is told by whom: the key `revoked` is put in the same transaction.

use etcd_client::{Compare, TxnOp};
use palisade_token::{FencingToken, ResourceName};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::EtcdStore;
use super::codec::{self, Stored};
use super::leases::about_to_hold;
use super::link::Link;
use super::view::{self, Sight, Subject};
use crate::audit;
use crate::domain::{
    Generation, GrantNote, Hold, Last, LeaseEnd, Place, Previous, Revision, Revoke,
    Revoked as Outcome, decide_revoke,
};
use crate::store::{Failure, StoreError};

/// How often a revocation looks again: each time the lease or its queue has changed meanwhile.
const ROUNDS: usize = 64;

/// The value of the key `revoked`: whose lease the transaction that put it has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revoked {
    pub(super) resource: ResourceName,
    pub(super) token: FencingToken,
    pub(super) label: String,
    pub(super) reason: String,
    pub(super) actor: String,
}

impl EtcdStore {
    pub(super) async fn do_revoke(&self, revoke: &Revoke) -> Result<Outcome, StoreError> {
        for _ in 0..ROUNDS {
            let link = self.links.get().await?;
            // Without one that is trusted here nobody could be promoted; the lease is ended all the same.
            if let Err(error) = link.generation().await {
                debug!(%error, "a revocation without a generation");
            }
            let sight = Sight::of(&link, subject(&revoke.resource)).await?;
            let decided = decide_revoke(&sight.view, revoke.token);
            let Ok(Some((hold, successor))) = decided else {
                // What a read shows may be stale: that there is nothing to end, the log decides.
                let seen = as_seen(&link, &revoke.resource, sight.hold.as_ref());
                if !link.confirm_in_log(seen).await? {
                    continue;
                }
                decided?;
                return Ok(Outcome::NotHeld);
            };
            let ended = self
                .end_by_force(&link, &sight, (hold, successor), revoke)
                .await?;
            if let Some(ended) = ended {
                let hold = hold.clone();
                return Ok(Outcome::Lease { hold, ended });
            }
        }
        Err(StoreError::not_applied(Failure::Unavailable))
    }

    pub(super) async fn end_by_force(
        &self,
        link: &Link,
        sight: &Sight,
        (hold, successor): (&Hold, Option<&Place>),
        revoke: &Revoke,
    ) -> Result<Option<Revision>, StoreError> {
        let keys = &link.context().keys;
        let left = Last::after(hold, LeaseEnd::Revoked, &revoke.reason);
        // Behind a lock-delay nobody is promoted.
        let is_closed = left.is_some();
        let successor = successor.filter(|_| !is_closed);
        let mut compares = as_seen(link, &revoke.resource, sight.hold.as_ref());
        let mut writes = Vec::new();
        let heir = match (successor, &sight.generation) {
            (Some(place), Some(generation)) => {
                let heir = heir(link, hold, place, generation, &revoke.reason);
                let spot = sight.spot(keys, place);
                compares.push(view::is_queued(&spot));
                compares.push(view::is_generation(keys, &generation.raw));
                compares.push(view::nobody_waits_longer(keys, place));
                let options = keys.on_lease(place.claim.session);
                let value = heir.raw.to_vec();
                writes.push(TxnOp::put(
                    keys.lease(&revoke.resource),
                    value,
                    Some(options),
                ));
                writes.push(TxnOp::delete(spot.key, None));
                Some(heir)
            }
            // Without a trusted generation the head of the queue is granted the resource later.
            (Some(_), None) => {
                writes.push(TxnOp::delete(keys.lease(&revoke.resource), None));
                None
            }
            (None, _) => {
                if !is_closed {
                    compares.push(view::nobody_waits(keys, &revoke.resource));
                }
                writes.push(TxnOp::delete(keys.lease(&revoke.resource), None));
                None
            }
        };
        let news = codec::revoked_value(&Revoked {
            resource: revoke.resource.clone(),
            token: revoke.token,
            label: hold.claim.label.clone(),
            reason: revoke.reason.clone(),
            actor: revoke.actor.clone(),
        });
        // The heir's own lock-delay counts from here on, as that of any grant does.
        if let Some(left) = left.or_else(|| heir.as_ref().and_then(|heir| Last::of(&heir.record))) {
            let value = codec::last_value(&left);
            writes.push(TxnOp::put(keys.last(&revoke.resource), value, None));
        }
        writes.push(TxnOp::put(keys.revoked(), news, None));
        writes.push(TxnOp::delete(keys.notice(&revoke.resource), None));
        let Some(committed) = link.write(compares, writes).await? else {
            return Ok(None);
        };
        let ended = committed.reached.revision;
        let words = (revoke.actor.as_str(), revoke.reason.as_str());
        audit::revoked(hold, &revoke.principal, words, ended);
        self.note_ended(hold, None, (LeaseEnd::Revoked, ended));
        if let Some(mut heir) = heir {
            heir.record.granted = ended;
            if committed.is_regress || heir.record.token().is_none() {
                self.give_back(&heir).await;
            } else {
                self.note_granted(&heir.record, None);
            }
        }
        Ok(Some(ended))
    }
}

pub(super) fn subject(resource: &ResourceName) -> Subject<'_> {
    Subject {
        resource,
        session: None,
        request: None,
    }
}

/// That the lease is as it was seen.
pub(super) fn as_seen(
    link: &Link,
    resource: &ResourceName,
    hold: Option<&Stored<Hold>>,
) -> Vec<Compare> {
    let keys = &link.context().keys;
    match hold {
        Some(hold) => Vec::from(view::is_held_as(keys, hold)),
        None => vec![view::is_vacant(keys, resource)],
    }
}

fn heir(
    link: &Link,
    hold: &Hold,
    place: &Place,
    generation: &Stored<Generation>,
    reason: &str,
) -> Stored<Hold> {
    let previous = Previous::of(hold, LeaseEnd::Revoked, reason);
    let note = GrantNote::at(link.context().clock.wall(), Some(previous));
    about_to_hold(place.claim.clone(), generation.record, note)
}
