use crate::domain::{GenerationError, Refusal};

/// Whether a write that failed may have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did not, and it will not.
    NotApplied,
    /// It may have, or may yet. The same request, sent again, finds out.
    Unknown,
}

/// Why a store did not do as asked. Its words are for the log, never for a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The store is away, has no quorum, or did not answer in time. Try again later.
    #[error("the store is unavailable")]
    Unavailable,
    /// The store takes no more data. Sessions can still be closed, and end by themselves.
    #[error("the store is out of space")]
    NoSpace,
    /// No generation is trusted now: history may have gone backwards. A new one is on its way.
    #[error("no generation is trusted")]
    HistoryRegressed,
    /// The endpoints belong to different clusters, or the cluster was exchanged. Nothing is granted
    /// until that is mended and the coordinator started again.
    #[error("the cluster is not the one this coordinator started with")]
    WrongCluster,
    /// A generation could not be made: the clock is wrong, or a token too far ahead.
    #[error("no generation can be made: {0}")]
    Generation(#[from] GenerationError),
    /// What the store keeps cannot be read: it is damaged, or of another version.
    #[error("the store holds what cannot be read: {0}")]
    Damaged(&'static str),
}

/// Why an operation of a store came to nothing, or perhaps to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The request was refused. Nothing happened and nothing will.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error("{failure}")]
    Failed {
        /// Why.
        failure: Failure,
        /// Whether the write may have happened all the same.
        outcome: Outcome,
        /// What the store said, for the log.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl StoreError {
    /// A failure before anything was sent.
    #[must_use]
    pub fn not_applied(failure: Failure) -> Self {
        Self::Failed {
            failure,
            outcome: Outcome::NotApplied,
            source: None,
        }
    }

    /// A failure that may have happened all the same: what every failure is until proven otherwise.
    pub fn unknown(
        failure: Failure,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            failure,
            outcome: Outcome::Unknown,
            source: Some(source.into()),
        }
    }

    /// The same failure after a write was sent.
    #[must_use]
    pub fn or_happened(self) -> Self {
        match self {
            Self::Refused(_) => self,
            Self::Failed {
                failure, source, ..
            } => Self::Failed {
                failure,
                outcome: Outcome::Unknown,
                source,
            },
        }
    }

    /// Whether the write may have happened.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_) => Outcome::NotApplied,
            Self::Failed { outcome, .. } => *outcome,
        }
    }
}
