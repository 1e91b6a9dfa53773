//! What becomes of the guard when tables are created, attached and detached around it.

use sqlx::{AssertSqlSafe, Row};

use crate::db::{Db, grant, name, run};

const REFUSED: &str = "ZF003";

async fn db() -> Db {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE orders (id bigint) PARTITION BY RANGE (id); \
         CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (10)",
    )
    .await;
    db
}

async fn is_refused(db: &Db, statement: &str) -> bool {
    match run(&mut db.connect().await, statement).await {
        Ok(()) => false,
        Err(code) => {
            assert!(
                [REFUSED, "0A000"].contains(&code.as_str()),
                "{statement}: {code}"
            );
            true
        }
    }
}

/// The errors of the audit: what kind, and where.
async fn holes(db: &Db) -> Vec<(String, String)> {
    let text = "SELECT finding, object FROM palisade.audit() WHERE severity = 'error'";
    sqlx::query(AssertSqlSafe(text))
        .fetch_all(&db.pool)
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

#[tokio::test]
async fn a_new_partition_is_guarded_when_it_comes() {
    let db = db().await;
    db.guard
        .protect(&db.pool, "orders", &name("orders"))
        .await
        .unwrap();
    // In a replica session too, and two levels at once.
    db.run(
        "CREATE TABLE loose (id bigint); CREATE TABLE tree (id bigint) PARTITION BY RANGE (id); \
         CREATE TABLE twig PARTITION OF tree FOR VALUES FROM (30) TO (40); \
         SET session_replication_role = replica; \
         CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM (10) TO (20); \
         ALTER TABLE orders ATTACH PARTITION loose FOR VALUES FROM (20) TO (30); \
         ALTER TABLE orders ATTACH PARTITION tree FOR VALUES FROM (30) TO (40); \
         SET session_replication_role = origin",
    )
    .await;
    for (table, id) in [("orders_2", 11), ("loose", 21), ("tree", 31), ("twig", 31)] {
        for statement in [
            format!("INSERT INTO {table} VALUES ({id})"),
            format!("TRUNCATE {table}"),
            format!("SET session_replication_role = replica; INSERT INTO {table} VALUES ({id})"),
        ] {
            assert!(is_refused(&db, &statement).await, "{statement}");
        }
    }
    assert_eq!(holes(&db).await, []);
    // Tables that have nothing to do with it are left alone.
    db.run("CREATE TABLE free (id int); CREATE TABLE freer () INHERITS (free); ALTER TABLE free ADD x int; INSERT INTO freer VALUES (1); \
            CREATE TEMP TABLE t AS SELECT 1; TRUNCATE free")
        .await;
}

/// A table that is guarded is not opened by what it is put under.
#[tokio::test]
async fn a_guarded_table_is_not_attached_below_an_open_one() {
    let db = Db::with_orders().await;
    db.run("CREATE TABLE later (id bigint, token bigint) PARTITION BY RANGE (id); CREATE TABLE p (id bigint, token bigint)")
        .await;
    let attach = "ALTER TABLE later ATTACH PARTITION orders FOR VALUES FROM (0) TO (10)";
    let mut a = db.connect().await;
    for statement in [attach, "ALTER TABLE orders INHERIT p"] {
        assert_eq!(
            run(&mut a, statement).await,
            Err("55000".to_owned()),
            "{statement}"
        );
    }
    db.guard
        .protect(&db.pool, "later", &name("other"))
        .await
        .unwrap();
    assert_eq!(
        run(&mut a, attach).await,
        Err("42710".to_owned()),
        "of another resource"
    );
    db.guard.unprotect(&db.pool, "later").await.unwrap();
    db.guard
        .protect(&db.pool, "later", &name("orders"))
        .await
        .unwrap();
    assert_eq!(run(&mut a, attach).await, Ok(()));
    assert_eq!(holes(&db).await, []);
}

#[tokio::test]
async fn a_detached_partition_keeps_its_guard() {
    let db = db().await;
    db.guard
        .protect_rows(&db.pool, "orders", Some(&name("orders")), &["id"])
        .await
        .unwrap();
    db.run("ALTER TABLE orders DETACH PARTITION orders_1").await;
    assert!(is_refused(&db, "INSERT INTO orders_1 VALUES (1)").await);
    assert!(is_refused(&db, "TRUNCATE orders_1").await);
    assert_eq!(holes(&db).await, []);
    // A guarded row table is not attached again as it is: its own trigger is in the way of the clone.
    let attach = "ALTER TABLE orders ATTACH PARTITION orders_1 FOR VALUES FROM (0) TO (10)";
    assert!(run(&mut db.connect().await, attach).await.is_err());
    db.guard.unprotect(&db.pool, "orders_1").await.unwrap();
    db.run(attach).await;
    assert!(is_refused(&db, "INSERT INTO orders_1 VALUES (1)").await);
    assert!(is_refused(&db, "TRUNCATE orders_1").await);
    db.guard.unprotect(&db.pool, "orders").await.unwrap();
    db.guard
        .protect(&db.pool, "orders", &name("orders"))
        .await
        .unwrap();
    db.run("ALTER TABLE orders DETACH PARTITION orders_1").await;
    assert!(is_refused(&db, "TRUNCATE orders_1").await);
    assert_eq!(holes(&db).await, []);
}

/// Where only a superuser could watch: open, and told so.
#[tokio::test]
async fn without_a_superuser_new_partitions_are_found_by_the_audit_and_mended_by_protect() {
    let db = db().await;
    db.run("DROP EVENT TRIGGER palisade_partitions").await;
    db.guard
        .protect(&db.pool, "orders", &name("orders"))
        .await
        .unwrap();
    db.run("CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM (10) TO (20); INSERT INTO orders_2 VALUES (11)")
        .await;
    let open = [("open-below".to_owned(), "public.orders_2".to_owned())];
    assert_eq!(holes(&db).await, open);
    db.guard
        .protect(&db.pool, "orders", &name("orders"))
        .await
        .unwrap();
    assert!(is_refused(&db, "INSERT INTO orders_2 VALUES (11)").await);
    assert_eq!(holes(&db).await, []);

    // Row guards are cloned; TRUNCATE of the new leaf is what stays open.
    db.guard.unprotect(&db.pool, "orders").await.unwrap();
    db.guard
        .protect_rows(&db.pool, "orders", Some(&name("orders")), &["id"])
        .await
        .unwrap();
    db.run("CREATE TABLE orders_3 PARTITION OF orders FOR VALUES FROM (20) TO (30)")
        .await;
    assert!(is_refused(&db, "INSERT INTO orders_3 VALUES (21)").await);
    assert!(!is_refused(&db, "TRUNCATE orders_3").await);
    let open = [("open-to-truncate".to_owned(), "public.orders_3".to_owned())];
    assert_eq!(holes(&db).await, open);
    db.run("ALTER TABLE orders DETACH PARTITION orders_1").await;
    assert!(
        holes(&db)
            .await
            .contains(&("detached".to_owned(), "public.orders_1".to_owned()))
    );
    db.run("SELECT palisade.protect('orders', ARRAY['id'], 'orders'), palisade.protect('orders_1', ARRAY['id'], 'orders')")
        .await;
    assert_eq!(holes(&db).await, []);
    assert!(is_refused(&db, "TRUNCATE orders_3").await);
    assert!(is_refused(&db, "INSERT INTO orders_1 VALUES (1)").await);
}

/// The event trigger runs as whoever makes the partition, and asks for no right beyond that.
#[tokio::test]
async fn an_owner_without_rights_on_the_guard_makes_partitions() {
    let db = Db::new().await;
    let role = format!("maker_of_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    db.run(&format!(
        "CREATE ROLE {role}; GRANT CREATE ON SCHEMA public TO {role}"
    ))
    .await;
    let mut owner = db.connect().await;
    let make = format!(
        "SET ROLE {role}; CREATE TABLE own (id int) PARTITION BY RANGE (id); \
         CREATE TABLE rows (id int) PARTITION BY RANGE (id)"
    );
    run(&mut owner, &make).await.unwrap();
    db.run("SELECT palisade.protect('own', 'own'), palisade.protect('rows', ARRAY['id'])")
        .await;
    for table in ["own", "rows"] {
        let leaf =
            format!("CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (0) TO (9)");
        assert_eq!(run(&mut owner, &leaf).await, Ok(()), "{leaf}");
        for statement in [
            format!("INSERT INTO {table}_1 VALUES (1)"),
            format!("TRUNCATE {table}_1"),
        ] {
            assert!(is_refused(&db, &statement).await, "{statement}");
        }
    }
    assert_eq!(holes(&db).await, []);
    db.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

#[tokio::test]
async fn protect_again_repairs_whatever_was_weakened() {
    let db = db().await;
    db.run("CREATE TABLE rows (id bigint)").await;
    let protect = async || {
        db.guard
            .protect(&db.pool, "orders", &name("orders"))
            .await
            .unwrap();
        db.guard
            .protect_rows(&db.pool, "rows", None, &["id"])
            .await
            .unwrap();
    };
    protect().await;
    db.seal(&grant("orders", 1)).await;
    let impostor = |table: &str, kind: &str| {
        format!(
            "DROP TRIGGER zz_palisade_guard ON {table}; \
             CREATE TRIGGER zz_palisade_guard {kind}; ALTER TABLE {table} ENABLE ALWAYS TRIGGER zz_palisade_guard"
        )
    };
    db.run(
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    )
    .await;
    let functions: (String, String) = sqlx::query_as(
        "SELECT palisade.whole_function('orders'), palisade.row_function(ARRAY['id'])",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    for (kind, weaken) in [
        (
            "weak-trigger",
            "ALTER TABLE orders_1 DISABLE TRIGGER zz_palisade_guard".to_owned(),
        ),
        (
            "weak-trigger",
            "ALTER TABLE orders_1 ENABLE TRIGGER zz_palisade_guard".to_owned(),
        ),
        (
            "weak-trigger",
            "ALTER TABLE orders_1 ENABLE REPLICA TRIGGER zz_palisade_guard".to_owned(),
        ),
        (
            "weak-trigger",
            "ALTER TABLE rows DISABLE TRIGGER ALL".to_owned(),
        ),
        (
            "open-below",
            "DROP TRIGGER zz_palisade_guard ON orders_1".to_owned(),
        ),
        (
            "open-above",
            "DROP TRIGGER zz_palisade_guard ON orders".to_owned(),
        ),
        (
            "detached",
            "DROP TRIGGER zz_palisade_guard ON rows".to_owned(),
        ),
        (
            "open-to-truncate",
            "DROP TRIGGER zz_palisade_truncate ON rows".to_owned(),
        ),
        (
            "altered-trigger",
            impostor(
                "orders_1",
                "BEFORE INSERT ON orders_1 FOR EACH STATEMENT EXECUTE FUNCTION ORDERS('orders')",
            ),
        ),
        (
            "altered-trigger",
            impostor(
                "orders_1",
                "BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON orders_1 FOR EACH STATEMENT EXECUTE FUNCTION nothing('orders')",
            ),
        ),
        (
            "altered-trigger",
            impostor(
                "rows",
                "AFTER INSERT OR UPDATE OR DELETE ON rows FOR EACH ROW WHEN (pg_trigger_depth() > 9) EXECUTE FUNCTION ROWS('', 'id')",
            ),
        ),
        (
            "altered-trigger",
            impostor(
                "orders_1",
                "BEFORE INSERT OR UPDATE OF id OR DELETE OR TRUNCATE ON orders_1 FOR EACH STATEMENT EXECUTE FUNCTION ORDERS('orders')",
            ),
        ),
    ] {
        let weaken = weaken
            .replace("ORDERS", &functions.0)
            .replace("ROWS", &functions.1);
        db.run(&weaken).await;
        let found = holes(&db).await;
        assert!(
            found.iter().any(|(found, _)| found == kind),
            "{weaken}: {found:?}"
        );
        protect().await;
        assert_eq!(holes(&db).await, [], "{weaken}");
        for statement in [
            "INSERT INTO orders_1 VALUES (1)",
            "DELETE FROM orders",
            "INSERT INTO rows VALUES (1)",
            "TRUNCATE rows",
        ] {
            assert!(is_refused(&db, statement).await, "{weaken}: {statement}");
        }
    }
    // Whole and right: nothing is touched, so that nothing waits for its writers.
    let mut writer = db.connect().await;
    let open = format!(
        "BEGIN; SELECT palisade.enter({}); INSERT INTO orders_1 VALUES (1)",
        crate::db::sql(&grant("orders", 1))
    );
    run(&mut writer, &open).await.unwrap();
    protect().await;
    run(&mut writer, "COMMIT").await.unwrap();
}
