//! Lock-delays: a key on an etcd lease of its own, so that one goes on whatever becomes of coordinators.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, LeaseGrantOptions, PutOptions, TxnOp, TxnOpResponse};
use palisade_token::ResourceName;
use tracing::info;

use super::EtcdStore;
use super::codec::{self, as_i64};
use super::effort::{Effort, Taken};
use super::keys::Keys;
use super::link::Link;
use super::step::Step;
use super::view::{self, Sight};
use crate::domain::{Hold, Last, Revision};
use crate::store::StoreError;

/// What a lease left behind, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) last: Last,
    /// When it was written.
    pub(super) seen: Revision,
}

impl EtcdStore {
    /// Begins the lock-delay of a resource whose last lease ended uncleanly, unless another coordinator did.
    pub(super) async fn begin_delay(
        &self,
        effort: &mut Effort<'_>,
        link: &Arc<Link>,
        resource: &ResourceName,
        sight: &Sight,
    ) -> Result<(), StoreError> {
        let Some(left) = &sight.left else {
            return Ok(());
        };
        let context = link.context();
        let lease = delay_lease(link, left.last.lock_delay()).await?;
        let begun = left.last.clone().begun();
        let mut step = Step::new(vec![
            view::is_vacant(&context.keys, resource),
            is_as_left(&context.keys, resource, left),
        ]);
        let on_lease = PutOptions::new().with_lease(lease);
        step.put(context.keys.delay(resource), Vec::new(), Some(on_lease));
        let value = codec::last_value(&begun);
        step.put(context.keys.last(resource), value, None);
        if let Taken::Applied(..) = effort.take(link, step).await? {
            info!(%resource, token = ?begun.token, lock_delay_ms = begun.lock_delay_ms,
                "closed for the lock-delay of a lease that ended uncleanly");
            effort.stop_guessing();
        }
        Ok(())
    }
}

/// For how long a resource that nobody holds stays closed, at the most.
pub(super) async fn delay_left(
    link: &Link,
    resource: &ResourceName,
) -> Result<Duration, StoreError> {
    let keys = &link.context().keys;
    let reads = [keys.last(resource), keys.delay(resource)].map(|key| TxnOp::get(key, None));
    let (replies, _) = link.read(Vec::from(reads)).await?;
    let first = |reply: Option<&TxnOpResponse>| match reply {
        Some(TxnOpResponse::Get(get)) => get.kvs().first().cloned(),
        _ => None,
    };
    let Some(left) = first(replies.first()) else {
        return Ok(Duration::ZERO);
    };
    let last = codec::last(&left)?.last;
    match first(replies.get(1)) {
        _ if !last.has_begun => Ok(last.lock_delay()),
        None => Ok(Duration::ZERO),
        Some(delay) => {
            let mut leases = link.leases();
            let asked = link.call(leases.time_to_live(delay.lease(), None)).await;
            let ttl = asked.map_err(super::fault::Fault::into_unsent)?.ttl();
            // It is told in whole seconds, rounded down; below 0 where it has just ended.
            let left = u64::try_from(ttl).map(|ttl| Duration::from_secs(ttl.saturating_add(1)));
            Ok(left.unwrap_or_default().min(last.lock_delay()))
        }
    }
}

/// etcd counts whole seconds: a part of one is rounded up, and its own least counts.
async fn delay_lease(link: &Link, delay: Duration) -> Result<i64, StoreError> {
    let seconds = i64::try_from(delay.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
    let mut leases = link.leases();
    // Its id is etcd's to choose: one that is lost on the way ends by itself.
    let granted = leases.grant(seconds, None::<LeaseGrantOptions>);
    let reply = link.call(granted).await;
    Ok(reply.map_err(super::fault::Fault::into_unsent)?.id())
}

/// What was left is as it was seen.
pub(super) fn is_as_left(keys: &Keys, resource: &ResourceName, left: &Left) -> Compare {
    Compare::mod_revision(keys.last(resource), CompareOp::Equal, as_i64(left.seen))
}

/// What a grant of a vacant resource rests on and writes beside: nothing is left of an unclean end, or its
/// delay is over.
pub(super) fn pass_gate(step: &mut Step, keys: &Keys, sight: &Sight, hold: &Hold) {
    let resource = &hold.claim.resource;
    match &sight.left {
        None => step.compares.push(Compare::create_revision(
            keys.last(resource),
            CompareOp::Equal,
            0,
        )),
        Some(left) => {
            step.compares.push(is_as_left(keys, resource, left));
            step.compares.push(Compare::create_revision(
                keys.delay(resource),
                CompareOp::Equal,
                0,
            ));
        }
    }
    leave_behind(step, keys, Some(hold), resource, sight.left.is_some());
}

/// What a transaction that grants, or ends a lease in order, leaves behind.
pub(super) fn leave_behind(
    step: &mut Step,
    keys: &Keys,
    granted: Option<&Hold>,
    resource: &ResourceName,
    was_left: bool,
) {
    match granted.and_then(Last::of) {
        Some(last) => step.put(keys.last(resource), codec::last_value(&last), None),
        None if was_left => step.delete(keys.last(resource)),
        None => {}
    }
}
