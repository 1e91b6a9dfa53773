//! Old answers go, in small steps; what is not finished stays.

use std::sync::Arc;

use palisade_guard::GuardError;
use palisade_guard::effects::{Begun, KeyPolicy};
use palisade_guard::postgres::Guard;
use palisade_test_support::eventually;

use crate::db::{PATIENCE, grant, run};
use crate::ledger::{asked, deliver, key, with_ledger};

#[tokio::test]
async fn a_purge_deletes_expired_answers_in_batches_and_nothing_unfinished() {
    let db = with_ledger().await;
    let old = db.seal(&grant("ledger", 10)).await;
    for text in ["unfinished", "given-up"] {
        let begun: Begun<i64> = db
            .guard
            .begin_attempt(&db.pool, &old, &key(text), &asked(5), &KeyPolicy::new())
            .await
            .unwrap();
        let Begun::Attempt(attempt) = begun else {
            panic!("new");
        };
        if text == "given-up" {
            let mut tx = db.guard.begin(&db.pool, &old).await.unwrap();
            tx.give_up(&attempt).await.unwrap();
            tx.commit().await.unwrap();
        }
    }
    let sealed = db.seal(&grant("ledger", 11)).await;
    deliver(&db, &sealed, "young", 1).await.unwrap();
    // More than two batches of answers, and all of it long ago; the holder of the attempts is gone.
    db.run(
        "INSERT INTO palisade.effect SELECT 'tenant', 'credit', 'old-' || n, '\\x0102', \
             clock_timestamp() - interval '2 years', clock_timestamp() - n * interval '1 s', '1', \
             'ledger', 10, repeat('0', 32) FROM generate_series(1, 2345) AS n; \
         UPDATE palisade.effect SET first_seen = first_seen - interval '2 years' \
             WHERE attempt_until IS NOT NULL",
    )
    .await;
    let left = "SELECT count(*) FROM palisade.effect";
    assert_eq!(db.guard.purge_effects(&db.pool, 0).await.unwrap(), 0);
    assert_eq!(db.guard.purge_effects(&db.pool, 1).await.unwrap(), 1);
    let oldest = "SELECT count(*) FROM palisade.effect WHERE key = 'old-2345'";
    assert_eq!(db.number(oldest).await, 0);
    let most = u64::from(Guard::PURGE_BATCH) + 1;
    assert_eq!(db.guard.purge_effects(&db.pool, most).await.unwrap(), most);
    // Locked: somebody is at it.
    let mut other = db.connect().await;
    run(
        &mut other,
        "BEGIN; SELECT FROM palisade.effect WHERE key = 'old-1' FOR UPDATE",
    )
    .await
    .unwrap();
    let rest = 2345 - 1 - most - 1;
    assert_eq!(
        db.guard.purge_effects(&db.pool, u64::MAX).await.unwrap(),
        rest
    );
    assert_eq!(db.number(left).await, 4);
    run(&mut other, "ROLLBACK").await.unwrap();
    assert_eq!(db.guard.purge_effects(&db.pool, u64::MAX).await.unwrap(), 1);
    assert_eq!(db.number(left).await, 3, "two attempts and the young one");
    assert_eq!(
        db.guard
            .unfinished(&db.pool, &grant("ledger", 1).resource, 10)
            .await
            .unwrap()
            .len(),
        2
    );
}

/// The retry comes while the purge has deleted the row and not committed.
#[tokio::test]
async fn a_retry_that_meets_a_purge_is_replayed_or_refused_or_new_and_never_both() {
    let db = Arc::new(with_ledger().await);
    let sealed = db.seal(&grant("ledger", 10)).await;
    // Made in 2025: a year older than its answer is kept, by any clock that a guard may run under.
    let ordered = "01977d1e-9d2c-7e5e-8a6c-0c9b1f6f3a10";
    deliver(&db, &sealed, "plain", 1).await.unwrap();
    db.run(&format!(
        "UPDATE palisade.effect SET keep_until = clock_timestamp() - interval '1 s'; \
         INSERT INTO palisade.effect SELECT tenant, operation, '{ordered}', fingerprint, first_seen, \
             keep_until, answer, resource, token, holder FROM palisade.effect"
    ))
    .await;
    let mut purge = db.connect().await;
    for (end, text) in [
        ("ROLLBACK", "plain"),
        ("ROLLBACK", ordered),
        ("COMMIT", "plain"),
        ("COMMIT", ordered),
    ] {
        let begin = format!("BEGIN; DELETE FROM palisade.effect WHERE key = '{text}'");
        run(&mut purge, &begin).await.unwrap();
        let retry = {
            let (db, sealed) = (Arc::clone(&db), sealed.clone());
            let text = text.to_owned();
            #[allow(clippy::disallowed_methods, reason = "the test awaits it")]
            tokio::spawn(async move { deliver(&db, &sealed, &text, 1).await })
        };
        // For the purge's transaction, whose lock belongs to no database.
        let waiting = "SELECT count(*) FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        eventually("the retry waits", PATIENCE, async || {
            db.number(waiting).await == 1
        })
        .await
        .unwrap();
        run(&mut purge, end).await.unwrap();
        match (end, text, retry.await.unwrap()) {
            ("ROLLBACK", _, Ok(outcome)) => assert!(outcome.is_replayed(), "{text}"),
            ("COMMIT", "plain", Ok(outcome)) => assert!(!outcome.is_replayed()),
            ("COMMIT", _, Err(GuardError::KeyExpired { .. })) => {}
            (_, _, other) => panic!("{end} {text}: {other:?}"),
        }
    }
    // One for each lifetime of the plain key, none for the other.
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 2);
}
