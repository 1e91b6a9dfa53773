//! Late enqueues and late departures from a queue (I4, I5, I11).

use super::endings::{leaves, waits};
use super::{Late, World};
use crate::store::conformance::Client;

async fn about_to_queue(world: &World, client: &Client) -> Late {
    let late = world.decides(&client.wish("r", "waits", true)).await;
    assert_eq!(late.step.kind(), "enqueue");
    late
}

#[tokio::test]
async fn nobody_queues_under_a_mark_that_was_raised_since() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    let late = about_to_queue(&world, &client).await;
    client.at(2).take("elsewhere", "raises").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nobody_queues_for_a_session_that_ended() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    let late = about_to_queue(&world, &client).await;
    client.close().await.unwrap();
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nobody_queues_for_a_later_session_of_the_same_name() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    let late = about_to_queue(&world, &client).await;
    client.close().await.unwrap();
    world.client("one").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nobody_queues_for_what_was_released_since() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    let hold = holder.take("r", "holds").await;
    let late = about_to_queue(&world, &client).await;
    holder.give_back(&hold).await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nobody_queues_for_what_is_vacant_behind_a_head_that_left_since() {
    let world = World::new().await;
    let (head, client) = (world.client("head").await, world.client("one").await);
    world.vacate("r", &[&head]).await;
    let late = about_to_queue(&world, &client).await;
    leaves(&head).await;
    world.is_too_late(late).await;
}

/// Its place keeps its value and the revision that it was first put at.
#[tokio::test]
async fn nobody_queues_twice_with_one_request() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    let late = about_to_queue(&world, &client).await;
    client.queue("r", "waits").await;
    world.is_too_late(late).await;
}

/// Where a request waits depends on what else its session waits with; it has one place all the same.
#[tokio::test]
async fn nobody_queues_twice_with_one_request_beside_another() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    client.queue("r", "waits").await;
    let late = world.decides(&client.wish("r", "late", true)).await;
    assert_eq!(late.step.kind(), "enqueue");
    leaves(&client).await;
    client.queue("r", "late").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nobody_queues_twice_with_one_request_after_another() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    let late = world.decides(&client.wish("r", "late", true)).await;
    assert_eq!(late.step.kind(), "enqueue");
    client.queue("r", "waits").await;
    client.queue("r", "late").await;
    leaves(&client).await;
    world.is_too_late(late).await;
}

/// As for the only request of a session.
#[tokio::test]
async fn it_is_not_said_that_nothing_waits_once_something_does_beside_another() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    client.queue("r", "other").await;
    let late = world.decides_release(&client, waits()).await;
    assert_eq!(late.step.kind(), "say that it ended");
    client.queue("r", "waits").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_late_departure_does_not_give_back_a_place_that_was_taken_anew() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    client.queue("r", "waits").await;
    let late = world.decides_release(&client, waits()).await;
    assert_eq!(late.step.kind(), "leave");
    leaves(&client).await;
    client.queue("r", "waits").await;
    world.is_too_late(late).await;
}
