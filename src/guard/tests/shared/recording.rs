//! What a test's own thread has counted.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};

/// The counts of each series since it was asked last, as `name{label=value,…}`; of histograms, how often
/// something was recorded.
pub(crate) fn counts(recorder: &DebuggingRecorder) -> BTreeMap<String, u64> {
    let series = recorder.snapshotter().snapshot().into_vec().into_iter();
    let counted = series.filter_map(|(key, _, _, value)| {
        let key = key.key();
        let labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}={}", label.key(), label.value()))
            .collect();
        let count = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Gauge(_) => return None,
            DebugValue::Histogram(values) => values.len().try_into().unwrap(),
        };
        (count > 0).then(|| (format!("{}{{{}}}", key.name(), labels.join(",")), count))
    });
    counted.collect()
}
