//! What happens in the store, for all here who want to know: the one follower of its events.

use std::error::Error;
use std::sync::Arc;

use futures::StreamExt;
use tracing::{debug, warn};

use super::backoff::backoff;
use super::waiters::Waiters;
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// The news of one coordinator. A clone tells the same.
#[derive(Debug, Clone)]
pub(crate) struct News {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Metrics,
    waiters: Waiters,
}

impl News {
    /// Starts to follow the store.
    pub(crate) fn start(
        (store, clock): (&Arc<dyn Store>, &Arc<dyn Clock>),
        (entropy, metrics): (&Arc<dyn Entropy>, &Metrics),
        tasks: &Tasks,
        waiters: Waiters,
    ) -> Self {
        let shared = Arc::new(Shared {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            entropy: Arc::clone(entropy),
            metrics: metrics.clone(),
            waiters,
        });
        tasks.spawn("news", Shared::follow(Arc::clone(&shared)));
        Self { shared }
    }
}

impl Shared {
    async fn follow(shared: Arc<Self>) {
        let mut failures = 0;
        loop {
            if let Err(error) = shared.follow_once(&mut failures).await {
                let cause: &dyn Error = &error;
                // Ever more seldom while the store stays away.
                if failures.count_ones() <= 1 {
                    warn!(error = cause, failures, "news from the store broke off");
                } else {
                    debug!(error = cause, failures, "news from the store broke off");
                }
            }
            failures = failures.saturating_add(1);
            shared
                .clock
                .sleep(backoff(&*shared.entropy, failures))
                .await;
        }
    }

    async fn follow_once(&self, failures: &mut u32) -> Result<(), StoreError> {
        let mut batches = self.store.watch().await?;
        if *failures > 0 {
            self.metrics.watch_resumed();
        }
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            self.waiters.hear(&batch);
            *failures = 0;
        }
        Ok(())
    }
}
