//! A stale writer against a new leader, at every isolation level of the server.

use palisade_guard::mysql::Isolation;
use tokio::task::JoinSet;

use crate::db::{Db, LEVELS, STALE, UNGUARDED, assert_stale, call, grant, name, run};

/// The trap that the check has to avoid: above READ COMMITTED a plain read sees the snapshot.
#[tokio::test]
async fn a_snapshot_read_would_pass_what_the_locking_read_refuses() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    for (token, level) in (10..).zip(LEVELS) {
        let mut old = db.connect().await;
        let begin = format!(
            "SET TRANSACTION ISOLATION LEVEL {level}; START TRANSACTION; SELECT id FROM plain"
        );
        run(&mut old, &begin).await.unwrap();
        db.seal(&grant("orders", token + 1)).await;
        let seen: i64 = sqlx::query_scalar("SELECT token FROM palisade_fence")
            .fetch_one(&mut old)
            .await
            .unwrap();
        let is_old = seen == i64::try_from(token).unwrap();
        assert_eq!(is_old, level == "REPEATABLE READ", "{level}");
        let entered = run(&mut old, &call("enter", &grant("orders", token))).await;
        assert_eq!(entered, Err(STALE), "{level}");
        let written = run(&mut old, "INSERT INTO orders VALUES (1, 1)").await;
        assert_eq!(written, Err(UNGUARDED), "{level}");
    }
}

/// What is admitted commits before the seal returns; what comes later is stale. Nothing is in between.
#[tokio::test]
async fn a_seal_waits_for_what_was_admitted_and_new_writers_wait_behind_it() {
    let db = Db::new().await;
    for (token, level) in [
        (10, Isolation::ReadCommitted),
        (11, Isolation::RepeatableRead),
        (12, Isolation::Serializable),
    ] {
        let guard = db.guard.with_isolation(level);
        let old = db.seal(&grant("orders", token)).await;
        let mut running = guard.begin(&db.pool, &old).await.unwrap();
        let mut tasks = JoinSet::new();
        let (pool, next) = (db.pool.clone(), grant("orders", token + 1));
        tasks.spawn(async move {
            let sealed = guard.seal(&pool, &next).await.unwrap();
            // The first read of the new holder, in a snapshot of its own.
            let mut tx = guard.begin(&pool, &sealed).await.unwrap();
            let sum: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM orders")
                .fetch_one(&mut *tx)
                .await
                .unwrap();
            tx.commit().await.unwrap();
            sum
        });
        db.waiting(1).await;
        // Behind the seal, though its lock is compatible with the running one: no stream of writers
        // can starve a seal.
        let mut behind = JoinSet::new();
        let (pool, clone) = (db.pool.clone(), old.clone());
        behind.spawn(async move { guard.begin(&pool, &clone).await });
        db.waiting(2).await;
        // A rollback to a savepoint gives no lock back.
        run(&mut running, "SAVEPOINT s").await.unwrap();
        let row = format!("INSERT INTO orders VALUES ({token}, {token})");
        run(&mut running, &row).await.unwrap();
        run(&mut running, "ROLLBACK TO s").await.unwrap();
        db.waiting(2).await;
        run(&mut running, &row).await.unwrap();
        running.commit().await.unwrap();
        let seen = tasks.join_next().await.unwrap().unwrap();
        assert_eq!(seen, i64::try_from(token).unwrap() - 9, "{level:?}");
        let refused = behind.join_next().await.unwrap().unwrap().unwrap_err();
        assert_stale(&refused, token, token + 1);
    }
}

/// Entered, but not written yet, is admitted too: the lock is what counts.
#[tokio::test]
async fn a_seal_waits_for_a_writer_of_another_language() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    for level in LEVELS {
        let fence = db.guard.fence(&db.pool, &name("orders")).await.unwrap();
        let token = fence.unwrap().token.get();
        let mut old = db.connect().await;
        let enter = call("enter", &grant("orders", token));
        let begin = format!("SET TRANSACTION ISOLATION LEVEL {level}; START TRANSACTION; {enter}");
        run(&mut old, &begin).await.unwrap();
        let mut tasks = JoinSet::new();
        let (guard, pool) = (db.guard, db.pool.clone());
        tasks.spawn(async move { guard.seal(&pool, &grant("orders", token + 1)).await });
        db.waiting(1).await;
        let row = format!("INSERT INTO orders VALUES ({token}, {token})");
        run(&mut old, &row).await.unwrap();
        run(&mut old, "CALL palisade_leave(); COMMIT")
            .await
            .unwrap();
        tasks.join_next().await.unwrap().unwrap().unwrap();
        let late = run(&mut old, &format!("START TRANSACTION; {enter}")).await;
        assert_eq!(late, Err(STALE), "{level}");
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM orders").await, 4);
}

/// Of many seals at once each token has one winner, the first seal of a resource included.
#[tokio::test]
async fn first_seals_at_once_do_not_deadlock() {
    let db = Db::new().await;
    for resource in ["a", "b", "c"] {
        let mut tasks = JoinSet::new();
        for token in 1..=12 {
            let (guard, pool) = (db.guard, db.pool.clone());
            tasks.spawn(async move { guard.seal(&pool, &grant(resource, token)).await.map(drop) });
        }
        for result in tasks.join_all().await {
            if let Err(error) = result {
                assert!(
                    matches!(error, palisade_guard::GuardError::Stale { .. }),
                    "{error:?}"
                );
            }
        }
        let fence = db.guard.fence(&db.pool, &name(resource)).await.unwrap();
        assert_eq!(fence.unwrap().token.get(), 12);
    }
}

/// `GET_LOCK` outlives a transaction on a pooled connection, and is exclusive: nothing here rests on it.
#[tokio::test]
async fn get_lock_is_the_trap_that_it_is_said_to_be_and_is_not_used() {
    let db = Db::new().await;
    let mut session = db.connect().await;
    run(
        &mut session,
        "START TRANSACTION; SELECT GET_LOCK('orders', 0); COMMIT",
    )
    .await
    .unwrap();
    assert_eq!(
        db.number("SELECT CAST(IS_FREE_LOCK('orders') AS SIGNED)")
            .await,
        0
    );
    let routines = "SELECT COUNT(*) FROM information_schema.routines \
                    WHERE routine_schema = DATABASE() AND routine_definition LIKE '%GET_LOCK%'";
    assert_eq!(db.number(routines).await, 0);
    let sealed = db.seal(&grant("orders", 10)).await;
    let tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    tx.commit().await.unwrap();
}
