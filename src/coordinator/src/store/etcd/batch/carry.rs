//! Steps on their way to etcd and back: as one transaction, and what each of them came to.

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Txn, TxnOp, TxnOpResponse, TxnResponse};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Decided;
use crate::clock::Clock;
use crate::store::etcd::fault::{Fault, Kind};
use crate::store::etcd::keys::Keys;
use crate::store::etcd::link::Link;
use crate::store::etcd::step::Step;
use crate::store::etcd::trust::Reached;
use crate::store::etcd::view;
use crate::store::{Failure, Outcome, StoreError};

/// What takes steps to etcd: a link.
pub(in crate::store::etcd) trait Carrier: Send + Sync + 'static {
    /// The time that steps wait by.
    fn clock(&self) -> &Arc<dyn Clock>;

    /// After how long nobody waits for a call any more.
    fn call_limit(&self) -> Duration;

    /// Cancelled once it is of no further use.
    fn broken(&self) -> &CancellationToken;

    /// Takes steps to etcd in one transaction; what each came to, in their order.
    fn carry(
        &self,
        steps: Vec<Step>,
    ) -> impl Future<Output = Vec<Result<Decided, StoreError>>> + Send;
}

impl Carrier for Link {
    fn clock(&self) -> &Arc<dyn Clock> {
        &self.context().clock
    }

    fn call_limit(&self) -> Duration {
        self.context().call_limit
    }

    fn broken(&self) -> &CancellationToken {
        self.broken()
    }

    async fn carry(&self, steps: Vec<Step>) -> Vec<Result<Decided, StoreError>> {
        let count = steps.len();
        let (txn, shape) = together(&self.context().keys, steps);
        let sent = self.reached();
        match self.transact(txn).await {
            Ok(reply) => decided(self, count, (sent, &reply, &shape)),
            Err(fault) => failed(count, fault),
        }
    }
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

/// A step as a transaction of its own.
pub(in crate::store::etcd) fn flat(keys: &Keys, mut step: Step) -> Txn {
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

/// What each of so many steps came to by the reply to their transaction.
fn decided(
    link: &Link,
    count: usize,
    (sent, reply, shape): (Reached, &TxnResponse, &Shape),
) -> Vec<Result<Decided, StoreError>> {
    // What all rest on is another by now: nobody's step was looked at.
    if let (Shape::Nested { is_of_one }, false) = (shape, reply.succeeded()) {
        let unseen = || match is_of_one {
            true => Ok(Decided::Unmarked),
            false => Ok(Decided::Poisoned),
        };
        return iter::repeat_with(unseen).take(count).collect();
    }
    let replies = match shape {
        Shape::Flat => vec![reply.clone()],
        Shape::Nested { .. } => nested(reply),
    };
    if replies.len() != count {
        warn!("etcd answered another number of steps than were sent");
        link.give_up();
        let error = || StoreError::not_applied(Failure::Damaged("a reply of another kind"));
        let unknown = || Err(error().or_happened());
        return iter::repeat_with(unknown).take(count).collect();
    }
    let any = replies.iter().any(TxnResponse::succeeded);
    let judged = link.judge_reply(reply, sent, any);
    let replies = replies.into_iter();
    replies
        .map(|reply| match &judged {
            Ok((_, committed)) if reply.succeeded() => Ok(Decided::Applied(*committed, reply)),
            Ok((header, _)) => Ok(Decided::Otherwise(reply.op_responses(), header.clone())),
            Err(failed) => Err(failed.error(reply.succeeded())),
        })
        .collect()
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
fn failed(count: usize, fault: Fault) -> Vec<Result<Decided, StoreError>> {
    let is_poison = match fault.kind {
        // A step's session is gone.
        Kind::LeaseGone => true,
        // Some step is not to etcd's liking; which one, each finds out alone.
        Kind::Refused => count > 1,
        Kind::Compacted | Kind::LeaseExists | Kind::Exhausted | Kind::Broken => false,
    };
    if is_poison {
        let poisoned = || Ok(Decided::Poisoned);
        return iter::repeat_with(poisoned).take(count).collect();
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
    let others = || {
        let error = StoreError::not_applied(match is_full {
            true => Failure::NoSpace,
            false => Failure::Unavailable,
        });
        match outcome {
            Outcome::NotApplied => Err(error),
            Outcome::Unknown => Err(error.or_happened()),
        }
    };
    // The first has the cause with it.
    iter::once(Err(error))
        .chain(iter::repeat_with(others))
        .take(count)
        .collect()
}
