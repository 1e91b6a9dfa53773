//! Traps that others fell into, and what this guard makes of them.

use palisade_guard::postgres::{Isolation, MAX_RESOURCES, SealPolicy};
use palisade_guard::{Blocker, GuardError};
use palisade_test_support::{Postgres, eventually};
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::db::{Db, LEVELS, PATIENCE, grant, name, run, sql};

/// Why there is a lock: each of these reads the fence before the seal, finds it good, and commits after the
/// seal has returned. `check` in their place does not.
#[tokio::test]
async fn a_plain_read_of_the_fence_is_no_check() {
    let db = Db::new().await;
    let (old, new) = (grant("orders", 10), grant("orders", 11));
    let read = "SELECT 1 / (token = 10)::int FROM palisade.fence WHERE resource = 'orders'";
    let check = format!("SELECT palisade.check({})", sql(&old));
    for level in LEVELS {
        // Only a lock that the seal's update of the row does not wait for is as good as none.
        for (guard, holds) in [
            (read.to_owned(), false),
            (format!("{read} FOR KEY SHARE"), false),
            (format!("{read} FOR SHARE"), true),
            (check.clone(), true),
        ] {
            db.run("DROP SCHEMA palisade CASCADE").await;
            db.guard.install(&db.pool).await.unwrap();
            db.seal(&old).await;
            let mut a = db.connect().await;
            run(&mut a, &format!("BEGIN ISOLATION LEVEL {level}; {guard}"))
                .await
                .unwrap();
            let (mut seal, text) = (
                JoinSet::new(),
                format!("SELECT palisade.seal({})", sql(&new)),
            );
            let mut b = db.connect().await;
            seal.spawn(async move { run(&mut b, &text).await });
            if holds {
                db.waiting(1).await;
                assert!(seal.try_join_next().is_none(), "{level}: {guard}");
                run(&mut a, "COMMIT").await.unwrap();
            }
            assert_eq!(seal.join_next().await.unwrap().unwrap(), Ok(()));
            // The seal has returned, and the writer that read before it still commits, unless it is made to wait.
            let late = run(&mut a, "CREATE TABLE late (id int); COMMIT").await;
            assert_eq!(late, Ok(()));
            db.run("DROP TABLE late").await;
        }
    }
}

/// A read in the statement of the seal has the snapshot of before the wait.
#[tokio::test]
async fn a_read_in_the_statement_of_the_seal_reads_the_past() {
    let db = Db::with_orders().await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let mut writer = db.connect().await;
    let write = format!(
        "BEGIN; SELECT palisade.enter({}); INSERT INTO orders VALUES (1, 10)",
        sql(&held)
    );
    run(&mut writer, &write).await.unwrap();
    let (mut seal, pool) = (JoinSet::new(), db.pool.clone());
    let both = format!(
        "SELECT (SELECT count(*) FROM orders) + 0 * palisade.seal({})",
        sql(&grant("orders", 11))
    );
    seal.spawn(async move {
        sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(both))
            .fetch_one(&pool)
            .await
            .unwrap()
    });
    db.waiting(1).await;
    run(&mut writer, "COMMIT").await.unwrap();
    assert_eq!(
        seal.join_next().await.unwrap().unwrap(),
        0,
        "what was read is not what is there"
    );
    assert_eq!(
        db.number("SELECT count(*) FROM orders").await,
        1,
        "so read after it"
    );
}

/// The other way round, as the library does it: the seal is a transaction of its own, and what is read in the next one has
/// all that was written before it, at every isolation level.
#[tokio::test]
async fn what_is_read_after_the_seal_has_all_that_was_written_before_it() {
    let db = Db::with_orders().await;
    for (round, level) in (10..).zip([
        Isolation::ReadCommitted,
        Isolation::RepeatableRead,
        Isolation::Serializable,
    ]) {
        let held = grant("orders", round);
        db.seal(&held).await;
        let mut writer = db.connect().await;
        let write = format!(
            "BEGIN; SELECT palisade.enter({}); INSERT INTO orders VALUES (1, {round})",
            sql(&held)
        );
        run(&mut writer, &write).await.unwrap();
        let (guard, pool) = (db.guard.with_isolation(level), db.pool.clone());
        let mut next = JoinSet::new();
        let reads = next.spawn(async move {
            let sealed = guard
                .seal(&pool, &grant("orders", round + 1))
                .await
                .unwrap();
            let mut tx = guard.begin(&pool, &sealed).await.unwrap();
            let read = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM orders");
            read.fetch_one(&mut *tx).await.unwrap()
        });
        let waits = async || reads.is_finished() || db.waiters().await == 1;
        eventually("the seal waits", PATIENCE, waits).await.unwrap();
        run(&mut writer, "COMMIT").await.unwrap();
        let read = next.join_next().await.unwrap().unwrap();
        assert_eq!(
            read,
            db.number("SELECT count(*) FROM orders").await,
            "{level:?}"
        );
    }
}

