//! What a commit says is what happened.

use palisade_guard::mysql::{Guard, Isolation};
use palisade_guard::{Class, GuardError};
use palisade_test_support::{Proxy, eventually};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::{Connection, MySqlPool};
use tokio::task::JoinSet;

use crate::db::{DEADLOCK, Db, PATIENCE, UNGUARDED, assert_stale, grant, run};

#[tokio::test]
async fn a_transaction_has_the_isolation_asked_for_and_a_commit_commits() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    for (id, level, text) in [
        (1, Isolation::ReadCommitted, "READ COMMITTED"),
        (2, Isolation::RepeatableRead, "REPEATABLE READ"),
        (3, Isolation::Serializable, "SERIALIZABLE"),
    ] {
        let guard = db.guard.with_isolation(level);
        let mut tx = guard.begin(&db.pool, &sealed).await.unwrap();
        // innodb_trx is a copy, which is not renewed while it is looked at within 0.1 s.
        run(&mut tx, "DO SLEEP(0.2)").await.unwrap();
        let shown: String = sqlx::query_scalar(
            "SELECT CAST(trx_isolation_level AS CHAR) FROM information_schema.innodb_trx \
             WHERE trx_mysql_thread_id = CONNECTION_ID()",
        )
        .fetch_one(&mut *tx)
        .await
        .unwrap();
        assert_eq!(shown, text);
        sqlx::query("INSERT INTO orders VALUES (?, 10)")
            .bind(id)
            .execute(&mut *tx)
            .await
            .unwrap();
        let mut inner = tx.begin().await.unwrap();
        run(&mut inner, "DELETE FROM orders").await.unwrap();
        inner.rollback().await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM orders").await, 3);
    assert_eq!(db.number("SELECT COUNT(*) FROM palisade_entry").await, 0);
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "DELETE FROM orders").await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    std::mem::forget(tx.begin().await.unwrap());
    assert!(matches!(tx.commit().await, Err(GuardError::Misuse(_))));
    assert_eq!(db.number("SELECT COUNT(*) FROM orders").await, 3);
}

