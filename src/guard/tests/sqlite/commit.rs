use std::time::Duration;

use futures::poll;
use palisade_guard::GuardError;
use sqlx::Connection;
use sqlx::sqlite::SqlitePoolOptions;

use crate::db::{BUSY, Db, RAISED, assert_stale, enter, grant, run};

#[tokio::test]
async fn a_stale_grant_is_refused_in_every_clone() {
    let db = Db::new().await;
    let old = db.seal(&grant("orders", 10)).await;
    let clone = old.clone();
    db.guard
        .begin(&db.pool, &old)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    db.seal(&grant("orders", 11)).await;
    assert_stale(&db.guard.begin(&db.pool, &old).await.unwrap_err(), 10, 11);
    assert!(!clone.is_live());
    db.pool.close().await;
    assert_stale(&db.guard.begin(&db.pool, &clone).await.unwrap_err(), 10, 11);
}

/// Whatever ended the transaction, Ok means committed, and the one connection is usable afterwards.
#[tokio::test]
async fn a_commit_tells_the_truth_and_the_connection_is_clean() {
    let db = Db::new().await;
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(db.options.clone())
        .await
        .unwrap();
    let sealed = db.seal(&grant("orders", 10)).await;
    let clean = async |after: &str| {
        let mut tx = db
            .guard
            .begin(&pool, &sealed)
            .await
            .unwrap_or_else(|error| panic!("{after}: {error:?}"));
        run(
            &mut tx,
            "INSERT INTO orders (token) VALUES (0); DELETE FROM orders WHERE token = 0",
        )
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let mut plain = pool.acquire().await.unwrap();
        let refused = run(&mut plain, "INSERT INTO orders VALUES (1, 1)").await;
        assert_eq!(refused, Err(RAISED.to_owned()), "{after}");
        // In a transaction that was left open there would be nothing to begin.
        assert_eq!(run(&mut plain, "BEGIN; ROLLBACK").await, Ok(()), "{after}");
    };
    for (by_hand, expected) in [
        ("ROLLBACK", Ok(())),
        ("COMMIT", Err("787".to_owned())),
        ("DELETE FROM palisade_entry", Ok(())),
        (
            "INSERT OR ROLLBACK INTO orders VALUES (1, 1), (1, 2)",
            Err("1555".to_owned()),
        ),
    ] {
        let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
        run(&mut tx, "INSERT INTO orders (token) VALUES (7)")
            .await
            .unwrap();
        assert_eq!(run(&mut tx, by_hand).await, expected, "{by_hand}");
        let result = tx.commit().await;
        match by_hand {
            // Refused by the entry's foreign key: the transaction is still whole.
            "COMMIT" => drop(result.unwrap()),
            _ => assert!(
                matches!(result, Err(GuardError::RolledBack(None))),
                "{by_hand}: {result:?}"
            ),
        }
        clean(by_hand).await;
        let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
        run(&mut tx, "DELETE FROM orders").await.unwrap();
        assert_eq!(
            run(&mut tx, by_hand).await.is_ok(),
            expected.is_ok(),
            "{by_hand}"
        );
        drop(tx);
        clean(by_hand).await;
    }
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 1);
    drop(db.guard.begin(&pool, &sealed).await.unwrap());
    clean("drop").await;
    let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
    let mut inner = tx.begin().await.unwrap();
    run(&mut inner, "DELETE FROM orders").await.unwrap();
    drop(inner);
    tx.commit().await.unwrap();
    assert_eq!(
        db.number("SELECT count(*) FROM orders").await,
        1,
        "the savepoint was rolled back"
    );
    let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
    std::mem::forget(tx.begin().await.unwrap());
    assert!(matches!(tx.commit().await, Err(GuardError::Misuse(_))));
    clean("a leaked savepoint").await;
}

#[tokio::test]
async fn a_lock_that_is_not_given_is_an_error_to_retry() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut other = db.connect().await;
    run(&mut other, "BEGIN IMMEDIATE").await.unwrap();
    let hasty = SqlitePoolOptions::new()
        .connect_with(db.options.clone().busy_timeout(Duration::from_millis(50)))
        .await
        .unwrap();
    let error = db.guard.begin(&hasty, &sealed).await.unwrap_err();
    assert!(matches!(error, GuardError::Serialization(_)), "{error:?}");
    let mut plain = hasty.acquire().await.unwrap();
    assert_eq!(
        run(&mut plain, "BEGIN IMMEDIATE").await,
        Err(BUSY.to_owned())
    );
}

/// Without foreign keys an entry outlives a COMMIT by hand: it counts for as much as the fence says.
#[tokio::test]
async fn a_commit_by_hand_is_found_without_foreign_keys_too() {
    let db = Db::new().await;
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(db.options.clone().foreign_keys(false))
        .await
        .unwrap();
    let plain = "CREATE TABLE unprotected (id INTEGER)";
    run(&mut db.connect().await, plain).await.unwrap();
    let forged = enter(&grant("bills", 3));
    for meanwhile in ["another seal", "another entry"] {
        let token = if meanwhile == "another seal" { 10 } else { 20 };
        let old = db.seal(&grant("orders", token)).await;
        let mut tx = db.guard.begin(&pool, &old).await.unwrap();
        run(&mut tx, "COMMIT").await.unwrap();
        if meanwhile == "another seal" {
            db.seal(&grant("orders", 11)).await;
        } else {
            db.seal(&grant("bills", 3)).await;
            let swap = format!("PRAGMA foreign_keys = OFF; DELETE FROM palisade_entry; {forged}");
            run(&mut db.connect().await, &swap).await.unwrap();
        }
        run(&mut tx, "BEGIN; INSERT INTO unprotected VALUES (1)")
            .await
            .unwrap();
        let error = tx.commit().await.unwrap_err();
        assert!(
            matches!(error, GuardError::RolledBack(None)),
            "{meanwhile}: {error:?}"
        );
        assert_eq!(db.number("SELECT count(*) FROM unprotected").await, 0);
    }
}

/// Whenever somebody stops waiting for it, a commit has happened or not, and the connection is in no transaction,
/// nor does sqlx count one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_given_up_leaves_a_connection_to_the_next() {
    let db = Db::new().await;
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(db.options.clone())
        .await
        .unwrap();
    let sealed = db.seal(&grant("orders", 10)).await;
    for patience in 0..100 {
        let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
        let two = "INSERT INTO orders (token) VALUES (1); INSERT INTO orders (token) VALUES (2)";
        run(&mut tx, two).await.unwrap();
        let mut commit = Box::pin(tx.commit());
        for _ in 0..patience * 50 {
            if poll!(commit.as_mut()).is_ready() {
                break;
            }
        }
        drop(commit);
        let plain = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        plain.rollback().await.unwrap();
        assert_eq!(db.number("SELECT count(*) % 2 FROM orders").await, 0);
    }
}
