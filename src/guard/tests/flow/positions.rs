//! Sequences, offsets and versions.

use palisade_guard::effects::position::{self, Numbering, Sequence};
use palisade_guard::effects::{MAX_POSITION, SeqOutcome};
use palisade_guard::postgres::{Isolation, Sealed};
use palisade_guard::{Class, GuardError};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use tokio::task::JoinSet;

use crate::broker::named;
use crate::db::{Db, assert_stale, grant, run, sql};

async fn accept(db: &Db, sealed: &Sealed, number: u64) -> Result<SeqOutcome, GuardError> {
    let mut tx = db.guard.begin(&db.pool, sealed).await?;
    let outcome = tx.accept(&named("p"), number).await?;
    tx.commit().await?;
    Ok(outcome)
}

#[tokio::test]
async fn numbers_are_applied_once_across_a_takeover_and_gaps_are_told() {
    use SeqOutcome::{Applied, Duplicate};
    let db = Db::new().await;
    let old = db.seal(&grant("r", 5)).await;
    let gap = accept(&db, &old, 1).await.unwrap_err();
    assert!(
        matches!(&gap, GuardError::SequenceGap { producer, expected: 0, got: 1 }
            if producer.as_str() == "p"),
        "{gap:?}"
    );
    assert_eq!(gap.class(), Class::Conflict);
    for number in 0..4 {
        assert_eq!(accept(&db, &old, number).await.unwrap(), Applied);
        assert_eq!(accept(&db, &old, number).await.unwrap(), Duplicate);
    }

    let new = db.seal(&grant("r", 6)).await;
    let mut tx = db.guard.begin(&db.pool, &new).await.unwrap();
    let last = tx.last_sequence(&named("p")).await.unwrap().unwrap();
    assert_eq!((last.token.get(), last.last), (5, Some(3)));
    assert_eq!(tx.last_sequence(&named("other")).await.unwrap(), None);
    tx.rollback().await.unwrap();
    // The first number again is a repetition under any token.
    assert_eq!(accept(&db, &new, 0).await.unwrap(), Duplicate);
    assert_eq!(accept(&db, &new, 3).await.unwrap(), Duplicate);
    assert_eq!(accept(&db, &new, 4).await.unwrap(), Applied);
    assert_stale(&accept(&db, &old, 5).await.unwrap_err(), 5, 6);
    assert!(!old.is_live());
}

#[tokio::test]
async fn a_restart_is_a_step_of_its_own_and_may_be_repeated() {
    let db = Db::new().await;
    let (old, producer) = (db.seal(&grant("r", 5)).await, named("p"));
    accept(&db, &old, 0).await.unwrap();
    accept(&db, &old, 1).await.unwrap();
    let restart = async |sealed: &Sealed| {
        let mut tx = db.guard.begin(&db.pool, sealed).await.unwrap();
        let next = tx.restart_sequence(&producer).await.unwrap();
        tx.commit().await.unwrap();
        next
    };
    assert_eq!(restart(&old).await, 2, "not under the same token");
    let new = db.seal(&grant("r", 6)).await;
    assert_eq!(restart(&new).await, 0);
    assert_eq!(accept(&db, &new, 0).await.unwrap(), SeqOutcome::Applied);
    assert_eq!(restart(&new).await, 1, "the commit was in doubt: once more");
    assert_eq!(accept(&db, &new, 0).await.unwrap(), SeqOutcome::Duplicate);
}

#[tokio::test]
async fn two_transactions_with_one_number_apply_it_once() {
    let db = std::sync::Arc::new(Db::new().await);
    let sealed = db.seal(&grant("r", 5)).await;
    for isolation in [Isolation::ReadCommitted, Isolation::RepeatableRead] {
        for number in 0..5 {
            let number = number
                + if isolation == Isolation::RepeatableRead {
                    5
                } else {
                    0
                };
            let mut tasks = JoinSet::new();
            for _ in 0..4 {
                let (db, sealed) = (std::sync::Arc::clone(&db), sealed.clone());
                tasks.spawn(async move {
                    let guard = db.guard.with_isolation(isolation);
                    loop {
                        let tried = async {
                            let mut tx = guard.begin(&db.pool, &sealed).await?;
                            let outcome = tx.accept(&named("p"), number).await?;
                            tx.commit().await.map(|_| outcome)
                        };
                        match tried.await {
                            Ok(outcome) => return outcome,
                            Err(error) => assert_eq!(error.class(), Class::Retry, "{error:?}"),
                        }
                    }
                });
            }
            let outcomes = tasks.join_all().await;
            let applied = outcomes.iter().filter(|o| **o == SeqOutcome::Applied);
            assert_eq!(applied.count(), 1, "{isolation:?} {number}");
        }
    }
}

