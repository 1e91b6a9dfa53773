//! What would go round the guard of rows and of partitions, unless it is seen to.

use palisade_guard::GuardError;
use sqlx::Row;

use crate::db::{Db, grant, name, run, sql};

fn refused(code: &str) -> Result<(), String> {
    Err(code.to_owned())
}

async fn finding(db: &Db, kind: &str) -> Vec<String> {
    let rows = sqlx::query("SELECT object FROM palisade.audit() WHERE finding = $1")
        .bind(kind)
        .fetch_all(&db.pool)
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// 0.1 + 0.2 is `0.3` to one session and `0.30000000000000004` to another, 2 January `2026-01-02` or
/// `02-01-2026`: two leases, with a holder each, would name one row.
#[tokio::test]
async fn a_column_whose_text_depends_on_the_session_names_no_resource() {
    let db = Db::new().await;
    db.run("CREATE DOMAIN day AS date; CREATE DOMAIN days AS day; CREATE DOMAIN code AS text; CREATE TYPE mood AS ENUM ('ok')")
        .await;
    for (type_, is_one) in [
        ("float8", false),
        ("float4", false),
        ("date", false),
        ("timestamptz", false),
        ("timestamp", false),
        ("interval", false),
        ("bytea", false),
        ("money", false),
        ("regclass", false),
        ("int[]", false),
        ("int4range", false),
        ("days", false),
        ("text", true),
        ("varchar(9)", true),
        ("char(3)", true),
        ("name", true),
        ("\"char\"", true),
        ("bool", true),
        ("smallint", true),
        ("bigint", true),
        ("numeric", true),
        ("uuid", true),
        ("code", true),
        ("mood", true),
    ] {
        db.run(&format!(
            "DROP TABLE IF EXISTS t; CREATE TABLE t (k {type_})"
        ))
        .await;
        let mut a = db.connect().await;
        let protect = run(&mut a, "SELECT palisade.protect('t', ARRAY['k'])").await;
        let expected = if is_one { Ok(()) } else { refused("42804") };
        assert_eq!(protect, expected, "{type_}");
    }
    // One that comes to be so later is found.
    db.run("ALTER TABLE t ALTER k TYPE text; ALTER TABLE t ALTER k TYPE date USING k::date")
        .await;
    assert_eq!(finding(&db, "ambiguous-column").await, ["public.t"]);
}

/// Commands inside of CREATE SCHEMA are no commands of their own to an event trigger.
#[tokio::test]
async fn a_partition_made_with_its_schema_is_guarded() {
    let db = Db::with_orders().await;
    db.run(
        "CREATE TABLE tree (id bigint) PARTITION BY RANGE (id); SELECT palisade.protect('tree', 'orders'); \
         CREATE SCHEMA side CREATE TABLE leaf PARTITION OF public.tree FOR VALUES FROM (0) TO (10)",
    )
    .await;
    let mut a = db.connect().await;
    let insert = "INSERT INTO side.leaf VALUES (1)";
    assert_eq!(run(&mut a, insert).await, refused("ZF003"));
    assert!(finding(&db, "open-below").await.is_empty());
}

/// Whichever of the two parents is guarded, and whichever is the older.
#[tokio::test]
async fn a_child_of_a_guarded_and_an_open_table_is_refused() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE older (id bigint); CREATE TABLE orders (id bigint); CREATE TABLE later (id bigint); \
         CREATE TABLE loose (id bigint); SELECT palisade.protect('orders', 'orders')",
    )
    .await;
    let mut a = db.connect().await;
    for statement in [
        "CREATE TABLE child () INHERITS (orders, older)",
        "CREATE TABLE child () INHERITS (later, orders)",
        "ALTER TABLE loose INHERIT older; ALTER TABLE loose INHERIT orders",
        "ALTER TABLE loose INHERIT orders; ALTER TABLE loose INHERIT later",
    ] {
        let made = run(&mut a, statement).await;
        assert_eq!(made, refused("55000"), "{statement}");
    }
    // Those that are there already are protected one after the other.
    db.run(
        "CREATE TABLE left_ (id bigint); CREATE TABLE right_ (id bigint); \
         CREATE TABLE both_ () INHERITS (left_, right_); SELECT palisade.protect('right_', 'orders')",
    )
    .await;
    assert_eq!(finding(&db, "open-above").await, ["public.left_"]);
    db.run("SELECT palisade.protect('left_', 'orders')").await;
    assert!(finding(&db, "open-above").await.is_empty());
    let insert = "INSERT INTO both_ VALUES (1)";
    assert_eq!(run(&mut a, insert).await, refused("ZF003"));
}

/// `protect` waits for the transaction that makes the partition, and has to see it then. Nobody watches.
#[tokio::test]
async fn a_partition_under_way_when_its_root_is_protected_is_guarded() {
    let db = Db::new().await;
    db.run("DROP EVENT TRIGGER palisade_partitions; CREATE TABLE tree (id bigint) PARTITION BY RANGE (id)")
        .await;
    let mut maker = db.connect().await;
    let make = "BEGIN; CREATE TABLE leaf PARTITION OF tree FOR VALUES FROM (0) TO (10)";
    run(&mut maker, make).await.unwrap();
    let orders = name("orders");
    let (protected, ()) = tokio::join!(db.guard.protect(&db.pool, "tree", &orders), async {
        db.waiting(1).await;
        run(&mut maker, "COMMIT").await.unwrap();
    });
    protected.unwrap();
    let insert = "INSERT INTO leaf VALUES (1)";
    assert_eq!(run(&mut maker, insert).await, refused("ZF003"));
}

/// The name of a row's resource is made of what the row holds: it is told up to the length of a name.
#[tokio::test]
async fn a_refusal_is_no_longer_than_a_name() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE notes (body text); SELECT palisade.protect('notes', ARRAY['body'], 'notes')",
    )
    .await;
    let held = grant("notes/a", 1);
    let sealed = db.seal(&held).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO notes VALUES ('a')")
        .await
        .unwrap();
    let long = sqlx::query("INSERT INTO notes VALUES (repeat('x', 100000))");
    let met = long.execute(&mut *tx).await.unwrap_err();
    let error = tx.refusal(met);
    let GuardError::Unguarded { resource, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(resource.len(), 257);
    assert!(
        resource.starts_with("notes/xxx") && resource.ends_with("x~"),
        "{resource}"
    );
    let mut a = db.connect().await;
    let small = format!(
        "BEGIN; SELECT palisade.enter({}); UPDATE notes SET body = 'a'; COMMIT",
        sql(&held)
    );
    assert_eq!(run(&mut a, &small).await, Ok(()));
}
