//! What is counted.

use std::time::Duration;

use metrics_util::debugging::DebuggingRecorder;
use palisade_guard::postgres::SealPolicy;

use crate::db::{Db, grant, run};
use crate::recording::counts;

#[tokio::test]
async fn checks_seals_and_blockers_are_counted_by_outcome() {
    let db = Db::with_orders().await;
    let recorder = DebuggingRecorder::new();
    let _local = metrics::set_default_local_recorder(&recorder);
    let sealed = db.seal(&grant("orders", 10)).await;
    let tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    tx.commit().await.unwrap();

    let mut late = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let hasty = SealPolicy::Timeout(Duration::from_millis(10));
    let hasty = db.guard.with_seal_policy(hasty);
    hasty
        .seal(&db.pool, &grant("orders", 11))
        .await
        .unwrap_err();
    run(&mut late, "INSERT INTO orders VALUES (1)")
        .await
        .unwrap();
    drop(late);
    let late = db.guard.begin(&db.pool, &sealed).await.unwrap();
    late.rollback().await.unwrap();

    db.seal(&grant("orders", 11)).await;
    let late = db.guard.begin(&db.pool, &sealed).await.unwrap();
    late.commit().await.unwrap_err();
    db.guard.begin(&db.pool, &sealed).await.unwrap_err();

    let counts = counts(&recorder);
    let expected = [
        ("seal_seconds{store=postgres,outcome=sealed}", 2),
        ("seal_seconds{store=postgres,outcome=timeout}", 1),
        ("seal_blockers_total{store=postgres}", 1),
        ("store_seconds{store=postgres,operation=begin}", 4),
        ("store_seconds{store=postgres,operation=commit}", 2),
        ("checks_total{store=postgres,outcome=admitted}", 1),
        ("checks_total{store=postgres,outcome=stale}", 1),
        ("tx_dropped_total{store=postgres}", 1),
    ];
    let expected = expected.map(|(name, count)| (format!("palisade_guard_{name}"), count));
    assert_eq!(counts, expected.into());
}
