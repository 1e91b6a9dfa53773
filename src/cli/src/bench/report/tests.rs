use std::time::Duration;

use super::{Row, Samples, main_ratio, median, percentile, ratios, row};
use crate::args::Variant;
use crate::bench::processes::Cpu;
use crate::bench::round::Sample;

fn sample(milliseconds: &[u64], load: Option<f64>) -> Sample {
    let latencies: Vec<Duration> = milliseconds
        .iter()
        .map(|time| Duration::from_millis(*time))
        .collect();
    Sample {
        operations: latencies.len(),
        time: Duration::from_secs(2),
        latencies,
        cpu: Cpu {
            load,
            coordinator: None,
            etcd: None,
        },
    }
}

fn rows(samples: &Samples) -> Vec<Row> {
    samples
        .iter()
        .map(|((tasks, variant), rounds)| row("lease", *variant, *tasks, rounds))
        .collect()
}

#[test]
fn percentiles_are_values_that_were_measured() {
    let times: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
    assert_eq!(percentile(&times, 500), Some(Duration::from_millis(100)));
    assert_eq!(percentile(&times, 990), Some(Duration::from_millis(198)));
    assert_eq!(percentile(&times[..1], 990), Some(Duration::from_millis(1)));
    assert_eq!(percentile(&[], 500), None);
}

#[test]
fn a_median_is_in_the_middle() {
    assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
    assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
    assert_eq!(median(std::iter::empty()), None);
}

#[test]
fn one_slow_round_changes_no_figure() {
    let slow = sample(&[900], Some(9.0));
    let rounds = [sample(&[2, 4], Some(0.5)), slow, sample(&[2, 4], Some(0.5))];
    let row = row("lease", Variant::Stream, 1, &rounds);
    assert_eq!((row.ops_per_s, row.p50_us, row.p99_us), (1.0, 2_000, 4_000));
    assert_eq!(row.cpu_s_per_100k.load, Some(25_000.0));
    assert_eq!(row.cpu_s_per_100k.etcd, None);
}

#[test]
fn a_round_without_any_operation_is_told_as_such() {
    let row = row("handoff", Variant::V3lock, 2, &[sample(&[], Some(0.5))]);
    assert_eq!((row.ops_per_s, row.p50_us, row.p99_us), (0.0, 0, 0));
    assert_eq!(row.cpu_s_per_100k.load, None);
}

#[test]
fn the_ratio_is_the_streams_with_the_most_tasks() {
    let mut samples = Samples::new();
    for (tasks, variant, times) in [
        (1, Variant::V3lock, &[8][..]),
        (1, Variant::Stream, &[9]),
        (256, Variant::V3lock, &[8]),
        (256, Variant::Unary, &[4, 4]),
        (256, Variant::Stream, &[2, 2, 2]),
    ] {
        samples.insert((tasks, variant), vec![sample(times, None)]);
    }
    let ratios = ratios(&rows(&samples));
    assert_eq!(ratios.len(), 3);
    assert_eq!(main_ratio(&ratios), Some(3.0));
    assert_eq!(ratios[1].p99, Some(0.25));
}

#[test]
fn without_anything_to_compare_there_is_no_ratio() {
    let mut samples = Samples::new();
    samples.insert((1, Variant::Stream), vec![sample(&[1], None)]);
    assert_eq!(main_ratio(&ratios(&rows(&samples))), None);
}
