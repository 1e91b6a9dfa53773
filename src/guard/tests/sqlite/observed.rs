//! What is counted and traced.

use std::collections::BTreeMap;

use metrics_util::debugging::DebuggingRecorder;
use palisade_guard::GuardError;

use crate::db::{Db, grant, run};
use crate::recording::counts;
use crate::traced::Spans;

fn expected<const N: usize>(series: [(&str, u64); N]) -> BTreeMap<String, u64> {
    series
        .into_iter()
        .map(|(name, count)| (format!("palisade_guard_{name}"), count))
        .collect()
}

#[tokio::test]
async fn checks_seals_and_drops_are_counted_by_outcome() {
    let recorder = DebuggingRecorder::new();
    let _local = metrics::set_default_local_recorder(&recorder);
    let db = Db::new().await;
    assert_eq!(counts(&recorder), expected([]));

    let sealed = db.seal(&grant("orders", 10)).await;
    let tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        counts(&recorder),
        expected([
            ("seal_seconds{store=sqlite,outcome=sealed}", 1),
            ("store_seconds{store=sqlite,operation=begin}", 1),
            ("store_seconds{store=sqlite,operation=commit}", 1),
            ("checks_total{store=sqlite,outcome=admitted}", 1),
        ])
    );

    drop(db.guard.begin(&db.pool, &sealed).await.unwrap());
    db.guard
        .begin(&db.pool, &sealed)
        .await
        .unwrap()
        .rollback()
        .await;
    assert_eq!(
        counts(&recorder),
        expected([
            ("store_seconds{store=sqlite,operation=begin}", 2),
            ("tx_dropped_total{store=sqlite}", 1),
        ])
    );

    db.seal(&grant("orders", 11)).await;
    db.guard.begin(&db.pool, &sealed).await.unwrap_err();
    db.guard
        .seal(&db.pool, &grant("orders", 10))
        .await
        .unwrap_err();
    let mut plain = db.pool.acquire().await.unwrap();
    let refused = sqlx::query("INSERT INTO orders VALUES (1, 1)").execute(&mut *plain);
    let refused: GuardError = refused.await.unwrap_err().into();
    assert!(
        matches!(refused, GuardError::Unguarded { .. }),
        "{refused:?}"
    );
    assert_eq!(
        counts(&recorder),
        expected([
            ("seal_seconds{store=sqlite,outcome=sealed}", 1),
            ("seal_seconds{store=sqlite,outcome=stale}", 1),
            ("checks_total{store=sqlite,outcome=stale}", 1),
            ("checks_total{store=sqlite,outcome=unguarded}", 1),
            ("unguarded_total{store=sqlite}", 1),
        ])
    );
}

#[tokio::test]
async fn a_commit_that_was_rolled_back_is_counted_as_such() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let recorder = DebuggingRecorder::new();
    let _local = metrics::set_default_local_recorder(&recorder);
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "ROLLBACK").await.unwrap();
    tx.commit().await.unwrap_err();
    let counts = counts(&recorder);
    assert_eq!(
        counts.get("palisade_guard_commit_rolled_back_total{store=sqlite}"),
        Some(&1),
        "{counts:?}"
    );
    assert_eq!(
        counts.get("palisade_guard_checks_total{store=sqlite,outcome=admitted}"),
        None
    );
}

#[tokio::test]
async fn spans_name_the_grant() {
    let spans = Spans::default();
    let _local = tracing::subscriber::set_default(spans.clone());
    let db = Db::new().await;
    let (orders, bills) = (grant("orders", 10), grant("bills", 11));
    let sealed = db.seal(&orders).await;
    let other = db.seal(&bills).await;
    let tx = db.guard.begin_all(&db.pool, &[&sealed, &other]).await;
    tx.unwrap().commit().await.unwrap();
    let of = |name: &str, grant: &palisade_token::Grant, resources: Option<&str>| {
        let mut fields = BTreeMap::from([
            ("store".to_owned(), "sqlite".to_owned()),
            ("resource".to_owned(), grant.resource.to_string()),
            ("token".to_owned(), grant.token.to_string()),
            ("holder".to_owned(), grant.holder.to_string()),
        ]);
        fields.extend(resources.map(|number| ("resources".to_owned(), number.to_owned())));
        (name.to_owned(), fields)
    };
    assert_eq!(
        spans.take(),
        [
            of("seal", &orders, None),
            of("seal", &bills, None),
            of("begin", &bills, Some("2")),
            of("commit", &bills, Some("2")),
        ]
    );
}
