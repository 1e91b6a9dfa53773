//! Leases: one holder at a time, one token for each, growing.

use futures::future::join_all;

use super::client::{held, request, resource, token};
use super::sessions::refusal;
use super::{Client, Fixture};
use crate::domain::{Acquired, HoldName, Refusal, Released};
use crate::store::StoreError;
use palisade_token::FencingToken;

fn next_to(token: FencingToken, by: i64) -> FencingToken {
    let number = token
        .get()
        .checked_add_signed(by)
        .expect("tokens are in the middle");
    FencingToken::new(number).expect("tokens are in the middle")
}

/// What is granted is what was asked for, and everybody sees it.
pub(super) async fn a_free_resource_is_granted(fixture: Fixture) {
    let session = fixture.session("first");
    fixture.store.open_session(session.clone()).await.unwrap();
    let client = Client::of(&fixture.store, &session);
    let mut wish = client.wish("a/b", "1", false);
    wish.metadata = b"\x00opaque\xff".to_vec();
    let hold = held(fixture.store.acquire(&wish).await.unwrap());
    assert_eq!(hold.claim.resource, resource("a/b"));
    assert_eq!(hold.claim.session, client.caller.session);
    assert_eq!(hold.claim.request, request("1"));
    assert_eq!(hold.claim.label, session.label);
    assert_eq!(hold.claim.metadata, wish.metadata);
    let another = fixture.subject.another().await;
    let seen = another.lease(&resource("a/b")).await.unwrap();
    assert_eq!((seen.hold.clone(), seen.waiters), (Some(hold.clone()), 0));
    let standing = client.through(&another).standing("a/b", "1").await;
    assert_eq!(standing, Some(Acquired::Held(hold)));
    assert!(seen.revision >= seen.hold.unwrap().granted);
    let vacant = another.lease(&resource("a")).await.unwrap();
    assert_eq!((vacant.hold, vacant.waiters), (None, 0));
}

/// I1: a second session gets nothing, and learns by which token it was beaten.
pub(super) async fn a_held_resource_is_refused(fixture: Fixture) {
    let hold = fixture.client("first").await.take("r", "1").await;
    let second = fixture.client("second").await;
    let refused = refusal(second.try_acquire("r", "1").await);
    let token = Some(token(&hold));
    assert_eq!(refused, Refusal::LeaseHeld { token });
    assert_eq!(second.standing("r", "1").await, None);
}

/// I4: however often and wherever a request is sent, it has one token.
pub(super) async fn the_same_request_has_one_token(fixture: Fixture) {
    let client = fixture.client("client").await;
    let another = client.through(&fixture.subject.another().await);
    let hold = client.take("r", "1").await;
    assert_eq!(client.take("r", "1").await, hold);
    assert_eq!(another.take("r", "1").await, hold);
    assert_eq!(another.at(2).retrying().take("r", "1").await, hold);
    assert_eq!(held(client.at(3).acquire("r", "1").await.unwrap()), hold);
}

/// A session that holds a resource is not told that it won it a second time.
pub(super) async fn a_second_request_is_told_of_the_first(fixture: Fixture) {
    let client = fixture.client("client").await;
    let hold = client.take("r", "1").await;
    let already = Refusal::AlreadyHeld {
        request: request("1"),
        token: token(&hold),
    };
    assert_eq!(refusal(client.try_acquire("r", "2").await), already);
    assert_eq!(refusal(client.acquire("r", "2").await), already);
    assert_eq!(client.standing("r", "2").await, None);
}

/// A request id that comes with other metadata is another request: neither answer would be right.
pub(super) async fn metadata_belongs_to_the_request(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let waiter = fixture.client("waiter").await;
    let hold = holder.take("r", "1").await;
    let place = waiter.queue("r", "1").await;
    for client in [&holder, &waiter] {
        let mut wish = client.wish("r", "1", true);
        wish.metadata = b"other".to_vec();
        let mismatch = Refusal::RequestMismatch {
            request: request("1"),
            field: "metadata",
        };
        assert_eq!(refusal(fixture.store.acquire(&wish).await), mismatch);
    }
    assert_eq!(holder.take("r", "1").await, hold);
    assert_eq!(waiter.queue("r", "1").await, place);
}

