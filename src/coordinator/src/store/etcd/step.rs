//! Steps as transactions: what each one rests on is compared in it, and where that does not hold it looks
//! instead, so that the next step is decided on what etcd's log says.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use etcd_client::{Compare, CompareOp, TxnOp};
use palisade_token::ResourceName;

use super::codec::{self, SeenSession, Stored};
use super::delay;
use super::keys::Keys;
use super::link::Committed;
use super::view::{self, Sight, Spot};
use crate::domain::{
    AttachMark, Claim, Generation, Hold, Release, RequestId, Revision, Session, SessionId,
};

/// One step of one caller: a transaction of its own, or a part of one.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// The session that it is for, and when its mark was written, where it rests on that: compared once
    /// where all steps that travel together are of one session.
    pub(super) mark: Option<(SessionId, Revision)>,
    pub(super) compares: Vec<Compare>,
    /// What is done where all compares hold; a list of those who wait may be among it.
    pub(super) writes: Vec<TxnOp>,
    /// What is read where one does not.
    pub(super) looks: Vec<TxnOp>,
    /// Hashes of the keys that it writes: etcd takes no key twice in one transaction, and steps whose keys are
    /// alike by chance only travel apart.
    pub(super) keys: Vec<u64>,
    /// A hash of the lease that it leaves vacant since nobody waits for it, or that it waits for. Travelling together, one
    /// of each would find both as they were before, and somebody would wait for what is vacant.
    pub(super) vacates: Option<u64>,
    pub(super) awaits: Option<u64>,
    /// How much it adds to a request, about.
    pub(super) bytes: usize,
    /// The generation that it grants under, as it must be found: compared once for all that travel together.
    pub(super) under: Option<Arc<[u8]>>,
    /// Nobody waits for it soon: it may wait a moment for another to travel with.
    pub(super) may_be_late: bool,
    /// It was part of a transaction that etcd refused as a whole: now it goes by itself.
    pub(super) is_alone: bool,
}

/// What a key, a revision and a compare take beside the values.
const FRAME_BYTES: usize = 1024;

impl Step {
    pub(super) fn new(compares: Vec<Compare>) -> Self {
        Self {
            mark: None,
            compares,
            writes: Vec::with_capacity(2),
            looks: Vec::new(),
            keys: Vec::with_capacity(2),
            vacates: None,
            awaits: None,
            bytes: FRAME_BYTES,
            under: None,
            may_be_late: false,
            is_alone: false,
        }
    }

    pub(super) fn put(
        &mut self,
        key: Vec<u8>,
        value: Vec<u8>,
        options: Option<etcd_client::PutOptions>,
    ) {
        self.bytes += value.len();
        self.keys.push(hash(&key));
        self.writes.push(TxnOp::put(key, value, options));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.keys.push(hash(&key));
        self.writes.push(TxnOp::delete(key, None));
    }

    /// The same step, looking at a resource and a session where it cannot be taken.
    pub(super) fn or_look(mut self, looks: Vec<TxnOp>) -> Self {
        self.looks = looks;
        self
    }

    /// The same step, for as long as the session's mark is as it was seen: a delayed copy of an older request
    /// fails at that.
    fn under_mark(mut self, session: &SeenSession) -> Self {
        self.mark = Some((session.record.id, session.written));
        self
    }

    /// Whether it lists those who wait: all else that it does writes a key.
    pub(super) fn has_list(&self) -> bool {
        self.writes.len() > self.keys.len()
    }

    /// The same step in a transaction of its own.
    pub(super) fn alone(mut self, is_alone: bool) -> Self {
        self.is_alone = is_alone;
        self
    }
}

fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

