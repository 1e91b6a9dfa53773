//! The SQLite guard on real files, by several connections.
#![cfg(feature = "sqlite")]
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; a table of cases is read as one"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use palisade_guard::decide::Mark;
use palisade_guard::sqlite::{Guard, Sealed};
use palisade_guard::{Class, GuardError};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, SqlitePool};
use tempfile::TempDir;
use tokio::task::JoinSet;

const RAISED: &str = "1811";
const BUSY: &str = "5";

/// A database file with tables `orders` and `bills`, each protected for its own name.
struct Db {
    guard: Guard,
    pool: SqlitePool,
    options: SqliteConnectOptions,
    _directory: TempDir,
}

impl Db {
    async fn empty() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("data.sqlite"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(30));
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.clone())
            .await
            .unwrap();
        Self {
            guard: Guard::new(),
            pool,
            options,
            _directory: directory,
        }
    }

    async fn new() -> Self {
        let db = Self::empty().await;
        db.guard.install(&db.pool).await.unwrap();
        let tables = "CREATE TABLE orders (id INTEGER PRIMARY KEY, token INTEGER); \
                      CREATE TABLE bills (id INTEGER)";
        run(&mut db.connect().await, tables).await.unwrap();
        for table in ["orders", "bills"] {
            db.guard
                .protect(&db.pool, table, &name(table))
                .await
                .unwrap();
        }
        db
    }

    async fn connect(&self) -> SqliteConnection {
        self.options.connect().await.unwrap()
    }

    async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn seal(&self, grant: &Grant) -> Sealed {
        self.guard.seal(&self.pool, grant).await.unwrap()
    }
}

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

fn grant(resource: &str, token: u64) -> Grant {
    Grant {
        resource: name(resource),
        token: FencingToken::new(token).unwrap(),
        holder: HolderId::from_bytes([u8::try_from(token % 251).unwrap(); 16]),
    }
}

fn enter(grant: &Grant) -> String {
    format!(
        "INSERT INTO palisade_entry (resource, token, holder) VALUES ('{}', {}, '{}')",
        grant.resource, grant.token, grant.holder
    )
}

/// Runs SQL; the extended result code if it fails.
async fn run(connection: &mut SqliteConnection, sql: &str) -> Result<(), String> {
    let result = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    result.map(drop).map_err(|error| {
        let server = error
            .as_database_error()
            .unwrap_or_else(|| panic!("{sql}: {error}"));
        server.code().unwrap().into_owned()
    })
}

#[track_caller]
fn assert_stale(error: &GuardError, presented: u64, at: u64) {
    assert!(
        matches!(error, GuardError::Stale { presented: p, fence, .. }
            if p.get() == presented && fence.get() == at),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Fatal);
}

#[tokio::test]
async fn installers_may_run_at_once_and_again() {
    let db = Db::empty().await;
    let (a, b) = tokio::join!(db.guard.install(&db.pool), db.guard.install(&db.pool));
    for result in [a, b, db.guard.install(&db.pool).await] {
        result.unwrap();
    }
    run(
        &mut db.connect().await,
        "INSERT INTO palisade_migration (version) VALUES (99)",
    )
    .await
    .unwrap();
    let error = db.guard.install(&db.pool).await.unwrap_err();
    assert!(
        matches!(error, GuardError::Newer { found: 99, .. }),
        "{error:?}"
    );
}

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
async fn every_kind_of_statement_needs_an_entry() {
    let db = Db::new().await;
    let held = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &held).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10), (2, 10)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let mut plain = db.connect().await;
    run(
        &mut plain,
        "CREATE TABLE customers (id INTEGER PRIMARY KEY); INSERT INTO customers VALUES (1); \
         CREATE TABLE child (customer INTEGER REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE); \
         INSERT INTO child VALUES (1); \
         CREATE TABLE inbox (id INTEGER); \
         CREATE TRIGGER forward AFTER INSERT ON inbox BEGIN INSERT INTO orders VALUES (NEW.id, 0); END",
    )
    .await
    .unwrap();
    db.guard
        .protect(&db.pool, "child", &name("orders"))
        .await
        .unwrap();
    for statement in [
        "INSERT INTO orders VALUES (3, 0)",
        "INSERT OR REPLACE INTO orders VALUES (1, 0)",
        "REPLACE INTO orders VALUES (1, 0)",
        "INSERT OR IGNORE INTO orders VALUES (3, 0)",
        "INSERT OR FAIL INTO orders VALUES (3, 0)",
        "INSERT INTO orders VALUES (1, 0) ON CONFLICT (id) DO UPDATE SET token = 0",
        "INSERT INTO orders SELECT id + 10, 0 FROM orders",
        "UPDATE orders SET token = 0",
        "UPDATE OR REPLACE orders SET id = 2 WHERE id = 1",
        "UPDATE OR IGNORE orders SET token = 0",
        "DELETE FROM orders",
        "DELETE FROM orders WHERE id = 1",
        "DELETE FROM ORDERS",
        "DELETE FROM customers",
        "UPDATE customers SET id = 2",
        "INSERT INTO inbox VALUES (3)",
    ] {
        for recursive in ["OFF", "ON"] {
            run(
                &mut plain,
                &format!("PRAGMA recursive_triggers = {recursive}"),
            )
            .await
            .unwrap();
            assert_eq!(
                run(&mut plain, statement).await,
                Err(RAISED.to_owned()),
                "{statement}"
            );
        }
        let mut tx = db.guard.begin(&db.pool, &held).await.unwrap();
        assert_eq!(run(&mut tx, statement).await, Ok(()), "{statement}");
        tx.rollback().await;
    }
    let error = sqlx::query("DELETE FROM orders")
        .execute(&mut plain)
        .await
        .unwrap_err();
    let error = GuardError::from(error);
    assert!(
        matches!(&error, GuardError::Unguarded { resource, .. } if resource == "orders"),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Bug);
    // A temporary table cannot stand in for the guard's.
    let shadow = format!(
        "CREATE TEMP TABLE palisade_entry (resource, token, holder); {}",
        enter(held.grant())
    );
    run(&mut plain, &shadow).await.unwrap();
    assert_eq!(
        run(&mut plain, "DELETE FROM orders").await,
        Err(RAISED.to_owned())
    );
    assert_eq!(db.number("SELECT sum(token) FROM orders").await, 20);
}

