//! One transaction: claim, effect and answer together.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use palisade_guard::effects::{Fingerprint, IdempotencyKey, KeyPolicy, Outcome, Rejections};
use palisade_guard::postgres::Isolation;
use palisade_guard::{Class, GuardError};
use tokio::task::JoinSet;

use crate::db::{assert_stale, grant, run};
use crate::ledger::{asked, credit, credit_once, deliver, key, with_ledger};

const LEVELS: [Isolation; 3] = [
    Isolation::ReadCommitted,
    Isolation::RepeatableRead,
    Isolation::Serializable,
];

#[tokio::test]
async fn an_effect_is_applied_once_and_its_answer_replayed() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let first = deliver(&db, &sealed, "k", 5).await.unwrap();
    assert_eq!(first, Outcome::Executed(5));
    assert_eq!(
        deliver(&db, &sealed, "other", 2).await.unwrap(),
        Outcome::Executed(7)
    );
    let mut seen = Vec::new();
    for _ in 0..2 {
        let again = deliver(&db, &sealed, "k", 5).await.unwrap();
        let Outcome::Replayed { value, first_seen } = again else {
            panic!("{again:?}");
        };
        assert_eq!(value, 5, "the first answer, though the sum is 7 by now");
        seen.push(first_seen);
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0] > SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
    // In one transaction, too.
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert!(!credit_once(&mut tx, "n", 1).await.unwrap().is_replayed());
    assert!(credit_once(&mut tx, "n", 1).await.unwrap().is_replayed());
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 3);
}

#[tokio::test]
async fn a_scope_is_part_of_its_key() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    // Such that a key made by gluing the parts together would be the same.
    for (tenant, operation, text) in [
        ("a", "b", "c"),
        ("ab", "c", "c"),
        ("a", "bc", "c"),
        ("a", "b", "cc"),
    ] {
        let key = IdempotencyKey::new(tenant, operation, text).unwrap();
        let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
        let outcome: Outcome<i64> = tx
            .once(&key, &asked(1), async |c| credit(c, text, 1).await)
            .await
            .unwrap();
        assert!(!outcome.is_replayed(), "{key}");
        tx.commit().await.unwrap();
    }
}

/// A retry after a takeover has a greater token and finds the key of the old holder.
#[tokio::test]
async fn a_key_survives_takeover_by_another_holder() {
    let db = with_ledger().await;
    let old = db.seal(&grant("ledger", 10)).await;
    deliver(&db, &old, "k", 5).await.unwrap();
    let new = db.seal(&grant("ledger", 11)).await;
    let again = deliver(&db, &new, "k", 5).await.unwrap();
    assert!(again.is_replayed());
    assert_eq!(again.into_value(), 5);
    // And the old holder gets nothing, not even the answer.
    assert_stale(&deliver(&db, &old, "k", 5).await.unwrap_err(), 10, 11);
    assert_stale(&deliver(&db, &old, "n", 5).await.unwrap_err(), 10, 11);
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 1);
    assert_eq!(db.number("SELECT count(*) FROM palisade.effect").await, 1);
}

#[tokio::test]
async fn another_request_under_the_same_key_is_a_mismatch_before_it_is_a_replay() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    deliver(&db, &sealed, "k", 5).await.unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = credit_once(&mut tx, "k", 6).await.unwrap_err();
    assert!(
        matches!(&error, GuardError::FingerprintMismatch { key: k } if *k == key("k")),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Bug);
    // The transaction goes on.
    credit_once(&mut tx, "n", 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT sum(amount)::bigint FROM ledger").await, 6);
}

#[tokio::test]
async fn an_effect_that_fails_leaves_nothing_and_its_key_free() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    credit_once(&mut tx, "before", 1).await.unwrap();
    for failing in ["SELECT 1 / 0", "SELECT 1"] {
        let error = tx
            .once(&key("k"), &asked(5), async |c| {
                credit(c, "k", 5).await?;
                sqlx::raw_sql(sqlx::AssertSqlSafe(failing))
                    .execute(c)
                    .await?;
                Err::<i64, _>(GuardError::Misuse("the provider says 500"))
            })
            .await
            .unwrap_err();
        assert!(
            matches!(error, GuardError::Misuse(_) | GuardError::Backend(_)),
            "{error:?}"
        );
    }
    credit_once(&mut tx, "after", 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 2);
    assert_eq!(db.number("SELECT count(*) FROM palisade.effect").await, 2);
    assert!(!deliver(&db, &sealed, "k", 5).await.unwrap().is_replayed());
}

/// It says `Ok`, and its transaction is broken: neither may be believed.
#[tokio::test]
async fn an_effect_that_hides_a_failed_statement_is_undone() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = tx
        .once(&key("k"), &asked(5), async |c| {
            credit(c, "k", 5).await?;
            assert!(sqlx::query("SELECT 1 / 0").execute(c).await.is_err());
            Ok::<_, GuardError>(5_i64)
        })
        .await
        .unwrap_err();
    assert!(matches!(error, GuardError::RolledBack(_)), "{error:?}");
    credit_once(&mut tx, "n", 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT sum(amount)::bigint FROM ledger").await, 1);
}

