use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::health::Health;
use crate::metrics::Metrics;
use crate::service::Service;

/// All that a coordinator exports. What counts does not own what it counts in, so that a coordinator can end.
#[derive(Debug)]
pub(crate) struct Exported {
    metrics: Metrics,
    standing: Registry,
}

impl Exported {
    pub(crate) fn new(metrics: Metrics, standing: Standing) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(standing));
        Self {
            metrics,
            standing: registry,
        }
    }

    pub(crate) fn text(&self) -> String {
        self.metrics.text_with(&self.standing)
    }
}

/// How a coordinator stands, read when it is asked for.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) service: Service,
    /// How many may wait.
    pub(crate) max_waiters: usize,
}

impl Collector for Standing {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let health = *self.health.borrow();
        gauge(
            &mut encoder,
            ("palisade_ready", "1 where this coordinator would grant now"),
            usize::from(health.is_ready()),
        )?;
        let mut reasons = encoder.encode_descriptor(
            "palisade_not_ready",
            "1 for the reason why this coordinator would not grant now",
            None,
            MetricType::Gauge,
        )?;
        for reason in Health::reasons() {
            let is_so = health.reason() == Some(reason);
            ConstGauge::new(i64::from(is_so))
                .encode(reasons.encode_family(&[("reason", reason)])?)?;
        }
        gauge(
            &mut encoder,
            ("palisade_waiters", "Requests that wait at this coordinator"),
            self.service.waiting(),
        )?;
        gauge(
            &mut encoder,
            (
                "palisade_streams",
                "Sessions' streams that are open at this coordinator",
            ),
            self.service.streams(),
        )?;
        gauge(
            &mut encoder,
            (
                "palisade_watches",
                "Watches that are open at this coordinator",
            ),
            self.service.watches(),
        )?;
        if let Ok(runtime) = Handle::try_current() {
            gauge(
                &mut encoder,
                (
                    "palisade_tasks",
                    "Tasks of this coordinator's runtime that have not ended",
                ),
                runtime.metrics().num_alive_tasks(),
            )?;
        }
        gauge(
            &mut encoder,
            (
                "palisade_waiters_limit",
                "How many requests may wait at this coordinator",
            ),
            self.max_waiters,
        )
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    value: usize,
) -> fmt::Result {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    value.encode(metric)
}