/// STABLE functions read with the snapshot of the statement, which is older than the lock.
#[tokio::test]
async fn what_decides_is_volatile() {
    let db = Db::with_orders().await;
    let stable = "SELECT count(*) FROM pg_proc WHERE pronamespace = 'palisade'::regnamespace \
                  AND (proname IN ('enter', 'open', 'check', 'seal', 'keep_fence') \
                      OR prorettype = 'trigger'::regtype) AND provolatile <> 'v'";
    assert_eq!(db.number(stable).await, 0);
}

/// A snapshot from before one's own first seal does not show it: refused, and a new transaction is admitted.
#[tokio::test]
async fn a_snapshot_older_than_the_first_seal_is_unsealed() {
    let db = Db::with_orders().await;
    let held = grant("orders", 10);
    let mut a = db.connect().await;
    for level in &LEVELS[1..] {
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        run(&mut a, &format!("{begin}; SELECT 1 FROM orders"))
            .await
            .unwrap();
        db.seal(&held).await;
        let enter = format!(
            "SELECT palisade.enter({}); INSERT INTO orders VALUES (1)",
            sql(&held)
        );
        assert_eq!(
            run(&mut a, &enter).await,
            Err("ZF002".to_owned()),
            "{level}"
        );
        run(&mut a, "ROLLBACK").await.unwrap();
        assert_eq!(
            run(&mut a, &format!("{begin}; {enter}; COMMIT")).await,
            Ok(()),
            "{level}"
        );
        db.run("DROP SCHEMA palisade CASCADE").await;
        db.guard.install(&db.pool).await.unwrap();
        db.guard
            .protect(&db.pool, "orders", &name("orders"))
            .await
            .unwrap();
    }
}

/// Above READ COMMITTED the check locks the fence's row, which a read-only transaction may not.
#[tokio::test]
async fn a_read_only_transaction_is_checked_at_read_committed_only() {
    let db = Db::new().await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let mut a = db.connect().await;
    for (level, expected) in
        LEVELS
            .into_iter()
            .zip([Ok(()), Err("25006".to_owned()), Err("25006".to_owned())])
    {
        let text = format!(
            "BEGIN ISOLATION LEVEL {level} READ ONLY; SELECT palisade.check({})",
            sql(&held)
        );
        assert_eq!(run(&mut a, &text).await, expected, "{level}");
        run(&mut a, "ROLLBACK").await.unwrap();
    }
}

/// A table for each row's resource, and 30,000 of them: the locks are striped, so the default lock table holds.
#[tokio::test]
async fn thirty_thousand_resources_in_one_transaction() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE rows (id bigint); SELECT palisade.protect('rows', ARRAY['id'], 'r'); \
         SELECT count(palisade.seal('r/' || i, 7, repeat('07', 16))) FROM generate_series(1, 30000) AS i",
    )
    .await;
    let mut a = db.connect().await;
    let all = "BEGIN; SELECT count(palisade.enter(r, 7, repeat('07', 16))) FROM \
               (SELECT 'r/' || i AS r FROM generate_series(1, 30000) AS i ORDER BY palisade.stripe('r/' || i)) AS x; \
               INSERT INTO rows SELECT i FROM generate_series(1, 30000) AS i; \
               SELECT count(palisade.check('r/' || i, 7, repeat('07', 16), true)) FROM generate_series(1, 30000) AS i; \
               COMMIT";
    assert_eq!(run(&mut a, all).await, Ok(()));
    assert_eq!(db.number("SELECT count(*) FROM rows").await, 30_000);
    // The library's BEGIN message is bounded, and says by what.
    let one = db.seal(&grant("r/1", 7)).await;
    let many = vec![&one; MAX_RESOURCES + 1];
    let error = db.guard.begin_all(&db.pool, &many).await.unwrap_err();
    assert!(
        matches!(error, GuardError::Misuse(text) if text.contains("MAX_RESOURCES")),
        "{error:?}"
    );
}

