//! Two transactions around an external call.

use std::time::Duration;

use palisade_guard::effects::{Attempt, Begun, KeyPolicy, Outcome};
use palisade_guard::postgres::Sealed;
use palisade_guard::{Class, GuardError};

use crate::db::{Db, assert_stale, grant};
use crate::ledger::{asked, credit, credit_once, deliver, key, with_ledger};

/// Longer than any test.
const LONG: KeyPolicy = KeyPolicy::new();

async fn begin(db: &Db, sealed: &Sealed, text: &str) -> Result<Begun<i64>, GuardError> {
    db.guard
        .begin_attempt(&db.pool, sealed, &key(text), &asked(5), &LONG)
        .await
}

async fn begun(db: &Db, sealed: &Sealed, text: &str) -> Attempt {
    match begin(db, sealed, text).await.unwrap() {
        Begun::Attempt(attempt) => attempt,
        other @ Begun::Replayed { .. } => panic!("{other:?}"),
    }
}

async fn in_progress(db: &Db, sealed: &Sealed, text: &str) -> (Duration, u64) {
    match begin(db, sealed, text).await {
        Err(GuardError::InProgress {
            retry_after,
            owner: Some(owner),
            ..
        }) => (retry_after, owner.token.get()),
        other => panic!("{other:?}"),
    }
}

async fn complete(db: &Db, sealed: &Sealed, attempt: &Attempt) -> Result<Outcome<i64>, GuardError> {
    let mut tx = db.guard.begin(&db.pool, sealed).await?;
    let outcome = tx
        .complete(attempt, async |c| credit(c, "call", 5).await)
        .await?;
    tx.commit().await?;
    Ok(outcome)
}

/// Lets the attempt's lifetime be over, as if time had passed.
async fn let_time_pass(db: &Db) {
    db.run("UPDATE palisade.effect SET attempt_until = clock_timestamp() - interval '1 s' WHERE attempt_until IS NOT NULL").await;
}

#[tokio::test]
async fn an_attempt_is_begun_completed_and_replayed() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let attempt = begun(&db, &sealed, "k").await;
    assert_eq!((attempt.number(), attempt.grant()), (1, sealed.grant()));
    let (retry_after, owner) = in_progress(&db, &sealed, "k").await;
    assert!(retry_after > Duration::from_secs(30), "{retry_after:?}");
    assert_eq!(owner, 10);
    // Nor is it an effect of one transaction meanwhile.
    let error = deliver(&db, &sealed, "k", 5).await.unwrap_err();
    assert!(matches!(error, GuardError::InProgress { .. }), "{error:?}");
    let done = complete(&db, &sealed, &attempt).await.unwrap();
    assert_eq!(done, Outcome::Executed(5));
    // The answer to that commit was lost: the same attempt again.
    assert!(
        complete(&db, &sealed, &attempt)
            .await
            .unwrap()
            .is_replayed()
    );
    let Begun::Replayed { value, first_seen } = begin(&db, &sealed, "k").await.unwrap() else {
        panic!("begun again");
    };
    assert_eq!((value, first_seen), (5, attempt.first_seen()));
    assert!(deliver(&db, &sealed, "k", 5).await.unwrap().is_replayed());
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 1);
    // What one transaction has done is not attempted.
    deliver(&db, &sealed, "one", 5).await.unwrap();
    let replayed = begin(&db, &sealed, "one").await.unwrap();
    assert!(matches!(replayed, Begun::Replayed { .. }), "{replayed:?}");
}

#[tokio::test]
async fn an_unfinished_attempt_is_taken_over_by_a_later_holder_at_once() {
    let db = with_ledger().await;
    let old = db.seal(&grant("ledger", 10)).await;
    let zombie = begun(&db, &old, "k").await;
    let new = db.seal(&grant("ledger", 11)).await;
    let listed = db
        .guard
        .unfinished(&db.pool, &grant("ledger", 1).resource, 10)
        .await
        .unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!((&listed[0].key, &listed[0].by), (&key("k"), old.grant()));
    let attempt = begun(&db, &new, "k").await;
    assert_eq!(attempt.number(), 2);
    assert_eq!(attempt.external_key(), zombie.external_key());
    // The old holder's call comes back: its completion changes nothing.
    assert_stale(&complete(&db, &old, &zombie).await.unwrap_err(), 10, 11);
    assert_stale(&complete(&db, &new, &zombie).await.unwrap_err(), 10, 11);
    assert_eq!(
        complete(&db, &new, &attempt).await.unwrap(),
        Outcome::Executed(5)
    );
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 1);
    let listed = db
        .guard
        .unfinished(&db.pool, &grant("ledger", 1).resource, 10)
        .await
        .unwrap();
    assert_eq!(listed, []);
}

#[tokio::test]
async fn time_alone_takes_no_attempt_over() {
    let db = with_ledger().await;
    let old = db.seal(&grant("ledger", 10)).await;
    let other = db.seal(&grant("other", 99)).await;
    let attempt = begun(&db, &old, "k").await;
    let_time_pass(&db).await;
    let (_, owner) = in_progress(&db, &other, "k").await;
    assert_eq!(owner, 10);
    let error = deliver(&db, &old, "k", 5).await.unwrap_err();
    assert!(matches!(error, GuardError::InProgress { .. }), "{error:?}");
    // Nor what a store that went backwards might hold: an attempt above the fence, or of another holder.
    let later = begun(&db, &old, "later").await;
    for change in ["token = 12", "token = 10, holder = repeat('ab', 16)"] {
        db.run(&format!(
            "UPDATE palisade.effect SET {change} WHERE key = 'later'"
        ))
        .await;
        let_time_pass(&db).await;
        in_progress(&db, &old, "later").await;
    }
    assert_eq!(later.number(), 1);
    // Late is not too late, as long as nobody has begun it again.
    assert_eq!(
        complete(&db, &old, &attempt).await.unwrap(),
        Outcome::Executed(5)
    );
}

