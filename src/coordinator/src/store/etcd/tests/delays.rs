//! Late steps about a lock-delay: what the last lease left behind is as it was seen, or nothing is done.

use etcd_client::TxnOp;

use super::{World, name};
use crate::domain::Acquire;
use crate::store::conformance::Client;
use crate::store::etcd::effort::Effort;
use crate::store::etcd::view::{Sight, Subject};

/// Longer than any test takes.
const DELAY_MS: u64 = 60_000;

fn with_delay(client: &Client, request: &str) -> Acquire {
    Acquire {
        lock_delay_ms: DELAY_MS,
        ..client.wish("r", request, false)
    }
}

/// A lease with a lock-delay that ends uncleanly; nobody has begun the delay yet.
async fn dies(world: &World, session: &str) {
    let holder = world.client(session).await;
    let held = holder.store.acquire(&with_delay(&holder, "dies")).await;
    held.unwrap();
    world.end_session(&holder).await;
}

/// Begins the delay: who asks finds the resource closed.
async fn begins(world: &World, client: &Client) {
    let refused = client.try_acquire("r", "begins").await;
    assert!(refused.is_err(), "{refused:?}");
    assert!(is_running(world).await);
}

async fn is_running(world: &World) -> bool {
    let subject = Subject {
        resource: &name(),
        session: None,
        request: None,
    };
    let link = Box::pin(world.prompt.links.get()).await.unwrap();
    let sight = Sight::of(&link, subject).await.unwrap();
    sight.view.delay.is_some_and(|delay| delay.is_running)
}

/// The delay is over, as when its etcd lease has ended.
async fn is_over(world: &World) {
    let link = Box::pin(world.prompt.links.get()).await.unwrap();
    let delay = TxnOp::delete(link.context().keys.delay(&name()), None);
    link.write(Vec::new(), vec![delay]).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_grant_is_not_made_past_an_unclean_end_that_came_since() {
    let world = World::new().await;
    let client = world.client("one").await;
    dies(&world, "first").await;
    begins(&world, &client).await;
    is_over(&world).await;
    let late = world.decides(&client.wish("r", "late", false)).await;
    assert_eq!(late.step.kind(), "grant");
    dies(&world, "second").await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn nobody_waits_for_a_delay_that_is_over() {
    let world = World::new().await;
    let client = world.client("one").await;
    dies(&world, "first").await;
    begins(&world, &client).await;
    let late = world.decides(&client.wish("r", "late", true)).await;
    assert_eq!(late.step.kind(), "enqueue");
    is_over(&world).await;
    world.is_too_late(late).await;
}

#[tokio::test]
async fn a_delay_is_begun_once() {
    let world = World::new().await;
    let client = world.client("one").await;
    dies(&world, "first").await;
    let late = world.decides(&client.wish("r", "late", false)).await;
    assert_eq!(late.step.kind(), "begin a delay");
    begins(&world, &client).await;
    is_over(&world).await;
    let name = name();
    let mut effort = Effort::new(Subject {
        resource: &name,
        session: Some(client.caller.session),
        request: None,
    });
    let begun = world
        .late
        .begin_delay(&mut effort, &late.link, &name, &late.sight);
    begun.await.unwrap();
    assert!(!is_running(&world).await);
}
