//! Late grants (I1, I3, I4, I11).

use std::time::Duration;

use etcd_client::{TxnOp, TxnOpResponse};
use palisade_test_support::eventually;

use super::{Late, Step, World};
use crate::domain::{AcquireStep, Place};
use crate::store::Store as _;
use crate::store::conformance::Client;

async fn about_to_be_granted(world: &World, client: &Client) -> Late {
    let late = world.decides(&client.wish("r", "late", true)).await;
    assert_eq!(late.step.kind(), "grant");
    late
}

/// The head of a queue, about to be granted a vacant resource.
async fn head_about_to_be_granted(world: &World, head: &Client) -> Late {
    let late = world.decides(&head.wish("r", "waits", true)).await;
    assert_eq!(late.step.kind(), "grant the head");
    late
}

#[tokio::test]
async fn a_grant_is_not_made_under_a_mark_that_was_raised_since() {
    let world = World::new().await;
    let client = world.client("one").await;
    let late = about_to_be_granted(&world, &client).await;
    client.at(2).take("elsewhere", "raises").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_grant_is_not_made_to_a_session_that_ended() {
    let world = World::new().await;
    let client = world.client("one").await;
    let late = about_to_be_granted(&world, &client).await;
    client.close().await.unwrap();
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_grant_is_not_made_to_a_later_session_of_the_same_name() {
    let world = World::new().await;
    let client = world.client("one").await;
    let late = about_to_be_granted(&world, &client).await;
    client.close().await.unwrap();
    let again = world.client("one").await;
    assert_eq!(again.caller.session, client.caller.session);
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_grant_is_not_made_under_a_generation_before_the_current_one() {
    let world = World::new().await;
    let client = world.client("one").await;
    let late = about_to_be_granted(&world, &client).await;
    world.prompt.advance(None).await.unwrap();
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_grant_is_not_made_of_what_somebody_holds() {
    let world = World::new().await;
    let (client, faster) = (world.client("one").await, world.client("faster").await);
    let late = about_to_be_granted(&world, &client).await;
    faster.take("r", "faster").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_grant_does_not_overtake_a_queue() {
    let world = World::new().await;
    let (client, waiter) = (world.client("one").await, world.client("waiter").await);
    let late = about_to_be_granted(&world, &client).await;
    world.vacate("r", &[&waiter]).await;
    world.is_too_late(late).await;
}

/// The reads that a decision rests on show the head. Where one of them is ever wrong, the transaction
/// keeps the order all the same.
#[tokio::test]
async fn a_grant_from_the_queue_does_not_overtake_its_head() {
    let world = World::new().await;
    let (head, second) = (world.client("head").await, world.client("second").await);
    world.vacate("r", &[&head, &second]).await;
    let mut late = head_about_to_be_granted(&world, &head).await;
    let asks = second.wish("r", "waits", true);
    let seen = world.decides(&asks).await.sight;
    let place = seen.view.own_place.unwrap();
    late.sight.session = seen.session;
    late.step = granted(place);
    world.is_too_late(late).await;
}

fn granted(place: Place) -> Step {
    Step::Acquire(AcquireStep::Grant {
        claim: place.claim.clone(),
        place: Some(place),
    })
}

#[tokio::test]
async fn a_grant_is_not_made_for_a_place_that_was_left() {
    let world = World::new().await;
    let (head, second) = (world.client("head").await, world.client("second").await);
    world.vacate("r", &[&head, &second]).await;
    let late = head_about_to_be_granted(&world, &head).await;
    super::endings::leaves(&head).await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_grant_is_not_made_for_a_place_that_was_left_and_taken_anew_behind_another() {
    let world = World::new().await;
    let (head, second) = (world.client("head").await, world.client("second").await);
    world.vacate("r", &[&head, &second]).await;
    let late = head_about_to_be_granted(&world, &head).await;
    super::endings::leaves(&head).await;
    head.queue("r", "waits").await;
    world.is_too_late(late).await;
}

/// The revision that the generation was written at.
async fn generation_written_at(world: &World) -> i64 {
    let link = Box::pin(world.prompt.links.get()).await.unwrap();
    let get = TxnOp::get(link.context().keys.generation(), None);
    let (replies, _) = link.read(vec![get]).await.unwrap();
    match &replies[0] {
        TxnOpResponse::Get(found) => found.kvs()[0].mod_revision(),
        other => panic!("a read is answered by a read: {other:?}"),
    }
}

/// Revisions come again after a restore or a rebuild: only the value tells one generation from another that was written at
/// the same revision of another history.
#[tokio::test]
async fn a_grant_is_not_made_under_a_generation_of_a_lost_history_with_the_same_revision() {
    let mut world = World::new().await;
    for _ in 0..10 {
        world.prompt.advance(None).await.unwrap();
    }
    world.late.ready().await.unwrap();
    let lost = generation_written_at(&world).await;
    let client = world.client("one").await;
    let of_lost = about_to_be_granted(&world, &client).await.generation;
    world.etcd.wipe().await.unwrap();
    let limit = Duration::from_secs(20);
    eventually("an etcd that is back", limit, async || {
        world.prompt.ready().await.is_ok() && world.late.ready().await.is_ok()
    })
    .await
    .unwrap();
    let client = world.client("one").await;
    while generation_written_at(&world).await < lost {
        world.prompt.advance(None).await.unwrap();
    }
    assert_eq!(generation_written_at(&world).await, lost);
    world.late.ready().await.unwrap();
    let mut late = about_to_be_granted(&world, &client).await;
    assert_ne!(late.generation.raw, of_lost.raw);
    late.generation = of_lost;
    world.is_too_late(late).await;
    // All else that it rests on is as it was.
    let in_time = about_to_be_granted(&world, &client).await;
    world.is_in_time(in_time, "grant").await;
}
