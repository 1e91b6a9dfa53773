//! How long a draining coordinator's streams have, and how many did not go by themselves.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tracing::debug;

/// A drain that an operator may ask for.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    limit: OnceLock<Duration>,
    ended: AtomicU32,
}

impl Drain {
    /// Streams have so long from now on; what was said first counts.
    pub(super) fn begin(&self, limit: Duration) {
        if self.limit.set(limit).is_err() {
            debug!("it drains already");
        }
    }

    /// How long streams have, or `otherwise` where no operator said.
    pub(super) fn limit(&self, otherwise: Duration) -> Duration {
        self.limit.get().copied().unwrap_or(otherwise)
    }

    /// A stream was still there at the end of its time.
    pub(super) fn ended_one(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were.
    pub(super) fn ended(&self) -> u32 {
        self.ended.load(Ordering::Relaxed)
    }
}
