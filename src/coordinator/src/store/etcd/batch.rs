//! Group commit: steps of many callers travel as nested transactions of one etcd transaction.
//!
//! A step that arrives while nothing is under way leaves at once; those that arrive meanwhile collect. All
//! nested compares see the state before the transaction, so one step's failure changes nobody else's (I12).

mod turn;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

pub(super) use self::turn::Steps;
use self::turn::Turn;
use super::fault::{Fault, Kind};
use super::keys::Keys;
use super::link::{Committed, Link};
use super::step::Step;
use super::trust::Reached;
use super::view;
use crate::clock::Moment;
use crate::store::{Failure, Outcome, StoreError};

/// Steps of one transaction: with the largest step's compares or operations, which are fewer than sixteen, the 128
/// that etcd takes by default.
const MAX_STEPS: usize = 112;
/// Bytes of one transaction, about: etcd takes 1.5 MiB by default.
const MAX_BYTES: usize = 768 * 1024;
/// Transactions under way at once: more add only delay.
const MAX_UNDER_WAY: usize = 4;
/// From how many waiting steps on another transaction leaves, by how many are under way.
const LEAVES_FROM: [usize; MAX_UNDER_WAY] = [1, 1, 64, MAX_STEPS];
/// How long a step that may be late waits for another to travel with: longer than most hand-overs of a resource
/// that many wait for take.
const LATENESS: Duration = Duration::from_millis(5);
/// Steps that may wait: callers beyond wait for room.
const MAX_WAITING: usize = 16 * 1024;

/// What a step came to.
#[derive(Debug)]
pub(super) enum Decided {
    /// Its compares held, and it is in the log; what it listed beside.
    Applied(Committed, TxnResponse),
    /// One did not: nothing of it happened. What it looked at instead, as of the log.
    Otherwise(Vec<TxnOpResponse>, ResponseHeader),
    /// Its session has ended or has another mark, or another generation counts: nothing of it happened. Look again.
    Unmarked,
    /// Its transaction was not applied as a whole, perhaps for another step's sake: nothing happened. Look again,
    /// and go alone.
    Poisoned,
}

/// A step that waits to leave.
pub(super) struct Waiting {
    pub(super) step: Step,
    pub(super) told: oneshot::Sender<Result<Decided, StoreError>>,
    pub(super) since: Moment,
}

/// What a transaction came to, with those who wait for it.
struct Arrived {
    told: Vec<oneshot::Sender<Result<Decided, StoreError>>>,
    sent: Reached,
    reply: Result<TxnResponse, Fault>,
    shape: Shape,
}

/// How steps are put together.
#[derive(Debug)]
enum Shape {
    /// One, without a nested transaction.
    Flat,
    /// Each in a nested transaction.
    Nested {
        /// All are of one session, whose mark is compared once for all of them.
        is_of_one: bool,
    },
}

/// Sends steps over one link, until that breaks.
async fn run(link: Arc<Link>, mut arriving: mpsc::Receiver<Waiting>, turn: Arc<Turn>) {
    let mut waiting = VecDeque::new();
    let mut under_way = FuturesUnordered::new();
    let clock = &link.context().clock;
    loop {
        let is_busy = !(waiting.is_empty() && under_way.is_empty());
        turn.is_busy.store(is_busy, Ordering::Release);
        tokio::select! {
            biased;
            () = link.broken().cancelled() => break,
            Some(arrived) = under_way.next(), if !under_way.is_empty() => tell(&link, arrived),
            () = async { clock.sleep(LATENESS).await }, if !waiting.is_empty() && under_way.is_empty() => {}
            next = arriving.recv(), if waiting.len() < MAX_WAITING => match next {
                Some(next) => waiting.push_back(next),
                None => break,
            },
        }
        if under_way.is_empty() {
            // Those who are ready to ask by now travel together.
            tokio::task::yield_now().await;
        }
        while waiting.len() < MAX_WAITING
            && let Ok(next) = arriving.try_recv()
        {
            waiting.push_back(next);
        }
        while under_way.len() < MAX_UNDER_WAY
            && waiting.len() >= LEAVES_FROM[under_way.len()]
            && is_due(&waiting, clock.now())
        {
            let packed = pack(&mut waiting, clock.now(), link.context().call_limit);
            let Some(packed) = packed else {
                break;
            };
            under_way.push(send(Arc::clone(&link), packed));
        }
    }
    // What is under way may have happened; what has not left has not.
    while let Some(arrived) = under_way.next().await {
        tell(&link, arrived);
    }
    arriving.close();
    while let Ok(next) = arriving.try_recv() {
        waiting.push_back(next);
    }
    for unsent in waiting {
        drop(unsent.told.send(Err(unavailable())));
    }
}

