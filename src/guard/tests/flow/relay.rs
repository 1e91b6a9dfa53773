//! The relay is a holder like any other: it can be paused, replaced, and resurrected.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use palisade_guard::GuardError;
use palisade_guard::effects::{Envelope, PublishError, Publisher};
use palisade_guard::postgres::{Guard, Relay, RelayPolicy, Stop};
use palisade_token::Grant;
use sqlx::PgPool;

use crate::broker::{Broker, Trouble, named};
use crate::db::{Db, assert_stale, grant};

/// Is replaced while it publishes: after so many messages another relay seals and publishes everything.
struct Paused {
    broker: Broker,
    after: u32,
    published: AtomicU32,
    guard: Guard,
    pool: PgPool,
}

impl Publisher for Paused {
    async fn publish(&self, message: &Envelope, relay: &Grant) -> Result<(), PublishError> {
        self.broker.publish(message, relay).await?;
        if self.published.fetch_add(1, Ordering::SeqCst) + 1 == self.after {
            let new = self
                .guard
                .seal(&self.pool, &grant("relay", 2))
                .await
                .unwrap();
            let successor = Relay::new(self.guard, new, named("main"), self.broker.clone());
            assert_eq!(
                successor.pass(&self.pool, || true).await.unwrap().published,
                3
            );
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_relay_that_was_replaced_in_its_batch_marks_nothing_and_reads_nothing() {
    let db = Db::new().await;
    db.stage(&db.seal(&grant("r", 5)).await, "x", &["1", "2", "3"])
        .await;
    let (broker, old) = (Broker::default(), db.seal(&grant("relay", 1)).await);
    let paused = Paused {
        broker: broker.clone(),
        after: 2,
        published: AtomicU32::new(0),
        guard: db.guard,
        pool: db.pool.clone(),
    };
    let zombie = Relay::new(db.guard, old.clone(), named("main"), paused);
    // Its lease check tells it: nothing after the second message.
    let held = || broker.taken().len() < 2;
    db.settle().await;
    assert_stale(&zombie.pass(&db.pool, held).await.unwrap_err(), 1, 2);
    assert_eq!(broker.taken(), ["1", "2", "1", "2", "3"]);
    assert!(!old.is_live());
    // What was published twice has one id.
    let taken = broker.envelopes();
    assert_eq!(taken[0].id, taken[2].id);

    db.stage(&db.seal(&grant("r", 5)).await, "x", &["4"]).await;
    assert_stale(&db.pass(&zombie).await.unwrap_err(), 1, 2);
    assert_eq!(broker.taken().len(), 5);
    assert_eq!(db.number("SELECT count(*) FROM palisade.outbox").await, 1);
}

/// Fails at one message, which another pass of the same grant has published meanwhile, with all the rest.
struct Beaten {
    broker: Broker,
    guard: Guard,
    pool: PgPool,
    sealed: palisade_guard::postgres::Sealed,
}

impl Publisher for Beaten {
    async fn publish(&self, message: &Envelope, relay: &Grant) -> Result<(), PublishError> {
        if message.payload != b"2" {
            return self.broker.publish(message, relay).await;
        }
        let other = Relay::new(
            self.guard,
            self.sealed.clone(),
            named("main"),
            self.broker.clone(),
        );
        assert_eq!(other.pass(&self.pool, || true).await.unwrap().published, 3);
        Err(PublishError::Failed(Box::from("too slow")))
    }
}

/// I12: what is settled already is no reason to forget what came of the others.
#[tokio::test]
async fn a_message_that_is_gone_changes_nothing_for_its_batch() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    db.stage(&sealed, "x", &["1", "2"]).await;
    db.stage(&sealed, "y", &["3"]).await;
    let (broker, relaying) = (Broker::default(), db.seal(&grant("relay", 1)).await);
    let beaten = Beaten {
        broker: broker.clone(),
        guard: db.guard,
        pool: db.pool.clone(),
        sealed: relaying.clone(),
    };
    let relay = Relay::new(db.guard, relaying, named("main"), beaten);
    let pass = db.pass(&relay).await.unwrap();
    assert_eq!((pass.published, pass.failed, pass.buried), (0, 0, 0));
    assert_eq!(broker.taken(), ["1", "1", "2", "3", "3"]);
}

/// The fence alone is enough: a fresh process with an old grant that does not know of its death.
#[tokio::test]
async fn a_stale_relay_gets_no_batch_and_its_marks_are_refused() {
    let db = Db::new().await;
    db.stage(&db.seal(&grant("r", 5)).await, "x", &["1"]).await;
    let (broker, old) = (Broker::default(), db.seal(&grant("relay", 1)).await);
    let published =
        "SELECT palisade.outbox_published('relay', 'main', ARRAY(SELECT id FROM palisade.outbox))";
    db.seal(&grant("relay", 2)).await;
    let mut late = db.guard.begin(&db.pool, &old).await.unwrap();
    let error = sqlx::query(published)
        .execute(&mut *late)
        .await
        .unwrap_err();
    assert_stale(&late.refusal(error), 1, 2);
    drop(late);
    let relay = db.relay(&old, &broker);
    assert_stale(&db.pass(&relay).await.unwrap_err(), 1, 2);
    assert!(broker.taken().is_empty());
    assert_eq!(db.number("SELECT count(*) FROM palisade.outbox").await, 1);
}

#[tokio::test]
async fn nothing_is_published_once_the_lease_is_not_certain() {
    let db = Db::new().await;
    db.stage(&db.seal(&grant("r", 5)).await, "x", &["1", "2", "3"])
        .await;
    let broker = Broker::default();
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    db.settle().await;
    let pass = relay.pass(&db.pool, || false).await.unwrap();
    assert!(matches!(pass.stopped, Some(Stop::Lease)));
    assert!(broker.taken().is_empty());
    let pass = relay
        .pass(&db.pool, || broker.taken().is_empty())
        .await
        .unwrap();
    assert!(matches!(pass.stopped, Some(Stop::Lease)));
    assert_eq!(broker.taken(), ["1"]);
    // It is still the sealed one: what it published is marked, and the next does not repeat it.
    assert_eq!(pass.published, 1);
    assert_eq!(db.pass(&relay).await.unwrap().published, 2);
    assert_eq!(broker.taken(), ["1", "2", "3"]);
    // Told even where there is nothing to publish.
    let pass = relay.pass(&db.pool, || false).await.unwrap();
    assert!(matches!(pass.stopped, Some(Stop::Lease)));
}

#[tokio::test]
async fn an_aggregate_waits_behind_its_failed_message_and_others_do_not() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    db.stage(&sealed, "x", &["x1", "x2"]).await;
    db.stage(&sealed, "y", &["y1"]).await;
    let broker = Broker::default();
    broker.trouble("x1", Some(Trouble::Fails));
    let hour = Duration::from_secs(3600);
    let relay = db
        .relay(&db.seal(&grant("relay", 1)).await, &broker)
        .with_policy(RelayPolicy::new().with_waits(hour, hour));
    let pass = db.pass(&relay).await.unwrap();
    assert_eq!((pass.published, pass.failed), (1, 1));
    db.stage(&sealed, "x", &["x3"]).await;
    db.stage(&sealed, "y", &["y2"]).await;
    broker.trouble("x1", None);
    // x1 is not due, and x2 and x3 not without it.
    assert_eq!(db.pass(&relay).await.unwrap().published, 1);
    assert_eq!(broker.taken(), ["y1", "y2"]);
    db.run("UPDATE palisade.outbox SET due_at = '-infinity'")
        .await;
    assert_eq!(db.pass(&relay).await.unwrap().published, 3);
    assert_eq!(broker.taken(), ["y1", "y2", "x1", "x2", "x3"]);
    assert_eq!(broker.envelopes()[2].attempts, 1);
}

#[tokio::test]
async fn an_outage_of_the_broker_buries_nothing() {
    let db = Db::new().await;
    db.stage(&db.seal(&grant("r", 5)).await, "x", &["1", "2"])
        .await;
    let broker = Broker::default();
    broker.trouble("1", Some(Trouble::Unavailable));
    let relay = db
        .relay(&db.seal(&grant("relay", 1)).await, &broker)
        .with_policy(RelayPolicy::new().with_attempts(1));
    for _ in 0..5 {
        let pass = db.pass(&relay).await.unwrap();
        assert!(
            pass.is_idle() && matches!(pass.stopped, Some(Stop::Broker(_))),
            "{pass:?}"
        );
    }
    let blamed = "SELECT coalesce(sum(attempts), 0)::bigint FROM palisade.outbox";
    assert_eq!(db.number(blamed).await, 0);
    broker.trouble("1", None);
    assert_eq!(db.pass(&relay).await.unwrap().published, 2);
}

#[tokio::test]
async fn a_broker_that_has_seen_a_later_relay_stops_this_one() {
    struct Refusing(u64);
    impl Publisher for Refusing {
        async fn publish(&self, _: &Envelope, _: &Grant) -> Result<(), PublishError> {
            let fence = palisade_token::FencingToken::new(self.0).unwrap();
            Err(PublishError::Fenced { fence })
        }
    }
    let db = Db::new().await;
    db.stage(&db.seal(&grant("r", 5)).await, "x", &["1"]).await;
    let sealed = db.seal(&grant("relay", 1)).await;
    let relay = Relay::new(db.guard, sealed.clone(), named("main"), Refusing(9));
    assert_stale(&db.pass(&relay).await.unwrap_err(), 1, 9);
    assert!(!sealed.is_live());
    assert!(matches!(
        db.pass(&relay).await,
        Err(GuardError::Stale { .. })
    ));
    // One number for two holds: there is no later one, and this one stops all the same.
    let sealed = db.seal(&grant("relay", 1)).await;
    let relay = Relay::new(db.guard, sealed.clone(), named("main"), Refusing(1));
    let error = db.pass(&relay).await.unwrap_err();
    assert!(matches!(error, GuardError::Collision { .. }), "{error:?}");
    assert!(!sealed.is_live());
    assert_eq!(db.number("SELECT count(*) FROM palisade.outbox").await, 1);
}
