//! Queues: first come, first served; nobody keeps a place they cannot use.

use super::client::{held, queued, request, resource, token};
use super::sessions::refusal;
use super::{Fixture, TAKEOVER};
use crate::domain::{Acquired, HoldName, Refusal, Released};

/// I11: through whichever coordinator they came, waiters are served in the order of their requests.
pub(super) async fn waiters_are_served_in_order(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let mut hold = fixture.client("holder").await.take("r", "1").await;
    let mut holder = fixture.client("holder").await;
    let mut waiters = Vec::new();
    for number in 0..8 {
        let waiter = fixture.client(&format!("waiter-{number}")).await;
        let is_even = number % 2 == 0;
        let waiter = if is_even {
            waiter
        } else {
            waiter.through(&another)
        };
        waiter.queue("r", "1").await;
        waiters.push(waiter);
    }
    let lease = another.lease(&resource("r")).await.unwrap();
    assert_eq!(lease.waiters, 8);
    for (served, waiter) in waiters.iter().enumerate() {
        holder.give_back(&hold).await;
        let next = waiter.standing("r", "1").await;
        let next = held(next.unwrap_or_else(|| panic!("waiter {served} lost its place")));
        assert!(token(&next) > token(&hold));
        for later in &waiters[served + 1..] {
            let standing = later.standing("r", "1").await;
            assert!(
                matches!(standing, Some(Acquired::Queued(_))),
                "{standing:?}"
            );
        }
        hold = next;
        holder = waiter.clone();
    }
}

/// With `wait = 0` nothing is left behind.
pub(super) async fn a_try_takes_no_place(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let hold = holder.take("r", "1").await;
    let waiter = fixture.client("waiter").await;
    waiter.queue("r", "1").await;
    let tries = fixture.client("tries").await;
    let token = Some(token(&hold));
    let refused = refusal(tries.try_acquire("r", "1").await);
    assert_eq!(refused, Refusal::LeaseHeld { token });
    let lease = fixture.store.lease(&resource("r")).await.unwrap();
    assert_eq!(lease.waiters, 1);
    holder.give_back(&hold).await;
    assert!(matches!(
        refusal(tries.try_acquire("r", "2").await),
        Refusal::LeaseHeld { .. }
    ));
}

/// A wait that is over is asked about once more without waiting: the answer is final.
pub(super) async fn a_try_gives_the_place_back(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let hold = holder.take("r", "1").await;
    let waiter = fixture.client("waiter").await;
    waiter.queue("r", "1").await;
    assert!(matches!(
        refusal(waiter.try_acquire("r", "1").await),
        Refusal::LeaseHeld { .. } | Refusal::WaitExpired
    ));
    assert_eq!(waiter.standing("r", "1").await, None);
    holder.give_back(&hold).await;
    let lease = fixture.store.lease(&resource("r")).await.unwrap();
    assert_eq!((lease.hold, lease.waiters), (None, 0));
}

/// I4: a request that is sent again keeps its place, and becomes the lease.
pub(super) async fn a_request_waits_in_one_place(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let hold = holder.take("r", "1").await;
    let waiter = fixture.client("waiter").await;
    let place = waiter.queue("r", "1").await;
    assert_eq!(waiter.queue("r", "1").await, place);
    let another = waiter.through(&fixture.subject.another().await);
    let again = another.at(2).retrying().acquire("r", "1").await;
    assert_eq!(queued(again.unwrap()), place);
    let lease = fixture.store.lease(&resource("r")).await.unwrap();
    assert_eq!(lease.waiters, 1);
    holder.give_back(&hold).await;
    let next = held(waiter.at(2).acquire("r", "1").await.unwrap());
    assert_eq!(next.claim, place.claim);
    assert_eq!(another.at(3).take("r", "1").await, next);
    let lease = fixture.store.lease(&resource("r")).await.unwrap();
    assert_eq!((lease.hold, lease.waiters), (Some(next), 0));
}

/// I4: of two requests of one session that wait, one is served, and the other is told so. That is its
/// outcome: it is not served later.
pub(super) async fn a_refused_request_is_not_served_later(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let hold = holder.take("r", "1").await;
    let waiter = fixture.client("waiter").await;
    waiter.queue("r", "1").await;
    waiter.queue("r", "2").await;
    holder.give_back(&hold).await;
    let next = held(waiter.acquire("r", "1").await.unwrap());
    let already = Refusal::AlreadyHeld {
        request: request("1"),
        token: token(&next),
    };
    assert_eq!(refusal(waiter.acquire("r", "2").await), already);
    waiter.give_back(&next).await;
    assert_eq!(waiter.standing("r", "2").await, None);
    let lease = fixture.store.lease(&resource("r")).await.unwrap();
    assert_eq!((lease.hold, lease.waiters), (None, 0));
}

