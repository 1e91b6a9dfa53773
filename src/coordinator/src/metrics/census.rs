//! How many leases are held, as the store itself counts them now and then.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tracing::debug;

use super::Metrics;
use crate::clock::Clock;
use crate::store::Store;

/// How often leases are counted: as often as metrics are read as a rule. etcd walks over all their keys.
const INTERVAL: Duration = Duration::from_secs(15);
/// How soon again where that failed.
const RETRY: Duration = Duration::from_secs(1);
const UNKNOWN: u64 = u64::MAX;

/// The last count.
#[derive(Debug, Clone)]
pub(super) struct Held(Arc<AtomicU64>);

impl Default for Held {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNKNOWN)))
    }
}

impl Collector for Held {
    /// Nothing is exported of what is not known.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let held = self.0.load(Ordering::Relaxed);
        if held == UNKNOWN {
            return Ok(());
        }
        let metric = encoder.encode_descriptor(
            "palisade_leases_active",
            "Leases held in the store, whoever granted them: the same on every coordinator",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::try_from(held).unwrap_or(i64::MAX)).encode(metric)
    }
}

/// Counts leases again and again.
pub(crate) async fn census(store: Arc<dyn Store>, clock: Arc<dyn Clock>, metrics: Metrics) {
    let held = &metrics.inner.held.0;
    loop {
        let wait = match store.leases_held().await {
            Ok(count) => {
                held.store(count, Ordering::Relaxed);
                INTERVAL
            }
            Err(error) => {
                debug!(%error, "leases could not be counted");
                held.store(UNKNOWN, Ordering::Relaxed);
                RETRY
            }
        };
        clock.sleep(wait).await;
    }
}
