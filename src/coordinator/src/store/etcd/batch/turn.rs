//! Where steps of one link go: to those that travel together, or on their own where nothing is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::{Decided, MAX_WAITING, Waiting, run, unavailable};
use crate::clock::Moment;
use crate::store::etcd::link::Link;
use crate::store::etcd::step::Step;
use crate::store::{Failure, StoreError};

/// Where steps of one link go.
#[derive(Debug)]
pub(in crate::store::etcd) struct Steps {
    sender: mpsc::Sender<Waiting>,
    turn: Arc<Turn>,
}

/// Whether a step would travel alone anyhow: then its caller sends it, which saves two wake-ups.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Steps wait, or travel together.
    pub(super) is_busy: AtomicBool,
    /// A caller's step is under way.
    is_taken: AtomicBool,
}

/// The right of one caller to send its step itself.
#[derive(Debug)]
pub(in crate::store::etcd) struct Direct<'a>(&'a Turn);

impl Drop for Direct<'_> {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Release);
    }
}

impl Steps {
    /// Room for steps, and the work that sends them over a link until that breaks.
    pub(in crate::store::etcd) fn new(
        link: &Arc<Link>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, arriving) = mpsc::channel(MAX_WAITING);
        let turn = Arc::<Turn>::default();
        let work = run(Arc::clone(link), arriving, Arc::clone(&turn));
        (Self { sender, turn }, work)
    }

    /// Lets a caller send its step itself, if nothing is under way.
    pub(in crate::store::etcd) fn direct(&self) -> Option<Direct<'_>> {
        let turn = &*self.turn;
        let is_free =
            !turn.is_busy.load(Ordering::Acquire) && !turn.is_taken.swap(true, Ordering::AcqRel);
        is_free.then(|| Direct(turn))
    }

    /// Takes a step along with others.
    pub(in crate::store::etcd) async fn submit(
        &self,
        step: Step,
        since: Moment,
    ) -> Result<Decided, StoreError> {
        let (told, decided) = oneshot::channel();
        let waiting = Waiting { step, told, since };
        if self.sender.send(waiting).await.is_err() {
            return Err(unavailable());
        }
        match decided.await {
            Ok(decided) => decided,
            Err(stopped) => Err(StoreError::unknown(Failure::Unavailable, stopped)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use tokio::sync::mpsc;

    use super::{Steps, Turn};

    #[test]
    fn one_at_a_time_sends_its_step_itself_and_only_where_nothing_is_under_way() {
        let turn = Arc::<Turn>::default();
        let steps = Steps {
            sender: mpsc::channel(1).0,
            turn: Arc::clone(&turn),
        };
        let first = steps.direct();
        assert!(first.is_some());
        assert!(steps.direct().is_none(), "one is under way");
        assert!(steps.direct().is_none(), "and still is");
        drop(first);
        assert!(steps.direct().is_some(), "it is over, however it ended");

        turn.is_busy.store(true, Ordering::Release);
        assert!(steps.direct().is_none(), "others travel together");
        turn.is_busy.store(false, Ordering::Release);
        assert!(steps.direct().is_some());
    }
}
