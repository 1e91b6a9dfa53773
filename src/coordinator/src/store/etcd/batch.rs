//! Group commit: steps of many callers travel as nested transactions of one etcd transaction.
//!
//! A step that arrives while nothing is under way leaves at once; those that arrive meanwhile collect. All
//! nested compares see the state before the transaction, so one step's failure changes nobody else's (I12).

mod carry;
mod turn;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::{ResponseHeader, TxnOpResponse, TxnResponse};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use self::carry::Carrier;
pub(super) use self::carry::flat;
pub(super) use self::turn::Steps;
use self::turn::Turn;
use super::link::Committed;
use super::step::Step;
use crate::clock::Moment;
use crate::store::{Failure, StoreError};

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
    pub(super) told: Told,
    pub(super) since: Moment,
}

/// Sends steps over one link, until that breaks.
async fn run<C: Carrier>(carrier: Arc<C>, mut arriving: mpsc::Receiver<Waiting>, turn: Arc<Turn>) {
    let mut waiting = VecDeque::new();
    let mut under_way = FuturesUnordered::new();
    let clock = carrier.clock();
    loop {
        let is_busy = !(waiting.is_empty() && under_way.is_empty());
        turn.is_busy.store(is_busy, Ordering::Release);
        tokio::select! {
            biased;
            () = carrier.broken().cancelled() => break,
            Some(arrived) = under_way.next(), if !under_way.is_empty() => tell(arrived),
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
            let packed = pack(&mut waiting, clock.now(), carrier.call_limit());
            let Some(packed) = packed else {
                break;
            };
            under_way.push(send(Arc::clone(&carrier), packed));
        }
    }
    // What is under way may have happened; what has not left has not.
    while let Some(arrived) = under_way.next().await {
        tell(arrived);
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

/// Takes out what travels together: no key is written twice, nobody comes to wait for what becomes vacant, in the order
/// of arrival otherwise.
fn pack(
    waiting: &mut VecDeque<Waiting>,
    now: Moment,
    call_limit: Duration,
) -> Option<Vec<Waiting>> {
    let mut packed = Vec::with_capacity(waiting.len().min(MAX_STEPS));
    let mut written: HashSet<u64> = HashSet::new();
    let (mut vacated, mut awaited) = (HashSet::new(), HashSet::new());
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
        let is_in = |name: &Option<u64>, names: &HashSet<u64>| {
            name.is_some_and(|name| names.contains(&name))
        };
        let is_skewed = is_in(&next.step.vacates, &awaited) || is_in(&next.step.awaits, &vacated);
        if is_alone || is_too_much || is_of_another || is_written || is_skewed {
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
        vacated.extend(next.step.vacates);
        awaited.extend(next.step.awaits);
        let is_alone = next.step.is_alone;
        packed.push(next);
        if is_alone {
            break;
        }
    }
    (!packed.is_empty()).then_some(packed)
}

type Told = oneshot::Sender<Result<Decided, StoreError>>;

/// Those who wait for one transaction, and what each one's step came to.
type Arrived = (Vec<Told>, Vec<Result<Decided, StoreError>>);

async fn send<C: Carrier>(carrier: Arc<C>, packed: Vec<Waiting>) -> Arrived {
    let waiting = packed.into_iter();
    let (steps, told): (Vec<_>, Vec<_>) =
        waiting.map(|waiting| (waiting.step, waiting.told)).unzip();
    (told, carrier.carry(steps).await)
}

/// Tells each. Who is told nothing knows that his step may have happened.
fn tell((told, decided): Arrived) {
    for (told, decided) in told.into_iter().zip(decided) {
        drop(told.send(decided));
    }
}

#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;
