//! The one place where the coordinator starts tasks: each is named, tracked and stops in order.
#![allow(
    clippy::disallowed_methods,
    reason = "this module wraps what the rest of the crate may not call"
)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
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
        let work = self.stoppable(work);
        self.tracker
            .spawn(work.instrument(info_span!("task", name)));
    }

    /// Starts one of tens of thousands of tasks: the same without a span, which would take memory and time for
    /// each. What it logs says whose it is.
    pub(crate) fn spawn_many(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(self.stoppable(work));
    }

    fn stoppable<F>(&self, work: F) -> Stoppable<F> {
        Stoppable {
            stopping: self.stop.clone().cancelled_owned(),
            work,
        }
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

pin_project! {
    /// Work that can be told to stop. By hand, since an async block would keep the room of its work twice.
    struct Stoppable<F> {
        #[pin]
        stopping: WaitForCancellationFutureOwned,
        #[pin]
        work: F,
    }
}

impl<F: Future<Output = ()>> Future for Stoppable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.stopping.poll(context).is_ready() {
            debug!("stopped");
            return Poll::Ready(());
        }
        let ended = this.work.poll(context);
        if ended.is_ready() {
            debug!("ended");
        }
        ended
    }
}