#[tokio::test]
async fn each_table_asks_for_its_own_resource() {
    let db = Db::new().await;
    let orders = db.seal(&grant("orders", 10)).await;
    let bills = db.seal(&grant("bills", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &orders).await.unwrap();
    let error = sqlx::query("INSERT INTO bills VALUES (1)")
        .execute(&mut *tx)
        .await
        .unwrap_err();
    assert!(matches!(tx.refusal(error), GuardError::Unguarded { .. }));
    tx.commit().await.unwrap();
    let mut tx = db
        .guard
        .begin_all(&db.pool, &[&orders, &bills])
        .await
        .unwrap();
    assert_eq!(tx.grants().count(), 2);
    run(
        &mut tx,
        "INSERT INTO bills VALUES (1); INSERT INTO orders VALUES (1, 1)",
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    for wrong in [vec![], vec![&orders, &orders]] {
        let error = db.guard.begin_all(&db.pool, &wrong).await.unwrap_err();
        assert!(matches!(error, GuardError::Misuse(_)), "{error:?}");
    }
    for (table, resource) in [
        ("orders", "bills"),
        ("none", "orders"),
        ("palisade_fence", "orders"),
    ] {
        let error = db
            .guard
            .protect(&db.pool, table, &name(resource))
            .await
            .unwrap_err();
        assert!(matches!(error, GuardError::Misuse(_)), "{table}: {error:?}");
    }
    db.guard
        .protect(&db.pool, "orders", &name("orders"))
        .await
        .unwrap();
    db.guard
        .protect(&db.pool, "Orders", &name("orders"))
        .await
        .unwrap();
    db.guard.unprotect(&db.pool, "ORDERS").await.unwrap();
    run(&mut db.connect().await, "DELETE FROM orders")
        .await
        .unwrap();
}

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

/// Plain SQL, and a transaction whose snapshot is older than the seal.
#[tokio::test]
async fn writers_without_the_library_meet_the_same_guard() {
    let db = Db::new().await;
    let (old, new) = (grant("orders", 10), grant("orders", 11));
    db.seal(&old).await;
    let (mut a, mut b) = (db.connect().await, db.connect().await);
    let write = format!(
        "BEGIN IMMEDIATE; {}; INSERT INTO orders (token) VALUES (10); DELETE FROM palisade_entry; COMMIT",
        enter(&old)
    );
    assert_eq!(run(&mut a, &write).await, Ok(()));
    run(&mut a, "BEGIN; SELECT * FROM orders").await.unwrap();
    db.seal(&new).await;
    let write_late = format!("{}; INSERT INTO orders (token) VALUES (10)", enter(&old));
    let late = run(&mut a, &write_late).await;
    assert!(
        late == Err("517".to_owned()),
        "SQLITE_BUSY_SNAPSHOT: {late:?}"
    );
    run(&mut a, "ROLLBACK").await.unwrap();
    assert_eq!(run(&mut b, &write).await, Err(RAISED.to_owned()));
    run(&mut b, "ROLLBACK").await.unwrap();
    for wrong in [
        grant("orders", 12),
        Grant {
            holder: old.holder,
            ..new
        },
    ] {
        let write = format!("BEGIN IMMEDIATE; {}; DELETE FROM orders", enter(&wrong));
        assert_eq!(run(&mut b, &write).await, Err(RAISED.to_owned()));
        run(&mut b, "ROLLBACK").await.unwrap();
    }
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 1);
}

#[tokio::test]
async fn a_forgotten_entry_fails_the_commit_or_ends_with_the_next_seal() {
    let db = Db::new().await;
    let held = grant("orders", 10);
    let sealed = db.seal(&held).await;
    let mut careless = db.connect().await;
    let forgotten = format!("BEGIN IMMEDIATE; {}; COMMIT", enter(&held));
    assert_eq!(run(&mut careless, &forgotten).await, Err("787".to_owned()));
    run(&mut careless, "ROLLBACK; PRAGMA foreign_keys = OFF")
        .await
        .unwrap();
    // Not even then does it last: the next guarded transaction clears it, and a seal makes it void.
    assert_eq!(run(&mut careless, &forgotten).await, Ok(()));
    db.guard
        .begin(&db.pool, &sealed)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    assert_eq!(
        run(
            &mut careless,
            "DELETE FROM orders; INSERT INTO orders VALUES (1, 1)"
        )
        .await,
        Err(RAISED.to_owned())
    );
    assert_eq!(run(&mut careless, &forgotten).await, Ok(()));
    db.seal(&grant("orders", 11)).await;
    assert_eq!(
        run(&mut careless, "INSERT INTO orders VALUES (1, 1)").await,
        Err(RAISED.to_owned())
    );
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
