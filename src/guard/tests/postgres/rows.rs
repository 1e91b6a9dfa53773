//! Row scope: a resource for each row, from the values of its columns.

use palisade_guard::GuardError;

use crate::db::{Db, assert_stale, code, grant, name, run, sql};

/// `accounts`, one resource for each shard and id, below `accounts`.
async fn with_accounts() -> Db {
    let db = Db::new().await;
    db.run("CREATE TABLE accounts (shard text, id bigint, balance bigint DEFAULT 0)")
        .await;
    db.guard
        .protect_rows(
            &db.pool,
            "accounts",
            Some(&name("accounts")),
            &["shard", "id"],
        )
        .await
        .unwrap();
    db
}

fn refused(code: &str) -> Result<(), String> {
    Err(code.to_owned())
}

#[tokio::test]
async fn each_row_needs_the_entry_of_its_own_resource() {
    let db = with_accounts().await;
    let (one, two) = (grant("accounts/eu/1", 10), grant("accounts/eu/2", 10));
    db.seal(&one).await;
    db.seal(&two).await;
    let mut a = db.connect().await;
    let enter = |grants: &[&palisade_token::Grant], statement: &str, end: &str| -> String {
        let entries: String = grants
            .iter()
            .map(|grant| format!("SELECT palisade.enter({}); ", sql(grant)))
            .collect();
        format!("BEGIN; {entries} {statement}; {end}")
    };
    let both = enter(
        &[&one, &two],
        "INSERT INTO accounts VALUES ('eu', 1), ('eu', 2)",
        "COMMIT",
    );
    assert_eq!(run(&mut a, &both).await, Ok(()));
    for (statement, with_one, with_both) in [
        (
            "UPDATE accounts SET balance = 1 WHERE id = 1",
            Ok(()),
            Ok(()),
        ),
        ("UPDATE accounts SET balance = 1", refused("ZF003"), Ok(())),
        ("DELETE FROM accounts WHERE id = 1", Ok(()), Ok(())),
        (
            "DELETE FROM accounts WHERE id = 2",
            refused("ZF003"),
            Ok(()),
        ),
        // OLD and NEW: a row is not moved out of reach, nor into another's.
        (
            "UPDATE accounts SET id = 2 WHERE id = 1",
            refused("ZF003"),
            Ok(()),
        ),
        (
            "UPDATE accounts SET id = 1 WHERE id = 2",
            refused("ZF003"),
            Ok(()),
        ),
        (
            "UPDATE accounts SET id = 3 WHERE id = 1",
            refused("ZF003"),
            refused("ZF003"),
        ),
        (
            "INSERT INTO accounts VALUES ('us', 1)",
            refused("ZF003"),
            refused("ZF003"),
        ),
        ("INSERT INTO accounts VALUES ('eu', 1)", Ok(()), Ok(())),
        (
            "UPDATE accounts SET balance = 1 WHERE false",
            Ok(()),
            Ok(()),
        ),
        ("TRUNCATE accounts", refused("0A000"), refused("0A000")),
    ] {
        for (grants, expected) in [(&[&one][..], with_one), (&[&one, &two], with_both)] {
            let text = enter(grants, statement, "ROLLBACK");
            assert_eq!(run(&mut a, &text).await, expected, "{text}");
            run(&mut a, "ROLLBACK").await.unwrap();
        }
    }
    // A seal of one row's resource stops its writers, and no others.
    db.seal(&grant("accounts/eu/1", 11)).await;
    let mine = enter(
        &[&two],
        "UPDATE accounts SET balance = 5 WHERE id = 2",
        "COMMIT",
    );
    assert_eq!(run(&mut a, &mine).await, Ok(()));
    let stale = enter(
        &[&one],
        "UPDATE accounts SET balance = 5 WHERE id = 1",
        "COMMIT",
    );
    assert_eq!(run(&mut a, &stale).await, refused("ZF001"));
}

