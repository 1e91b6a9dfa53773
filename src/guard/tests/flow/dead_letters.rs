//! Messages that were given up, and tried again.

use std::time::Duration;

use palisade_guard::effects::{IdempotencyKey, Message, Receipt, Undelivered, Verdict};
use palisade_guard::postgres::{Expired, RelayPolicy};
use palisade_guard::{Class, GuardError};

use crate::broker::{Broker, Trouble, message, named};
use crate::db::{Db, grant};

#[derive(Debug, thiserror::Error)]
#[error("posting failed")]
struct Posting(#[source] Box<dyn std::error::Error + Send + Sync>);

#[tokio::test]
async fn the_relay_buries_after_its_attempts_and_goes_past() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    db.stage(&sealed, "x", &["poison", "x2"]).await;
    db.stage(&sealed, "y", &["never", "y2"]).await;
    let broker = Broker::default();
    broker.trouble("poison", Some(Trouble::Fails));
    broker.trouble("never", Some(Trouble::Refuses));
    let relay = db
        .relay(&db.seal(&grant("relay", 1)).await, &broker)
        .with_policy(
            RelayPolicy::new()
                .with_attempts(3)
                .with_waits(Duration::ZERO, Duration::ZERO),
        );
    let mut passes = Vec::new();
    for _ in 0..4 {
        let pass = db.pass(&relay).await.unwrap();
        passes.push((pass.published, pass.failed, pass.buried));
    }
    // What never will is buried at once; y2 follows in the next pass, x2 after the third attempt.
    assert_eq!(passes, [(0, 1, 1), (1, 1, 0), (0, 0, 1), (1, 0, 0)]);
    assert_eq!(broker.taken(), ["y2", "x2"]);
    let letters = db.guard.dead_letters(&db.pool, 0, 10).await.unwrap();
    let [never, poison] = letters.as_slice() else {
        panic!("{letters:?}");
    };
    assert_eq!(
        (never.attempts, never.errors.as_slice()),
        (1, ["it never will".to_owned()].as_slice())
    );
    assert_eq!(poison.undelivered, Undelivered::Outbox(named("main")));
    assert_eq!(poison.errors, vec!["it did not work"; 3]);
    assert_eq!((poison.attempts, poison.token.get()), (3, 5));
    assert!(poison.first_attempt <= poison.last_attempt);
    assert_eq!(
        db.guard
            .dead_letters(&db.pool, never.id, 10)
            .await
            .unwrap()
            .len(),
        1
    );
    let backlog = db.guard.backlog(&db.pool, &named("main")).await.unwrap();
    assert_eq!((backlog.pending, backlog.dead_letters), (0, 2));
}

#[tokio::test]
async fn a_dead_letter_is_replayed_under_its_own_id_and_key() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let key = IdempotencyKey::new("tenant", "pay", "k").unwrap();
    let staged = message("poison")
        .with_key(key.clone())
        .with_id(named("m-1"));
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    tx.stage(&named("main"), &staged).await.unwrap();
    tx.commit().await.unwrap();
    let broker = Broker::default();
    broker.trouble("poison", Some(Trouble::Refuses));
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    assert_eq!(db.pass(&relay).await.unwrap().buried, 1);
    let letter = db
        .guard
        .dead_letters(&db.pool, 0, 1)
        .await
        .unwrap()
        .remove(0);

    broker.trouble("poison", None);
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(
        tx.replay_dead_letter(letter.id).await.unwrap(),
        Some(named("m-1"))
    );
    assert_eq!(tx.replay_dead_letter(letter.id).await.unwrap(), None);
    tx.rollback().await.unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(
        tx.replay_dead_letter(letter.id).await.unwrap(),
        Some(named("m-1"))
    );
    tx.commit().await.unwrap();
    assert_eq!(db.pass(&relay).await.unwrap().published, 1);
    let again = &broker.envelopes()[0];
    assert_eq!(
        (again.id.clone(), again.key.clone(), again.attempts),
        (named("m-1"), Some(key), 0)
    );
    assert!(
        db.guard
            .dead_letters(&db.pool, 0, 1)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_consumer_buries_what_it_cannot_handle_and_handles_it_later() {
    let db = Db::new().await;
    let (sealed, consumer) = (db.seal(&grant("r", 5)).await, named("c"));
    let failing = Message::new(named("topic"), b"x".to_vec())
        .unwrap()
        .with_id(named("m"));
    let error = Posting(Box::from("no such account"));
    let fail = async || {
        let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
        let verdict = tx.failed(&consumer, &failing, 3, &error).await.unwrap();
        tx.commit().await.unwrap();
        verdict
    };
    assert_eq!(fail().await, Verdict::Again);
    // A success forgets the failures before it.
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(
        tx.inbox(&consumer, &named("m"), None).await.unwrap(),
        Receipt::New
    );
    tx.commit().await.unwrap();
    db.run("DELETE FROM palisade.inbox").await;
    assert_eq!(
        [fail().await, fail().await, fail().await],
        [Verdict::Again, Verdict::Again, Verdict::Dead]
    );
    let letter = db
        .guard
        .dead_letters(&db.pool, 0, 1)
        .await
        .unwrap()
        .remove(0);
    assert_eq!(letter.undelivered, Undelivered::Consumer(consumer.clone()));
    assert_eq!(letter.errors, vec!["posting failed: no such account"; 3]);

    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(
        tx.replay_dead_letter(letter.id).await.unwrap(),
        None,
        "no outbox gave it up"
    );
    let taken = tx.take_dead_letter(letter.id).await.unwrap().unwrap();
    assert_eq!(taken, letter);
    assert_eq!(
        tx.inbox(&consumer, &taken.message, None).await.unwrap(),
        Receipt::New
    );
    tx.rollback().await.unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert!(
        tx.take_dead_letter(letter.id).await.unwrap().is_some(),
        "it was rolled back"
    );
    tx.commit().await.unwrap();
    assert!(
        db.guard
            .dead_letters(&db.pool, 0, 1)
            .await
            .unwrap()
            .is_empty()
    );
}

/// The answer to its commit was lost, so it seems to have failed; or another delivery of it went through.
#[tokio::test]
async fn a_message_that_was_handled_is_no_dead_letter() {
    let db = Db::new().await;
    let (sealed, consumer) = (db.seal(&grant("r", 5)).await, named("c"));
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let receipt = tx.inbox(&consumer, &named("m"), None).await.unwrap();
    assert_eq!(receipt, Receipt::New);
    tx.commit().await.unwrap();
    let error = Posting(Box::from("the connection was lost in the commit"));
    for (id, expected) in [("m", Verdict::Again), ("n", Verdict::Dead)] {
        let failing = message("x").with_id(named(id));
        let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
        let verdict = tx.failed(&consumer, &failing, 1, &error).await.unwrap();
        assert_eq!(verdict, expected, "{id}");
        tx.commit().await.unwrap();
    }
    let letters = db.guard.dead_letters(&db.pool, 0, 10).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].message, named("n"));
    assert_eq!(db.number("SELECT count(*) FROM palisade.failure").await, 0);
}

