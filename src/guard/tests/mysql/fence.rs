use std::time::Duration;

use palisade_guard::mysql::{MAX_RESOURCES, Sealed};
use palisade_guard::{Blocker, Class, GuardError};
use palisade_token::{Grant, HolderId};

use crate::db::{COLLISION, DEADLOCK, Db, STALE, UNSEALED, assert_stale, call, grant, name, run};

/// Refused even to root: lowering, another holder, renaming, DELETE, also with IGNORE, REPLACE, TRUNCATE, DROP.
#[tokio::test]
async fn a_fence_is_never_lowered_renamed_or_deleted() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    let before = db.guard.fence(&db.pool, &name("orders")).await.unwrap();
    let mut root = db.connect().await;
    let other = grant("orders", 11).holder;
    for (sql, code) in [
        ("UPDATE palisade_fence SET token = 9", STALE),
        ("UPDATE IGNORE palisade_fence SET token = 9", STALE),
        ("UPDATE palisade_fence SET resource = 'bills'", 51_006),
        ("DELETE FROM palisade_fence", 51_006),
        ("DELETE IGNORE FROM palisade_fence", 51_006),
        (
            "REPLACE INTO palisade_fence SELECT resource, 9, holder, 1 FROM palisade_fence",
            51_006,
        ),
        ("TRUNCATE palisade_fence", 1701),
        ("DROP TABLE palisade_fence", 1451),
        (
            &format!("UPDATE palisade_fence SET holder = '{other}'"),
            COLLISION,
        ),
        (&call("seal", &grant("orders", 9)), STALE),
    ] {
        assert_eq!(run(&mut root, sql).await, Err(code), "{sql}");
    }
    assert_eq!(
        db.guard.fence(&db.pool, &name("orders")).await.unwrap(),
        before
    );
    // As documented: what the foreign key stops, it stops while foreign keys are on.
    let off = "SET SESSION foreign_key_checks = 0; TRUNCATE palisade_fence";
    assert_eq!(run(&mut root, off).await, Ok(()));
}

#[tokio::test]
async fn seals_tell_both_tokens_also_of_the_longest_names() {
    let db = Db::new().await;
    let long = "x".repeat(256);
    for resource in ["orders", &long] {
        let (low, high) = (grant(resource, 9), grant(resource, (1 << 53) - 1));
        assert!(
            db.guard
                .fence(&db.pool, &low.resource)
                .await
                .unwrap()
                .is_none()
        );
        let old = db.seal(&low).await;
        let again = db.seal(&low).await;
        db.seal(&high).await;
        let fence = db
            .guard
            .fence(&db.pool, &low.resource)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((fence.token, fence.holder), (high.token, high.holder));
        let error = db.guard.seal(&db.pool, &low).await.unwrap_err();
        assert_stale(&error, 9, (1 << 53) - 1);
        let error = db.guard.begin(&db.pool, &old).await.unwrap_err();
        assert_stale(&error, 9, (1 << 53) - 1);
        assert!(again.is_live(), "another seal's clones are another matter");
        let other = Grant {
            holder: HolderId::from_bytes([0xee; 16]),
            ..high
        };
        let error = db.guard.seal(&db.pool, &other).await.unwrap_err();
        assert!(
            matches!(&error, GuardError::Collision { resource: r, .. } if r.as_str() == resource),
            "{error:?}"
        );
    }
    // The settings of the one connection of a pool are as before.
    let wait = "SELECT CAST(@@innodb_lock_wait_timeout AS SIGNED)";
    assert_eq!(db.number(wait).await, 50);
}