/// The rule is written twice, here in SQL: random numbers under random takeovers must meet the same.
#[tokio::test]
async fn the_sql_of_sequences_decides_as_the_model() {
    let db = Db::new().await;
    let mut connection = db.connect().await;
    let mut runner = TestRunner::deterministic();
    for case in 0..12 {
        let resource = format!("r{case}");
        let steps = prop::collection::vec((0..2_u64, 0..6_u64, prop::bool::weighted(0.1)), 40);
        let steps = steps.new_tree(&mut runner).unwrap().current();
        let (mut model, mut token): (Option<Sequence>, u64) = (None, 1);
        let mut sealed = db.seal(&grant(&resource, token)).await;
        for (takeover, number, restarts) in steps {
            if takeover == 1 && number == 0 {
                token += 1;
                sealed = db.seal(&grant(&resource, token)).await;
            }
            let presented = sealed.grant().token;
            let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
            if restarts {
                let next = tx.restart_sequence(&named("p")).await.unwrap();
                let restarted = position::restart(model, presented).unwrap();
                assert_eq!(next, restarted.next());
                model = Some(restarted);
                tx.commit().await.unwrap();
                continue;
            }
            match (
                position::number(model, presented, number),
                tx.accept(&named("p"), number).await,
            ) {
                (Numbering::Applied(moved), Ok(SeqOutcome::Applied)) => {
                    model = Some(moved);
                    tx.commit().await.unwrap();
                }
                (Numbering::Duplicate, Ok(SeqOutcome::Duplicate)) => tx.rollback().await.unwrap(),
                (
                    Numbering::Gap { expected },
                    Err(GuardError::SequenceGap { expected: told, .. }),
                ) if expected == told => {}
                (model, store) => panic!("{model:?} is not {store:?}"),
            }
        }
    }
    run(&mut connection, "SELECT 1").await.unwrap();
}

/// A fence that went backwards, as with a restore of half a database, does not let old numbers in.
#[tokio::test]
async fn a_sequence_is_fenced_by_its_own_token_too() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    accept(&db, &sealed, 0).await.unwrap();
    db.run("UPDATE palisade.sequence SET token = 9; \
            INSERT INTO palisade.mark (kind, resource, name, at, token) VALUES ('c', 'r', 'c', 3, 9)")
        .await;
    assert_stale(&accept(&db, &sealed, 1).await.unwrap_err(), 5, 9);
    let sealed = db.seal(&grant("r", 5)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = tx.advance_offset(&named("c"), 3, 4).await.unwrap_err();
    assert_stale(&error, 5, 9);
}

