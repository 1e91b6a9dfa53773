//! A store in one SQLite file: durable, for a single coordinator, with nothing else to run.
//!
//! The file is all there is: it can be copied while the coordinator is stopped, and an old copy that is
//! put back still yields larger tokens, because a generation is made at every start (I3). That is why
//! the journal is a rollback journal and not a write-ahead log: what a killed process leaves of a log
//! would be played over the file that was put back.

mod file;
mod journal;
mod schema;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::local::{Local, Shell};
use super::{Failure, StoreError, StoreKind};
use crate::clock::Clock;
use crate::domain::GenerationError;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

use journal::File;

/// Why the file could not be opened. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory is not there: make it, or name another.
    #[error("the directory of {} does not exist", path.display())]
    DirectoryMissing {
        /// The file asked for.
        path: PathBuf,
    },
    /// This process may not read or write the file or its directory.
    #[error("no permission to read and write {}", path.display())]
    Permission {
        /// The file or directory.
        path: PathBuf,
    },
    /// Another process has the file open. It serves one coordinator at a time; use etcd for several.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is something else: name another one.
    #[error("{} is not a Palisade store", path.display())]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// A newer Palisade wrote the file: run that one.
    #[error("{} has schema version {found}; this build reads up to {known}", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: i64,
        /// The newest version that this build reads.
        known: i64,
    },
    /// The file is damaged: put back a copy, or start with an empty one; tokens grow either way.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// No space is left on the device.
    #[error("no space is left for {}", path.display())]
    NoSpace {
        /// The file.
        path: PathBuf,
    },
    /// No generation could be made, so nothing could be granted: set the clock.
    #[error("no generation can be made: {0}")]
    Generation(#[from] GenerationError),
    /// Anything else.
    #[error("{} cannot be opened", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system or SQLite said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl OpenError {
    fn of(path: &Path, error: StoreError) -> Self {
        let path = path.to_path_buf();
        match error {
            StoreError::Failed {
                failure: Failure::Generation(error),
                ..
            } => Self::Generation(error),
            StoreError::Failed {
                failure: Failure::NoSpace,
                ..
            } => Self::NoSpace { path },
            StoreError::Failed {
                failure: Failure::Damaged(what),
                ..
            } => Self::Damaged { path, what },
            error @ (StoreError::Failed { .. } | StoreError::Refused(_)) => Self::Failed {
                path,
                source: error.into(),
            },
        }
    }
}

/// A store in a file (I7). One process at a time has it.
#[derive(Debug)]
pub struct EmbeddedStore {
    local: Local<File>,
}

impl EmbeddedStore {
    /// Opens the file, or makes it; makes a generation; gives sessions that were alive when the last
    /// process ended their full time to live; and ends them, by `tasks`, when they are due.
    ///
    /// # Errors
    /// [`OpenError`], each with what to do.
    ///
    /// ```
    /// use palisade_coordinator::clock::SystemClock;
    /// use palisade_coordinator::entropy::SystemEntropy;
    /// use palisade_coordinator::store::{Store, embedded::EmbeddedStore};
    /// use palisade_coordinator::tasks::Tasks;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("palisade.db");
    /// let tasks = Tasks::default();
    /// let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    /// let store = EmbeddedStore::open(&path, clock, entropy, &tasks).await?;
    /// store.ready().await?;
    /// store.close().await;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(
        path: &Path,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, OpenError> {
        let file = File::open(path).await?;
        let local = Local::start(file, clock, entropy, tasks)
            .await
            .map_err(|error| OpenError::of(path, error))?;
        Ok(Arc::new(Self { local }))
    }

    /// Counts what is done from now on, in the first that is given.
    pub fn count_in(&self, metrics: &Metrics) {
        self.local.count_in(metrics);
    }

    /// Bounds the size of the file, in bytes, rounded up to a page of 4 KiB. A store that is full fails
    /// with [`Failure::NoSpace`] and goes on when the bound is raised or leases end.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the file cannot be reached.
    pub async fn limit_size(&self, bytes: u64) -> Result<(), StoreError> {
        self.local.journal().await.limit_size(bytes).await
    }

    /// Closes the file; whatever is asked afterwards fails. What was answered is durable without it,
    /// but the next process need not wait.
    pub async fn close(&self) {
        self.local.journal().await.close().await;
    }
}

impl Shell for EmbeddedStore {
    type Journal = File;

    fn kind(&self) -> StoreKind {
        StoreKind::Embedded
    }

    fn local(&self) -> &Local<File> {
        &self.local
    }
}
