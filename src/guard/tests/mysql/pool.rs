//! Session variables outlive a transaction, and connections their users: nothing of the guard may count then.

use palisade_guard::GuardError;
use palisade_guard::mysql::Sealed;
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;

use crate::db::{Db, PATIENCE, UNGUARDED, assert_stale, grant, run};

async fn pool_of_one(db: &Db) -> MySqlPool {
    MySqlPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .connect(&db.url)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_pooled_connection_carries_nothing_over() {
    let db = Db::new().await;
    let pool = pool_of_one(&db).await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let dead: Sealed = db.seal(&grant("bills", 10)).await;
    db.seal(&grant("bills", 11)).await;
    let bare = async |after: &str| {
        let mut plain = pool.acquire().await.unwrap();
        for begin in ["", "START TRANSACTION; "] {
            let sql = format!("{begin}INSERT INTO orders VALUES (9, 9)");
            assert_eq!(run(&mut plain, &sql).await, Err(UNGUARDED), "{after}");
            run(&mut plain, "ROLLBACK").await.unwrap();
        }
    };
    let begin = async || db.guard.begin(&pool, &sealed).await.unwrap();
    let mut tx = begin().await;
    run(&mut tx, "INSERT INTO orders VALUES (1, 1)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    bare("a commit").await;
    let mut tx = begin().await;
    run(&mut tx, "INSERT INTO orders VALUES (2, 2)")
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    bare("a rollback").await;
    let mut tx = begin().await;
    run(&mut tx, "INSERT INTO orders VALUES (3, 3)")
        .await
        .unwrap();
    drop(tx);
    bare("a drop").await;
    let mut tx = begin().await;
    assert_eq!(
        run(&mut tx, "INSERT INTO orders VALUES (1, 1)").await,
        Err(1062)
    );
    drop(tx);
    bare("an error").await;
    let error = db
        .guard
        .begin_all(&pool, &[&sealed, &dead])
        .await
        .unwrap_err();
    assert_stale(&error, 10, 11);
    assert!(sealed.is_live() && !dead.is_live());
    bare("a refusal").await;
    let error = db.guard.seal(&pool, &grant("orders", 9)).await.unwrap_err();
    assert_stale(&error, 9, 10);
    bare("a refused seal").await;
    assert_eq!(db.number("SELECT COUNT(*) FROM orders").await, 1);
    assert_eq!(db.number("SELECT COUNT(*) FROM palisade_entry").await, 0);
}

/// Every clone in the process refuses, without a word to the store.
#[tokio::test]
async fn a_stale_grant_is_refused_in_every_clone() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let clone = sealed.clone();
    // One that has begun before is killed by a clone's refusal too, if there could be one.
    db.seal(&grant("orders", 11)).await;
    assert_stale(
        &db.guard.begin(&db.pool, &sealed).await.unwrap_err(),
        10,
        11,
    );
    assert!(!clone.is_live());
    db.pool.close().await;
    assert_stale(&db.guard.begin(&db.pool, &clone).await.unwrap_err(), 10, 11);
}

/// A fence that is gone or lower than what was sealed: the data came back from a backup.
#[tokio::test]
async fn a_store_that_went_backwards_is_told() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let twin = db.seal(&grant("orders", 10)).await;
    db.run(
        "SET SESSION foreign_key_checks = 0; TRUNCATE palisade_fence; SET SESSION foreign_key_checks = 1",
    )
    .await;
    let error = db.guard.begin(&db.pool, &sealed).await.unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { fence: None, .. }),
        "{error:?}"
    );
    db.seal(&grant("orders", 9)).await;
    let error = db.guard.begin(&db.pool, &twin).await.unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { fence: Some(f), .. } if f.get() == 9),
        "{error:?}"
    );
    let again = db.guard.begin(&db.pool, &twin).await.unwrap_err();
    assert!(
        matches!(again, GuardError::StoreWentBackwards { .. }),
        "dead for good"
    );
}