#[tokio::test]
async fn every_kind_of_statement_on_a_row_needs_an_entry() {
    let db = with_accounts().await;
    db.run(
        "CREATE TABLE source (id bigint); INSERT INTO source VALUES (1); \
         CREATE TABLE owners (id bigint PRIMARY KEY); INSERT INTO owners VALUES (7); \
         ALTER TABLE accounts ADD owner bigint REFERENCES owners ON DELETE CASCADE ON UPDATE CASCADE; \
         ALTER TABLE accounts ADD UNIQUE (shard, id)",
    )
    .await;
    let held = grant("accounts/eu/1", 10);
    db.seal(&held).await;
    let begin = format!("BEGIN; SELECT palisade.enter({})", sql(&held));
    let mut a = db.connect().await;
    let row = format!("{begin}; INSERT INTO accounts VALUES ('eu', 1, 0, 7); COMMIT");
    assert_eq!(run(&mut a, &row).await, Ok(()));
    for statement in [
        "INSERT INTO accounts VALUES ('eu', 1) ON CONFLICT (shard, id) DO UPDATE SET balance = 1",
        "WITH w AS (UPDATE accounts SET balance = 2 RETURNING id) SELECT * FROM w",
        "MERGE INTO accounts AS a USING source AS s ON a.id = s.id WHEN MATCHED THEN UPDATE SET balance = 3",
        "MERGE INTO accounts AS a USING source AS s ON a.id = s.id WHEN MATCHED THEN DELETE",
        "DO $$ BEGIN DELETE FROM accounts; END $$",
        "DELETE FROM owners",
        "UPDATE owners SET id = 8",
        "SET session_replication_role = replica; DELETE FROM accounts",
    ] {
        assert_eq!(
            run(&mut a, statement).await,
            refused("ZF003"),
            "{statement}"
        );
        let text = format!("{begin}; {statement}; ROLLBACK");
        assert_eq!(run(&mut a, &text).await, Ok(()), "{statement}");
        run(&mut a, "SET session_replication_role = origin")
            .await
            .unwrap();
    }
    assert_eq!(
        run(&mut a, "TRUNCATE owners CASCADE").await,
        refused("0A000")
    );
    let mut copy = db.pool.acquire().await.unwrap();
    let mut copy = copy
        .copy_in_raw("COPY accounts (shard, id) FROM STDIN")
        .await
        .unwrap();
    copy.send("eu\t2\n".as_bytes()).await.unwrap();
    let error = copy.finish().await.unwrap_err();
    assert_eq!(code(&error), "ZF003");
    assert!(
        matches!(GuardError::from(error), GuardError::Unguarded { resource, table: Some(table) }
            if resource == "accounts/eu/2" && table == "accounts")
    );
    assert_eq!(db.number("SELECT count(*) FROM accounts").await, 1);
}

/// `a/b` + `c` and `a` + `b/c` would be one resource, and NULL none.
#[tokio::test]
async fn a_value_with_a_slash_or_null_names_no_resource() {
    let db = with_accounts().await;
    let mut a = db.connect().await;
    // What such values would spell is sealed and entered, and refused all the same.
    db.run("ALTER TABLE accounts ALTER id TYPE text").await;
    let mut entered = "BEGIN; ".to_owned();
    for resource in [
        "accounts/a/b/c",
        "accounts/a/b",
        "accounts/a",
        "accounts/x/1",
    ] {
        let held = grant(resource, 10);
        db.seal(&held).await;
        entered += &format!("SELECT palisade.enter({}); ", sql(&held));
    }
    for (row, expected) in [
        ("'a/b', 'c'", "22023"),
        ("'a', 'b/c'", "22023"),
        ("'a', NULL", "22004"),
        ("NULL, 'a'", "22004"),
        ("'', 'a'", "ZF003"),
        ("'..', 'a'", "ZF003"),
    ] {
        for statement in [
            format!("INSERT INTO accounts VALUES ({row})"),
            format!(
                "INSERT INTO accounts VALUES ('x', '1'); UPDATE accounts SET (shard, id) = ({row})"
            ),
        ] {
            let text = format!("{entered}{statement}");
            assert_eq!(run(&mut a, &text).await, refused(expected), "{statement}");
            run(&mut a, "ROLLBACK").await.unwrap();
        }
    }
    // One that was there before is as refused when it leaves.
    db.guard.unprotect(&db.pool, "accounts").await.unwrap();
    db.run("INSERT INTO accounts VALUES ('a/b', 'c')").await;
    let columns = ["shard", "id"];
    db.guard
        .protect_rows(&db.pool, "accounts", Some(&name("accounts")), &columns)
        .await
        .unwrap();
    let text = format!("{entered}DELETE FROM accounts");
    assert_eq!(run(&mut a, &text).await, refused("22023"));
}