#[tokio::test]
async fn an_offset_moves_with_its_effects_or_not_at_all() {
    let db = Db::with_orders().await;
    let (sealed, cursor) = (db.seal(&grant("orders", 5)).await, named("topic/0"));
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(tx.offset(&cursor).await.unwrap(), 0);
    sqlx::query("INSERT INTO orders VALUES (1, 5)")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.advance_offset(&cursor, 0, 10).await.unwrap();
    tx.rollback().await.unwrap();

    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    tx.advance_offset(&cursor, 0, 10).await.unwrap();
    assert_eq!(tx.offset(&cursor).await.unwrap(), 10);
    tx.commit().await.unwrap();

    // Consumed twice: the second time nothing of it commits.
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    sqlx::query("INSERT INTO orders VALUES (1, 5)")
        .execute(&mut *tx)
        .await
        .unwrap();
    let error = tx.advance_offset(&cursor, 0, 10).await.unwrap_err();
    assert!(
        matches!(
            &error,
            GuardError::OffsetConflict {
                expected: 0,
                found: 10,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Conflict);
    assert!(tx.commit().await.is_err());
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 0);

    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    for (expected, next) in [(10, 10), (10, 3), (10, MAX_POSITION + 1)] {
        let error = tx
            .advance_offset(&cursor, expected, next)
            .await
            .unwrap_err();
        assert_eq!(error.class(), Class::Bug, "{error:?}");
    }
}

#[tokio::test]
async fn an_entity_changed_since_it_was_read_is_told() {
    let db = Db::new().await;
    let (sealed, entity) = (db.seal(&grant("r", 5)).await, named("account-7"));
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(tx.version(&entity).await.unwrap(), 0);
    assert_eq!(tx.expect_version(&entity, 0).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = tx.expect_version(&entity, 0).await.unwrap_err();
    assert!(
        matches!(
            &error,
            GuardError::VersionConflict {
                expected: 0,
                found: 1,
                ..
            }
        ),
        "{error:?}"
    );
    drop(tx);
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(tx.expect_version(&entity, 1).await.unwrap(), 2);
    tx.rollback().await.unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(tx.version(&entity).await.unwrap(), 1);
}

#[tokio::test]
async fn effects_of_several_resources_say_which() {
    let db = Db::new().await;
    let (a, b) = (db.seal(&grant("a", 5)).await, db.seal(&grant("b", 7)).await);
    let mut tx = db.guard.begin_all(&db.pool, &[&a, &b]).await.unwrap();
    let error = tx.accept(&named("p"), 0).await.unwrap_err();
    assert_eq!(error.class(), Class::Bug);
    assert!(tx.act_for(&crate::db::name("c")).is_err());
    for resource in ["a", "b"] {
        tx.act_for(&crate::db::name(resource)).unwrap();
        assert_eq!(
            tx.accept(&named("p"), 0).await.unwrap(),
            SeqOutcome::Applied
        );
    }
    tx.commit().await.unwrap();
    let tokens = "SELECT sum(token)::bigint FROM palisade.sequence";
    assert_eq!(db.number(tokens).await, 12);
}

/// What psql, Python or Go get: an error that stops the transaction, with the facts as JSON.
#[tokio::test]
async fn plain_sql_meets_the_same_refusals() {
    let db = Db::new().await;
    db.run("CREATE ROLE plain LOGIN; SELECT palisade.grant_writer('plain')")
        .await;
    let mut plain = db.connect().await;
    run(&mut plain, "SET ROLE plain").await.unwrap();
    let sealed = grant("r", 5);
    run(
        &mut plain,
        &format!("SELECT palisade.seal({})", sql(&sealed)),
    )
    .await
    .unwrap();
    let enter = format!("BEGIN; SELECT palisade.enter({});", sql(&sealed));
    let cases = [
        ("SELECT palisade.accept('r', 'p', 0)", Ok(())),
        ("SELECT palisade.accept('r', 'p', 2)", Err("ZF005")),
        ("SELECT palisade.accept('other', 'p', 0)", Err("ZF003")),
        ("SELECT palisade.accept('r', 'p', -1)", Err("23514")),
        (
            "SELECT palisade.accept('r', 'p', 9007199254740992)",
            Err("23514"),
        ),
        ("SELECT palisade.accept('r', '', 0)", Err("23514")),
        ("SELECT palisade.accept('r', 'p', NULL)", Err("22004")),
        ("SELECT palisade.advance_offset('r', 'c', 0, 5)", Ok(())),
        (
            "SELECT palisade.advance_offset('r', 'c', 1, 5)",
            Err("ZF006"),
        ),
        (
            "SELECT palisade.advance_offset('r', 'c', 0, 0)",
            Err("22023"),
        ),
        ("SELECT palisade.expect_version('r', 'e', 0)", Ok(())),
        ("SELECT palisade.expect_version('r', 'e', 7)", Err("ZF007")),
        ("SELECT palisade.inbox('r', 'c', 'm')", Ok(())),
        ("SELECT palisade.stage('r', 'main', 't', 'x')", Ok(())),
        ("SELECT palisade.acting('r')", Err("42501")),
        ("DELETE FROM palisade.sequence", Err("42501")),
        ("DELETE FROM palisade.outbox", Err("42501")),
    ];
    for (text, expected) in cases {
        let got = run(&mut plain, &format!("{enter} {text}")).await;
        assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        run(&mut plain, "ROLLBACK").await.unwrap();
    }
    let error = sqlx::Executor::execute(
        &mut plain,
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "{enter} SELECT palisade.accept('r', 'p', 2)"
        ))),
    )
    .await
    .unwrap_err();
    let detail = error
        .as_database_error()
        .and_then(|e| e.try_downcast_ref::<sqlx::postgres::PgDatabaseError>())
        .and_then(|e| e.detail())
        .unwrap();
    let detail: String = detail.split_whitespace().collect();
    assert_eq!(
        detail,
        r#"{"resource":"r","presented":5,"fence":5,"name":"p","expected":0,"got":2}"#
    );
    // A stale writer moves nothing.
    run(&mut plain, "ROLLBACK").await.unwrap();
    db.seal(&grant("r", 6)).await;
    for text in [
        "accept('r', 'p', 0)",
        "restart_sequence('r', 'p')",
        "advance_offset('r', 'c', 0, 5)",
        "expect_version('r', 'e', 0)",
        "inbox('r', 'c', 'm')",
        "stage('r', 'main', 't', 'x')",
        "outbox_batch('r', 'main', 10, 10)",
        "outbox_published('r', 'main', '{1}')",
        "outbox_failed('r', 'main', 1, 'x', interval '1 s', true, 1)",
        "consumer_failed('r', 'c', 'm', 'x', true, 1, 't', 'x')",
        "take_dead_letter('r', 1)",
        "replay_dead_letter('r', 1)",
    ] {
        let got = run(&mut plain, &format!("{enter} SELECT palisade.{text}")).await;
        assert_eq!(got, Err("ZF001".to_owned()), "{text}");
        run(&mut plain, "ROLLBACK").await.unwrap();
    }
}