/// Grants a vacant resource: to a claim that nobody waits before, or to the head of the queue (I1, I11).
pub(super) fn grant(
    keys: &Keys,
    sight: &Sight,
    session: &SeenSession,
    generation: &Stored<Generation>,
    hold: &Stored<Hold>,
    spot: Option<&Spot>,
) -> Step {
    let claim = &hold.record.claim;
    let mut step = Step::new(vec![view::is_vacant(keys, &claim.resource)]).under_mark(session);
    step.under = Some(Arc::clone(&generation.raw));
    let options = keys.on_lease(claim.session);
    step.put(
        keys.lease(&claim.resource),
        hold.raw.to_vec(),
        Some(options),
    );
    delay::pass_gate(&mut step, keys, sight, &hold.record);
    match spot {
        None => step
            .compares
            .push(view::nobody_waits(keys, &claim.resource)),
        Some(spot) => take_out_head(&mut step, keys, sight, spot),
    }
    step
}

/// Takes out a place of which nobody waits longer: where that is not known from etcd's log it is compared, and
/// looked up for those behind at once.
fn take_out_head(step: &mut Step, keys: &Keys, sight: &Sight, spot: &Spot) {
    step.compares.push(view::is_queued(spot));
    step.delete(spot.key.clone());
    if !sight.is_first(spot) {
        let place = &spot.place;
        step.compares.push(view::nobody_waits_longer(keys, place));
        step.writes.extend(sight.list(keys, &place.claim.resource));
    }
}

/// Takes a place in the queue of a resource that is not free.
pub(super) fn enqueue(keys: &Keys, sight: &Sight, session: &SeenSession, claim: &Claim) -> Step {
    let mut step = Step::new(Vec::with_capacity(4)).under_mark(session);
    // Behind others, a moment is nothing; and the hand-over to the first of them takes it along.
    step.may_be_late = sight.hold.is_some() && sight.view.waiters > 0;
    // Joining a queue of a resource that has just become vacant would wait for nobody.
    match (&sight.hold, &sight.head) {
        (Some(_), _) => {
            let lease = keys.lease(&claim.resource);
            step.awaits = Some(hash(&lease));
            step.compares
                .push(Compare::create_revision(lease, CompareOp::Greater, 0));
        }
        (None, Some(head)) => {
            step.compares.push(view::is_queued(head));
        }
        (None, None) => {}
    }
    let delay = sight.view.delay.as_ref();
    if let (Some(left), true) = (&sight.left, delay.is_some_and(|delay| delay.is_running)) {
        // Vacant, but closed: it is waited for like one that is held.
        step.compares
            .push(delay::is_as_left(keys, &claim.resource, left));
        let closed = keys.delay(&claim.resource);
        step.compares
            .push(Compare::create_revision(closed, CompareOp::Greater, 0));
    }
    let names = (&claim.resource, claim.session, &claim.request);
    step.compares.extend(has_no_place(keys, sight, names));
    let options = keys.on_lease(claim.session);
    let key = place_key(keys, sight, claim);
    step.put(key, codec::place_value(claim), Some(options));
    step
}

/// Where a claim waits: under its session's key, unless another request of the session does.
pub(super) fn place_key(keys: &Keys, sight: &Sight, claim: &Claim) -> Vec<u8> {
    match sight.own.taken {
        None => keys.place(&claim.resource, claim.session),
        Some(_) => keys.further_place(&claim.resource, claim.session, &claim.request),
    }
}

/// Raises the mark from what was seen.
pub(super) fn raise(keys: &Keys, session: &SeenSession, mark: AttachMark) -> Step {
    let raised = codec::session_value(&marked(session, mark));
    let mut step = Step::new(Vec::new()).under_mark(session);
    let options = keys.on_lease(session.record.id);
    step.put(keys.session(session.record.id), raised, Some(options));
    step
}

/// A session with another mark.
fn marked(session: &SeenSession, mark: AttachMark) -> Session {
    Session {
        mark,
        ..session.record.clone()
    }
}

/// A session as it is once its mark was raised.
pub(super) fn raised(session: &SeenSession, mark: AttachMark, by: Committed) -> SeenSession {
    SeenSession {
        record: marked(session, mark),
        written: by.reached.revision,
    }
}