/// Whatever ended the transaction, Ok means committed, and the one connection is usable and bare afterwards.
#[tokio::test]
async fn a_transaction_that_was_ended_is_never_reported_as_committed() {
    let db = Db::new().await;
    let pool = MySqlPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .connect(&db.url)
        .await
        .unwrap();
    let sealed = db.seal(&grant("orders", 10)).await;
    for (by_hand, is_committed) in [
        ("ROLLBACK", false),
        ("COMMIT", true),
        ("COMMIT AND CHAIN", true),
        ("START TRANSACTION", true),
        ("CREATE TABLE IF NOT EXISTS made (id INT)", true),
        ("SET autocommit = 1", true),
        ("ROLLBACK; START TRANSACTION", false),
        ("CALL palisade_leave(); ROLLBACK", false),
    ] {
        for is_written_after in [false, true] {
            let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
            run(
                &mut tx,
                "SET autocommit = 0; INSERT INTO orders VALUES (1, 1)",
            )
            .await
            .unwrap();
            run(&mut tx, by_hand).await.unwrap();
            if is_written_after {
                // A table that nobody protects: ended by hand, it is on its own.
                run(&mut tx, "INSERT INTO plain VALUES (1)").await.unwrap();
            }
            let error = tx.commit().await.unwrap_err();
            if is_committed {
                assert!(
                    matches!(&error, GuardError::Unguarded { resource, .. } if resource == "orders"),
                    "{by_hand}: {error:?}"
                );
            } else {
                assert!(
                    matches!(error, GuardError::RolledBack(None)),
                    "{by_hand}: {error:?}"
                );
            }
            let mut plain = pool.acquire().await.unwrap();
            run(&mut plain, "SET autocommit = 1").await.unwrap();
            let refused = run(&mut plain, "INSERT INTO orders VALUES (9, 9)").await;
            assert_eq!(refused, Err(UNGUARDED), "{by_hand}");
            let open: i64 = sqlx::query_scalar("SELECT CAST(@@in_transaction AS SIGNED)")
                .fetch_one(&mut *plain)
                .await
                .unwrap();
            assert_eq!(open, 0, "{by_hand}");
            drop(plain);
            let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
            run(&mut tx, "DELETE FROM orders; DELETE FROM plain")
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    }
    assert!(sealed.is_live());
    assert_eq!(
        db.number("SELECT COUNT(*) FROM palisade_entry").await,
        0,
        "nothing is left behind"
    );
}

/// The server has rolled back all of the loser, and runs what comes next outside of any transaction.
#[tokio::test]
async fn after_a_deadlock_nothing_is_admitted_and_nothing_reported_as_committed() {
    let db = Db::new().await;
    db.run("INSERT INTO plain VALUES (1), (2)").await;
    db.run("ALTER TABLE plain ADD PRIMARY KEY (id), ADD token INT")
        .await;
    let orders = db.seal(&grant("orders", 10)).await;
    let mut a = db.guard.begin(&db.pool, &orders).await.unwrap();
    let mut b = db.guard.begin(&db.pool, &orders).await.unwrap();
    run(&mut a, "INSERT INTO orders VALUES (1, 1)")
        .await
        .unwrap();
    run(&mut b, "INSERT INTO orders VALUES (2, 2)")
        .await
        .unwrap();
    run(&mut a, "UPDATE plain SET token = 1 WHERE id = 1")
        .await
        .unwrap();
    run(&mut b, "UPDATE plain SET token = 2 WHERE id = 2")
        .await
        .unwrap();
    let (first, second) = tokio::join!(
        run(&mut a, "UPDATE plain SET token = 1 WHERE id = 2"),
        run(&mut b, "UPDATE plain SET token = 2 WHERE id = 1"),
    );
    let (mut loser, winner, won) = match (first, second) {
        (Err(DEADLOCK), Ok(())) => (a, b, 2),
        (Ok(()), Err(DEADLOCK)) => (b, a, 1),
        other => panic!("{other:?}"),
    };
    winner.commit().await.unwrap();
    // The caller has swallowed the error and goes on.
    assert_eq!(
        run(&mut loser, "INSERT INTO orders VALUES (3, 3)").await,
        Err(UNGUARDED)
    );
    let error = loser.commit().await.unwrap_err();
    assert!(matches!(error, GuardError::RolledBack(None)), "{error:?}");
    assert_eq!(error.class(), Class::Retry);
    assert_eq!(
        db.number("SELECT CAST(SUM(token) AS SIGNED) FROM orders")
            .await,
        won
    );
    let error: GuardError = lock_wait(&db, &orders).await;
    assert!(matches!(error, GuardError::Serialization(_)), "{error:?}");
}

/// A lock wait that was too long ends one statement only; the transaction may go on.
async fn lock_wait(db: &Db, sealed: &palisade_guard::mysql::Sealed) -> GuardError {
    let mut holder = db.connect().await;
    run(&mut holder, "START TRANSACTION; UPDATE plain SET token = 0")
        .await
        .unwrap();
    let mut tx = db.guard.begin(&db.pool, sealed).await.unwrap();
    run(&mut tx, "SET innodb_lock_wait_timeout = 1")
        .await
        .unwrap();
    let error = sqlx::query("UPDATE plain SET token = 7")
        .execute(&mut *tx)
        .await
        .unwrap_err();
    let error = tx.refusal(error);
    tx.commit().await.unwrap();
    error
}

/// The server has committed, or not; the caller cannot know. A pool that is tried again finds out.
#[tokio::test]
async fn a_lost_answer_to_commit_is_unknown() {
    let db = Db::new().await;
    let link = Proxy::start(&db.server.host_port()).await.unwrap();
    let url = db.url.replace(&db.server.host_port(), &link.host_port());
    let pool = MySqlPool::connect(&url).await.unwrap();
    let sealed = db.seal(&grant("orders", 10)).await;
    // The message arrives, and its answer does not.
    let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10)")
        .await
        .unwrap();
    link.drop_replies();
    let mut tasks = JoinSet::new();
    tasks.spawn(tx.commit());
    eventually("the commit arrives", PATIENCE, async || {
        db.number("SELECT COUNT(*) FROM orders").await == 1
    })
    .await
    .unwrap();
    link.cut().await.unwrap();
    let error = tasks.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(
        matches!(error, GuardError::CommitUnknown { .. }),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Unknown);
    // The message does not arrive.
    link.heal().await.unwrap();
    let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (2, 10)")
        .await
        .unwrap();
    link.cut().await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::CommitUnknown { .. }),
        "{error:?}"
    );
    eventually("the server notices", PATIENCE, async || {
        Guard::new()
            .seal(&db.pool, &grant("orders", 11))
            .await
            .is_ok()
    })
    .await
    .unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM orders").await, 1);
    assert!(sealed.is_live(), "nothing has been refused yet");
    link.heal().await.unwrap();
    assert_stale(&db.guard.begin(&pool, &sealed).await.unwrap_err(), 10, 11);
}

#[tokio::test]
async fn a_killed_session_commits_nothing() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10)")
        .await
        .unwrap();
    let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    db.run(&format!("KILL {id}")).await;
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(
            error,
            GuardError::CommitUnknown { .. } | GuardError::RolledBack(_)
        ),
        "{error:?}"
    );
    assert_eq!(db.number("SELECT COUNT(*) FROM orders").await, 0);
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
}
