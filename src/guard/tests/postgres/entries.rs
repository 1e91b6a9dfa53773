//! What an entry is kept in, a setting and a cursor, and every way in which either could be taken for one that is not.

use crate::db::{Db, assert_stale, grant, name, run, sql, words};

const ZF003: &str = "ZF003";
const FETCH: &str = "FETCH palisade_admitted";

async fn setting(db: &Db, resource: &str) -> String {
    let text = format!("SELECT setting FROM palisade.fence WHERE resource = '{resource}'");
    sqlx::query_scalar(sqlx::AssertSqlSafe(text))
        .fetch_one(&db.pool)
        .await
        .unwrap()
}

fn refused(code: &str) -> Result<(), String> {
    Err(code.to_owned())
}

/// By hand, for the session, the transaction or the role, and with what the fence's own row says.
#[tokio::test]
async fn a_setting_made_by_hand_is_no_entry() {
    let db = Db::with_orders().await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let name = setting(&db, "orders").await;
    let entry = format!("orders 10 {}", held.holder);
    let mut a = db.connect().await;
    for (level, value) in [
        ("SESSION", format!(" {entry}")),
        ("LOCAL", format!(" {entry}")),
        ("SESSION", entry.clone()),
        ("LOCAL", entry.clone()),
        ("LOCAL", format!("0 {entry}")),
        ("LOCAL", format!("1 {entry}")),
        ("LOCAL", format!("18446744073709551615 {entry}")),
        ("LOCAL", "ok".to_owned()),
        ("LOCAL", String::new()),
        ("SESSION", format!("{entry}\n{entry}")),
    ] {
        // With an id of its own, and before it has one.
        for id in ["SELECT 1", "SELECT pg_current_xact_id()"] {
            let text = format!(
                "BEGIN; {id}; SET {level} {name} = '{value}'; INSERT INTO orders VALUES (1)"
            );
            assert_eq!(run(&mut a, &text).await, refused(ZF003), "{text}");
            run(&mut a, "ROLLBACK").await.unwrap();
        }
        // Nor is it in the way of one.
        let text = format!(
            "BEGIN; SET {level} {name} = '{value}'; SELECT palisade.enter({}); \
             INSERT INTO orders VALUES (1); ROLLBACK",
            sql(&held)
        );
        assert_eq!(run(&mut a, &text).await, Ok(()), "{text}");
    }
    db.run(&format!(
        "ALTER DATABASE \"{}\" SET {name} = ' {entry}'",
        db.name
    ))
    .await;
    let mut b = db.connect().await;
    let insert = "INSERT INTO orders VALUES (1)";
    assert_eq!(run(&mut b, insert).await, refused(ZF003));
}

/// An entry that was refused is kept, too: it is told from one that was admitted.
#[tokio::test]
async fn an_entry_that_was_refused_is_not_admitted() {
    let db = Db::with_orders().await;
    db.seal(&grant("orders", 10)).await;
    let mut a = db.connect().await;
    let other = palisade_token::Grant {
        holder: grant("orders", 3).holder,
        ..grant("orders", 10)
    };
    for (shown, code) in [
        (grant("orders", 9), "ZF001"),
        (grant("orders", 11), "ZF002"),
        (grant("orders", 1), "ZF001"),
        (other, "ZF004"),
    ] {
        for enter in [
            format!("SELECT palisade.enter({})", sql(&shown)),
            format!("CALL palisade.open({})", words(&shown)),
        ] {
            let write = format!("BEGIN; {enter}; INSERT INTO orders VALUES (1)");
            assert_eq!(run(&mut a, &write).await, refused(code), "{write}");
            run(&mut a, "ROLLBACK").await.unwrap();
            let fetch = format!("BEGIN; {enter}; {FETCH}");
            assert_eq!(run(&mut a, &fetch).await, refused("34000"), "{fetch}");
            run(&mut a, "ROLLBACK").await.unwrap();
        }
    }
    // What is not a grant at all is not recorded.
    for odd in [
        "",
        " ",
        " orders",
        " orders 10",
        "orders 10 x",
        " orders x y",
        " orders 0 ",
        " or ders 10 00",
    ] {
        let open = format!("CALL palisade.open('{odd}')");
        assert!(run(&mut a, &open).await.is_err(), "{odd}");
    }
    assert!(run(&mut a, "CALL palisade.open(NULL)").await.is_err());
}

/// With a savepoint go the lock, the entry and the cursor; what was entered before it stays.
#[tokio::test]
async fn a_cursor_ends_with_its_savepoint() {
    let db = Db::with_orders().await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let mut a = db.connect().await;
    let inside = format!(
        "BEGIN; SAVEPOINT s; CALL palisade.open({}); {FETCH}; ROLLBACK TO s",
        words(&held)
    );
    assert_eq!(run(&mut a, &inside).await, Ok(()));
    assert_eq!(
        run(&mut a, &format!("SAVEPOINT t; {FETCH}")).await,
        refused("34000")
    );
    run(&mut a, "ROLLBACK TO t").await.unwrap();
    assert_eq!(
        run(&mut a, "INSERT INTO orders VALUES (1)").await,
        refused(ZF003)
    );
    run(&mut a, "ROLLBACK").await.unwrap();
    let before = format!(
        "BEGIN; CALL palisade.open({}); SAVEPOINT s; INSERT INTO orders VALUES (1); ROLLBACK TO s; \
         INSERT INTO orders VALUES (1); {FETCH}; COMMIT",
        words(&held)
    );
    assert_eq!(run(&mut a, &before).await, Ok(()));
}

