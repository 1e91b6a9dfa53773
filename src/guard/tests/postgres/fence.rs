//! The fence itself: what SQL decides, and what even its owner cannot do.

use palisade_guard::decide::{self, Admission, Mark};
use palisade_guard::{Class, GuardError};
use palisade_token::{FencingToken, Grant, HolderId};
use sqlx::{AssertSqlSafe, Row};
use tokio::task::JoinSet;

use crate::db::{Db, code, grant, name, run, sql};

const KEPT: &str = "55000";

#[tokio::test]
async fn nobody_lowers_renames_or_deletes_a_fence() {
    let db = Db::new().await;
    db.seal(&grant("orders", 10)).await;
    db.seal(&grant("bills", 10)).await;
    let mut owner = db.connect().await;
    let other = HolderId::from_bytes([200; 16]);
    for (statement, expected) in [
        ("UPDATE palisade.fence SET token = 9".to_owned(), "ZF001"),
        ("UPDATE palisade.fence SET token = 0".to_owned(), "ZF001"),
        (
            format!("UPDATE palisade.fence SET holder = '{other}'"),
            "ZF004",
        ),
        (
            "UPDATE palisade.fence SET resource = 'x' WHERE resource = 'bills'".to_owned(),
            KEPT,
        ),
        ("DELETE FROM palisade.fence".to_owned(), KEPT),
        ("DELETE FROM palisade.fence WHERE false".to_owned(), KEPT),
        ("TRUNCATE palisade.fence".to_owned(), KEPT),
        (
            format!(
                "INSERT INTO palisade.fence VALUES ('orders', 9, '{other}') ON CONFLICT (resource) DO UPDATE SET token = excluded.token"
            ),
            "ZF001",
        ),
        (
            format!(
                "MERGE INTO palisade.fence AS f USING (SELECT 1) AS s ON f.resource = 'orders' WHEN MATCHED THEN UPDATE SET token = 1, holder = '{other}'"
            ),
            "ZF001",
        ),
        (
            format!("INSERT INTO palisade.fence VALUES ('orders', 11, '{other}')"),
            "23505",
        ),
        (
            format!("INSERT INTO palisade.fence VALUES ('no name', 1, '{other}')"),
            "23514",
        ),
        (
            format!("INSERT INTO palisade.fence VALUES ('a/../b', 1, '{other}')"),
            "23514",
        ),
        (
            format!("INSERT INTO palisade.fence VALUES ('n', 9007199254740992, '{other}')"),
            "23514",
        ),
        (
            "INSERT INTO palisade.fence VALUES ('n', 1, 'me')".to_owned(),
            "23514",
        ),
    ] {
        for mode in ["origin", "replica"] {
            let text = format!("SET session_replication_role = {mode}; {statement}");
            let refused = run(&mut owner, &text).await;
            assert_eq!(refused, Err(expected.to_owned()), "{mode}: {statement}");
        }
    }
    for resource in ["orders", "bills"] {
        let fence = db
            .guard
            .fence(&db.pool, &name(resource))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            Mark {
                token: fence.token,
                holder: fence.holder
            },
            Mark::from(&grant(resource, 10))
        );
    }
}

/// Without the lock an older writer that has been admitted would commit after the raise.
#[tokio::test]
async fn the_owners_raise_waits_for_running_writers() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10)")
        .await
        .unwrap();
    let (mut raise, mut owner) = (JoinSet::new(), db.connect().await);
    raise.spawn(async move {
        run(
            &mut owner,
            "UPDATE palisade.fence SET token = 11 WHERE resource = 'orders'",
        )
        .await
    });
    db.waiting(1).await;
    tx.commit().await.unwrap();
    assert_eq!(raise.join_next().await.unwrap().unwrap(), Ok(()));
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = run(&mut tx, "INSERT INTO orders VALUES (2, 10)").await;
    assert_eq!(error, Err("ZF001".to_owned()));
}

