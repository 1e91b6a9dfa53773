//! The one place where the command line reads a clock or waits for one.
#![allow(
    clippy::disallowed_methods,
    reason = "this module wraps what the rest of the crate may not call"
)]

use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

/// Measures from its making on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Waits at least this long.
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The result of `work`, or nothing if `limit` is over first; `work` is dropped then.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, work).await.ok()
}

/// Asks again and again until there is an answer, or `limit` is over.
pub(crate) async fn poll<T>(limit: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    /// What is asked for happens within milliseconds, and asking is cheap.
    const PAUSE: Duration = Duration::from_millis(5);
    within(limit, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    })
    .await
}

/// The wall clock, where something outside wants to know when a thing was.
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock in milliseconds since 1970 UTC, to tell people how long ago something was.
pub(crate) fn unix_ms() -> i64 {
    let since = wall().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}
