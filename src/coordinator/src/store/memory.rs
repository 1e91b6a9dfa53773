//! A store that remembers for as long as the process lives: for tests, and the model for simulation.

use std::sync::Arc;

use async_trait::async_trait;

use super::local::{Journal, Local, Shell};
use super::{StoreError, StoreKind};
use crate::clock::Clock;
use crate::domain::{Change, Ledger, Revision};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// A store in memory. Coordinators that share one stand side by side, as on one etcd.
#[derive(Debug)]
pub struct MemoryStore {
    local: Local<Kept>,
}

impl MemoryStore {
    /// Starts an empty store; `tasks` ends its sessions when they are due.
    ///
    /// # Errors
    /// [`StoreError`] with [`Failure::Generation`](super::Failure::Generation) when the clock is wrong.
    ///
    /// ```
    /// use palisade_coordinator::clock::SystemClock;
    /// use palisade_coordinator::entropy::SystemEntropy;
    /// use palisade_coordinator::store::{Store, memory::MemoryStore};
    /// use palisade_coordinator::tasks::Tasks;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), palisade_coordinator::store::StoreError> {
    /// let tasks = Tasks::default();
    /// let store = MemoryStore::start(SystemClock::shared(), SystemEntropy::shared(), &tasks).await?;
    /// store.ready().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn start(
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StoreError> {
        let local = Local::start(Kept::default(), clock, entropy, tasks).await?;
        Ok(Arc::new(Self { local }))
    }

    /// Starts a store on what another has kept, as a machine that was started again or restored does. All that
    /// is written from now on is shown to `keep`, which decides what of it is kept.
    ///
    /// # Errors
    /// As [`MemoryStore::start`].
    #[cfg(any(test, feature = "conformance"))]
    pub async fn start_on(
        ledger: Ledger,
        keep: Box<dyn Keep>,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StoreError> {
        let keep = Some(keep);
        let local = Local::start(Kept { ledger, keep }, clock, entropy, tasks).await?;
        Ok(Arc::new(Self { local }))
    }

    /// What is kept now.
    #[cfg(any(test, feature = "conformance"))]
    pub async fn kept(&self) -> Ledger {
        self.local.journal().await.ledger.clone()
    }

    /// Counts what is done from now on, in the first that is given.
    pub fn count_in(&self, metrics: &Metrics) {
        self.local.count_in(metrics);
    }
}

impl Shell for MemoryStore {
    type Journal = Kept;

    fn kind(&self) -> StoreKind {
        StoreKind::Memory
    }

    fn local(&self) -> &Local<Kept> {
        &self.local
    }
}

/// Sees what a store keeps, and may keep something else: for tests.
#[cfg(any(test, feature = "conformance"))]
pub trait Keep: std::fmt::Debug + Send + 'static {
    /// What is kept of a transaction that was planned on what was kept before. Where that is something else, the
    /// transaction is told to have failed with an unknown outcome, and the store looks at what is kept.
    fn keep(&mut self, before: &Ledger, revision: Revision, changes: &[Change]) -> Vec<Change>;
}

/// What is durable in memory: a ledger that is only ever written to.
#[derive(Debug, Default)]
pub(super) struct Kept {
    ledger: Ledger,
    #[cfg(any(test, feature = "conformance"))]
    keep: Option<Box<dyn Keep>>,
}

#[async_trait]
impl Journal for Kept {
    async fn write(&mut self, revision: Revision, changes: &[Change]) -> Result<(), StoreError> {
        #[cfg(any(test, feature = "conformance"))]
        if let Some(keep) = &mut self.keep {
            let kept = keep.keep(&self.ledger, revision, changes);
            self.ledger.apply(revision, &kept);
            if kept != changes {
                return Err(StoreError::unknown(
                    super::Failure::Unavailable,
                    "kept otherwise",
                ));
            }
            return Ok(());
        }
        self.ledger.apply(revision, changes);
        Ok(())
    }

    async fn load(&mut self) -> Result<Ledger, StoreError> {
        Ok(self.ledger.clone())
    }

    async fn probe(&mut self) -> Result<Revision, StoreError> {
        Ok(self.ledger.revision())
    }
}
