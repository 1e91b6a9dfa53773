//! Late raises of an attach mark (I4), and sessions of two prefixes.

use std::sync::Arc;

use palisade_test_support::Etcd;

use super::{TTL, World, coordinator};
use crate::domain::Acquired;
use crate::store::Store;
use crate::store::conformance::Client;

#[tokio::test]
async fn a_mark_is_not_raised_over_one_that_was_raised_since() {
    let world = World::new().await;
    let client = world.client("one").await;
    let late = world.decides(&client.at(2).wish("r", "late", true)).await;
    assert_eq!(late.step.kind(), "raise");
    client.at(3).take("elsewhere", "raises").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_mark_is_not_raised_for_a_later_session_of_the_same_name() {
    let world = World::new().await;
    let client = world.client("one").await;
    let late = world.decides(&client.at(2).wish("r", "late", true)).await;
    client.close().await.unwrap();
    world.client("one").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn equal_open_ids_under_two_prefixes_are_two_sessions() {
    let etcd = Etcd::start().await.unwrap();
    let open = async |prefix: &str| {
        let store: Arc<dyn Store> = coordinator(&etcd, prefix);
        Client::open(&store, "one", TTL).await
    };
    let (one, other) = (open("/one").await, open("/other").await);
    assert_eq!(one.caller.session, other.caller.session);
    let (ended, held) = (one.take("r", "1").await, other.take("r", "1").await);
    one.close().await.unwrap();
    assert!(one.renew().await.is_err());
    other.renew().await.unwrap();
    assert_eq!(other.standing("r", "1").await, Some(Acquired::Held(held)));
    assert_eq!(one.standing("r", "1").await, None, "{ended:?}");
}
