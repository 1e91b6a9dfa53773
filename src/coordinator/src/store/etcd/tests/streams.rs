//! What is given back rests on the session's mark: once it was raised elsewhere, nothing of it happens (I4).

use super::World;
use super::endings::waits;
use crate::domain::HoldName;

#[tokio::test]
async fn whoever_was_superseded_gives_nothing_back() {
    let world = World::new().await;
    let (holder, waiter) = (world.client("holder").await, world.client("waiter").await);
    let hold = holder.take("r", "1").await;
    waiter.queue("r", "waits").await;
    let token = HoldName::Token(hold.token().unwrap());
    let hand_over = world.decides_release(&holder, token.clone()).await;
    let leave = world.decides_release(&waiter, waits()).await;
    waiter.at(2).take("elsewhere/1", "raises").await;
    holder.at(2).take("elsewhere/2", "raises").await;
    for (late, kind) in [(hand_over, "hand over"), (leave, "leave")] {
        assert_eq!(late.step.kind(), kind);
        world.is_too_late(late).await;
    }
    // What is not superseded is carried out: the one, and then the other.
    let (holder, waiter) = (holder.at(2), waiter.at(2));
    let leave = world.decides_release(&waiter, waits()).await;
    world.is_in_time(leave, "leave").await;
    let end = world.decides_release(&holder, token).await;
    world.is_in_time(end, "end").await;
}
