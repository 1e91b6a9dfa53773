//! What is a leak, and what is not.
//!
//! At rest, with all work ended and every TTL over:
//!
//! | quantity | rule |
//! |---|---|
//! | keys and leases in etcd | none, but for `generation` and `revoked` |
//! | effects, advisory locks, prepared transactions | none |
//! | handles, tasks, threads, streams, watches, waiters, connections | at most what there was at the first rest |
//! | tasks of a coordinator | at most [`STREAMS`] more than at the first rest |
//! | resident memory | at most what there was at the first rest, and [`MEMORY`] more: 16 MiB or a quarter; of a coordinator [`NEWS`] besides |
//!
//! Under load, over the second half of the churn (from [`LEAST_SAMPLES`] samples on): the median slope between any two
//! samples (Theil and Sen), over the length of that half, is at most [`TREND`] of the median, and a floor that depends on
//! the quantity: nothing grows that is not bounded. A coordinator's memory has a height in place of a slope: [`HEIGHTS`].

use std::collections::BTreeMap;

use palisade_client::Moment;

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

/// Quantities by name, `PLACE.WHAT`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    pub(crate) values: BTreeMap<String, u64>,
    pub(crate) at: Moment,
}

impl Sample {
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.values.get(name).copied()
    }
}

/// How much more memory may be resident at the last rest than at the first, in KiB: fragments of an allocator, code that
/// was not run before the first fault, caches that are bounded.
pub(crate) const MEMORY: (u64, f64) = (16 * 1024, 0.25);
/// Renewals go to etcd over at most 8 streams, of two tasks each; each is opened when a session first needs it, and again
/// after its link broke.
pub(crate) const STREAMS: u64 = 16;
/// What a coordinator keeps of what happened lately, for watches that are resumed: 50,000 events, and no more than this, in
/// KiB. It fills in the first minutes of a churn, and is full from then on.
pub(crate) const NEWS: u64 = 64 * 1024;
/// What a trend may amount to over half the churn, as a share of the median...
pub(crate) const TREND: f64 = 0.05;
/// ...and where that is more: memory in KiB, what is counted, and PostgreSQL's tables in KiB.
const FLOORS: [(&str, f64); 3] = [("rss_kib", 2_048.0), ("kib", 512.0), ("", 6.0)];
/// A trend of fewer is none.
pub(crate) const LEAST_SAMPLES: usize = 60;

/// What is to be none when nothing is under way.
const NONE: [&str; 3] = ["effects", "advisory_locks", "prepared"];
/// What is to be no more than there was.
const NO_MORE: [&str; 7] = [
    "handles",
    "tasks",
    "threads",
    "streams",
    "watches",
    "waiters",
    "connections",
];
/// What has a trend that counts: of processes that live as long as the soak, and of the stores.
const TRENDS: [&str; 8] = [
    "steady.handles",
    "steady.threads",
    "steady.tasks",
    "client.rss_kib",
    "client.handles",
    "client.tasks",
    "etcd.leases",
    "postgres.kib",
];

/// What fills, is emptied by a fault and fills again has a height, and no slope that counts: of a coordinator's memory the
/// greatest twentieth in the second half is held against that of the first, by the same allowance.
const HEIGHTS: [&str; 1] = ["steady.rss_kib"];
/// So long the news of [`NEWS`] take to fill under this load, and as long again: in a shorter half there is no height.
pub(crate) const LEAST_HEIGHT_SAMPLES: usize = 180;

fn what(name: &str) -> &str {
    name.split_once('.').map_or(name, |(_place, what)| what)
}

/// What is left in etcd and PostgreSQL, a sentence each.
pub(crate) fn left_in_stores(sample: &Sample) -> Vec<String> {
    let mut left = Vec::new();
    for needed in ["etcd.leases", "postgres.effects"] {
        if sample.get(needed).is_none() {
            left.push(format!("{needed} could not be sampled"));
        }
    }
    for (name, value) in &sample.values {
        let is_none = name.starts_with("etcd.") || NONE.contains(&what(name));
        if is_none && *value > 0 {
            left.push(format!("{name} is {value} at rest; it is to be 0"));
        }
    }
    left
}