/// Cut short between claim and answer: what was written must not commit without its key.
#[tokio::test]
async fn an_effect_that_was_cut_short_does_not_commit() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    {
        let (entered, waits) = tokio::sync::oneshot::channel::<()>();
        let key = key("k");
        let asked = asked(5);
        let effect = tx.once(&key, &asked, async |c| {
            let sum = credit(c, "k", 5).await;
            entered.send(()).unwrap();
            std::future::pending::<()>().await;
            sum
        });
        tokio::select! {
            _ = effect => panic!("it never ends"),
            () = async { waits.await.unwrap() } => {}
        }
    }
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::RolledBack(Some(_))),
        "{error:?}"
    );
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 0);
    assert!(!deliver(&db, &sealed, "k", 5).await.unwrap().is_replayed());
}

/// No connections pile up behind a slow effect, at any isolation level.
#[tokio::test]
async fn a_second_request_is_told_at_once_that_the_first_is_in_progress() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let mut first = db.guard.begin(&db.pool, &sealed).await.unwrap();
    credit_once(&mut first, "k", 5).await.unwrap();
    for level in LEVELS {
        let guard = db.guard.with_isolation(level);
        let mut second = guard.begin(&db.pool, &sealed).await.unwrap();
        // It would wait for the first, which waits for this test.
        let error = credit_once(&mut second, "k", 5).await.unwrap_err();
        let GuardError::InProgress { retry_after, .. } = &error else {
            panic!("{error:?}");
        };
        assert!((1..=1000).contains(&retry_after.as_millis()));
        assert_eq!(error.class(), Class::Retry);
        credit_once(&mut second, &format!("{level:?}"), 1)
            .await
            .unwrap();
        second.commit().await.unwrap();
    }
    first.commit().await.unwrap();
    assert_eq!(db.number("SELECT sum(amount)::bigint FROM ledger").await, 8);
}

#[tokio::test]
async fn a_snapshot_older_than_the_answer_is_a_serialization_failure() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    for (level, text) in [
        (Isolation::RepeatableRead, "r"),
        (Isolation::Serializable, "s"),
    ] {
        let guard = db.guard.with_isolation(level);
        let mut late = guard.begin(&db.pool, &sealed).await.unwrap();
        run(&mut late, "SELECT count(*) FROM ledger").await.unwrap();
        deliver(&db, &sealed, text, 5).await.unwrap();
        let error = credit_once(&mut late, text, 5).await.unwrap_err();
        assert!(matches!(error, GuardError::Serialization(_)), "{error:?}");
        late.rollback().await.unwrap();
        let mut again = guard.begin(&db.pool, &sealed).await.unwrap();
        assert!(
            credit_once(&mut again, text, 5)
                .await
                .unwrap()
                .is_replayed()
        );
        again.commit().await.unwrap();
    }
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_deliveries_at_once_one_is_applied_and_all_get_its_answer() {
    let db = Arc::new(with_ledger().await);
    let sealed = db.seal(&grant("ledger", 10)).await;
    let mut tasks = JoinSet::new();
    for number in 0..24_usize {
        let (db, sealed) = (Arc::clone(&db), sealed.clone());
        let guard = db.guard.with_isolation(LEVELS[number % 3]);
        tasks.spawn(async move {
            let mut executed = 0;
            loop {
                let done = async {
                    let mut tx = guard.begin(&db.pool, &sealed).await?;
                    let outcome = credit_once(&mut tx, "k", 5).await?;
                    tx.commit().await.map(|_| outcome)
                };
                match done.await {
                    Ok(outcome) => {
                        executed += usize::from(!outcome.is_replayed());
                        return (executed, outcome.into_value());
                    }
                    Err(error) => assert_eq!(error.class(), Class::Retry, "{error:?}"),
                }
            }
        });
    }
    let all = tasks.join_all().await;
    assert!(all.iter().all(|(_, answer)| *answer == 5), "{all:?}");
    assert_eq!(all.iter().map(|(executed, _)| executed).sum::<usize>(), 1);
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 1);
}

/// Declined for good, or a matter of luck: the policy says whether the first is kept, and never the second.
#[tokio::test]
async fn a_rejection_is_kept_if_the_policy_says_so() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    for (rejections, text, asked_again) in [
        (Rejections::Forget, "forget", true),
        (Rejections::Replay, "replay", false),
    ] {
        let policy = KeyPolicy::new().with_rejections(rejections);
        for turn in [true, asked_again] {
            let mut runs = false;
            let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
            let outcome = tx
                .once_or_reject(&key(text), &asked(5), &policy, async |c| {
                    runs = true;
                    credit(c, text, 5).await?;
                    Ok::<_, GuardError>(Err::<i64, _>("declined".to_owned()))
                })
                .await
                .unwrap();
            tx.commit().await.unwrap();
            assert_eq!((runs, outcome.is_replayed()), (turn, !turn), "{text}");
            assert_eq!(outcome.into_value(), Err("declined".to_owned()));
        }
    }
    assert_eq!(
        db.number("SELECT count(*) FROM ledger").await,
        0,
        "a rejection writes nothing else"
    );
    assert_eq!(db.number("SELECT count(*) FROM palisade.effect").await, 1);
}