/// A release says whether it was this one that ended the lease.
pub(super) async fn release_by_token(fixture: Fixture) {
    let client = fixture.client("client").await;
    let hold = client.take("r", "1").await;
    client.give_back(&hold).await;
    let lease = fixture.store.lease(&resource("r")).await.unwrap();
    assert_eq!((lease.hold, lease.waiters), (None, 0));
    let again = client.release("r", HoldName::Token(token(&hold))).await;
    assert!(matches!(again, Ok(Released::NotHeld(_))), "{again:?}");
}

/// Who never heard the token can still give the lease back.
pub(super) async fn release_by_request(fixture: Fixture) {
    let client = fixture.client("client").await;
    let hold = client.take("r", "1").await;
    let other = client.release("r", HoldName::Request(request("2"))).await;
    assert!(matches!(other, Ok(Released::NotHeld(_))), "{other:?}");
    let released = client.release("r", HoldName::Request(request("1"))).await;
    let Ok(Released::Lease {
        hold: released,
        ended,
        ..
    }) = released
    else {
        panic!("not released: {released:?}");
    };
    assert!(ended > released.granted);
    assert_eq!(released, hold);
    let again = client.release("r", HoldName::Request(request("1"))).await;
    assert!(matches!(again, Ok(Released::NotHeld(_))), "{again:?}");
}

/// An old token has nothing to release any more; one that is not this session's never had.
pub(super) async fn tokens_of_others_release_nothing(fixture: Fixture) {
    let client = fixture.client("client").await;
    let other = fixture.client("other").await;
    let hold = client.take("r", "1").await;
    let current = token(&hold);
    for by_whom in [&client, &other] {
        let lower = HoldName::Token(next_to(current, -1));
        let released = by_whom.release("r", lower).await;
        assert!(matches!(released, Ok(Released::NotHeld(_))), "{released:?}");
        let given = next_to(current, 1);
        let higher = by_whom.release("r", HoldName::Token(given)).await;
        let stale = Refusal::StaleToken {
            given,
            current: Some(current),
        };
        assert_eq!(refusal(higher), stale);
    }
    let stale = Refusal::StaleToken {
        given: current,
        current: Some(current),
    };
    let others = other.release("r", HoldName::Token(current)).await;
    assert_eq!(refusal(others), stale);
    let request = other.release("r", HoldName::Request(request("1"))).await;
    assert!(matches!(request, Ok(Released::NotHeld(_))), "{request:?}");
    assert_eq!(client.take("r", "1").await, hold);
}

/// I3: every grant has a larger token than all before it, whoever asks and through whom.
pub(super) async fn tokens_grow(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let clients = [
        fixture.client("first").await,
        fixture.client("second").await.through(&another),
    ];
    let mut last = None;
    for round in 0..200_usize {
        let client = &clients[round % 2];
        let hold = client.take("r", &round.to_string()).await;
        let granted = token(&hold);
        assert!(Some(granted) > last, "{granted} after {last:?}");
        last = Some(granted);
        client.give_back(&hold).await;
    }
}

/// I1: of all that race for a resource, through two coordinators, one holds it.
pub(super) async fn racing_requests_have_one_winner(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let mut clients = Vec::new();
    for number in 0..50 {
        let client = fixture.client(&format!("racer-{number}")).await;
        let is_even = number % 2 == 0;
        clients.push(if is_even {
            client
        } else {
            client.through(&another)
        });
    }
    let results = join_all(clients.iter().map(|client| client.try_acquire("r", "1"))).await;
    let mut winners = Vec::new();
    for result in results {
        match result {
            Ok(acquired) => winners.push(held(acquired)),
            Err(StoreError::Refused(Refusal::LeaseHeld { .. })) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "{winners:?}");
    let lease = another.lease(&resource("r")).await.unwrap();
    assert_eq!(lease.hold.as_ref(), winners.first());
}

/// A future that is dropped may have had its effect: asked again, at a larger epoch, the store knows.
pub(super) async fn a_call_given_up_can_be_made_again(fixture: Fixture) {
    let client = fixture.client("impatient").await;
    let mut epoch = 1;
    let mut last = None;
    for round in 0..20 {
        let id = round.to_string();
        tokio::select! {
            biased;
            _ = async {
                for _ in 0..round {
                    tokio::task::yield_now().await;
                }
            } => {}
            _ = async { client.at(epoch).try_acquire("r", &id).await } => {}
        }
        epoch += 1;
        let hold = client.at(epoch).retrying().take("r", &id).await;
        assert_eq!(client.at(epoch).take("r", &id).await, hold);
        assert!(Some(token(&hold)) > last);
        last = Some(token(&hold));
        client.at(epoch).give_back(&hold).await;
    }
}
