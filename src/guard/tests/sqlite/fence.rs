use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use palisade_guard::decide::Mark;
use palisade_guard::{Class, GuardError};
use palisade_token::{Grant, HolderId};
use sqlx::sqlite::SqlitePoolOptions;
use tokio::task::JoinSet;

use crate::db::{Db, RAISED, assert_stale, grant, name, run};

#[tokio::test]
async fn a_seal_is_raised_repeated_and_never_lowered() {
    let db = Db::new().await;
    assert_eq!(
        db.guard.fence(&db.pool, &name("orders")).await.unwrap(),
        None
    );
    db.seal(&grant("orders", 10)).await;
    db.seal(&grant("orders", 10)).await;
    db.seal(&grant("orders", 12)).await;
    let error = db
        .guard
        .seal(&db.pool, &grant("orders", 11))
        .await
        .unwrap_err();
    assert_stale(&error, 11, 12);
    let other = Grant {
        holder: HolderId::from_bytes([99; 16]),
        ..grant("orders", 12)
    };
    let error = db.guard.seal(&db.pool, &other).await.unwrap_err();
    assert!(matches!(error, GuardError::Collision { .. }), "{error:?}");
    let fence = db
        .guard
        .fence(&db.pool, &name("orders"))
        .await
        .unwrap()
        .unwrap();
    let mark = Mark {
        token: fence.token,
        holder: fence.holder,
    };
    assert_eq!(mark, Mark::from(&grant("orders", 12)));
    let age = "SELECT strftime('%s', 'now') - sealed_at / 1000000 FROM palisade_fence";
    assert!((0..60).contains(&db.number(age).await));
    // The seal is kept over a loss of power; the connection's own choice is put back.
    for _ in 0..4 {
        assert_eq!(db.number("PRAGMA synchronous").await, 1);
    }
}

#[tokio::test]
async fn nobody_lowers_renames_or_deletes_a_fence() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    db.seal(&grant("bills", 10)).await;
    let other = "ff".repeat(16);
    let mut owner = db.connect().await;
    for recursive in ["OFF", "ON"] {
        run(
            &mut owner,
            &format!("PRAGMA recursive_triggers = {recursive}"),
        )
        .await
        .unwrap();
        for statement in [
            "UPDATE palisade_fence SET token = 9".to_owned(),
            format!("UPDATE palisade_fence SET holder = '{other}'"),
            "UPDATE palisade_fence SET resource = 'x' WHERE resource = 'bills'".to_owned(),
            "UPDATE OR REPLACE palisade_fence SET resource = 'orders' WHERE resource = 'bills'"
                .to_owned(),
            "DELETE FROM palisade_fence".to_owned(),
            format!("INSERT OR REPLACE INTO palisade_fence VALUES ('orders', 9, '{other}', 0)"),
            format!("INSERT OR REPLACE INTO palisade_fence VALUES ('orders', 10, '{other}', 0)"),
            format!("REPLACE INTO palisade_fence VALUES ('orders', 1, '{other}', 0)"),
            format!(
                "INSERT INTO palisade_fence VALUES ('orders', 9, '{other}', 0) ON CONFLICT DO UPDATE SET token = 9"
            ),
        ] {
            assert_eq!(
                run(&mut owner, &statement).await,
                Err(RAISED.to_owned()),
                "{statement}"
            );
        }
        for statement in [
            format!("INSERT INTO palisade_fence VALUES ('n', 0, '{other}', 0)"),
            format!("INSERT INTO palisade_fence VALUES ('n', 9007199254740992, '{other}', 0)"),
            "INSERT INTO palisade_fence VALUES ('n', 1, 'me', 0)".to_owned(),
        ] {
            assert_eq!(
                run(&mut owner, &statement).await,
                Err("275".to_owned()),
                "{statement}"
            );
        }
    }
    assert_eq!(db.number("SELECT sum(token) FROM palisade_fence").await, 20);
}

#[tokio::test]
async fn a_store_that_went_backwards_is_told_from_a_stale_grant() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let restored = "DROP TRIGGER palisade_fence_update; UPDATE palisade_fence SET token = 7";
    run(&mut db.connect().await, restored).await.unwrap();
    let error = db.guard.begin(&db.pool, &sealed).await.unwrap_err();
    assert!(
        matches!(&error, GuardError::StoreWentBackwards { sealed, fence: Some(fence), .. }
            if sealed.get() == 10 && fence.get() == 7),
        "{error:?}"
    );
    assert!(!sealed.is_live());
    assert_eq!(db.number("SELECT token FROM palisade_fence").await, 7);
}

