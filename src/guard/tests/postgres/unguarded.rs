//! Every way to write a protected table without an entry is refused.

use palisade_guard::GuardError;
use palisade_token::Grant;
use sqlx::postgres::PgPoolCopyExt;

use crate::db::{Db, code, grant, name, run, sql, words};

const ZF003: &str = "ZF003";

#[tokio::test]
async fn every_kind_of_statement_needs_an_entry() {
    let db = Db::with_orders().await;
    db.run(
        "CREATE TABLE source (id bigint); INSERT INTO source VALUES (1); \
         ALTER TABLE orders ADD CONSTRAINT orders_id UNIQUE (id); \
         CREATE TABLE customers (id bigint PRIMARY KEY, parent bigint REFERENCES customers ON DELETE CASCADE); \
         CREATE TABLE child (customer bigint REFERENCES customers ON DELETE CASCADE ON UPDATE CASCADE); \
         INSERT INTO customers VALUES (1), (2); INSERT INTO child VALUES (1)",
    )
    .await;
    db.guard
        .protect(&db.pool, "child", &name("orders"))
        .await
        .unwrap();
    let held = grant("orders", 10);
    db.seal(&held).await;
    let mut connection = db.connect().await;
    for statement in [
        "INSERT INTO orders VALUES (1, 1)",
        "INSERT INTO orders SELECT id, id FROM source WHERE false",
        "UPDATE orders SET token = 0",
        "UPDATE orders SET token = 0 WHERE false",
        "DELETE FROM orders",
        "DELETE FROM orders WHERE false",
        "TRUNCATE orders",
        "INSERT INTO orders VALUES (1, 1) ON CONFLICT DO NOTHING",
        "INSERT INTO orders VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET token = 1",
        "WITH w AS (INSERT INTO orders VALUES (1, 1) RETURNING id) SELECT * FROM w",
        "WITH w AS (DELETE FROM orders RETURNING id) INSERT INTO source SELECT id FROM w",
        "MERGE INTO orders AS o USING source AS s ON o.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, 1)",
        "DO $$ BEGIN INSERT INTO orders VALUES (1, 1); END $$",
        "DELETE FROM customers WHERE id = 1",
        "UPDATE customers SET id = 3 WHERE id = 1",
        "TRUNCATE customers CASCADE",
        "SET session_replication_role = replica; INSERT INTO orders VALUES (1, 1)",
        "SET session_replication_role = replica; TRUNCATE orders",
        "CREATE TEMP TABLE fence (resource text, token bigint, holder text); UPDATE orders SET token = 0",
    ] {
        assert_eq!(
            run(&mut connection, statement).await,
            Err(ZF003.to_owned()),
            "{statement}"
        );
        run(&mut connection, "SET session_replication_role = origin")
            .await
            .unwrap();
        // The same statement with an entry passes, so it is the guard that has refused it.
        let guarded = format!(
            "BEGIN; SELECT palisade.enter({}); {statement}; ROLLBACK",
            sql(&held)
        );
        assert_eq!(run(&mut connection, &guarded).await, Ok(()), "{statement}");
        run(&mut connection, "SET session_replication_role = origin")
            .await
            .unwrap();
    }
    let mut copy = db.pool.copy_in_raw("COPY orders FROM STDIN").await;
    if let Ok(copy) = &mut copy {
        copy.send("1\t1\n".as_bytes()).await.unwrap();
    }
    let error = match copy {
        Ok(copy) => copy.finish().await.unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(code(&error), ZF003);
    let error = GuardError::from(error);
    assert!(
        matches!(&error, GuardError::Unguarded { resource, table: Some(table) }
            if resource == "orders" && table == "orders"),
        "{error:?}"
    );
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 0);
}

