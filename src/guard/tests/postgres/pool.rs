//! Connections come back to the pool as clean as they were, and nothing of an entry stays on them.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use palisade_guard::GuardError;
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};

use crate::db::{Db, LEVELS, PATIENCE, grant, run, sql, words};

async fn one_connection(db: &Db) -> PgPool {
    PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .connect(&db.url)
        .await
        .unwrap()
}

/// The one connection of the pool is in no transaction, and an unguarded write on it is refused.
async fn assert_clean(pool: &PgPool, after: &str) {
    let mut connection = pool.acquire().await.unwrap();
    // Fails in an aborted transaction, and differs from now() in an open one.
    let same: bool = sqlx::raw_sql("SELECT now() = statement_timestamp()")
        .fetch_one(&mut *connection)
        .await
        .unwrap_or_else(|error| panic!("{after}: {error}"))
        .get(0);
    assert!(same, "{after}: still in a transaction");
    let refused = run(&mut connection, "INSERT INTO orders VALUES (1)").await;
    assert_eq!(refused, Err("ZF003".to_owned()), "{after}");
}

#[tokio::test]
async fn whatever_ends_a_transaction_the_connection_is_clean() {
    let db = Db::with_orders().await;
    let pool = one_connection(&db).await;
    let sealed = db.guard.seal(&pool, &grant("orders", 10)).await.unwrap();
    let begin = || async { db.guard.begin(&pool, &sealed).await.unwrap() };

    begin().await.commit().await.unwrap();
    assert_clean(&pool, "commit").await;
    begin().await.rollback().await.unwrap();
    assert_clean(&pool, "rollback").await;
    drop(begin().await);
    assert_clean(&pool, "drop").await;
    let mut tx = begin().await;
    run(&mut tx, "SELECT 1 / 0").await.unwrap_err();
    drop(tx);
    assert_clean(&pool, "drop after an error").await;
    let mut tx = begin().await;
    run(&mut tx, "SELECT 1 / 0").await.unwrap_err();
    assert!(tx.commit().await.is_err());
    assert_clean(&pool, "commit after an error").await;
    let mut tx = begin().await;
    std::mem::forget(sqlx::Connection::begin(&mut *tx).await.unwrap());
    drop(tx);
    assert_clean(&pool, "a leaked savepoint").await;
    let mut tx = begin().await;
    cut_short(sqlx::query("SELECT pg_sleep(0.01)").execute(&mut *tx)).await;
    drop(tx);
    assert_clean(&pool, "a query cut short").await;
    cut_short(db.guard.begin(&pool, &sealed)).await;
    assert_clean(&pool, "a begin cut short").await;
    cut_short(begin().await.commit()).await;
    assert_clean(&pool, "a commit cut short").await;
    cut_short(begin().await.rollback()).await;
    assert_clean(&pool, "a rollback cut short").await;
    cut_short(db.guard.seal(&pool, &grant("orders", 10))).await;
    assert_clean(&pool, "a seal cut short").await;
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 0);
}

/// Polls a future until it waits for the server, and drops it.
async fn cut_short<F: Future>(future: F) {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        if matches!(future.as_mut().poll(&mut context), Poll::Ready(_)) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_failed_begin_leaves_no_aborted_transaction_behind() {
    let db = Db::with_orders().await;
    let pool = one_connection(&db).await;
    let sealed = db.guard.seal(&pool, &grant("orders", 10)).await.unwrap();
    db.run("ALTER PROCEDURE palisade.open(text) RENAME TO gone")
        .await;
    let error = db.guard.begin(&pool, &sealed).await.unwrap_err();
    assert!(matches!(error, GuardError::Backend(_)), "{error:?}");
    assert_clean(&pool, "a failed begin").await;
    let error = db.guard.seal(&pool, &grant("orders", 9)).await.unwrap_err();
    assert!(matches!(error, GuardError::Stale { .. }), "{error:?}");
    assert_clean(&pool, "a failed seal").await;
}

/// An entry counts in the transaction that made it, whatever becomes of the setting that holds it.
#[tokio::test]
async fn no_entry_counts_in_a_later_transaction() {
    let db = Db::with_orders().await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let enters = [
        format!("SELECT palisade.enter({})", sql(&held)),
        format!("CALL palisade.open({})", words(&held)),
    ];
    let mut connection = db.connect().await;
    let setting: String = sqlx::query_scalar("SELECT 'palisade.e' || palisade.stripe('orders')")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    let keep = format!("SELECT set_config('{setting}', current_setting('{setting}'), false)");
    for (level, enter) in LEVELS
        .into_iter()
        .flat_map(|level| enters.iter().map(move |e| (level, e)))
    {
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        for before in [
            format!("{begin}; {enter}; COMMIT"),
            format!("{begin}; {enter}; ROLLBACK"),
            format!("{begin}; {enter}; COMMIT; BEGIN"),
            format!("{begin}; {enter}; COMMIT AND CHAIN"),
            format!("{begin}; {enter}; ROLLBACK AND CHAIN"),
            format!("{begin}; {enter}; {keep}; COMMIT"),
            format!("{begin}; {enter}; {keep}; COMMIT; BEGIN"),
            format!("{begin}; {enter}; {keep}; COMMIT AND CHAIN"),
            format!("{begin}; {enter}; {keep}; COMMIT | DISCARD ALL | BEGIN"),
            // Without BEGIN each statement is a transaction.
            enter.clone(),
        ] {
            for message in before.split('|') {
                assert_eq!(run(&mut connection, message).await, Ok(()), "{before}");
            }
            let refused = run(&mut connection, "INSERT INTO orders VALUES (1)").await;
            assert_eq!(refused, Err("ZF003".to_owned()), "{before}");
            run(&mut connection, "ROLLBACK").await.unwrap();
            let closed = run(&mut connection, "BEGIN; FETCH palisade_admitted").await;
            assert_eq!(closed, Err("34000".to_owned()), "{before}");
            run(&mut connection, "ROLLBACK").await.unwrap();
        }
        // The copy does not stand in the way of a new entry either.
        let again = format!(
            "{begin}; {enter}; {keep}; COMMIT; {begin}; {enter}; INSERT INTO orders VALUES (1); COMMIT"
        );
        assert_eq!(run(&mut connection, &again).await, Ok(()));
    }
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 6);
}