#[tokio::test]
async fn an_answer_that_cannot_be_kept_or_read_is_an_error() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    // Two quotes, besides.
    for (length, fits) in [
        (KeyPolicy::MAX_ANSWER_BYTES - 2, true),
        (KeyPolicy::MAX_ANSWER_BYTES - 1, false),
    ] {
        let result = tx
            .once(&key(&length.to_string()), &asked(5), async |c| {
                credit(c, "k", 5).await?;
                Ok::<_, GuardError>("x".repeat(length))
            })
            .await;
        match result {
            Ok(_) => assert!(fits),
            Err(error) => {
                assert!(!fits);
                let expected = "the answer has 65537 bytes; at most 65536 are kept with a key";
                assert_eq!(error.to_string(), expected);
            }
        }
    }
    let odd = "\u{0}'\\\u{1F512}\"; DROP".to_owned();
    tx.once(&key("odd"), &asked(5), async |_| {
        Ok::<_, GuardError>(odd.clone())
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 1);
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = credit_once(&mut tx, "odd", 5).await.unwrap_err();
    assert!(matches!(error, GuardError::Answer(_)), "not a number");
    let replayed: Outcome<String> = tx
        .once(&key("odd"), &asked(5), async |_| {
            Err(GuardError::Misuse("not run"))
        })
        .await
        .unwrap();
    assert_eq!(replayed.into_value(), odd);
}

/// Not every value is read back as it was stored: whoever asks first is told what all others will be.
#[tokio::test]
async fn the_first_is_told_what_is_replayed() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let some = async || {
        let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
        let outcome = tx
            .once(&key("some"), &asked(5), async |_| {
                Ok::<_, GuardError>(Some(()))
            })
            .await
            .unwrap();
        tx.commit().await.unwrap();
        (outcome.is_replayed(), outcome.into_value())
    };
    let (first, again) = (some().await, some().await);
    assert_eq!((first.0, again.0), (false, true));
    assert_eq!(first.1, again.1);
    // What could never be read again is told now, while its effect can be undone.
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = tx
        .once(&key("nan"), &asked(5), async |c| {
            credit(c, "nan", 5).await?;
            Ok::<_, GuardError>(f64::NAN)
        })
        .await
        .unwrap_err();
    assert!(matches!(error, GuardError::Answer(_)), "{error:?}");
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 0);
    assert!(!deliver(&db, &sealed, "nan", 5).await.unwrap().is_replayed());
}

/// Its answer may have been there, and purged: it is not taken for new.
#[tokio::test]
async fn a_time_ordered_key_older_than_its_answer_would_be_is_refused() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let policy = KeyPolicy::new().with_answer_lifetime(Duration::from_secs(86_400));
    let now: i64 = db
        .number("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
        .await;
    let made = |age: i64| {
        let millis = now - age * 1000;
        format!(
            "{:08x}-{:04x}-7abc-9abc-0123456789ab",
            millis >> 16,
            millis & 0xffff
        )
    };
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    for (age, is_taken) in [
        (0, true),
        (86_000, true),
        (86_401, false),
        (-3600, true),
        (-999_999_999, true),
    ] {
        let result: Result<Outcome<i64>, GuardError> = tx
            .once_with(&key(&made(age)), &asked(age), &policy, async |c| {
                credit(c, "k", 1).await
            })
            .await;
        match result {
            Ok(_) => assert!(is_taken, "{age}"),
            Err(error) => {
                assert!(!is_taken, "{age}");
                assert!(matches!(error, GuardError::KeyExpired { .. }), "{error:?}");
                assert_eq!(error.class(), Class::Unknown);
            }
        }
    }
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM palisade.effect").await, 4);
    // What is known is replayed, however old; and a key from the future is kept for its lifetime from then.
    db.run("UPDATE palisade.effect SET first_seen = first_seen - interval '1 year'")
        .await;
    let early = "SELECT count(*) FROM palisade.effect WHERE keep_until > \
                 clock_timestamp() + interval '24 hours 58 minutes'";
    assert_eq!(db.number(early).await, 2);
    // From a far future: not for ever.
    let late = early.replace("24 hours 58 minutes", "48 hours");
    assert_eq!(db.number(&late).await, 0);
    let unversioned = Fingerprint::of(&[]);
    assert_eq!(unversioned.as_bytes()[0], Fingerprint::ALGORITHM);
}
