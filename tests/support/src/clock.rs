//! The one place that reads a clock or waits: for a condition, with a deadline.
#![allow(
    clippy::disallowed_methods,
    reason = "tests of real servers live on real time; every wait of this crate goes through here"
)]

use std::future::Future;
use std::time::{Duration, Instant};

use crate::Error;

/// How often a condition is looked at: often enough to add nothing that a test could notice.
const POLL: Duration = Duration::from_millis(10);

/// Waits until `condition` holds, looking every 10 ms.
///
/// # Errors
///
/// [`Error::TimedOut`], naming `what`, when it has not held within `limit`.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), palisade_test_support::Error> {
/// use std::time::Duration;
/// palisade_test_support::eventually("the sky is up", Duration::from_secs(1), async || true).await
/// # }
/// ```
pub async fn eventually<C>(what: &str, limit: Duration, mut condition: C) -> Result<(), Error>
where
    C: AsyncFnMut() -> bool,
{
    let end = Instant::now() + limit;
    let poll = async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    };
    // The condition itself may hang: the deadline covers it too.
    tokio::time::timeout(end.saturating_duration_since(Instant::now()), poll)
        .await
        .map_err(|_elapsed| Error::TimedOut {
            what: what.to_owned(),
            limit,
        })
}

/// The result of `work`, if it ends within `limit`.
///
/// # Errors
///
/// [`Error::TimedOut`], naming `what`; `work` is dropped then.
pub async fn within<T>(
    what: &str,
    limit: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_elapsed| Error::TimedOut {
            what: what.to_owned(),
            limit,
        })
}

/// Time that passes on a delayed link.
pub(crate) async fn pause(length: Duration) {
    tokio::time::sleep(length).await;
}

/// [`eventually`] written as a loop, `loop { if … { break } wait.tick().await? }`: the future of an async
/// closure cannot be shown to be `Send`, and tests spawn what this crate returns.
#[derive(Debug)]
pub(crate) struct Wait {
    what: String,
    limit: Duration,
    end: Instant,
}

impl Wait {
    pub(crate) fn new(what: impl Into<String>, limit: Duration) -> Self {
        Self {
            what: what.into(),
            limit,
            end: Instant::now() + limit,
        }
    }

    /// Time for another look, or the end of the wait.
    pub(crate) async fn tick(&self) -> Result<(), Error> {
        if Instant::now() >= self.end {
            return Err(Error::TimedOut {
                what: self.what.clone(),
                limit: self.limit,
            });
        }
        tokio::time::sleep(POLL).await;
        Ok(())
    }
}

/// [`eventually`] for code that cannot be async (signals, drops). Says whether the condition came true.
pub(crate) fn eventually_blocking(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(POLL);
    }
}