#[tokio::test]
async fn partitions_and_children_are_protected_with_their_root() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE p (id bigint) PARTITION BY RANGE (id); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id); \
         CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (20); \
         CREATE TABLE parent (id bigint); CREATE TABLE child () INHERITS (parent)",
    )
    .await;
    let error = db
        .guard
        .protect(&db.pool, "p21", &name("p"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, GuardError::Backend(_)),
        "a leaf alone is open through its root: {error:?}"
    );
    for root in ["p", "parent"] {
        db.guard.protect(&db.pool, root, &name(root)).await.unwrap();
    }
    let mut connection = db.connect().await;
    for statement in [
        "INSERT INTO p VALUES (1)",
        "INSERT INTO p1 VALUES (1)",
        "INSERT INTO p2 VALUES (11)",
        "INSERT INTO p21 VALUES (11)",
        "TRUNCATE p21",
        "INSERT INTO child VALUES (1)",
        "DELETE FROM parent",
    ] {
        assert_eq!(
            run(&mut connection, statement).await,
            Err(ZF003.to_owned()),
            "{statement}"
        );
    }
    // A partition that comes later is protected when protect runs again.
    db.run("CREATE TABLE p22 PARTITION OF p2 FOR VALUES FROM (20) TO (30)")
        .await;
    db.guard.protect(&db.pool, "p", &name("p")).await.unwrap();
    assert_eq!(
        run(&mut connection, "INSERT INTO p22 VALUES (21)").await,
        Err(ZF003.to_owned())
    );
    let held = db.seal(&grant("p", 1)).await;
    let mut tx = db.guard.begin(&db.pool, &held).await.unwrap();
    for table in ["p", "p1", "p2", "p21"] {
        let id = if table == "p1" { 1 } else { 11 };
        run(&mut tx, &format!("INSERT INTO {table} VALUES ({id})"))
            .await
            .unwrap();
    }
    tx.commit().await.unwrap();
    db.guard.unprotect(&db.pool, "p").await.unwrap();
    for table in ["p", "p1", "p2", "p21", "p22"] {
        db.run(&format!("DELETE FROM {table}")).await;
    }
}

#[tokio::test]
async fn the_entry_of_one_resource_does_not_open_the_table_of_another() {
    let db = Db::with_orders().await;
    db.run("CREATE TABLE bills (id bigint)").await;
    db.guard
        .protect(&db.pool, "bills", &name("bills"))
        .await
        .unwrap();
    // The same number for both, and a name that begins like the other.
    let orders = db.seal(&grant("orders", 10)).await;
    let bills = db.seal(&grant("bills", 10)).await;
    let longer = db.seal(&grant("orders/eu", 10)).await;
    for (sealed, statement) in [
        (&orders, "INSERT INTO bills VALUES (1)"),
        (&bills, "INSERT INTO orders VALUES (1)"),
        (&longer, "INSERT INTO orders VALUES (1)"),
    ] {
        let mut tx = db.guard.begin(&db.pool, sealed).await.unwrap();
        assert_eq!(
            run(&mut tx, statement).await,
            Err(ZF003.to_owned()),
            "{statement}"
        );
        assert!(matches!(tx.commit().await, Err(GuardError::RolledBack(_))));
        assert!(
            sealed.is_live(),
            "a bug of the caller does not end the grant"
        );
    }
    let mut tx = db
        .guard
        .begin_all(&db.pool, &[&orders, &bills])
        .await
        .unwrap();
    run(
        &mut tx,
        "INSERT INTO bills VALUES (1); INSERT INTO orders VALUES (1)",
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 1);
    assert_eq!(db.number("SELECT count(*) FROM bills").await, 1);
}

fn by_hand(grant: &Grant) -> String {
    format!("SELECT palisade.enter({})", sql(grant))
}

fn as_library(grant: &Grant) -> String {
    format!("CALL palisade.open({})", words(grant))
}

