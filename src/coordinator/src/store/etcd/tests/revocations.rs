//! Late revocations (I1, I3, I11): the lease that an operator has meant is ended, or none.

use std::sync::Arc;

use palisade_token::FencingToken;

use super::endings::leaves;
use super::{World, name};
use crate::domain::{Place, Principal, Revoke, decide_revoke};
use crate::store::Store as _;
use crate::store::conformance::Client;
use crate::store::etcd::link::Link;
use crate::store::etcd::revoke::subject;
use crate::store::etcd::view::Sight;

/// A revocation that has looked, and stops there.
struct Late {
    link: Arc<Link>,
    sight: Sight,
    token: FencingToken,
    successor: Option<Place>,
}

impl Late {
    async fn of(world: &World) -> Self {
        let link = Box::pin(world.late.links.get()).await.unwrap();
        let sight = Sight::of(&link, subject(&name())).await.unwrap();
        let token = sight.view.hold.as_ref().unwrap().token().unwrap();
        let successor = sight.view.head.clone();
        Self {
            link,
            sight,
            token,
            successor,
        }
    }

    /// Whether it did anything.
    async fn takes_effect(self, world: &World) -> bool {
        let revoke = Revoke {
            resource: name(),
            token: self.token,
            reason: "a test".to_owned(),
            actor: "a test".to_owned(),
            principal: Principal::anonymous(),
        };
        let (hold, _) = decide_revoke(&self.sight.view, self.token)
            .unwrap()
            .unwrap();
        let ending = (hold, self.successor.as_ref());
        let ended = world
            .late
            .end_by_force(&self.link, &self.sight, ending, &revoke);
        Box::pin(ended).await.unwrap().is_some()
    }

    async fn comes_too_late(self, world: &World) {
        let before = world.all_keys().await;
        assert!(!Box::pin(self.takes_effect(world)).await);
        assert_eq!(world.all_keys().await, before);
    }
}

/// A holder and two who wait.
async fn held(world: &World) -> [Client; 3] {
    let [one, two, three] = ["holder", "head", "second"].map(|name| world.client(name));
    let (holder, head, second) = (one.await, two.await, three.await);
    holder.take("r", "1").await;
    head.queue("r", "waits").await;
    second.queue("r", "waits").await;
    [holder, head, second]
}

#[tokio::test]
async fn a_later_lease_is_not_revoked() {
    let world = World::new().await;
    let (holder, other) = (world.client("holder").await, world.client("other").await);
    let hold = holder.take("r", "1").await;
    let late = Late::of(&world).await;
    holder.give_back(&hold).await;
    other.take("r", "1").await;
    late.comes_too_late(&world).await;
    let in_time = Late::of(&world).await;
    assert!(Box::pin(in_time.takes_effect(&world)).await);
}

#[tokio::test]
async fn a_revocation_does_not_pass_over_a_waiter_that_came_since() {
    let world = World::new().await;
    let (holder, waiter) = (world.client("holder").await, world.client("waiter").await);
    holder.take("r", "1").await;
    let late = Late::of(&world).await;
    waiter.queue("r", "waits").await;
    late.comes_too_late(&world).await;
}

#[tokio::test]
async fn a_revocation_hands_over_to_the_head_of_the_queue_as_it_is() {
    let world = World::new().await;
    let [_holder, head, second] = held(&world).await;
    let mut late = Late::of(&world).await;
    let place = second.queue("r", "waits").await;
    late.successor = Some(place);
    late.comes_too_late(&world).await;

    let late = Late::of(&world).await;
    leaves(&head).await;
    late.comes_too_late(&world).await;
    let in_time = Late::of(&world).await;
    assert!(Box::pin(in_time.takes_effect(&world)).await);
}

#[tokio::test]
async fn a_revocation_hands_over_under_the_generation_that_counts() {
    let world = World::new().await;
    let _waiting = held(&world).await;
    let late = Late::of(&world).await;
    world.prompt.advance(None).await.unwrap();
    late.comes_too_late(&world).await;
}