/// What a BEFORE trigger makes of the row is what is written, so that is what is checked.
#[tokio::test]
async fn the_row_that_is_written_is_the_one_that_is_checked() {
    let db = with_accounts().await;
    db.run(
        "CREATE FUNCTION divert() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN NEW.id := 2; RETURN NEW; END $$; \
         CREATE TRIGGER zzz_divert BEFORE INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION divert()",
    )
    .await;
    let sealed = db.seal(&grant("accounts/eu/1", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let row = "INSERT INTO accounts VALUES ('eu', 1)";
    assert_eq!(run(&mut tx, row).await, refused("ZF003"));
}

#[tokio::test]
async fn several_rows_of_several_resources_in_one_transaction() {
    let db = with_accounts().await;
    let mut sealed = Vec::new();
    for id in 1..=50 {
        sealed.push(db.seal(&grant(&format!("accounts/eu/{id}"), 10)).await);
    }
    let all: Vec<_> = sealed.iter().collect();
    let insert = "INSERT INTO accounts SELECT 'eu', i FROM generate_series(1, 50) AS i";
    let mut tx = db.guard.begin_all(&db.pool, &all).await.unwrap();
    run(&mut tx, insert).await.unwrap();
    tx.commit().await.unwrap();
    db.seal(&grant("accounts/eu/33", 11)).await;
    let mut tx = db.guard.begin_all(&db.pool, &all).await.unwrap();
    let error = sqlx::query("UPDATE accounts SET balance = 1")
        .execute(&mut *tx)
        .await
        .unwrap_err();
    assert_stale(&tx.refusal(error), 10, 11);
    assert!(!sealed[32].is_live() && sealed[31].is_live());
    drop(tx);
    assert_eq!(
        db.number("SELECT sum(balance)::bigint FROM accounts").await,
        0
    );
}

/// The root first, then what is below: a row trigger is cloned there.
#[tokio::test]
async fn partitions_of_a_row_guarded_table_are_guarded_with_it() {
    let db = Db::new().await;
    db.run(
        "CREATE TABLE p (id bigint, token bigint) PARTITION BY RANGE (id); \
         CREATE TABLE a_leaf PARTITION OF p FOR VALUES FROM (0) TO (10); \
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (id); \
         CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (10) TO (20); \
         CREATE TABLE parent (id bigint); CREATE TABLE child () INHERITS (parent)",
    )
    .await;
    for root in ["p", "parent"] {
        for _ in 0..2 {
            db.guard
                .protect_rows(&db.pool, root, Some(&name(root)), &["id"])
                .await
                .unwrap();
        }
    }
    db.run(
        "CREATE TABLE p22 PARTITION OF p2 FOR VALUES FROM (20) TO (30); \
         CREATE TABLE late () INHERITS (parent)",
    )
    .await;
    let mut a = db.connect().await;
    for (table, id) in [
        ("p", 1),
        ("a_leaf", 1),
        ("p2", 11),
        ("p21", 11),
        ("p22", 21),
        ("child", 1),
        ("late", 1),
    ] {
        let insert = format!("INSERT INTO {table} (id) VALUES ({id})");
        assert_eq!(run(&mut a, &insert).await, refused("ZF003"), "{insert}");
        let replica = format!("SET session_replication_role = replica; {insert}");
        assert_eq!(run(&mut a, &replica).await, refused("ZF003"), "{insert}");
        let truncate = format!("SET session_replication_role = origin; TRUNCATE {table}");
        assert_eq!(run(&mut a, &truncate).await, refused("0A000"), "{truncate}");
    }
    // A row that moves between partitions is deleted here and inserted there.
    let (one, eleven) = (grant("p/1", 1), grant("p/11", 1));
    let (one, eleven) = (db.seal(&one).await, db.seal(&eleven).await);
    let mut tx = db.guard.begin(&db.pool, &one).await.unwrap();
    run(&mut tx, "INSERT INTO p VALUES (1)").await.unwrap();
    tx.commit().await.unwrap();
    let shift = "UPDATE p SET id = 11";
    for sealed in [&one, &eleven] {
        let mut tx = db.guard.begin(&db.pool, sealed).await.unwrap();
        assert_eq!(run(&mut tx, shift).await, refused("ZF003"));
    }
    let mut tx = db
        .guard
        .begin_all(&db.pool, &[&one, &eleven])
        .await
        .unwrap();
    run(&mut tx, shift).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM p21").await, 1);
    db.guard.unprotect(&db.pool, "p").await.unwrap();
    db.run("TRUNCATE p; INSERT INTO p22 VALUES (21); DELETE FROM p")
        .await;
}

#[tokio::test]
async fn a_row_guard_is_for_columns_that_are_there() {
    let db = with_accounts().await;
    for (columns, prefix) in [
        (&["shard", "nothing"][..], None),
        (&["ctid"], None),
        (&[], None),
        (&["id"; 9], None),
        // Protected otherwise: as it is, and after a mistake nothing has changed.
        (&["id"], Some("accounts")),
        (&["shard", "id"], Some("other")),
    ] {
        let prefix = prefix.map(name);
        let result = db
            .guard
            .protect_rows(&db.pool, "accounts", prefix.as_ref(), columns)
            .await;
        assert!(matches!(result, Err(GuardError::Backend(_))), "{columns:?}");
    }
    let whole = db
        .guard
        .protect(&db.pool, "accounts", &name("accounts"))
        .await;
    assert!(matches!(whole, Err(GuardError::Backend(_))), "{whole:?}");
    let mut a = db.connect().await;
    let prefix = "SELECT palisade.protect('accounts', ARRAY['id'], 'a/../b')";
    assert_eq!(run(&mut a, prefix).await, refused("22023"));
    // A column that is renamed: fails closed.
    let held = grant("accounts/eu/1", 1);
    db.seal(&held).await;
    db.run("ALTER TABLE accounts RENAME id TO number").await;
    let write = format!(
        "BEGIN; SELECT palisade.enter({}); INSERT INTO accounts VALUES ('eu', 1)",
        sql(&held)
    );
    assert_eq!(run(&mut a, &write).await, refused("42703"));
}

/// Any name that a column may have, and values of any type.
#[tokio::test]
async fn odd_column_names_are_only_names() {
    let db = Db::new().await;
    let column = r#"it's %s "$1" \ @ # NEW"#;
    let quoted = format!("\"{}\"", column.replace('"', "\"\""));
    db.run(&format!(
        "CREATE COLLATION nd (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
         CREATE TABLE odd ({quoted} uuid, n smallint, c char(3), \"Ü\" varchar COLLATE nd)"
    ))
    .await;
    db.guard
        .protect_rows(&db.pool, "odd", None, &[column, "n", "c", "Ü"])
        .await
        .unwrap();
    let held = grant("00000000-0000-0000-0000-000000000001/-1/z/Q", 3);
    let sealed = db.seal(&held).await;
    let row = "INSERT INTO odd VALUES ('00000000-0000-0000-0000-000000000001', -1, 'z', 'Q')";
    let mut a = db.connect().await;
    assert_eq!(run(&mut a, row).await, refused("ZF003"));
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, row).await.unwrap();
    run(&mut tx, &format!("UPDATE odd SET {quoted} = {quoted}"))
        .await
        .unwrap();
    assert_eq!(
        run(&mut tx, "UPDATE odd SET \"Ü\" = 'q'").await,
        refused("ZF003")
    );
    db.guard
        .protect_rows(&db.pool, "odd", None, &[column, "n", "c", "Ü"])
        .await
        .unwrap();
    assert_eq!(
        db.number("SELECT count(*) FROM palisade.guards WHERE sound AND state = 'A'")
            .await,
        2
    );
}

/// An entry is a line of words: no value of a column is to look like more than one of them, or like the name in an
/// entry that was refused. Such rows belong to nobody, and nobody writes them.
#[tokio::test]
async fn a_value_cannot_be_read_as_a_part_of_an_entry() {
    let db = Db::new().await;
    db.run("CREATE TABLE shards (a text, b text)").await;
    db.guard
        .protect_rows(&db.pool, "shards", None, &["a", "b"])
        .await
        .unwrap();
    // Those whose look-alikes are kept in the same setting as they are.
    let alike: Vec<(String, String, bool)> = sqlx::query_as(
        "(SELECT 'r/' || i, '!r/' || i, true FROM generate_series(1, 9999) AS i \
          WHERE palisade.stripe('r/' || i) = palisade.stripe('!r/' || i) LIMIT 2) \
         UNION ALL (SELECT 'r/' || i, 'r/' || i || ' 10', false FROM generate_series(1, 9999) AS i \
          WHERE palisade.stripe('r/' || i) = palisade.stripe('r/' || i || ' 10') LIMIT 2)",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(alike.len(), 4);
    let mut a = db.connect().await;
    for (resource, value, is_stale) in alike {
        let held = grant(&resource, 10);
        db.seal(&held).await;
        let shown = grant(&resource, if is_stale { 9 } else { 10 });
        let (first, second) = value.split_once('/').unwrap();
        let write = format!(
            "BEGIN; SELECT palisade.enter({}); INSERT INTO shards VALUES ('{first}', '{second}')",
            sql(&shown)
        );
        assert_eq!(run(&mut a, &write).await, refused("ZF003"), "{value}");
        run(&mut a, "ROLLBACK").await.unwrap();
    }
}