/// Gives a place back. A client that has asked for it again since, elsewhere, keeps it.
pub(super) fn leave(spot: &Spot, session: &SeenSession) -> Step {
    let mut step = Step::new(vec![view::is_queued(spot)]).under_mark(session);
    step.delete(spot.key.clone());
    step
}

/// Ends the lease that was seen, and hands the resource over in the same transaction to the head of the queue,
/// if one was seen and may be granted it. A client that has asked for it again since, elsewhere, keeps it.
///
/// `None` where no lease was seen.
pub(super) fn end(
    keys: &Keys,
    sight: &Sight,
    heir: Option<(&Spot, &Stored<Hold>)>,
    session: &SeenSession,
) -> Option<Step> {
    let hold = sight.hold.as_ref()?;
    let resource = &hold.record.claim.resource;
    let has_delay = hold.record.claim.lock_delay_ms > 0;
    let mut step = Step::new(vec![view::is_held_since(keys, hold)]).under_mark(session);
    match (heir, &sight.generation) {
        (Some((spot, hold)), Some(generation)) => {
            hand_over(&mut step, keys, sight, generation, (spot, hold));
            let granted = Some(&hold.record);
            delay::leave_behind(&mut step, keys, granted, resource, has_delay);
        }
        (_, _) => {
            // Whoever waits already is granted the resource later; nobody joins them unseen.
            if sight.view.head.is_none() {
                step.compares.push(view::nobody_waits(keys, resource));
            }
            let lease = keys.lease(resource);
            step.vacates = Some(hash(&lease));
            step.delete(lease);
            delay::leave_behind(&mut step, keys, None, resource, has_delay);
        }
    }
    Some(step)
}

/// Grants a vacant resource to the head of its queue (I6, I11).
pub(super) fn promote(
    keys: &Keys,
    sight: &Sight,
    generation: &Stored<Generation>,
    (spot, hold): (&Spot, &Stored<Hold>),
) -> Step {
    let resource = &hold.record.claim.resource;
    let mut step = Step::new(vec![view::is_vacant(keys, resource)]);
    delay::pass_gate(&mut step, keys, sight, &hold.record);
    hand_over(&mut step, keys, sight, generation, (spot, hold));
    step
}

/// Overwrites the lease's key with the head of the queue: etcd refuses to delete and put one key at once.
fn hand_over(
    step: &mut Step,
    keys: &Keys,
    sight: &Sight,
    generation: &Stored<Generation>,
    (spot, hold): (&Spot, &Stored<Hold>),
) {
    step.under = Some(Arc::clone(&generation.raw));
    let claim = &hold.record.claim;
    let options = keys.on_lease(claim.session);
    let key_of_lease = keys.lease(&claim.resource);
    step.put(key_of_lease, hold.raw.to_vec(), Some(options));
    take_out_head(step, keys, sight, spot);
}

/// That a release has nothing to end: the lease is as it was seen, and no place of the request is there.
pub(super) fn is_as_seen(keys: &Keys, sight: &Sight, release: &Release) -> Vec<Compare> {
    let mut compares = match &sight.hold {
        Some(hold) => Vec::from(view::is_held_as(keys, hold)),
        None => vec![view::is_vacant(keys, &release.resource)],
    };
    if let Some(request) = release.request() {
        let names = (&release.resource, release.caller.session, request);
        compares.extend(has_no_place(keys, sight, names));
    }
    compares
}

/// That a request has no place in the queue: its session's first key is another's, as was seen, or nobody's,
/// and there is no further one. So a request has one place at the most (I4).
fn has_no_place(
    keys: &Keys,
    sight: &Sight,
    (resource, session, request): (&ResourceName, SessionId, &RequestId),
) -> [Compare; 2] {
    let first = keys.place(resource, session);
    let taken = sight.own.taken.unwrap_or_default();
    let further = keys.further_place(resource, session, request);
    [
        Compare::create_revision(first, CompareOp::Equal, codec::as_i64(taken)),
        Compare::create_revision(further, CompareOp::Equal, 0),
    ]
}
