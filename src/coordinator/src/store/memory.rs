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

/// What is durable in memory: a ledger that is only ever written to.
#[derive(Debug, Default)]
pub(super) struct Kept {
    ledger: Ledger,
}

#[async_trait]
impl Journal for Kept {
    async fn write(&mut self, revision: Revision, changes: &[Change]) -> Result<(), StoreError> {
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
