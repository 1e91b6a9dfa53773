//! Late releases and hand-overs (I1, I3, I4, I11).

use std::time::Duration;

use palisade_test_support::eventually;

use super::{Late, Step, World, name, stored};
use crate::domain::{Hold, HoldName, ReleaseStep, Released, RequestId};
use crate::store::Store as _;
use crate::store::conformance::Client;

/// How long an etcd may take to come back.
const LIMIT: Duration = Duration::from_secs(20);

/// The request that waiters of these tests wait with.
pub(super) fn waits() -> HoldName {
    HoldName::Request(RequestId::new("waits").unwrap())
}

/// A waiter leaves the queue.
pub(super) async fn leaves(waiter: &Client) {
    let left = waiter.release("r", waits()).await.unwrap();
    assert!(matches!(left, Released::Place { .. }), "{left:?}");
}

async fn about_to_release(world: &World, holder: &Client, hold: &Hold) -> Late {
    let token = HoldName::Token(hold.token().unwrap());
    world.decides_release(holder, token).await
}

fn successor(late: &Late) -> Option<&str> {
    match &late.step {
        Step::Release(_, ReleaseStep::End { successor, .. }) => {
            successor.as_ref().map(|place| place.claim.label.as_str())
        }
        other => panic!("it is not about to end a lease: {other:?}"),
    }
}

/// A holder that is about to hand over to the first of two waiters.
async fn about_to_hand_over(world: &World) -> (Late, Client, Client) {
    let holder = world.client("holder").await;
    let (first, second) = (world.client("first").await, world.client("second").await);
    let hold = holder.take("r", "holds").await;
    first.queue("r", "waits").await;
    second.queue("r", "waits").await;
    let late = about_to_release(world, &holder, &hold).await;
    assert_eq!(successor(&late), Some("first"));
    (late, first, second)
}

/// The value of both leases is the same; only the revision of the grant tells them apart.
#[tokio::test]
async fn a_release_does_not_end_a_later_lease_of_the_same_request() {
    let world = World::new().await;
    let holder = world.client("holder").await;
    let hold = holder.take("r", "holds").await;
    let late = about_to_release(&world, &holder, &hold).await;
    assert_eq!(successor(&late), None);
    holder.give_back(&hold).await;
    let again = holder.take("r", "holds").await;
    assert_eq!(
        (&again.claim, again.generation),
        (&hold.claim, hold.generation)
    );
    world.is_too_late(late).await;
}

/// The other way round: after a rebuild, another lease can have the same revision.
#[tokio::test]
async fn a_lease_of_a_lost_history_is_not_given_back_in_place_of_one_of_the_same_revision() {
    let mut world = World::new().await;
    for _ in 0..10 {
        world.prompt.advance(None).await.unwrap();
    }
    let lost = world.client("holder").await.take("r", "holds").await;
    world.etcd.wipe().await.unwrap();
    eventually("an etcd that is back", LIMIT, async || {
        world.prompt.ready().await.is_ok() && world.late.ready().await.is_ok()
    })
    .await
    .unwrap();
    let holder = world.client("holder").await;
    while world.prompt.lease(&name()).await.unwrap().revision.0 + 1 < lost.granted.0 {
        world.prompt.advance(None).await.unwrap();
    }
    let hold = holder.take("r", "holds").await;
    assert_eq!(hold.granted, lost.granted);
    let before = world.all_keys().await;
    world.late.give_back(&stored(&lost)).await;
    assert_eq!(world.all_keys().await, before);
}

#[tokio::test]
async fn a_release_does_not_pass_over_a_waiter_that_came_since() {
    let world = World::new().await;
    let (holder, waiter) = (world.client("holder").await, world.client("waiter").await);
    let hold = holder.take("r", "holds").await;
    let late = about_to_release(&world, &holder, &hold).await;
    assert_eq!(successor(&late), None);
    waiter.queue("r", "waits").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nothing_is_handed_over_of_a_lease_that_ended_since() {
    let world = World::new().await;
    let (late, first, _second) = about_to_hand_over(&world).await;
    // The holder's session ends, and the resource is vacant with its queue as it was.
    let holder = world.client("holder").await;
    holder.close().await.unwrap();
    assert!(first.standing("r", "waits").await.is_some());
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nothing_is_handed_over_to_a_waiter_that_left() {
    let world = World::new().await;
    let (late, first, _second) = about_to_hand_over(&world).await;
    leaves(&first).await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nothing_is_handed_over_to_a_waiter_whose_session_ended() {
    let world = World::new().await;
    let (late, first, _second) = about_to_hand_over(&world).await;
    first.close().await.unwrap();
    world.is_too_late(late).await;
}

/// etcd itself refuses a key on a lease that is gone, but not on one that was made again.
#[tokio::test]
async fn nothing_is_handed_over_to_a_waiter_whose_session_ended_and_was_opened_again() {
    let world = World::new().await;
    let (late, first, _second) = about_to_hand_over(&world).await;
    first.close().await.unwrap();
    world.client("first").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nothing_is_handed_over_under_a_generation_before_the_current_one() {
    let world = World::new().await;
    let (late, _first, _second) = about_to_hand_over(&world).await;
    world.prompt.advance(None).await.unwrap();
    world.is_too_late(late).await;
}

/// As for grants: the transaction keeps the order where a read is wrong.
#[tokio::test]
async fn nothing_is_handed_over_past_the_head_of_a_queue() {
    let world = World::new().await;
    let (mut late, _first, second) = about_to_hand_over(&world).await;
    let behind = second.queue("r", "waits").await;
    if let Step::Release(_, ReleaseStep::End { successor, .. }) = &mut late.step {
        *successor = Some(behind);
    }
    assert_eq!(successor(&late), Some("second"));
    world.is_too_late(late).await;
}

#[tokio::test]
async fn it_is_not_said_that_nothing_is_held_once_something_is() {
    let world = World::new().await;
    let client = world.client("one").await;
    let late = world.decides_release(&client, waits()).await;
    assert_eq!(late.step.kind(), "say that it ended");
    client.take("r", "waits").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn it_is_not_said_that_another_holds_once_it_does_not() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    let hold = holder.take("r", "holds").await;
    let late = world.decides_release(&client, waits()).await;
    assert_eq!(late.step.kind(), "say that it ended");
    holder.give_back(&hold).await;
    client.take("r", "waits").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn it_is_not_said_that_nothing_waits_once_something_does() {
    let world = World::new().await;
    let (holder, client) = (world.client("holder").await, world.client("one").await);
    holder.take("r", "holds").await;
    let late = world.decides_release(&client, waits()).await;
    assert_eq!(late.step.kind(), "say that it ended");
    client.queue("r", "waits").await;
    world.is_too_late(late).await;
}