/// What there is more of at the last rest than there was at the first, a sentence each.
pub(crate) fn leaks(first: &Sample, last: &Sample) -> Vec<String> {
    let mut leaks = left_in_stores(last);
    for (name, before) in &first.values {
        let Some(now) = last.get(name) else {
            leaks.push(format!("{name} could not be sampled at the end"));
            continue;
        };
        let allowed = match what(name) {
            "tasks" if !name.starts_with("client.") => before + STREAMS,
            what if NO_MORE.contains(&what) => *before,
            "rss_kib" if name.starts_with("client.") => with_allowance(*before),
            "rss_kib" => with_allowance(*before) + NEWS,
            _ => continue,
        };
        if now > allowed {
            leaks.push(format!(
                "{name} is {now} at rest; it was {before}, {allowed} is allowed"
            ));
        }
    }
    leaks
}

#[allow(clippy::as_conversions, reason = "KiB of a process are far below 2^52")]
fn with_allowance(kib: u64) -> u64 {
    let (floor, share) = MEMORY;
    kib + floor.max((kib as f64 * share) as u64)
}

/// What grew under load, a sentence each.
pub(crate) fn trends(churn: &[Sample]) -> Vec<String> {
    let (before, half) = churn.split_at(churn.len() / 2);
    let mut growing = Vec::new();
    for name in HEIGHTS {
        let (before, after) = (points(before, name), points(half, name));
        if after.len() < LEAST_HEIGHT_SAMPLES {
            continue;
        }
        let (growth, (_slope, allowed)) = (height(&after) - height(&before), growth(name, &after));
        if growth > allowed {
            growing.push(format!(
                "{name} came {growth:.0} higher in the second half under load; {allowed:.0} is allowed"
            ));
        }
    }
    for name in TRENDS {
        let points = points(half, name);
        if points.len() < LEAST_SAMPLES {
            continue;
        }
        let (growth, allowed) = growth(name, &points);
        if growth > allowed {
            growing.push(format!(
                "{name} grew by {growth:.0} over the second half under load; {allowed:.0} is allowed"
            ));
        }
    }
    growing
}

/// How much it grew over these points, by its trend, and how much it may.
pub(crate) fn growth(name: &str, points: &[(f64, f64)]) -> (f64, f64) {
    let length = match points {
        [(begin, _), .., (end, _)] => end - begin,
        _ => 0.0,
    };
    let median = median(points.iter().map(|(_, value)| *value).collect());
    let is_of = |(suffix, _): &&(&str, f64)| name.ends_with(suffix);
    let floor = FLOORS.iter().find(is_of).map_or(0.0, |(_, floor)| *floor);
    (slope(points) * length, floor.max(median * TREND))
}

#[allow(
    clippy::as_conversions,
    reason = "seconds of a soak and what is sampled are far below 2^52"
)]
pub(crate) fn points(samples: &[Sample], name: &str) -> Vec<(f64, f64)> {
    let point = |sample: &Sample| Some((sample.at.0.as_secs_f64(), sample.get(name)? as f64));
    samples.iter().filter_map(point).collect()
}

/// What a twentieth of the values lie above.
fn height(points: &[(f64, f64)]) -> f64 {
    let mut values: Vec<_> = points.iter().map(|(_, value)| *value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() * 19 / 20).copied().unwrap_or(0.0)
}

/// The median of the slopes between any two points: a few odd samples do not move it.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mut slopes = Vec::new();
    for (index, (begin, before)) in points.iter().enumerate() {
        for (end, after) in &points[index + 1..] {
            slopes.push((after - before) / (end - begin).max(f64::EPSILON));
        }
    }
    median(slopes)
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