/// A place is given back by its request id, and whoever is behind moves up.
pub(super) async fn a_place_can_be_left(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let hold = holder.take("r", "1").await;
    let leaver = fixture.client("leaver").await;
    let stayer = fixture.client("stayer").await;
    leaver.queue("r", "1").await;
    stayer.queue("r", "1").await;
    let left = leaver.release("r", HoldName::Request(request("1"))).await;
    assert!(matches!(left, Ok(Released::Place { .. })), "{left:?}");
    let again = leaver.release("r", HoldName::Request(request("1"))).await;
    assert!(matches!(again, Ok(Released::NotHeld(_))), "{again:?}");
    holder.give_back(&hold).await;
    assert_eq!(leaver.standing("r", "1").await, None);
    let standing = stayer.standing("r", "1").await;
    assert!(matches!(standing, Some(Acquired::Held(_))), "{standing:?}");
}

/// I13: a queue has a bound; those that are in it are not put out by it.
pub(super) async fn waiters_are_limited(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    holder.take("r", "1").await;
    let mut clients = Vec::new();
    for name in ["first", "second", "third"] {
        let mut client = fixture.client(name).await;
        client.max_waiters = 2;
        clients.push(client);
    }
    let place = clients[0].queue("r", "1").await;
    clients[1].queue("r", "1").await;
    let refused = refusal(clients[2].acquire("r", "1").await);
    assert!(
        matches!(refused, Refusal::LimitReached { bound: 2, .. }),
        "{refused:?}"
    );
    assert_eq!(clients[2].standing("r", "1").await, None);
    assert_eq!(clients[0].queue("r", "1").await, place);
}

/// Whoever tries in the moment of the hand-over finds the resource held: there is no gap to slip into.
pub(super) async fn release_hands_over(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let waiter = fixture.client("waiter").await;
    let hold = holder.take("r", "1").await;
    waiter.queue("r", "1").await;
    holder.give_back(&hold).await;
    let another = fixture.subject.another().await;
    let lease = another.lease(&resource("r")).await.unwrap();
    let next = lease.hold.expect("it was handed over");
    assert_eq!(next.claim.session, waiter.caller.session);
    assert!(token(&next) > token(&hold));
    let late = holder.release("r", HoldName::Token(token(&hold))).await;
    assert!(matches!(late, Ok(Released::NotHeld(_))), "{late:?}");
    waiter.give_back(&next).await;
}

/// I5: a session takes its places with it, and those behind move up.
pub(super) async fn a_closed_session_leaves_its_places(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let hold = holder.take("r", "1").await;
    let gone = fixture.client("gone").await;
    gone.queue("r", "1").await;
    gone.queue("r", "2").await;
    let last = fixture.client("last").await;
    last.queue("r", "1").await;
    gone.close().await.unwrap();
    let lease = fixture.store.lease(&resource("r")).await.unwrap();
    assert_eq!(lease.waiters, 1);
    holder.give_back(&hold).await;
    let standing = last.standing("r", "1").await;
    assert!(matches!(standing, Some(Acquired::Held(_))), "{standing:?}");
}

/// I5, I6: all that a session held goes on to others, though it waited for some of it itself.
pub(super) async fn a_closed_session_hands_over(fixture: Fixture) {
    let gone = fixture.client("gone").await;
    let heir = fixture.client("heir").await;
    let mut held_before = Vec::new();
    for name in ["a", "b", "c"] {
        held_before.push(gone.take(name, "1").await);
    }
    heir.queue("a", "1").await;
    heir.queue("b", "1").await;
    gone.close().await.unwrap();
    let heir = &heir;
    for (name, before) in ["a", "b"].into_iter().zip(&held_before) {
        fixture
            .eventually("the heir holds", TAKEOVER, || async move {
                heir.store.promote(&resource(name)).await.unwrap();
                matches!(heir.standing(name, "1").await, Some(Acquired::Held(_)))
            })
            .await;
        let hold = heir.take(name, "1").await;
        assert!(token(&hold) > token(before));
    }
    let lease = fixture.store.lease(&resource("c")).await.unwrap();
    assert_eq!((lease.hold, lease.waiters), (None, 0));
}

/// The coordinator that a waiter came through may be gone: any other serves the queue.
pub(super) async fn another_coordinator_promotes(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let holder = fixture.client("holder").await;
    let waiter = fixture.client("waiter").await;
    holder.take("r", "1").await;
    waiter.queue("r", "1").await;
    holder.close().await.unwrap();
    another.promote(&resource("r")).await.unwrap();
    let standing = waiter.through(&another).standing("r", "1").await;
    let hold = held(standing.expect("the waiter is known"));
    assert_eq!(waiter.take("r", "1").await, hold);
    // Nothing more happens where nobody waits, or nobody held.
    another.promote(&resource("r")).await.unwrap();
    another.promote(&resource("never")).await.unwrap();
    let lease = fixture.store.lease(&resource("r")).await.unwrap();
    assert_eq!((lease.hold, lease.waiters), (Some(hold), 0));
}