/// Whether a transaction is to leave now: for the sake of any step that may not be late.
fn is_due(waiting: &VecDeque<Waiting>, now: Moment) -> bool {
    let is_due = |one: &Waiting| !one.step.may_be_late || one.since.until(now) >= LATENESS;
    waiting.len() >= MAX_STEPS || waiting.iter().any(is_due)
}

fn unavailable() -> StoreError {
    StoreError::not_applied(Failure::Unavailable)
}

/// Takes out what travels together: no key is written twice, in the order of arrival otherwise.
fn pack(
    waiting: &mut VecDeque<Waiting>,
    now: Moment,
    call_limit: Duration,
) -> Option<Vec<Waiting>> {
    let mut packed = Vec::with_capacity(waiting.len().min(MAX_STEPS));
    let mut written: HashSet<u64> = HashSet::new();
    let mut bytes = 0;
    let mut under: Option<Arc<[u8]>> = None;
    let mut at = 0;
    while at < waiting.len() && packed.len() < MAX_STEPS {
        let next = &waiting[at];
        // Nobody waits for it any more, or this process was frozen meanwhile: what its caller gave up must
        // not happen later (I4).
        let is_late = next.since.until(now) >= call_limit;
        if is_late || next.told.is_closed() {
            if let Some(late) = waiting.remove(at) {
                drop(late.told.send(Err(unavailable())));
            }
            continue;
        }
        let is_alone = next.step.is_alone && !packed.is_empty();
        let is_too_much = !packed.is_empty() && bytes + next.step.bytes > MAX_BYTES;
        let is_of_another =
            matches!((&under, &next.step.under), (Some(one), Some(other)) if one != other);
        let is_written = next.step.keys.iter().any(|key| written.contains(key));
        if is_alone || is_too_much || is_of_another || is_written {
            at += 1;
            continue;
        }
        let Some(next) = waiting.remove(at) else {
            break;
        };
        bytes += next.step.bytes;
        if under.is_none() {
            under.clone_from(&next.step.under);
        }
        written.extend(&next.step.keys);
        let is_alone = next.step.is_alone;
        packed.push(next);
        if is_alone {
            break;
        }
    }
    (!packed.is_empty()).then_some(packed)
}

async fn send(link: Arc<Link>, packed: Vec<Waiting>) -> Arrived {
    let (steps, told): (Vec<_>, Vec<_>) = packed
        .into_iter()
        .map(|waiting| (waiting.step, waiting.told))
        .unzip();
    let (txn, shape) = together(&link.context().keys, steps);
    let sent = link.reached();
    let reply = link.transact(txn).await;
    Arrived {
        told,
        sent,
        reply,
        shape,
    }
}

/// A step as a transaction of its own.
pub(super) fn flat(keys: &Keys, mut step: Step) -> Txn {
    let under = step.under.take();
    step.compares
        .extend(under.map(|under| view::is_generation(keys, &under)));
    txn(keys, step)
}

/// Steps as one transaction, under one generation, and under one mark where they are all of one session.
fn together(keys: &Keys, mut steps: Vec<Step>) -> (Txn, Shape) {
    if steps.len() == 1
        && let Some(step) = steps.pop()
    {
        return (flat(keys, step), Shape::Flat);
    }
    let under = steps.iter().find_map(|step| step.under.as_ref());
    let mut compares: Vec<_> = under
        .map(|under| view::is_generation(keys, under))
        .into_iter()
        .collect();
    let mark = steps[0].mark;
    let shared = mark.filter(|_| steps.iter().all(|step| step.mark == mark));
    if let Some((session, written)) = shared {
        compares.push(view::is_marked_at(keys, session, written));
        steps.iter_mut().for_each(|step| step.mark = None);
    }
    let nested: Vec<_> = steps
        .into_iter()
        .map(|step| TxnOp::txn(txn(keys, step)))
        .collect();
    let txn = Txn::new().when(compares).and_then(nested);
    let is_of_one = shared.is_some();
    (txn, Shape::Nested { is_of_one })
}