/// The seal waits for the one writer there is, and returns after it.
#[tokio::test]
async fn a_seal_waits_for_the_running_writer() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10)")
        .await
        .unwrap();
    let hasty = SqlitePoolOptions::new()
        .connect_with(db.options.clone().busy_timeout(Duration::from_millis(50)))
        .await
        .unwrap();
    let error = db
        .guard
        .seal(&hasty, &grant("orders", 11))
        .await
        .unwrap_err();
    assert_eq!(error.class(), Class::Retry, "{error:?}");
    tx.commit().await.unwrap();
    db.guard.seal(&hasty, &grant("orders", 11)).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_below_a_seal_commits_after_it_returned() {
    let db = Arc::new(Db::new().await);
    let done = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    let mut kept = Vec::new();
    for token in 1..=15 {
        let sealed = db.seal(&grant("orders", token)).await;
        let below = format!("SELECT count(*) FROM orders WHERE token < {token}");
        kept.push((below.clone(), db.number(&below).await));
        let (db, done, held) = (Arc::clone(&db), Arc::clone(&done), sealed.clone());
        tasks.spawn(async move {
            while !done.load(Ordering::SeqCst) {
                let mut tx = match db.guard.begin(&db.pool, &held).await {
                    Ok(tx) => tx,
                    Err(error) if error.class() == Class::Fatal => return true,
                    Err(error) => panic!("{error:?}"),
                };
                let insert = format!("INSERT INTO orders (token) VALUES ({})", held.grant().token);
                run(&mut tx, &insert).await.unwrap();
                tx.commit().await.unwrap();
            }
            false
        });
        let mut tx = tasks.len();
        while tx > 0 {
            tokio::task::yield_now().await;
            tx -= 1;
        }
    }
    done.store(true, Ordering::SeqCst);
    tasks.join_all().await;
    for (below, count) in kept {
        assert_eq!(db.number(&below).await, count, "{below}");
    }
}

/// A seal by plain SQL at `synchronous = NORMAL` may be lost with the power; the library's repeat of it
/// flushes the log, and with that the seal before: it must be a commit that writes.
#[tokio::test]
async fn a_repeated_seal_writes_again() {
    let db = Db::new().await;
    let held = grant("orders", 10);
    let by_hand = format!(
        "INSERT INTO palisade_fence VALUES ('orders', 10, '{}', 0)",
        held.holder
    );
    run(&mut db.connect().await, &by_hand).await.unwrap();
    let mut watcher = db.connect().await;
    let mut last = 0;
    for _ in 0..4 {
        db.seal(&held).await;
        let version: i64 = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(&mut watcher)
            .await
            .unwrap();
        assert!(version > last, "the seal has written nothing");
        last = version;
    }
    let fence = db.guard.fence(&db.pool, &held.resource).await.unwrap();
    assert_eq!(fence.unwrap().token, held.token);
}

/// A name without a schema means a temporary table first.
#[tokio::test]
async fn temporary_tables_do_not_stand_in_for_the_guards() {
    let db = Db::empty().await;
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(db.options.clone())
        .await
        .unwrap();
    let shadow = "CREATE TEMP TABLE palisade_migration (version); \
                  CREATE TEMP TABLE palisade_fence (resource, token, holder, sealed_at); \
                  CREATE TEMP TABLE palisade_entry (resource, token, holder); \
                  CREATE TEMP TABLE palisade_never (id); \
                  CREATE TEMP TABLE orders (id, token)";
    run(&mut pool.acquire().await.unwrap(), shadow)
        .await
        .unwrap();
    let tables = "CREATE TABLE orders (id INTEGER PRIMARY KEY, token INTEGER)";
    run(&mut db.connect().await, tables).await.unwrap();
    db.guard.install(&pool).await.unwrap();
    db.guard
        .protect(&pool, "orders", &name("orders"))
        .await
        .unwrap();
    let old = db.guard.seal(&pool, &grant("orders", 10)).await.unwrap();
    assert_eq!(
        db.number("SELECT token FROM palisade_fence").await,
        10,
        "sealed where the others look"
    );
    let write = "DELETE FROM orders; INSERT INTO orders VALUES (1, 1)";
    let refused = run(&mut db.connect().await, write).await;
    assert_eq!(refused, Err(RAISED.to_owned()));
    let tx = db.guard.begin(&pool, &old).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM palisade_entry").await, 0);
    db.seal(&grant("orders", 11)).await;
    let error = db.guard.begin(&pool, &old).await.unwrap_err();
    assert_stale(&error, 10, 11);
}
