use std::time::Duration;

use metrics_util::MetricKind;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use palisade_token::{FencingToken, ResourceName};

use super::{
    Check, DeadLetter, Idempotency, Inbox, Operation, Position, Publish, Purged, Rows, Sequence,
    StoreKind, Timer,
};
use crate::GuardError;

type Series = (MetricKind, String, Vec<(String, String)>);

/// What was recorded, with no time in it.
fn recorded(events: impl FnOnce()) -> Vec<(Series, Option<u64>)> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, events);
    let series = snapshotter.snapshot().into_vec().into_iter();
    let mut series: Vec<_> = series
        .map(|(key, _, _, value)| {
            let (kind, key) = key.into_parts();
            let labels = key
                .labels()
                .map(|label| (label.key().to_owned(), label.value().to_owned()));
            let value = match value {
                DebugValue::Counter(count) => Some(count),
                DebugValue::Gauge(_) | DebugValue::Histogram(_) => None,
            };
            ((kind, key.name().to_owned(), labels.collect()), value)
        })
        .collect();
    series.sort();
    series
}

fn stale() -> GuardError {
    GuardError::Stale {
        resource: ResourceName::new("orders/customer-4711").unwrap(),
        presented: FencingToken::new(41).unwrap(),
        fence: FencingToken::new(42).unwrap(),
    }
}

#[test]
fn an_event_counts_in_the_series_of_its_store_and_outcome() {
    let series = recorded(|| {
        super::check(StoreKind::Postgres, Check::Admitted);
        super::check(StoreKind::Postgres, Check::Admitted);
        super::refused(StoreKind::Sqlite, &stale());
        super::purged(StoreKind::Postgres, Purged::Inbox, 5);
    });
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let counter = |name: &str, labels: Vec<_>, count| {
        ((MetricKind::Counter, name.to_owned(), labels), Some(count))
    };
    assert_eq!(
        series,
        [
            counter(
                "palisade_guard_checks_total",
                vec![label("store", "postgres"), label("outcome", "admitted")],
                2
            ),
            counter(
                "palisade_guard_checks_total",
                vec![label("store", "sqlite"), label("outcome", "stale")],
                1
            ),
            counter(
                "palisade_guard_purged_total",
                vec![label("store", "postgres"), label("table", "inbox")],
                5
            ),
        ]
    );
}

/// Every function once, with whatever could carry an id.
fn everything() {
    let store = StoreKind::Memory;
    super::settled(store, &Ok(()));
    super::settled::<()>(store, &Err(stale()));
    super::settled::<()>(store, &Err(GuardError::RolledBack(None)));
    super::refused(
        store,
        &GuardError::Unguarded {
            resource: "customer-4711".to_owned(),
            table: Some("customer_4711".to_owned()),
        },
    );
    let unknown = GuardError::CommitUnknown {
        transaction: Some(4711),
        source: Box::from("4711"),
    };
    super::settled::<()>(store, &Err(unknown));
    super::seal(store, Timer::start(), &Ok(()));
    super::seal::<()>(store, Timer::start(), &Err(stale()));
    super::seal_blockers(store, 1);
    super::tx_dropped(store);
    super::store_answered(store, Operation::Begin, Timer::start());
    super::idempotency(store, Idempotency::Replayed);
    super::oldest_in_progress(store, Duration::from_secs(1));
    super::sequence(store, Sequence::Gap);
    super::position(store, Position::OffsetConflict);
    super::inbox(store, Inbox::Duplicate);
    super::outbox_pending(store, 7);
    super::outbox_horizon_lag(store, Duration::from_secs(1));
    super::published(store, Publish::Published, 3);
    super::dead_letter(store, DeadLetter::Buried);
    super::purged(store, Purged::Keys, 1);
    super::rows(store, Rows::DeadLetters, 1);
}

#[test]
fn no_label_holds_what_a_caller_has_named() {
    for ((_, name, labels), _) in recorded(everything) {
        for (key, value) in labels {
            let known = ["store", "outcome", "operation", "table"];
            assert!(known.contains(&key.as_str()), "{name} has the label {key}");
            assert!(!value.contains("4711"), "{name} has {key}={value}");
        }
    }
}

#[test]
fn every_metric_is_described_and_has_the_prefix() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        super::describe();
        everything();
    });
    for (key, unit, text, _) in snapshotter.snapshot().into_vec() {
        let name = key.key().name();
        assert!(name.starts_with("palisade_guard_"), "{name}");
        assert!(unit.is_some() && text.is_some(), "{name} is not described");
    }
}

#[test]
fn a_key_is_the_same_as_one_made_by_the_macros() {
    let ours = recorded(|| super::check(StoreKind::ObjectStore, Check::Backwards));
    let theirs = recorded(|| {
        metrics::counter!("palisade_guard_checks_total",
            "store" => "object_store", "outcome" => "backwards")
        .increment(1);
    });
    assert_eq!(ours, theirs);
}