/// A coordinator grants many resources in one transaction, so that their tokens are one number. What tells them apart is
/// the resource, and the holder.
#[tokio::test]
async fn a_token_that_one_batch_gave_to_two_resources_opens_only_its_own_table() {
    let db = Db::with_orders().await;
    db.run("CREATE TABLE bills (id bigint)").await;
    db.guard
        .protect(&db.pool, "bills", &name("bills"))
        .await
        .unwrap();
    let orders = grant("orders", 10);
    let bills = Grant {
        holder: grant("bills", 3).holder,
        ..grant("bills", 10)
    };
    db.seal(&orders).await;
    db.seal(&bills).await;
    let shown_to_bills = Grant {
        resource: name("bills"),
        ..orders.clone()
    };
    let write = "INSERT INTO orders VALUES (1); INSERT INTO bills VALUES (1); COMMIT";
    let mut a = db.connect().await;
    let attacks: [(&[&Grant], &str); 3] = [
        (&[&orders], ZF003),
        (&[&bills], ZF003),
        (&[&orders, &shown_to_bills], "ZF004"),
    ];
    for (entered, code) in attacks {
        for enter in [by_hand, as_library] {
            let enters: Vec<_> = entered.iter().map(|grant| enter(grant)).collect();
            let batch = format!("BEGIN; {}; {write}", enters.join("; "));
            assert_eq!(run(&mut a, &batch).await, Err(code.to_owned()), "{batch}");
            run(&mut a, "ROLLBACK").await.unwrap();
        }
    }
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 0);
    assert_eq!(db.number("SELECT count(*) FROM bills").await, 0);
    let both = format!("BEGIN; {}; {}; {write}", by_hand(&orders), by_hand(&bills));
    assert_eq!(run(&mut a, &both).await, Ok(()));
}

#[tokio::test]
async fn a_table_is_protected_for_one_resource() {
    let db = Db::with_orders().await;
    db.guard
        .protect(&db.pool, "public.orders", &name("orders"))
        .await
        .unwrap();
    let error = db
        .guard
        .protect(&db.pool, "orders", &name("other"))
        .await
        .unwrap_err();
    assert!(matches!(error, GuardError::Backend(_)), "{error:?}");
    db.guard.unprotect(&db.pool, "orders").await.unwrap();
    db.run("INSERT INTO orders VALUES (1, 1)").await;
    db.guard
        .protect(&db.pool, "orders", &name("other"))
        .await
        .unwrap();
    for bad in [
        "palisade.fence",
        "no_such_table",
        "pg_catalog.pg_tables",
        "orders; DROP TABLE orders",
    ] {
        assert!(
            db.guard
                .protect(&db.pool, bad, &name("orders"))
                .await
                .is_err(),
            "{bad}"
        );
    }
    db.run("CREATE TABLE \"Odd '\\ name\" (id int)").await;
    db.guard
        .protect(&db.pool, "\"Odd '\\ name\"", &name("odd"))
        .await
        .unwrap();
    let mut connection = db.connect().await;
    let refused = run(&mut connection, "DELETE FROM \"Odd '\\ name\"").await;
    assert_eq!(refused, Err(ZF003.to_owned()));
}

/// What the documentation says is not covered, and its query that finds it.
#[tokio::test]
async fn a_protected_table_under_an_open_parent_is_found() {
    let db = Db::with_orders().await;
    let find = "SELECT count(*) FROM pg_trigger AS t JOIN pg_inherits AS i ON i.inhrelid = t.tgrelid \
        WHERE t.tgname = 'zz_palisade_guard' AND NOT EXISTS ( \
            SELECT FROM pg_trigger AS p WHERE p.tgrelid = i.inhparent AND p.tgname = t.tgname)";
    // Where nobody watches for it (`partitions` has the rest).
    db.run("DROP EVENT TRIGGER palisade_partitions").await;
    db.run("CREATE TABLE later (id bigint, token bigint) PARTITION BY RANGE (id)")
        .await;
    assert_eq!(db.number(find).await, 0);
    db.run(
        "ALTER TABLE later ATTACH PARTITION orders FOR VALUES FROM (0) TO (10); \
         INSERT INTO later VALUES (1, 1)",
    )
    .await;
    assert_eq!(db.number(find).await, 1);
    db.guard
        .protect(&db.pool, "later", &name("orders"))
        .await
        .unwrap();
    assert_eq!(db.number(find).await, 0);
    assert_eq!(
        run(&mut db.connect().await, "INSERT INTO later VALUES (1, 1)").await,
        Err(ZF003.to_owned())
    );
}
