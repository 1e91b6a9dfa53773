//! What a commit says is what happened.

use palisade_guard::postgres::{Guard, Isolation, Outcome};
use palisade_guard::{Class, GuardError};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::task::JoinSet;

use crate::db::{Db, LEVELS, assert_stale, grant, run};

const LEVELS_OF_GUARD: [Isolation; 3] = [
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

#[tokio::test]
async fn a_commit_tells_the_transaction_that_it_was() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    for (level, text) in LEVELS_OF_GUARD.into_iter().zip(LEVELS) {
        let guard = db.guard.with_isolation(level);
        let mut tx = guard.begin(&db.pool, &sealed).await.unwrap();
        let shown: String = sqlx::query_scalar("SELECT current_setting('transaction_isolation')")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(shown, text.to_ascii_lowercase());
        sqlx::query("INSERT INTO orders VALUES ($1, $2)")
            .bind(1_i64)
            .bind(10_i64)
            .execute(&mut *tx)
            .await
            .unwrap();
        // Not by asking the guard, which would remember it: the commit is to tell it by itself.
        let id: i64 = sqlx::query_scalar("SELECT pg_current_xact_id()::text::int8")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        let committed = tx.commit().await.unwrap();
        assert_eq!(committed.transaction, Some(id));
        assert_eq!(
            db.guard.outcome(&db.pool, id).await.unwrap(),
            Outcome::Committed
        );
    }
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 3);
}

#[tokio::test]
async fn an_aborted_transaction_is_never_reported_as_committed() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1)").await.unwrap();
    let id = tx.transaction_id().await.unwrap();
    assert_eq!(run(&mut tx, "SELECT 1 / 0").await, Err("22012".to_owned()));
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::RolledBack(Some(_))),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Retry);
    assert_eq!(
        db.guard.outcome(&db.pool, id).await.unwrap(),
        Outcome::Aborted
    );
    // The cause of a failed write is found even if its caller has swallowed it.
    db.seal(&grant("orders", 11)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(
        run(&mut tx, "INSERT INTO orders VALUES (2)").await,
        Err("ZF001".to_owned())
    );
    assert!(sealed.is_live(), "nobody has looked at the error");
    assert_stale(&tx.commit().await.unwrap_err(), 10, 11);
    assert!(!sealed.is_live());
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 0);
}

/// No trigger has looked at it, but the commit does.
#[tokio::test]
async fn a_transaction_without_protected_writes_is_checked_too() {
    let db = Db::with_orders().await;
    db.run("CREATE TABLE free (id int)").await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let clone = sealed.clone();
    db.seal(&grant("orders", 11)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO free VALUES (1)").await.unwrap();
    assert_stale(&tx.commit().await.unwrap_err(), 10, 11);
    assert_eq!(db.number("SELECT count(*) FROM free").await, 0);
    // Every clone refuses, without a word to the store.
    db.pool.close().await;
    assert_stale(&db.guard.begin(&db.pool, &clone).await.unwrap_err(), 10, 11);
}

#[tokio::test]
async fn a_collision_is_found_by_the_commit() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    db.run(
        "BEGIN; ALTER TABLE palisade.fence DISABLE TRIGGER USER; \
         UPDATE palisade.fence SET holder = repeat('ff', 16); \
         ALTER TABLE palisade.fence ENABLE ALWAYS TRIGGER keep_rows, ENABLE ALWAYS TRIGGER keep_all; COMMIT",
    )
    .await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = sqlx::query("DELETE FROM orders")
        .execute(&mut *tx)
        .await
        .unwrap_err();
    assert!(matches!(tx.refusal(error), GuardError::Collision { .. }));
    assert!(!sealed.is_live());
}

#[tokio::test]
async fn what_the_store_refuses_at_commit_is_rolled_back() {
    let db = Db::with_orders().await;
    db.run(
        "ALTER TABLE orders ADD CONSTRAINT one UNIQUE (id) DEFERRABLE INITIALLY DEFERRED; \
         CREATE TABLE other (id int)",
    )
    .await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1), (1)")
        .await
        .unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::RolledBack(Some(_))),
        "{error:?}"
    );
    // A deferred trigger that writes another resource's table.
    db.guard
        .protect(&db.pool, "other", &crate::db::name("other"))
        .await
        .unwrap();
    db.run(
        "CREATE FUNCTION spill() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN INSERT INTO other VALUES (1); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER spill AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION spill()",
    )
    .await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1)").await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(&error, GuardError::Unguarded { resource, .. } if resource == "other"),
        "{error:?}"
    );
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 0);
}

