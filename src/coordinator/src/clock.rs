//! The one place where the coordinator reads a clock or waits for one.
//!
//! Lease time is monotonic. The wall clock makes generations and nothing else.
#![allow(
    clippy::disallowed_methods,
    reason = "this module wraps what the rest of the crate may not call"
)]

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use crate::domain::WallClock;

/// A point of the monotonic clock, as the time since an origin that only comparisons make sense of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// The moment a while later; the last one there is, where it would be beyond.
    #[must_use]
    pub fn after(self, while_: Duration) -> Self {
        Self(self.0.saturating_add(while_))
    }

    /// How long it is from this moment to a later one; zero where that has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

/// Where the coordinator gets its time from.
#[async_trait]
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now, by a clock that never goes back.
    fn now(&self) -> Moment;

    /// Now, by the wall clock.
    fn wall(&self) -> WallClock;

    /// Waits.
    async fn sleep(&self, while_: Duration);
}

/// Time ran out before the work was done; the work may go on elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("time ran out after {0:?}")]
pub struct Elapsed(pub Duration);

/// Waits for work no longer than a while. Time is looked at first: a process that wakes from a freeze longer
/// than the while does not go on with the work (I4).
///
/// # Errors
/// [`Elapsed`] when the while is over first.
pub async fn within<T>(
    clock: &Arc<dyn Clock>,
    while_: Duration,
    work: impl Future<Output = T> + Send,
) -> Result<T, Elapsed> {
    tokio::select! {
        biased;
        () = clock.sleep(while_) => Err(Elapsed(while_)),
        done = work => Ok(done),
    }
}

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: tokio::time::Instant,
}

impl SystemClock {
    /// The machine's clocks, as an injectable whole.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self {
            origin: tokio::time::Instant::now(),
        })
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Moment {
        Moment(self.origin.elapsed())
    }

    fn wall(&self) -> WallClock {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        WallClock(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    async fn sleep(&self, while_: Duration) {
        tokio::time::sleep(while_).await;
    }
}
