//! The one place where the coordinator starts tasks: each is named, tracked and stops in order.
#![allow(
    clippy::disallowed_methods,
    reason = "this module wraps what the rest of the crate may not call"
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span, warn};

use crate::clock::{Clock, within};

/// The tasks of one coordinator.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// A token that is cancelled when the tasks shall stop.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task. It ends by itself, or when it is told to stop: at its next wait.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let work = async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => debug!("stopped"),
                () = work => debug!("ended"),
            }
        };
        self.tracker
            .spawn(work.instrument(info_span!("task", name)));
    }

    /// Tells the tasks to stop and waits until they did, no longer than `limit`.
    pub async fn stop(&self, clock: &Arc<dyn Clock>, limit: Duration) {
        self.stop.cancel();
        self.tracker.close();
        if within(clock, limit, self.tracker.wait()).await.is_err() {
            warn!(running = self.tracker.len(), "tasks did not stop in time");
        }
    }
}
