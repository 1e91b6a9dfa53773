//! Generations and restarts: tokens grow through both (I3), and what was told stays true (I7).

use palisade_token::FencingToken;

use super::Fixture;
use super::client::{held, resource, token};
use super::sessions::refusal;
use crate::domain::{GenerationError, Refusal, WallClock};
use crate::store::{Failure, Outcome, StoreError};

/// A generation that is made at any time is above all tokens before it.
pub(super) async fn a_new_generation_is_above(fixture: Fixture) {
    let client = fixture.client("client").await;
    let mut last = None;
    for round in 0..5 {
        let hold = client.take("r", &format!("{round}")).await;
        assert!(Some(token(&hold)) > last);
        client.give_back(&hold).await;
        let generation = fixture.store.advance(None).await.unwrap();
        assert!(generation.base > token(&hold).get());
        last = Some(token(&hold));
    }
}

/// The way on for a guard whose fence is ahead: the next token is above it, on every coordinator.
pub(super) async fn a_generation_starts_past_a_token(fixture: Fixture) {
    let client = fixture.client("client").await;
    let hold = client.take("r", "1").await;
    client.give_back(&hold).await;
    let hour = WallClock::DAY_MICROS / 24;
    let past = FencingToken::new(fixture.clock.wall().0 + hour).unwrap();
    let generation = fixture.store.advance(Some(past)).await.unwrap();
    assert!(generation.base > past.get());
    let another = client.through(&fixture.subject.another().await);
    let store = &another;
    fixture
        .eventually("all grant above it", super::TAKEOVER, || async move {
            // Until a coordinator has seen the new generation, it grants nothing.
            match store.try_acquire("r", "2").await {
                Ok(acquired) => {
                    assert!(token(&held(acquired)) > past);
                    true
                }
                Err(_) => false,
            }
        })
        .await;
}

/// More than a day ahead of the clock, either of the two is wrong: nothing changes.
pub(super) async fn a_token_far_ahead_is_refused(fixture: Fixture) {
    let past = fixture.clock.wall().0 + 2 * WallClock::DAY_MICROS;
    let past = FencingToken::new(past).unwrap();
    let refused = fixture.store.advance(Some(past)).await.unwrap_err();
    assert_eq!(refused.outcome(), Outcome::NotApplied);
    let why = match refused {
        StoreError::Refused(Refusal::FenceAhead(why)) => why,
        StoreError::Failed {
            failure: Failure::Generation(why),
            ..
        } => why,
        other => panic!("{other:?}"),
    };
    assert!(matches!(why, GenerationError::FarAhead { .. }), "{why:?}");
    let hold = fixture.client("client").await.take("r", "1").await;
    assert!(token(&hold) < past);
}

/// A lease keeps its token, and can be given back, when generations change.
pub(super) async fn a_new_generation_ends_no_lease(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let waiter = fixture.client("waiter").await;
    let hold = holder.take("r", "1").await;
    waiter.queue("r", "1").await;
    let generation = fixture.store.advance(None).await.unwrap();
    assert_eq!(holder.take("r", "1").await, hold);
    holder.give_back(&hold).await;
    let next = held(waiter.acquire("r", "1").await.unwrap());
    assert_eq!(next.generation, generation);
    assert!(token(&next).get() > generation.base);
}

/// I7: what was acknowledged is there after a crash: leases, places, sessions, and that one is closed.
pub(super) async fn a_restart_keeps_leases_and_places(mut fixture: Fixture) {
    let holder = fixture.client("holder").await;
    let waiter = fixture.client("waiter").await;
    let closed = fixture.client("closed").await;
    let hold = holder.at(3).take("r", "1").await;
    let place = waiter.queue("r", "1").await;
    closed.take("s", "1").await;
    closed.close().await.unwrap();
    let released = holder.at(3).take("t", "2").await;
    holder.at(3).give_back(&released).await;
    let Some(store) = fixture.subject.restart().await else {
        return;
    };
    let holder = holder.through(&store);
    let waiter = waiter.through(&store);
    assert!(store.lease(&resource("s")).await.unwrap().hold.is_none());
    assert!(store.lease(&resource("t")).await.unwrap().hold.is_none());
    assert!(matches!(
        refusal(closed.through(&store).renew().await),
        Refusal::SessionEnded { .. }
    ));
    assert_eq!(holder.at(3).take("r", "1").await, hold);
    assert!(matches!(
        refusal(holder.at(2).try_acquire("r", "1").await),
        Refusal::EpochStale {
            given: 2,
            stored: 3
        }
    ));
    assert_eq!(waiter.queue("r", "1").await, place);
    holder.at(3).renew().await.unwrap();
    holder.at(3).give_back(&hold).await;
    let next = held(waiter.acquire("r", "1").await.unwrap());
    assert!(token(&next) > token(&hold));
}

/// I3: no crash makes a token come again.
pub(super) async fn tokens_grow_through_restarts(mut fixture: Fixture) {
    let mut client = fixture.client("client").await;
    let mut last = None;
    for round in 0..3 {
        let hold = client.take("r", &format!("{round}")).await;
        assert!(Some(token(&hold)) > last);
        last = Some(token(&hold));
        client.give_back(&hold).await;
        let Some(store) = fixture.subject.restart().await else {
            return;
        };
        client = client.through(&store);
    }
}