/// PREPARE TRANSACTION takes the lock with it, and neither the entry nor the cursor stays in the session.
#[tokio::test]
async fn nothing_stays_behind_a_prepared_transaction() {
    let db = Db::with_orders().await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let mut a = db.connect().await;
    let prepare = format!(
        "BEGIN; CALL palisade.open({}); INSERT INTO orders VALUES (1); {FETCH}; PREPARE TRANSACTION '{}'",
        words(&held),
        db.name
    );
    assert_eq!(run(&mut a, &prepare).await, Ok(()));
    assert_eq!(
        run(&mut a, "INSERT INTO orders VALUES (1)").await,
        refused(ZF003)
    );
    assert_eq!(
        run(&mut a, &format!("BEGIN; {FETCH}")).await,
        refused("34000")
    );
    run(&mut a, "ROLLBACK").await.unwrap();
    db.run(&format!("COMMIT PREPARED '{}'", db.name)).await;
}

/// The entry of one session is none of another's.
#[tokio::test]
async fn an_entry_is_not_seen_by_another_session() {
    let db = Db::with_orders().await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let (mut a, mut b) = (db.connect().await, db.connect().await);
    run(
        &mut a,
        &format!("BEGIN; CALL palisade.open({})", words(&held)),
    )
    .await
    .unwrap();
    let insert = "BEGIN; INSERT INTO orders VALUES (1)";
    assert_eq!(run(&mut b, insert).await, refused(ZF003));
    run(&mut b, "ROLLBACK").await.unwrap();
    assert_eq!(
        run(&mut b, &format!("BEGIN; {FETCH}")).await,
        refused("34000")
    );
}

/// RESET ALL takes the entry, so that a protected table is closed; what was locked and read holds all the same.
#[tokio::test]
async fn a_reset_in_the_middle_closes_the_tables_and_the_commit_is_still_checked() {
    let db = Db::with_orders().await;
    db.run("CREATE TABLE free (id int)").await;
    let sealed = db.seal(&grant("orders", 10)).await;
    for reset in [
        "RESET ALL",
        "SAVEPOINT s; RESET ALL; RELEASE s",
        "DISCARD PLANS; RESET ALL",
    ] {
        let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
        run(
            &mut tx,
            &format!("{reset}; INSERT INTO free VALUES (1); SAVEPOINT t"),
        )
        .await
        .unwrap();
        let write = run(&mut tx, "INSERT INTO orders VALUES (1)").await;
        assert_eq!(write, refused(ZF003), "{reset}");
        run(&mut tx, "ROLLBACK TO t").await.unwrap();
        let id = tx.transaction_id().await.unwrap();
        assert_eq!(tx.commit().await.unwrap().transaction, Some(id), "{reset}");
    }
    assert_eq!(db.number("SELECT count(*) FROM free").await, 3);
    // Still checked: under a later fence the same transaction does not commit.
    db.seal(&grant("orders", 11)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "RESET ALL; INSERT INTO free VALUES (1)")
        .await
        .unwrap();
    assert_stale(&tx.commit().await.unwrap_err(), 10, 11);
    assert_eq!(db.number("SELECT count(*) FROM free").await, 3);
}

/// Neighbours in a stripe share a setting: each counts, in whichever order they were entered.
#[tokio::test]
async fn neighbours_are_entered_one_after_the_other() {
    let db = Db::new().await;
    let (one, two): (String, String) = sqlx::query_as(
        "SELECT min('r/' || i), max('r/' || i) FROM generate_series(1, 200) AS i \
         GROUP BY palisade.stripe('r/' || i) HAVING count(*) > 1 LIMIT 1",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    for resource in [&one, &two] {
        let table = format!("\"{resource}\"");
        db.run(&format!("CREATE TABLE {table} (id int)")).await;
        db.guard
            .protect(&db.pool, &table, &name(resource))
            .await
            .unwrap();
        db.seal(&grant(resource, 10)).await;
    }
    let mut a = db.connect().await;
    for (first, second) in [(&one, &two), (&two, &one)] {
        for enter in [
            format!("CALL palisade.open({})", words(&grant(first, 10))),
            format!("SELECT palisade.enter({})", sql(&grant(first, 10))),
            format!("SELECT palisade.check({})", sql(&grant(first, 10))),
        ] {
            let alone = format!("BEGIN; {enter}; INSERT INTO \"{second}\" VALUES (1)");
            assert_eq!(run(&mut a, &alone).await, refused(ZF003), "{alone}");
            run(&mut a, "ROLLBACK").await.unwrap();
            let both = format!(
                "BEGIN; {enter}; SELECT palisade.enter({}); INSERT INTO \"{first}\" VALUES (1); \
                 INSERT INTO \"{second}\" VALUES (1); SELECT palisade.check({}, true); COMMIT",
                sql(&grant(second, 10)),
                sql(&grant(first, 10))
            );
            assert_eq!(run(&mut a, &both).await, Ok(()), "{both}");
        }
    }
}