/// An attack: the fence of another resource, far above, says nothing about this attempt's holder.
#[tokio::test]
async fn a_key_is_never_taken_over_across_resources() {
    let db = with_ledger().await;
    let a = db.seal(&grant("ledger", 10)).await;
    let b = db.seal(&grant("other", 1_000_000)).await;
    let attempt = begun(&db, &a, "k").await;
    assert_eq!(in_progress(&db, &b, "k").await.1, 10);
    let_time_pass(&db).await;
    assert_eq!(in_progress(&db, &b, "k").await.1, 10);
    // Nor with its own fence above: that is for the next holder of its resource.
    let later = db.seal(&grant("ledger", 11)).await;
    assert_eq!(in_progress(&db, &b, "k").await.1, 10);
    // Nor in a transaction that carries both, whichever comes first.
    let mut tx = db.guard.begin_all(&db.pool, &[&b, &later]).await.unwrap();
    let error = credit_once(&mut tx, "k", 5).await.unwrap_err();
    assert!(matches!(error, GuardError::InProgress { .. }), "{error:?}");
    drop(tx);
    assert_stale(&complete(&db, &a, &attempt).await.unwrap_err(), 10, 11);
    let error = complete(&db, &b, &attempt).await.unwrap_err();
    assert!(matches!(error, GuardError::Misuse(_)), "{error:?}");
    let attempt = begun(&db, &later, "k").await;
    complete(&db, &later, &attempt).await.unwrap();
    // Done is done, whoever asks.
    assert!(matches!(
        begin(&db, &b, "k").await.unwrap(),
        Begun::Replayed { value: 5, .. }
    ));
}

/// The same holder, another worker: only when the first one's time is over, and then the first has lost it.
#[tokio::test]
async fn the_same_holder_begins_again_when_the_attempt_is_over_and_the_first_is_superseded() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let first = begun(&db, &sealed, "k").await;
    in_progress(&db, &sealed, "k").await;
    let_time_pass(&db).await;
    let second = begun(&db, &sealed, "k").await;
    assert_eq!(second.number(), 2);
    in_progress(&db, &sealed, "k").await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = tx
        .complete(&first, async |c| credit(c, "zombie", 5).await)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, GuardError::Superseded { key: k } if *k == key("k")),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Retry);
    let error = tx.give_up(&first).await.unwrap_err();
    assert!(matches!(error, GuardError::Superseded { .. }), "{error:?}");
    // The transaction goes on.
    credit_once(&mut tx, "n", 1).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(
        complete(&db, &sealed, &second).await.unwrap(),
        Outcome::Executed(6)
    );
    // By now there is an answer, also for the first.
    assert!(complete(&db, &sealed, &first).await.unwrap().is_replayed());
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 2);
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_begun_again_at_once_by_its_holder_only() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let other = db.seal(&grant("other", 99)).await;
    let first = begun(&db, &sealed, "k").await;
    // Its completion fails: still unfinished.
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = tx
        .complete(&first, async |c| {
            credit(c, "k", 5).await?;
            Err::<i64, _>(GuardError::Misuse("no"))
        })
        .await
        .unwrap_err();
    assert!(matches!(error, GuardError::Misuse(_)), "{error:?}");
    tx.give_up(&first).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 0);
    in_progress(&db, &other, "k").await;
    let second = begun(&db, &sealed, "k").await;
    assert_eq!(second.number(), 2);
    complete(&db, &sealed, &second).await.unwrap();
}

/// Cut short between its first write and its answer: the call was made, so what was written may not commit
/// beside an attempt that is open still, which the next holder would complete a second time.
#[tokio::test]
async fn a_completion_that_was_cut_short_does_not_commit() {
    let db = with_ledger().await;
    let sealed = db.seal(&grant("ledger", 10)).await;
    let attempt = begun(&db, &sealed, "k").await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    {
        let (entered, waits) = tokio::sync::oneshot::channel::<()>();
        let completion = tx.complete(&attempt, async |c| {
            let sum = credit(c, "call", 5).await;
            entered.send(()).unwrap();
            std::future::pending::<()>().await;
            sum
        });
        tokio::select! {
            _ = completion => panic!("it never ends"),
            () = async { waits.await.unwrap() } => {}
        }
    }
    // Nor is it completed around what was written.
    let again = tx
        .complete(&attempt, async |c| credit(c, "call", 5).await)
        .await
        .unwrap_err();
    assert!(matches!(again, GuardError::Superseded { .. }), "{again:?}");
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::RolledBack(Some(_))),
        "{error:?}"
    );
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 0);
    let new = db.seal(&grant("ledger", 11)).await;
    let attempt = begun(&db, &new, "k").await;
    complete(&db, &new, &attempt).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 1);
}

/// An attempt that is being finished right now is not waited for.
#[tokio::test]
async fn an_attempt_under_completion_is_in_progress() {
    let db = with_ledger().await;
    let old = db.seal(&grant("ledger", 10)).await;
    let attempt = begun(&db, &old, "k").await;
    let_time_pass(&db).await;
    let mut tx = db.guard.begin(&db.pool, &old).await.unwrap();
    tx.complete(&attempt, async |c| credit(c, "k", 5).await)
        .await
        .unwrap();
    let error = begin(&db, &old, "k").await.unwrap_err();
    assert!(matches!(error, GuardError::InProgress { .. }), "{error:?}");
    tx.commit().await.unwrap();
    assert!(matches!(
        begin(&db, &old, "k").await.unwrap(),
        Begun::Replayed { .. }
    ));
}