#[tokio::test]
async fn a_holder_that_was_replaced_makes_no_dead_letter() {
    let db = Db::new().await;
    let (sealed, consumer) = (db.seal(&grant("r", 5)).await, named("c"));
    db.stage(&sealed, "x", &["fine"]).await;
    let failing = message("x").with_id(named("m"));
    let stale = || GuardError::Stale {
        resource: crate::db::name("r"),
        presented: grant("r", 5).token,
        fence: grant("r", 6).token,
    };
    // As a consumer that wraps the guard's error in its own.
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let wrapped = Posting(Box::new(stale()));
    let refused = tx
        .failed(&consumer, &failing, 1, &wrapped)
        .await
        .unwrap_err();
    assert_eq!(refused.class(), Class::Bug);
    tx.commit().await.unwrap();
    // As one that wraps only its text: it cannot write in its old transaction either.
    db.seal(&grant("r", 6)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let text = Posting(stale().to_string().into());
    let refused = tx.failed(&consumer, &failing, 1, &text).await.unwrap_err();
    assert!(matches!(refused, GuardError::Stale { .. }), "{refused:?}");
    drop(tx);
    // As a publisher that is a guarded writer itself.
    let broker = Broker::default();
    broker.trouble("fine", Some(Trouble::FencedBelow));
    let relay = db
        .relay(&db.seal(&grant("relay", 1)).await, &broker)
        .with_policy(RelayPolicy::new().with_attempts(1));
    let pass = db.pass(&relay).await.unwrap();
    assert!(pass.is_idle() && pass.stopped.is_some());
    assert!(
        db.guard
            .dead_letters(&db.pool, 0, 1)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(db.number("SELECT count(*) FROM palisade.failure").await, 0);
}

#[tokio::test]
async fn errors_are_bounded_and_old_letters_are_purged() {
    let db = Db::new().await;
    let (sealed, consumer) = (db.seal(&grant("r", 5)).await, named("c"));
    for attempt in 0..40_u32 {
        let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
        let error = Posting(format!("{attempt} {}", "ü".repeat(5000)).into());
        let failing = message("x").with_id(named("m"));
        tx.failed(&consumer, &failing, 40, &error).await.unwrap();
        tx.commit().await.unwrap();
    }
    let letter = db
        .guard
        .dead_letters(&db.pool, 0, 1)
        .await
        .unwrap()
        .remove(0);
    assert_eq!((letter.attempts, letter.errors.len()), (40, 16));
    assert!(letter.errors[0].starts_with("posting failed: 0 "));
    assert!(letter.errors[15].starts_with("posting failed: 39 "));
    assert!(
        letter
            .errors
            .iter()
            .all(|text| text.chars().count() == 2000)
    );
    let purge = async |age| {
        let gone = db
            .guard
            .purge_flow(&db.pool, Expired::DeadLetters, age, 10)
            .await;
        gone.unwrap()
    };
    assert_eq!(purge(Duration::from_secs(3600)).await, 0);
    assert_eq!(purge(Duration::ZERO).await, 1);
}
