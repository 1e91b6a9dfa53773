//! Late grants (I1, I3, I4, I11).

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
