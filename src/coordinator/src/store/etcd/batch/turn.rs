//! Where steps of one link go: to those that travel together, or on their own where nothing is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::{Carrier, Decided, MAX_WAITING, Waiting, run, unavailable};
use crate::clock::Moment;
use crate::store::etcd::step::Step;
use crate::store::{Failure, StoreError};

/// Where steps of one link go.
#[derive(Debug)]
pub(in crate::store::etcd) struct Steps {
    pub(super) sender: mpsc::Sender<Waiting>,
    pub(super) turn: Arc<Turn>,
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
    pub(in crate::store::etcd) fn new<C: Carrier>(
        carrier: &Arc<C>,
    ) -> (Self, impl Future<Output = ()> + Send + use<C>) {
        let (sender, arriving) = mpsc::channel(MAX_WAITING);
        let turn = Arc::<Turn>::default();
        let work = run(Arc::clone(carrier), arriving, Arc::clone(&turn));
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