#[tokio::test]
async fn write_skew_is_a_serialization_failure() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let guard = Guard::new().with_isolation(Isolation::Serializable);
    let mut one = guard.begin(&db.pool, &sealed).await.unwrap();
    let mut two = guard.begin(&db.pool, &sealed).await.unwrap();
    for tx in [&mut one, &mut two] {
        run(tx, "INSERT INTO orders SELECT count(*) FROM orders")
            .await
            .unwrap();
    }
    one.commit().await.unwrap();
    let error = two.commit().await.unwrap_err();
    assert!(matches!(error, GuardError::Serialization(_)), "{error:?}");
    assert_eq!(error.class(), Class::Retry);
    assert!(sealed.is_live());
}

/// The session is ended while COMMIT waits in a deferred trigger: after the check, before the answer.
#[tokio::test]
async fn a_lost_answer_may_have_happened() {
    let db = Db::with_orders().await;
    db.run(
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED \
         FOR EACH ROW EXECUTE FUNCTION linger()",
    )
    .await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut gate = db.connect().await;
    run(&mut gate, "SELECT pg_advisory_lock(1)").await.unwrap();
    // The check's reply, which carries the id, comes with the end of the session; a session that is cut
    // off tells nothing, so whoever must know asks before.
    for asked in [true, false] {
        let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
        run(&mut tx, "INSERT INTO orders VALUES (1)").await.unwrap();
        let (pid, id): (i32, i64) =
            sqlx::query_as("SELECT pg_backend_pid(), pg_current_xact_id()::text::bigint")
                .fetch_one(&mut *tx)
                .await
                .unwrap();
        if asked {
            assert_eq!(tx.transaction_id().await.unwrap(), id);
        }
        let mut commit = JoinSet::new();
        commit.spawn(tx.commit());
        db.waiting(1).await;
        let outcome = async || db.guard.outcome(&db.pool, id).await.unwrap();
        assert_eq!(outcome().await, Outcome::InProgress);
        db.run(&format!("SELECT pg_terminate_backend({pid}, 30000)"))
            .await;
        let error = commit.join_next().await.unwrap().unwrap().unwrap_err();
        assert!(
            matches!(error, GuardError::CommitUnknown { transaction: Some(known), .. } if known == id),
            "{error:?}"
        );
        assert_eq!(error.class(), Class::Unknown);
        assert_eq!(outcome().await, Outcome::Aborted);
    }
}

/// A session that has ended says nothing of its own about the commit; the id does.
#[tokio::test]
async fn a_commit_on_a_session_that_was_ended_is_resolved_by_the_id() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let id = tx.transaction_id().await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    db.run(&format!("SELECT pg_terminate_backend({pid}, 30000)"))
        .await;
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::CommitUnknown { transaction: Some(known), .. } if known == id),
        "{error:?}"
    );
    assert_eq!(
        db.guard.outcome(&db.pool, id).await.unwrap(),
        Outcome::Aborted
    );
}

#[tokio::test]
async fn savepoints_work_inside() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    async fn nested(connection: &mut PgConnection, id: i64, keep: bool) {
        let mut inner = connection.begin().await.unwrap();
        let insert = sqlx::query("INSERT INTO orders VALUES ($1)").bind(id);
        insert.execute(&mut *inner).await.unwrap();
        if keep {
            inner.commit().await.unwrap();
        }
    }
    nested(&mut tx, 1, true).await;
    nested(&mut tx, 2, false).await;
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT sum(id)::bigint FROM orders").await, 1);
}

/// Whatever the caller did by hand, Ok means that this transaction has committed.
#[tokio::test]
async fn a_transaction_ended_by_hand_is_reported() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    for by_hand in [
        "ROLLBACK",
        "COMMIT",
        "ROLLBACK; BEGIN",
        "COMMIT AND CHAIN",
        "ROLLBACK AND CHAIN",
        // The entry is of this transaction, but not what was begun.
        "COMMIT; BEGIN; SET LOCAL palisade.e1 = '1 orders '",
    ] {
        let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
        run(&mut tx, by_hand).await.unwrap();
        let refused = run(&mut tx, "SAVEPOINT t; INSERT INTO orders VALUES (1)").await;
        assert!(refused.is_err(), "{by_hand}");
        let back = run(&mut tx, "ROLLBACK TO t").await;
        assert!(
            matches!(back.as_ref().map_err(String::as_str), Ok(()) | Err("25P01")),
            "{back:?}"
        );
        let error = tx.commit().await.unwrap_err();
        assert!(
            matches!(
                error,
                GuardError::Unguarded { .. } | GuardError::RolledBack(_)
            ),
            "{by_hand}: {error:?}"
        );
        assert!(sealed.is_live());
    }
    // Not ended, but the commit cannot know.
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1); CLOSE ALL")
        .await
        .unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(matches!(error, GuardError::Unguarded { .. }), "{error:?}");
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 0);
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'";
    palisade_test_support::eventually(
        "no session is left in a transaction",
        crate::db::PATIENCE,
        async || {
            let count: i64 = sqlx::query_scalar(AssertSqlSafe(open))
                .fetch_one(&db.pool)
                .await
                .unwrap();
            count == 0
        },
    )
    .await
    .unwrap();
}
