use palisade_guard::GuardError;
use sqlx::Connection as _;

use crate::db::{COLLISION, Db, STALE, UNGUARDED, UNSEALED, call, grant, name, run};

/// Every way to change a row, on its own and in a transaction, in autocommit and without.
#[tokio::test]
async fn every_kind_of_write_without_the_guard_is_refused() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10), (2, 10)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let file = db.server.socket_dir().join("rows");
    std::fs::write(&file, "7\t7\n").unwrap();
    let load = |how: &str| {
        format!(
            "LOAD DATA INFILE '{}' {how} INTO TABLE orders",
            file.display()
        )
    };
    let mut plain = db.connect().await;
    for sql in [
        "INSERT INTO orders VALUES (3, 3)",
        "INSERT IGNORE INTO orders VALUES (3, 3)",
        "INSERT INTO orders VALUES (1, 3) ON DUPLICATE KEY UPDATE token = 3",
        "INSERT INTO orders SELECT id + 9, token FROM orders",
        "REPLACE INTO orders VALUES (1, 3)",
        "UPDATE orders SET token = 3",
        "UPDATE IGNORE orders SET token = 3",
        "UPDATE orders AS o JOIN orders AS p ON o.id = p.id SET o.token = 3",
        "DELETE FROM orders",
        "DELETE IGNORE FROM orders WHERE id = 1",
        "DELETE o FROM orders AS o JOIN orders AS p ON o.id = p.id",
        "WITH old AS (SELECT id FROM orders) SELECT 1; DELETE FROM orders LIMIT 1",
        &load(""),
        &load("IGNORE"),
        &load("REPLACE"),
    ] {
        for before in ["", "START TRANSACTION; ", "SET autocommit = 0; "] {
            let refused = run(&mut plain, &format!("{before}{sql}")).await;
            assert_eq!(refused, Err(UNGUARDED), "{before}{sql}");
            run(&mut plain, "ROLLBACK; SET autocommit = 1")
                .await
                .unwrap();
        }
    }
    assert_eq!(
        db.number("SELECT COUNT(*) FROM orders WHERE token = 10")
            .await,
        2
    );
    // A statement that changes no row has written nothing.
    assert_eq!(
        run(&mut plain, "DELETE FROM orders WHERE id = 99").await,
        Ok(())
    );
    let error = sqlx::query("DELETE FROM orders").execute(&db.pool).await;
    let error = GuardError::from(error.unwrap_err());
    assert!(
        matches!(&error, GuardError::Unguarded { resource, table: Some(table) }
            if resource == "orders" && table == "orders"),
        "{error:?}"
    );
}

/// What the docs say is not covered, so that they stay true; and the advice that they give.
#[tokio::test]
async fn truncate_ddl_and_cascades_fire_no_trigger_as_documented() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    db.run(
        "CREATE TABLE items (id INT, orders INT, \
         FOREIGN KEY (orders) REFERENCES orders (id) ON DELETE CASCADE) ENGINE = InnoDB",
    )
    .await;
    db.guard
        .protect(&db.pool, "items", &name("items"))
        .await
        .unwrap();
    let items = db.seal(&grant("items", 3)).await;
    let mut tx = db
        .guard
        .begin_all(&db.pool, &[&sealed, &items])
        .await
        .unwrap();
    run(
        &mut tx,
        "INSERT INTO orders VALUES (1, 1); INSERT INTO items VALUES (1, 1)",
    )
    .await
    .unwrap();
    tx.commit().await.unwrap();
    // Guarded for the parent only: the cascade into the child is not asked for its grant.
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(run(&mut tx, "DELETE FROM items").await, Err(UNGUARDED));
    run(&mut tx, "DELETE FROM orders").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM items").await, 0);
    // TRUNCATE fires no trigger ...
    let mut tx = db.guard.begin(&db.pool, &items).await.unwrap();
    run(&mut tx, "INSERT INTO items VALUES (2, NULL)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    db.run("TRUNCATE items").await;
    assert_eq!(db.number("SELECT COUNT(*) FROM items").await, 0);
    // ... and is refused to a writer with the rights that a writer needs.
    let writer = writer(&db).await;
    let mut session = sqlx::MySqlConnection::connect(&writer).await.unwrap();
    assert_eq!(run(&mut session, "TRUNCATE orders").await, Err(1142));
    assert_eq!(
        run(&mut session, "DELETE FROM palisade_fence").await,
        Err(1142)
    );
    assert_eq!(
        run(&mut session, "SELECT * FROM palisade_entry").await,
        Err(1142)
    );
    assert_eq!(
        run(&mut session, "INSERT INTO orders VALUES (3, 3)").await,
        Err(UNGUARDED)
    );
    // With no more than that it does all a writer does.
    let pool = sqlx::MySqlPool::connect(&writer).await.unwrap();
    let sealed = db.guard.seal(&pool, &grant("orders", 11)).await.unwrap();
    let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (3, 11)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let fence = db.guard.fence(&pool, &name("orders")).await.unwrap();
    assert_eq!(fence.unwrap().token.get(), 11);
}

/// A user with the rights that the docs name; its URL.
async fn writer(db: &Db) -> String {
    let mut text =
        "CREATE USER writer; GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO writer".to_owned();
    for procedure in ["seal", "enter", "leave", "status", "blockers"] {
        text += &format!("; GRANT EXECUTE ON PROCEDURE palisade_{procedure} TO writer");
    }
    db.run(&text).await;
    db.url.replace("root@", "writer@")
}

