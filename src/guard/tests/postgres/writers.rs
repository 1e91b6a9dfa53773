use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_guard::postgres::{Isolation, Sealed};
use palisade_guard::{Class, GuardError};
use palisade_test_support::eventually;
use tokio::task::JoinSet;

use crate::db::{Db, PATIENCE, grant};

/// I2 from outside: many writers of many tokens at every isolation level, seals among them. What is
/// committed under a seal when it returns is all that there will ever be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_below_a_seal_commits_after_it_returned() {
    const SEALS: u64 = 25;
    let db = Arc::new(Db::with_orders().await);
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let mut kept = Vec::new();
    for token in 1..=SEALS {
        let sealed = db.seal(&grant("orders", token)).await;
        let below = format!("SELECT count(*) FROM orders WHERE token < {token}");
        kept.push((below.clone(), db.number(&below).await));
        for level in [
            Isolation::ReadCommitted,
            Isolation::RepeatableRead,
            Isolation::Serializable,
        ] {
            let (db, done, sealed) = (Arc::clone(&db), Arc::clone(&done), sealed.clone());
            tasks.spawn(async move { write_until_refused(&db, level, &sealed, &done).await });
        }
        // Give the new writers work, and the old ones their end, in the same breath.
        let mine = format!("SELECT count(*) FROM orders WHERE token = {token}");
        eventually("the new holder writes", PATIENCE, async || {
            db.number(&mine).await >= 5
        })
        .await
        .unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let refused: usize = tasks.join_all().await.into_iter().map(usize::from).sum();
    assert!(refused >= 10, "most old writers meet a refusal: {refused}");
    for (below, count) in kept {
        assert_eq!(db.number(&below).await, count, "{below}");
    }
}

async fn write_until_refused(
    db: &Db,
    level: Isolation,
    sealed: &Sealed,
    done: &AtomicBool,
) -> bool {
    let guard = db.guard.with_isolation(level);
    let token = sealed.grant().token.as_i64();
    while !done.load(Ordering::SeqCst) {
        let written = async {
            let mut tx = guard.begin(&db.pool, sealed).await?;
            let insert = sqlx::query("INSERT INTO orders (token) VALUES ($1)").bind(token);
            match insert.execute(&mut *tx).await {
                Ok(_) => {
                    // Long enough that a seal which did not wait would be seen to return in between.
                    sqlx::query("SELECT pg_sleep(0.002)")
                        .execute(&mut *tx)
                        .await?;
                    tx.commit().await.map(drop)
                }
                Err(error) => Err(tx.refusal(error)),
            }
        };
        match written.await {
            Ok(()) => {}
            Err(error @ GuardError::Stale { .. }) => {
                assert!(!sealed.is_live(), "{error}");
                return true;
            }
            Err(error) => assert_eq!(error.class(), Class::Retry, "{error:?}"),
        }
    }
    false
}