fn txn(keys: &Keys, mut step: Step) -> Txn {
    if let Some((session, written)) = step.mark {
        // Behind the compare that fails soonest: etcd stops at the first that does.
        let at = step.compares.len().min(1);
        let compare = view::is_marked_at(keys, session, written);
        step.compares.insert(at, compare);
    }
    Txn::new()
        .when(step.compares)
        .and_then(step.writes)
        .or_else(step.looks)
}

fn tell(link: &Link, arrived: Arrived) {
    let Arrived {
        told,
        sent,
        reply,
        shape,
    } = arrived;
    let reply = match reply {
        Ok(reply) => reply,
        Err(fault) => return tell_fault(told, fault),
    };
    // What all rest on is another by now: nobody's step was looked at.
    if let (Shape::Nested { is_of_one }, false) = (&shape, reply.succeeded()) {
        for told in told {
            drop(told.send(Ok(match is_of_one {
                true => Decided::Unmarked,
                false => Decided::Poisoned,
            })));
        }
        return;
    }
    let replies = match shape {
        Shape::Flat => vec![reply.clone()],
        Shape::Nested { .. } => nested(&reply),
    };
    if replies.len() != told.len() {
        warn!("etcd answered another number of steps than were sent");
        link.give_up();
        for told in told {
            let error = StoreError::not_applied(Failure::Damaged("a reply of another kind"));
            drop(told.send(Err(error.or_happened())));
        }
        return;
    }
    let any = replies.iter().any(TxnResponse::succeeded);
    let judged = link.judge_reply(&reply, sent, any);
    for (told, reply) in told.into_iter().zip(replies) {
        let decided = match &judged {
            Ok((_, committed)) if reply.succeeded() => Ok(Decided::Applied(*committed, reply)),
            Ok((header, _)) => Ok(Decided::Otherwise(reply.op_responses(), header.clone())),
            Err(failed) => Err(failed.error(reply.succeeded())),
        };
        drop(told.send(decided));
    }
}

fn nested(reply: &TxnResponse) -> Vec<TxnResponse> {
    let replies = reply.op_responses().into_iter();
    replies
        .filter_map(|reply| match reply {
            TxnOpResponse::Txn(reply) => Some(reply),
            TxnOpResponse::Put(_) | TxnOpResponse::Get(_) | TxnOpResponse::Delete(_) => None,
        })
        .collect()
}

/// One fault is everybody's: the transaction was applied as a whole or not at all.
fn tell_fault(told: Vec<oneshot::Sender<Result<Decided, StoreError>>>, fault: Fault) {
    let is_poison = match fault.kind {
        // A step's session is gone.
        Kind::LeaseGone => true,
        // Some step is not to etcd's liking; which one, each finds out alone.
        Kind::Refused => told.len() > 1,
        Kind::Compacted | Kind::LeaseExists | Kind::Exhausted | Kind::Broken => false,
    };
    if is_poison {
        for told in told {
            drop(told.send(Ok(Decided::Poisoned)));
        }
        return;
    }
    let error = fault.into_error();
    let outcome = error.outcome();
    let is_full = matches!(
        error,
        StoreError::Failed {
            failure: Failure::NoSpace,
            ..
        }
    );
    let mut told = told.into_iter();
    if let Some(first) = told.next() {
        drop(first.send(Err(error)));
    }
    for told in told {
        let failure = match is_full {
            true => Failure::NoSpace,
            false => Failure::Unavailable,
        };
        let error = StoreError::not_applied(failure);
        let error = match outcome {
            Outcome::NotApplied => error,
            Outcome::Unknown => error.or_happened(),
        };
        drop(told.send(Err(error)));
    }
}

#[cfg(test)]
mod tests;
