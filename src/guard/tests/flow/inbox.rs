//! The consumer's side: messages that come twice, or too late.

use std::sync::Arc;
use std::time::Duration;

use palisade_guard::effects::{Origin, Receipt};
use palisade_guard::postgres::{Expired, Sealed};
use tokio::task::JoinSet;

use crate::broker::named;
use crate::db::{Db, grant, name};

async fn receive(db: &Db, sealed: &Sealed, message: &str, origin: Option<(&str, u64)>) -> Receipt {
    let origin = origin.map(|(resource, token)| Origin {
        resource: name(resource),
        token: palisade_token::FencingToken::new(token).unwrap(),
    });
    let mut tx = db.guard.begin(&db.pool, sealed).await.unwrap();
    let receipt = tx
        .inbox(&named("c"), &named(message), origin.as_ref())
        .await
        .unwrap();
    tx.commit().await.unwrap();
    receipt
}

#[tokio::test]
async fn a_message_is_handled_once_over_takeovers_and_rollbacks() {
    let db = Db::new().await;
    let old = db.seal(&grant("r", 5)).await;
    let mut tx = db.guard.begin(&db.pool, &old).await.unwrap();
    assert_eq!(
        tx.inbox(&named("c"), &named("m"), None).await.unwrap(),
        Receipt::New
    );
    tx.rollback().await.unwrap();
    assert_eq!(receive(&db, &old, "m", None).await, Receipt::New);
    assert_eq!(receive(&db, &old, "m", None).await, Receipt::Seen);
    let new = db.seal(&grant("r", 6)).await;
    assert_eq!(receive(&db, &new, "m", None).await, Receipt::Seen);
    let mut tx = db.guard.begin(&db.pool, &new).await.unwrap();
    assert_eq!(
        tx.inbox(&named("d"), &named("m"), None).await.unwrap(),
        Receipt::New
    );
}

#[tokio::test]
async fn a_message_that_two_receive_at_once_is_new_to_one() {
    let db = Arc::new(Db::new().await);
    let sealed = db.seal(&grant("r", 5)).await;
    for round in 0..5 {
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (db, sealed) = (Arc::clone(&db), sealed.clone());
            tasks.spawn(async move {
                receive(&db, &sealed, &format!("m{round}"), Some(("maker", 7))).await
            });
        }
        let new = tasks
            .join_all()
            .await
            .into_iter()
            .filter(|r| *r == Receipt::New);
        assert_eq!(new.count(), 1);
    }
}

#[tokio::test]
async fn a_late_message_of_a_replaced_maker_is_dropped() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let steps = [
        ("a", ("maker", 7), Receipt::New),
        ("b", ("maker", 8), Receipt::New),
        ("c", ("maker", 7), Receipt::Late),
        ("d", ("another", 7), Receipt::New),
        ("b", ("maker", 8), Receipt::Seen),
        ("e", ("maker", 8), Receipt::New),
    ];
    for (message, origin, expected) in steps {
        assert_eq!(
            receive(&db, &sealed, message, Some(origin)).await,
            expected,
            "{message}"
        );
    }
    // The origin says so and not the age: without it nothing is late.
    assert_eq!(receive(&db, &sealed, "c", None).await, Receipt::New);
}

#[tokio::test]
async fn the_inbox_is_purged_by_age_in_batches_and_origins_are_kept() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    for number in 0..5 {
        receive(&db, &sealed, &format!("old{number}"), Some(("maker", 8))).await;
    }
    db.run("UPDATE palisade.inbox SET received_at = received_at - interval '1 day'")
        .await;
    receive(&db, &sealed, "young", None).await;
    let hour = Duration::from_secs(3600);
    let purge = async |most| {
        let purged = db
            .guard
            .purge_flow(&db.pool, Expired::Inbox, hour, most)
            .await;
        purged.unwrap()
    };
    // One row is in use: it is passed over, not waited for.
    let mut user = db.connect().await;
    let lock = "BEGIN; SELECT FROM palisade.inbox WHERE message = 'old4' FOR UPDATE";
    crate::db::run(&mut user, lock).await.unwrap();
    assert_eq!([purge(3).await, purge(3).await, purge(3).await], [3, 1, 0]);
    crate::db::run(&mut user, "ROLLBACK").await.unwrap();
    assert_eq!(purge(3).await, 1);
    assert_eq!(receive(&db, &sealed, "young", None).await, Receipt::Seen);
    assert_eq!(
        receive(&db, &sealed, "late", Some(("maker", 7))).await,
        Receipt::Late
    );
}
