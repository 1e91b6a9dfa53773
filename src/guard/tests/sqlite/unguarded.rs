use palisade_guard::{Class, GuardError};
use palisade_token::Grant;

use crate::db::{Db, RAISED, enter, grant, name, run};

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

#[tokio::test]
async fn a_renamed_table_keeps_its_protection_and_gives_it_up() {
    let db = Db::new().await;
    let mut owner = db.connect().await;
    let rename = "ALTER TABLE orders RENAME TO \"old orders\"; \
                  CREATE TABLE orders (id INTEGER PRIMARY KEY, token INTEGER)";
    run(&mut owner, rename).await.unwrap();
    let write = "INSERT INTO \"old orders\" VALUES (1, 1)";
    assert_eq!(run(&mut owner, write).await, Err(RAISED.to_owned()));
    // The same again is no change, another resource is refused, under the new name like under the old one.
    let protect = async |table: &str, resource: &str| {
        let name = name(resource);
        db.guard.protect(&db.pool, table, &name).await
    };
    let triggers = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name GLOB 'zz_*'";
    assert_eq!(db.number(triggers).await, 6);
    protect("OLD orders", "orders").await.unwrap();
    assert_eq!(db.number(triggers).await, 6);
    for (table, resource) in [("old orders", "bills"), ("orders", "orders")] {
        let error = protect(table, resource).await.unwrap_err();
        assert!(matches!(error, GuardError::Misuse(_)), "{table}: {error:?}");
    }
    db.guard.unprotect(&db.pool, "Old Orders").await.unwrap();
    assert_eq!(db.number(triggers).await, 3);
    run(&mut owner, write).await.unwrap();
    protect("orders", "orders").await.unwrap();
    protect("old orders", "bills").await.unwrap();
    assert_eq!(run(&mut owner, write).await, Err(RAISED.to_owned()));
    let write = "INSERT INTO orders VALUES (1, 1)";
    assert_eq!(run(&mut owner, write).await, Err(RAISED.to_owned()));
}
