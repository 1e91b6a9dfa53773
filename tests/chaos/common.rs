//! What tests of this target share.

use std::time::Duration;

use palisade_client::{Clock as _, Moment, SystemClock};

/// Longer than anything here takes on a busy machine; reached only by what hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Whether there is time: more rounds, more load.
pub(crate) fn is_long() -> bool {
    std::env::var_os("PALISADE_CHAOS_LONG").is_some_and(|value| value == "1")
}

/// `short` in CI, `long` where there is time.
pub(crate) fn rounds(short: usize, long: usize) -> usize {
    if is_long() { long } else { short }
}

pub(crate) fn now() -> Moment {
    SystemClock.now()
}

/// For faults that last so long, and work that takes its time.
#[allow(clippy::disallowed_methods, reason = "faults last for real time")]
pub(crate) async fn pause(length: Duration) {
    tokio::time::sleep(length).await;
}

/// Starts a task of a test; it ends with the test's runtime.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where these tests start tasks"
)]
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(work)
}