/// A message holds 128 characters. What a trigger says of a long name is found among the transaction's grants.
#[tokio::test]
async fn a_refusal_with_a_cut_name_is_told_whole() {
    let db = Db::new().await;
    let long = "y".repeat(256);
    db.run("CREATE TABLE bills (id INT) ENGINE = InnoDB").await;
    let resource = name(&long);
    let protected = db.guard.protect(&db.pool, "bills", &resource);
    protected.await.unwrap();
    let sealed = db.seal(&grant(&long, 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    // The owner's doing, and the only way to see this refusal under the transaction's own lock.
    let raise = "UPDATE palisade_fence SET token = 11";
    assert_eq!(run(&mut tx, raise).await, Ok(()));
    let refused = sqlx::query("INSERT INTO bills VALUES (1)")
        .execute(&mut *tx)
        .await
        .unwrap_err();
    assert_stale(&tx.refusal(refused), 10, 11);
    assert!(!sealed.is_live());
    assert_stale(&tx.commit().await.unwrap_err(), 10, 11);
    // In a session that knows no grants it is refused all the same, and the name is shown as cut.
    let error = sqlx::query("INSERT INTO bills VALUES (1)")
        .execute(&db.pool)
        .await
        .unwrap_err();
    let GuardError::Unguarded { resource, .. } = GuardError::from(error) else {
        panic!("not unguarded");
    };
    assert!(resource.ends_with('~') && long.starts_with(resource.trim_end_matches('~')));
}

#[tokio::test]
async fn a_seal_names_who_keeps_it_waiting() {
    let db = Db::new().await;
    let old = db.seal(&grant("orders", 10)).await;
    let guard = db.guard.with_seal_timeout(Duration::from_millis(1));
    let mut tx = db.guard.begin(&db.pool, &old).await.unwrap();
    let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    // A leftover of another session is in nobody's way, and not named.
    let mut left = db.connect().await;
    let entry = format!("START TRANSACTION; {}; COMMIT", call("enter", old.grant()));
    run(&mut left, &entry).await.unwrap();
    let error = guard
        .seal(&db.pool, &grant("orders", 11))
        .await
        .unwrap_err();
    let GuardError::SealTimeout {
        waited, blockers, ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*waited, Duration::from_secs(1));
    assert!(
        matches!(blockers.as_slice(), [Blocker::Session { pid, application: Some(user), .. }]
            if u64::try_from(*pid) == Ok(id) && user == "root"),
        "{blockers:?}"
    );
    assert_eq!(error.class(), Class::Retry);
    // A seal of a neighbour does not wait for it: the lock is on one row.
    guard.seal(&db.pool, &grant("bills", 1)).await.unwrap();
    tx.commit().await.unwrap();
    guard.seal(&db.pool, &grant("orders", 11)).await.unwrap();
}

/// What other languages call is as strict as Rust's types.
#[tokio::test]
async fn the_procedures_refuse_what_is_no_grant() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    let good = grant("orders", 10).holder.to_string();
    let mut session = db.connect().await;
    let (x257, x9999, upper) = ("x".repeat(257), "x".repeat(9999), good.to_uppercase());
    for (resource, token, holder) in [
        ("'orders'", "10.4", good.as_str()),
        ("'orders'", "9.6", &good),
        ("'orders'", "0", &good),
        ("'orders'", "-10", &good),
        ("'orders'", "'010'", &good),
        ("'orders'", "' 10'", &good),
        ("'orders'", "''", &good),
        ("'orders'", "NULL", &good),
        ("'orders'", "9007199254740992", &good),
        ("'orders'", "10", &good[1..]),
        ("'orders'", "10", &upper),
        ("'orders'", "10", ""),
        ("'Orders '", "10", &good),
        ("'orders '", "10", &good),
        ("'orders\n'", "10", &good),
        ("'ordérs'", "10", &good),
        ("'order\u{17f}'", "10", &good),
        ("'orders/'", "10", &good),
        ("'/orders'", "10", &good),
        ("'a//b'", "10", &good),
        ("'a/../b'", "10", &good),
        ("'.'", "10", &good),
        ("''", "10", &good),
        ("NULL", "10", &good),
        (&format!("'{x257}'"), "10", &good),
        (&format!("'{x9999}'"), "10", &good),
    ] {
        for procedure in ["seal", "enter"] {
            let begin = if procedure == "enter" {
                "START TRANSACTION; "
            } else {
                ""
            };
            let sql = format!("{begin}CALL palisade_{procedure}({resource}, {token}, '{holder}')");
            let refused = run(&mut session, &sql).await;
            assert!(matches!(refused, Err(51_000 | 1406)), "{sql}: {refused:?}");
            run(&mut session, "ROLLBACK").await.unwrap();
        }
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM palisade_fence").await, 1);
    assert_eq!(db.number("SELECT COUNT(*) FROM palisade_entry").await, 0);
    // Names are told apart by case.
    let sql = format!("START TRANSACTION; CALL palisade_enter('ORDERS', 10, '{good}')");
    assert_eq!(run(&mut session, &sql).await, Err(UNSEALED));
}

/// Out of order: sealing in a transaction would commit late, entering outside of one would hold no lock.
#[tokio::test]
async fn procedures_are_refused_in_the_wrong_place() {
    let db = Db::new().await;
    let mut session = db.connect().await;
    let (seal, enter) = (
        call("seal", &grant("orders", 10)),
        call("enter", &grant("orders", 10)),
    );
    run(&mut session, "START TRANSACTION").await.unwrap();
    assert_eq!(run(&mut session, &seal).await, Err(51_000));
    run(&mut session, "ROLLBACK; SET autocommit = 0")
        .await
        .unwrap();
    assert_eq!(run(&mut session, &seal).await, Err(51_000));
    run(&mut session, "ROLLBACK; SET autocommit = 1")
        .await
        .unwrap();
    assert_eq!(run(&mut session, &seal).await, Ok(()));
    assert_eq!(run(&mut session, &enter).await, Err(51_000));
    assert_eq!(
        run(&mut session, "CALL palisade_leave()").await,
        Err(51_005)
    );
    assert_eq!(db.number("SELECT COUNT(*) FROM palisade_entry").await, 0);
    // The library seals also where a pool's connections do not commit by themselves.
    let pool = sqlx::mysql::MySqlPoolOptions::new()
        .max_connections(1)
        .after_connect(|connection, _| {
            Box::pin(async move {
                sqlx::raw_sql("SET autocommit = 0")
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .connect(&db.url)
        .await
        .unwrap();
    let sealed = db.guard.seal(&pool, &grant("orders", 11)).await.unwrap();
    let fence = db.guard.fence(&db.pool, &name("orders")).await.unwrap();
    assert_eq!(fence.unwrap().token.get(), 11);
    let mut tx = db.guard.begin(&pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 11)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT COUNT(*) FROM orders").await, 1);
}

/// Who has entered and then seals holds a shared lock and wants the exclusive one. Seals come first, always.
#[tokio::test]
async fn a_lock_upgrade_is_a_deadlock_and_ends_as_serialization() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    let (mut a, mut b) = (db.connect().await, db.connect().await);
    let enter = format!("START TRANSACTION; {}", call("enter", &grant("orders", 10)));
    run(&mut a, &enter).await.unwrap();
    run(&mut b, &enter).await.unwrap();
    let upgrade = "UPDATE palisade_fence SET token = 11 WHERE resource = 'orders'";
    let (first, second) = tokio::join!(
        sqlx::raw_sql(upgrade).execute(&mut a),
        sqlx::raw_sql(upgrade).execute(&mut b),
    );
    let errors: Vec<_> = [first, second]
        .into_iter()
        .filter_map(Result::err)
        .collect();
    let [error] = <[sqlx::Error; 1]>::try_from(errors).expect("one of the two is chosen");
    assert_eq!(crate::db::code(&error), DEADLOCK);
    assert!(matches!(
        GuardError::from(error),
        GuardError::Serialization(_)
    ));
}

#[tokio::test]
async fn many_resources_fit_one_transaction() {
    let db = Db::new().await;
    let long = "r".repeat(240);
    let mut all = Vec::new();
    for index in 0..MAX_RESOURCES {
        all.push(grant(&format!("{long}/{index}"), 10));
    }
    let values: Vec<_> = all
        .iter()
        .map(|g| format!("('{}', 10, '{}', 1)", g.resource, g.holder))
        .collect();
    // Sealed one by one this would be the slowest test of all.
    db.run(&format!(
        "INSERT INTO palisade_fence VALUES {}",
        values.join(", ")
    ))
    .await;
    let mut sealed: Vec<Sealed> = Vec::new();
    let last = db.seal(all.last().unwrap()).await;
    for grant in all.iter().take(3) {
        sealed.push(db.seal(grant).await);
    }
    let few: Vec<_> = sealed.iter().collect();
    let tx = db.guard.begin_all(&db.pool, &few).await.unwrap();
    assert_eq!(tx.grants().count(), 3);
    tx.commit().await.unwrap();
    let twice = db.guard.begin_all(&db.pool, &[&last, &last]).await;
    assert!(matches!(twice, Err(GuardError::Misuse(_))));
    // The whole number, as the library would send them.
    let enter: Vec<_> = all.iter().map(|grant| call("enter", grant)).collect();
    let mut session = db.connect().await;
    let text = format!("START TRANSACTION; {}", enter.join("; "));
    assert!(text.len() < 1 << 20, "{}", text.len());
    run(&mut session, &text).await.unwrap();
    assert_eq!(
        run(&mut session, "CALL palisade_leave(); COMMIT").await,
        Ok(())
    );
    assert_eq!(db.number("SELECT COUNT(*) FROM palisade_entry").await, 0);
}
