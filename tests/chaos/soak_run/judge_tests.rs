//! The rule itself: what is a leak is found, what is noise is not.

use std::time::Duration;

use palisade_client::Moment;

use super::{LEAST_SAMPLES, Sample, leaks, left_in_stores, trends};

const EVERY: Duration = Duration::from_secs(5);
/// As many as there are in half an hour.
const SAMPLES: u32 = 360;

fn sample(values: &[(&str, u64)]) -> Sample {
    let named = values
        .iter()
        .map(|(name, value)| ((*name).to_owned(), *value));
    Sample {
        values: named.collect(),
        at: Moment::default(),
    }
}

fn at_rest() -> Sample {
    sample(&[
        ("client.handles", 11),
        ("client.rss_kib", 18_000),
        ("client.tasks", 0),
        ("etcd.leases", 0),
        ("etcd.session", 0),
        ("postgres.connections", 1),
        ("postgres.effects", 0),
        ("steady.rss_kib", 60_000),
        ("steady.tasks", 21),
    ])
}

fn but(name: &str, value: u64) -> Sample {
    let mut sample = at_rest();
    sample.values.insert(name.to_owned(), value);
    sample
}

/// What a quantity is at each moment of half an hour.
fn series(name: &str, value: impl Fn(u32) -> u64) -> Vec<Sample> {
    // In two halves.
    let moments = 0..SAMPLES * 2;
    let at = |moment: u32| Sample {
        at: Moment(EVERY * moment),
        ..sample(&[(name, value(moment))])
    };
    moments.map(at).collect()
}

/// Some noise, the same each time.
fn noise(moment: u32, most: u64) -> u64 {
    u64::from(moment.wrapping_mul(2_654_435_761) >> 16) % (most + 1)
}

#[test]
fn what_is_left_of_work_is_a_leak() {
    assert!(leaks(&at_rest(), &at_rest()).is_empty());
    for (name, value) in [
        ("client.handles", 12),
        ("client.tasks", 1),
        ("etcd.leases", 1),
        ("etcd.session", 1),
        ("postgres.connections", 2),
        ("postgres.effects", 1),
        ("client.rss_kib", 18_000 + 16 * 1024 + 1),
        ("steady.rss_kib", 60_000 + (16 + 64) * 1024 + 1),
        ("steady.tasks", 21 + 17),
    ] {
        let found = leaks(&at_rest(), &but(name, value));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with(name), "{found:?}");
    }
    for (name, value) in [
        ("client.handles", 10),
        ("steady.tasks", 21 + 16),
        ("steady.rss_kib", 60_000 + (16 + 64) * 1024),
    ] {
        assert_eq!(leaks(&at_rest(), &but(name, value)), [""; 0]);
    }
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_nothing() {
    for name in ["client.handles", "etcd.leases", "postgres.effects"] {
        let mut last = at_rest();
        last.values.remove(name);
        assert!(!leaks(&at_rest(), &last).is_empty(), "{name}");
    }
    assert!(!left_in_stores(&sample(&[])).is_empty());
}

#[test]
fn slow_growth_under_load_is_found_through_noise() {
    // 240 KiB a minute, between samples that jump by 4 MiB.
    let memory = |moment| 60_000 + u64::from(moment) * 20 + noise(moment, 4_096);
    assert_eq!(trends(&series("steady.rss_kib", memory)).len(), 1);
    // One handle in two minutes.
    let handles = |moment| 20 + u64::from(moment / 24) + noise(moment, 3);
    assert_eq!(trends(&series("client.handles", handles)).len(), 1);
}

#[test]
fn noise_and_bursts_are_no_growth() {
    let memory = |moment| 60_000 + noise(moment, 8_192);
    assert_eq!(trends(&series("steady.rss_kib", memory)), [""; 0]);
    let bursts = |moment: u32| 20 + if moment.is_multiple_of(50) { 500 } else { 0 };
    assert_eq!(trends(&series("client.handles", bursts)), [""; 0]);
    // What fills, is emptied and fills again.
    let refilled = |moment: u32| 60_000 + u64::from(moment % 200) * 150;
    assert_eq!(trends(&series("steady.rss_kib", refilled)), [""; 0]);
    // What grows in the first half, and then no more, is a cache that has filled.
    let filled = |moment: u32| 60_000 + u64::from(moment.min(SAMPLES)) * 100;
    assert_eq!(trends(&series("steady.rss_kib", filled)), [""; 0]);
}

#[test]
fn a_short_soak_has_no_trend() {
    let grows = series("client.handles", |moment| u64::from(moment) * 100);
    assert_eq!(trends(&grows[..LEAST_SAMPLES]), [""; 0]);
}
