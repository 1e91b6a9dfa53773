//! What was asked for, and how it ended.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use palisade_client::ClientError;
use palisade_guard::GuardError;

/// Counts by kind and outcome.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<BTreeMap<String, u64>>);

impl Tally {
    pub(crate) fn count(&self, kind: &str, outcome: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(format!("{kind} {outcome}")).or_default() += 1;
    }

    pub(crate) fn all(&self) -> BTreeMap<String, u64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Why a round ended early: under faults most errors are to be expected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Early {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Guard(#[from] GuardError),
}

impl Early {
    /// The outcome in a word; those that may have happened are `unknown`.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Client(error) => client_word(error),
            Self::Guard(GuardError::Stale { .. }) => "stale",
            Self::Guard(GuardError::CommitUnknown { .. }) => "unknown",
            Self::Guard(_) => "failed",
        }
    }
}

fn client_word(error: &ClientError) -> &'static str {
    match error {
        ClientError::Held { .. } => "held",
        ClientError::AlreadyHeld { .. } => "already-held",
        ClientError::WaitExpired { .. } => "waited-out",
        ClientError::Cancelled => "cancelled",
        ClientError::SessionLost { .. } => "lost",
        ClientError::StaleToken { .. } => "stale",
        ClientError::LimitReached { .. } => "limit",
        ClientError::Unavailable {
            may_have_happened: true,
            ..
        }
        | ClientError::Unexpected { .. } => "unknown",
        ClientError::Unavailable { .. } => "unavailable",
        _ => "refused",
    }
}
