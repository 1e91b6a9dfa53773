//! The store that settings name.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::StoreChoice;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::store::embedded::{EmbeddedStore, OpenError};
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::store::memory::MemoryStore;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// The file cannot be used; the source says why and what to do.
    #[error("the embedded store cannot be opened")]
    Embedded(#[from] OpenError),
    /// No generation could be made: the clock is wrong.
    #[error("the store in memory cannot be started")]
    Memory(#[from] StoreError),
}

/// A store, and what is to be closed at the end.
#[derive(Debug)]
pub(super) struct OpenStore {
    pub(super) store: Arc<dyn Store>,
    file: Option<Arc<EmbeddedStore>>,
}

impl OpenStore {
    pub(super) fn given(store: Arc<dyn Store>) -> Self {
        Self { store, file: None }
    }

    pub(super) async fn open(
        choice: &StoreChoice,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
        tasks: &Tasks,
        metrics: &Metrics,
    ) -> Result<Self, OpenStoreError> {
        let (clock, entropy) = (Arc::clone(clock), Arc::clone(entropy));
        match choice {
            StoreChoice::Etcd {
                endpoints,
                prefix,
                access,
            } => {
                let options = EtcdOptions {
                    prefix: prefix.clone(),
                    metrics: metrics.clone(),
                    access: access.clone(),
                    is_batching: !access.unbatched,
                    ..EtcdOptions::new(endpoints.clone())
                };
                Ok(Self::given(EtcdStore::new(options, clock, entropy, tasks)))
            }
            StoreChoice::Embedded { path } => {
                let file = EmbeddedStore::open(path, clock, entropy, tasks).await?;
                file.count_in(metrics);
                let store: Arc<dyn Store> = Arc::<EmbeddedStore>::clone(&file);
                Ok(Self {
                    store,
                    file: Some(file),
                })
            }
            StoreChoice::Memory => {
                let memory = MemoryStore::start(clock, entropy, tasks).await?;
                memory.count_in(metrics);
                Ok(Self::given(memory))
            }
        }
    }

    pub(super) async fn close(self) {
        if let Some(file) = self.file {
            file.close().await;
        }
    }
}