/// An entry counts for its own resource, session and transaction, and only while it agrees with the fence.
#[tokio::test]
async fn an_entry_counts_for_what_it_was_made_for() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    db.seal(&grant("bills", 10)).await;
    let write = "INSERT INTO orders VALUES (1, 1)";
    let mut session = db.connect().await;
    // Another resource.
    let bills = format!("START TRANSACTION; {}", call("enter", &grant("bills", 10)));
    run(&mut session, &bills).await.unwrap();
    assert_eq!(run(&mut session, write).await, Err(UNGUARDED));
    // Rolled back to before it: the entry is gone, whatever the session remembers.
    run(
        &mut session,
        "ROLLBACK; START TRANSACTION; SAVEPOINT before_it",
    )
    .await
    .unwrap();
    run(&mut session, &call("enter", &grant("orders", 10)))
        .await
        .unwrap();
    run(&mut session, "ROLLBACK TO before_it").await.unwrap();
    assert_eq!(run(&mut session, write).await, Err(UNGUARDED));
    // The next transaction, after a rollback and after a commit.
    let enter = call("enter", &grant("orders", 10));
    for end in ["ROLLBACK", "CALL palisade_leave(); COMMIT"] {
        run(
            &mut session,
            &format!("ROLLBACK; START TRANSACTION; {enter}; {end}"),
        )
        .await
        .unwrap();
        assert_eq!(run(&mut session, write).await, Err(UNGUARDED), "{end}");
        run(&mut session, "START TRANSACTION").await.unwrap();
        assert_eq!(run(&mut session, write).await, Err(UNGUARDED), "{end}");
    }
    // A session that claims another's stamp.
    run(
        &mut session,
        &format!("ROLLBACK; START TRANSACTION; {enter}"),
    )
    .await
    .unwrap();
    let mut other = db.connect().await;
    assert_eq!(run(&mut other, write).await, Err(UNGUARDED));
    run(&mut session, "ROLLBACK").await.unwrap();
    for (token, code) in [(9, STALE), (11, UNSEALED)] {
        let enter = format!(
            "START TRANSACTION; {}",
            call("enter", &grant("orders", token))
        );
        assert_eq!(run(&mut session, &enter).await, Err(code));
        assert_eq!(run(&mut session, write).await, Err(UNGUARDED));
    }
    let mut held_by_another = grant("orders", 10);
    held_by_another.holder = grant("orders", 3).holder;
    let enter = format!("START TRANSACTION; {}", call("enter", &held_by_another));
    assert_eq!(run(&mut session, &enter).await, Err(COLLISION));
}

/// The one thing that `InnoDB` has no means against, with its bound: an entry that was committed by hand
/// counts for its own session, until that enters again, and never past a seal.
#[tokio::test]
async fn an_entry_committed_by_hand_counts_for_its_session_and_never_past_a_seal() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    let mut session = db.connect().await;
    let leave_behind = format!(
        "START TRANSACTION; {}; COMMIT",
        call("enter", &grant("orders", 10))
    );
    run(&mut session, &leave_behind).await.unwrap();
    assert_eq!(
        run(&mut session, "INSERT INTO orders VALUES (1, 10)").await,
        Ok(())
    );
    let mut other = db.connect().await;
    assert_eq!(
        run(&mut other, "INSERT INTO orders VALUES (2, 2)").await,
        Err(UNGUARDED)
    );
    // It holds no lock: the seal does not wait for it, and it is stale at once, at every isolation, also
    // for a transaction whose snapshot is older than the seal.
    for level in crate::db::LEVELS {
        let token = db.number("SELECT token FROM palisade_fence").await;
        let current = grant("orders", token.try_into().unwrap());
        let behind = format!("START TRANSACTION; {}; COMMIT", call("enter", &current));
        run(&mut session, &behind).await.unwrap();
        let begin = format!(
            "SET TRANSACTION ISOLATION LEVEL {level}; START TRANSACTION; SELECT id FROM plain"
        );
        run(&mut session, &begin).await.unwrap();
        // By the owner's hand: a seal would sweep the entry away.
        let next = grant("orders", u64::try_from(token).unwrap() + 1);
        let (token, holder) = (next.token, next.holder);
        db.run(&format!(
            "UPDATE palisade_fence SET token = {token}, holder = '{holder}'"
        ))
        .await;
        let write = run(&mut session, "INSERT INTO orders VALUES (3, 3)").await;
        assert_eq!(write, Err(STALE), "{level}");
        run(&mut session, "ROLLBACK").await.unwrap();
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM orders").await, 1);
    // A seal sweeps what was left behind; entering again takes it away too.
    db.seal(&grant("orders", 20)).await;
    assert_eq!(db.number("SELECT COUNT(*) FROM palisade_entry").await, 0);
    let enter = call("enter", &grant("orders", 20));
    let behind = format!("START TRANSACTION; {enter}; COMMIT");
    run(&mut session, &behind).await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM palisade_entry").await, 1);
    run(
        &mut session,
        &format!("START TRANSACTION; {enter}; CALL palisade_leave(); COMMIT"),
    )
    .await
    .unwrap();
    assert_eq!(
        run(&mut session, "INSERT INTO orders VALUES (4, 4)").await,
        Err(UNGUARDED)
    );
}
