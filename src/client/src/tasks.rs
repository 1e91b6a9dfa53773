//! The one place where the client starts tasks: each is named and tracked.
#![allow(
    clippy::disallowed_methods,
    reason = "this module wraps what the rest of the crate may not call"
)]

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug_span};

use crate::clock::{Clock, within};

/// The tasks of one client: one renewal per session, and one for each thing that is given back.
///
/// They start on the runtime that the client was made on, so that a lease may be dropped on any thread;
/// once that runtime is gone nothing starts any more, and sessions end by their TTL.
#[derive(Debug, Clone)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    runtime: Handle,
}

impl Tasks {
    pub(crate) fn on(runtime: Handle) -> Self {
        Self {
            tracker: TaskTracker::new(),
            runtime,
        }
    }

    pub(crate) fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let work = work.instrument(debug_span!("palisade_client", task = name));
        drop(self.tracker.spawn_on(work, &self.runtime));
    }

    /// As [`Tasks::spawn`], for work whose end is waited for, or which is ended.
    pub(crate) fn spawn_watched<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let work = work.instrument(debug_span!("palisade_client", task = name));
        self.tracker.spawn_on(work, &self.runtime)
    }

    /// Waits until no task runs. Says whether that was so within `limit`.
    pub(crate) async fn settled(&self, clock: &Arc<dyn Clock>, limit: Duration) -> bool {
        self.tracker.close();
        let settled = within(clock, limit, self.tracker.wait()).await.is_some();
        self.tracker.reopen();
        settled
    }
}