/// It keeps its lock without a session, over a crash, until it is resolved: the policy resolves it by its gid.
#[tokio::test]
async fn a_prepared_writer_keeps_its_lock_over_a_crash() {
    let mut server = Postgres::builder()
        .fsync(false)
        .setting("max_prepared_transactions", "5")
        .start()
        .await
        .unwrap();
    let url = server.create_database("store").await.unwrap();
    let guard = palisade_guard::postgres::Guard::new();
    let pool = PgPool::connect(&url).await.unwrap();
    guard.install(&pool).await.unwrap();
    let held = grant("orders", 10);
    guard.seal(&pool, &held).await.unwrap();
    let table = "CREATE TABLE orders (id int); SELECT palisade.protect('orders', 'orders')";
    server.psql("store", table).await.unwrap();
    let prepare = format!(
        "BEGIN; SELECT palisade.enter({}); INSERT INTO orders VALUES (1); PREPARE TRANSACTION 'left'",
        sql(&held)
    );
    server.psql("store", &prepare).await.unwrap();
    server.kill().unwrap();
    server.start_again().await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    let short = std::time::Duration::from_millis(100);
    let seal = async |policy| {
        guard
            .with_seal_policy(policy)
            .seal(&pool, &grant("orders", 11))
            .await
    };
    let error = seal(SealPolicy::Timeout(short)).await.unwrap_err();
    let left = [Blocker::Prepared {
        gid: "left".to_owned(),
    }];
    assert!(
        matches!(&error, GuardError::SealTimeout { blockers, .. } if *blockers == left),
        "{error:?}"
    );
    seal(SealPolicy::Terminate { after: short }).await.unwrap();
    let written = server
        .psql("store", "SELECT count(*) FROM orders, pg_prepared_xacts")
        .await;
    assert_eq!(written.unwrap().trim(), "0");
}

/// Stale writers are stopped, hostile ones are not: what a writer's role can still do, so that nobody relies
/// on the contrary.
#[tokio::test]
async fn a_hostile_writer_is_not_stopped() {
    let db = Db::with_orders().await;
    let role = format!("hostile_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    db.run(&format!(
        "CREATE ROLE {role}; SELECT palisade.grant_writer('{role}'); GRANT ALL ON orders TO {role}"
    ))
    .await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let mut writer = db.connect().await;
    run(&mut writer, &format!("SET ROLE {role}")).await.unwrap();
    let highest = grant("bills", 9_007_199_254_740_991);
    for hostile in [
        // An entry that enter never made.
        "BEGIN; SELECT set_config('palisade.e' || palisade.stripe('orders'), \
         pg_current_xact_id()::text || ' orders 99 ' || repeat('0', 32), true); \
         INSERT INTO orders VALUES (1, 99); COMMIT"
            .to_owned(),
        // Somebody else's grant.
        format!(
            "BEGIN; SELECT palisade.enter({}); INSERT INTO orders VALUES (1, 10); COMMIT",
            sql(&held)
        ),
        // No later grant of this resource can be sealed.
        format!("SELECT palisade.seal({})", sql(&highest)),
        // Nobody can seal while it lasts.
        format!("BEGIN; SELECT palisade.enter({}); ROLLBACK", sql(&held)),
    ] {
        assert_eq!(run(&mut writer, &hostile).await, Ok(()), "{hostile}");
    }
    // But not this.
    for (act, expected) in [
        ("SELECT palisade.protect('orders', 'orders')", "42501"),
        ("SELECT palisade.protect('orders', ARRAY['id'])", "42501"),
        ("SELECT palisade.make_row_function(ARRAY['id'])", "42501"),
        ("SELECT palisade.make_whole_function('bills')", "42501"),
        ("SELECT palisade.watch_partitions()", "42501"),
        ("SELECT palisade.audit()", "42501"),
        ("SELECT palisade.grant_owner('postgres')", "42501"),
        (
            "SELECT palisade.put_guard('orders', ARRAY['other'], true)",
            "42710",
        ),
        ("TRUNCATE palisade.fence", "42501"),
        ("DROP TABLE orders", "42501"),
        ("ALTER EVENT TRIGGER palisade_partitions DISABLE", "42501"),
        ("SET session_replication_role = replica", "42501"),
        ("CREATE TABLE palisade.guards (id int)", "42501"),
    ] {
        assert_eq!(
            run(&mut writer, act).await,
            Err(expected.to_owned()),
            "{act}"
        );
    }
    db.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}