/// One decision in two languages.
#[tokio::test]
async fn sql_decides_as_the_pure_module_does() {
    let db = Db::new().await;
    let mark = |token, holder| Mark {
        token: FencingToken::new(token).unwrap(),
        holder: HolderId::from_bytes([holder; 16]),
    };
    let fences = [
        None,
        Some(mark(5, 1)),
        Some(mark(6, 2)),
        Some(mark(FencingToken::MAX, 1)),
    ];
    for (index, fence) in fences.into_iter().enumerate() {
        let resource = format!("r/{index}");
        if let Some(fence) = fence {
            db.number(&format!(
                "SELECT coalesce(palisade.seal('{resource}', {}, '{}'), 0)",
                fence.token, fence.holder
            ))
            .await;
        }
        for token in [1, 4, 5, 6, 7, FencingToken::MAX] {
            for holder in [1, 2] {
                let shown = mark(token, holder);
                let admission = decide::admit(shown, fence);
                let arguments = format!("'{resource}', {}, '{}'", shown.token, shown.holder);
                let outcome: String = sqlx::query_scalar(AssertSqlSafe(format!(
                    "SELECT palisade.enter({arguments})"
                )))
                .fetch_one(&db.pool)
                .await
                .unwrap();
                let (expected, state) = match admission {
                    Admission::Admitted => ("ok", None),
                    Admission::Stale { .. } => ("stale", Some("ZF001")),
                    Admission::Unsealed { .. } => ("unsealed", Some("ZF002")),
                    Admission::Collision => ("collision", Some("ZF004")),
                };
                assert_eq!(outcome, expected, "{arguments} at {fence:?}");
                let checked =
                    sqlx::query(AssertSqlSafe(format!("SELECT palisade.check({arguments})")))
                        .execute(&db.pool)
                        .await;
                assert_eq!(
                    checked.as_ref().err().map(code).as_deref(),
                    state,
                    "{arguments} at {fence:?}"
                );
                let error = checked.err().map(GuardError::from);
                let agrees = match (&error, admission) {
                    (None, Admission::Admitted) => true,
                    (
                        Some(GuardError::Stale {
                            presented,
                            fence: at,
                            ..
                        }),
                        Admission::Stale { fence },
                    ) => presented.get() == token && *at == fence,
                    (
                        Some(GuardError::Unsealed {
                            presented,
                            fence: at,
                            ..
                        }),
                        Admission::Unsealed { fence },
                    ) => presented.get() == token && *at == fence,
                    (Some(GuardError::Collision { token: both, .. }), Admission::Collision) => {
                        both.get() == token
                    }
                    _ => false,
                };
                assert!(agrees, "{error:?} for {arguments} at {fence:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_grant_is_bad_input() {
    let db = Db::new().await;
    let holder = "0".repeat(32);
    let mut connection = db.connect().await;
    for function in ["enter", "check"] {
        for arguments in [
            format!("NULL, 1, '{holder}'"),
            format!("'r', NULL, '{holder}'"),
            "'r', 1, NULL".to_owned(),
            format!("'r', 0, '{holder}'"),
            format!("'r', -1, '{holder}'"),
            format!("'r', 9007199254740992, '{holder}'"),
            "'r', 1, 'me'".to_owned(),
            format!("'', 1, '{holder}'"),
            format!("E'r\\n1 orders ok', 1, '{holder}'"),
            format!("'{}', 1, '{holder}'", "r".repeat(257)),
        ] {
            let refused = run(
                &mut connection,
                &format!("SELECT palisade.{function}({arguments})"),
            )
            .await;
            assert_eq!(refused, Err("22023".to_owned()), "{function}({arguments})");
        }
    }
}

#[tokio::test]
async fn one_transaction_enters_a_resource_with_one_grant() {
    let db = Db::with_orders().await;
    let (old, new) = (grant("orders", 10), grant("orders", 11));
    db.seal(&old).await;
    let mut connection = db.connect().await;
    let twice = format!(
        "BEGIN; SELECT palisade.enter({0}); SELECT palisade.enter({0}), palisade.check({0}); INSERT INTO orders VALUES (1); COMMIT",
        sql(&old)
    );
    assert_eq!(run(&mut connection, &twice).await, Ok(()));
    let other = Grant {
        holder: grant("orders", 3).holder,
        ..old.clone()
    };
    // Neither another token, nor the beginning of one, nor another holder passes for what was entered.
    for shown in [new, grant("orders", 1), other] {
        for function in ["enter", "check"] {
            let both = format!(
                "BEGIN; SELECT palisade.enter({}); SELECT palisade.{function}({})",
                sql(&old),
                sql(&shown)
            );
            assert_eq!(
                run(&mut connection, &both).await,
                Err(KEPT.to_owned()),
                "{both}"
            );
            run(&mut connection, "ROLLBACK").await.unwrap();
        }
    }
}

#[tokio::test]
async fn messages_and_details_carry_both_tokens() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 41)).await;
    db.seal(&grant("orders", 42)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = sqlx::query("DELETE FROM orders")
        .execute(&mut *tx)
        .await
        .unwrap_err();
    let server = error
        .as_database_error()
        .unwrap()
        .downcast_ref::<sqlx::postgres::PgDatabaseError>();
    assert_eq!(
        server.message(),
        "stale token 41 for orders: the fence is at 42"
    );
    assert_eq!(
        server.detail(),
        Some(r#"{"resource" : "orders", "presented" : 41, "fence" : 42}"#)
    );
    let error = tx.refusal(error);
    assert_eq!(
        error.to_string(),
        "stale token 41 for orders: the fence is at 42"
    );
    assert_eq!(error.class(), Class::Fatal);
}

/// Two names with one stripe keep their own entries.
#[tokio::test]
async fn neighbours_in_one_stripe_do_not_mix() {
    let db = Db::new().await;
    let rows = sqlx::query(
        "SELECT min('r/' || i) AS a, max('r/' || i) AS b FROM generate_series(1, 200) AS i \
         GROUP BY palisade.stripe('r/' || i) HAVING count(*) > 1 LIMIT 1",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    let (a, b): (String, String) = (rows.get("a"), rows.get("b"));
    for (table, resource) in [("a", &a), ("b", &b)] {
        db.run(&format!("CREATE TABLE {table} (id int)")).await;
        db.guard
            .protect(&db.pool, table, &name(resource))
            .await
            .unwrap();
    }
    let (first, second) = (db.seal(&grant(&a, 5)).await, db.seal(&grant(&b, 5)).await);
    let mut tx = db.guard.begin(&db.pool, &first).await.unwrap();
    run(&mut tx, "INSERT INTO a VALUES (1)").await.unwrap();
    assert_eq!(
        run(&mut tx, "INSERT INTO b VALUES (1)").await,
        Err("ZF003".to_owned())
    );
    drop(tx);
    db.seal(&grant(&b, 6)).await;
    let mut tx = db
        .guard
        .begin_all(&db.pool, &[&first, &second])
        .await
        .unwrap();
    run(&mut tx, "INSERT INTO a VALUES (1)").await.unwrap();
    assert_eq!(
        run(&mut tx, "INSERT INTO b VALUES (1)").await,
        Err("ZF001".to_owned())
    );
    assert!(matches!(tx.commit().await, Err(GuardError::Stale { .. })));
    assert!(first.is_live() && !second.is_live());
}

#[tokio::test]
async fn a_thousand_resources_fit_one_transaction() {
    let db = Db::new().await;
    let sql = "SELECT count(palisade.seal('r/' || i, 7, repeat('07', 16))) FROM generate_series(1, 1000) AS i";
    db.number(sql).await;
    let mut sealed = Vec::new();
    for index in 1..=1000 {
        sealed.push(db.seal(&grant(&format!("r/{index}"), 7)).await);
    }
    let all: Vec<_> = sealed.iter().collect();
    let tx = db.guard.begin_all(&db.pool, &all).await.unwrap();
    tx.commit().await.unwrap();
    let twice = [all[0], all[0]];
    assert!(matches!(
        db.guard.begin_all(&db.pool, &twice).await,
        Err(GuardError::Misuse(_))
    ));
    assert!(matches!(
        db.guard.begin_all(&db.pool, &[]).await,
        Err(GuardError::Misuse(_))
    ));
}
