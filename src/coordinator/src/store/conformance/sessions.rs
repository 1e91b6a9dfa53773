//! Sessions: who may use them, and in which order.

use super::client::token;
use super::{Client, Fixture};
use crate::domain::{HoldName, Principal, Refusal, SecretHash};
use crate::store::StoreError;

/// The refusal of a call that must be refused.
pub(super) fn refusal<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Refusal {
    match result {
        Err(StoreError::Refused(refusal)) => refusal,
        other => panic!("it must be refused, and yet: {other:?}"),
    }
}

/// A reply that was lost is got by asking again: the second opening finds the first, with whatever it
/// holds by now.
pub(super) async fn opening_again_finds_the_session(fixture: Fixture) {
    let session = fixture.session("again");
    let client = Client::of(&fixture.store, &session);
    let first = fixture.store.open_session(session.clone()).await.unwrap();
    let hold = client.take("r", "1").await;
    let second = fixture.store.open_session(session).await.unwrap();
    assert_eq!(first, second);
    assert_eq!(client.take("r", "1").await, hold);
}

/// Whoever guesses an open id gets nothing by it.
pub(super) async fn another_secret_opens_nothing(fixture: Fixture) {
    let session = fixture.session("mine");
    fixture.store.open_session(session.clone()).await.unwrap();
    let taken = Refusal::OpenIdTaken {
        session: session.id,
    };
    let mut other = session.clone();
    other.secret = SecretHash::of(b"another");
    assert_eq!(refusal(fixture.store.open_session(other).await), taken);
    let mut other = session.clone();
    other.principal = Principal::named("another");
    assert_eq!(refusal(fixture.store.open_session(other).await), taken);
    let client = Client::of(&fixture.store, &session);
    assert!(client.renew().await.is_ok());
}

/// What never was cannot be renewed or used; that it shall end is granted already.
pub(super) async fn sessions_that_never_were(fixture: Fixture) {
    let client = Client::of(&fixture.store, &fixture.session("ghost"));
    let session = client.caller.session;
    let ended = Refusal::SessionEnded { session };
    assert_eq!(refusal(client.renew().await), ended);
    assert_eq!(refusal(client.try_acquire("r", "1").await), ended);
    assert_eq!(refusal(fixture.store.time_left(session).await), ended);
    assert!(client.close().await.is_ok());
}

/// A session is bound to its principal and its secret, in every call.
pub(super) async fn strangers_are_refused_and_change_nothing(fixture: Fixture) {
    let owner = fixture.client("owner").await;
    let hold = owner.take("r", "1").await;
    let not_yours = Refusal::NotYours {
        session: owner.caller.session,
    };
    let mut thief = owner.clone();
    thief.caller.secret = SecretHash::of(b"guessed");
    let mut namesake = owner.clone();
    namesake.caller.principal = Principal::named("another");
    for stranger in [thief, namesake] {
        assert_eq!(refusal(stranger.renew().await), not_yours);
        assert_eq!(refusal(stranger.close().await), not_yours);
        assert_eq!(refusal(stranger.try_acquire("r", "1").await), not_yours);
        let release = stranger.release("r", HoldName::Token(token(&hold))).await;
        assert_eq!(refusal(release), not_yours);
    }
    assert_eq!(owner.take("r", "1").await, hold);
}

/// Nothing is left of a closed session, and closing it again is no error.
pub(super) async fn a_closed_session_is_over(fixture: Fixture) {
    let client = fixture.client("closing").await;
    let session = client.caller.session;
    let left = fixture.store.time_left(session).await.unwrap();
    assert!(
        left > Fixture::LONG / 2,
        "{left:?} is left of a new session"
    );
    let hold = client.take("r", "1").await;
    client.close().await.unwrap();
    client.close().await.unwrap();
    let ended = Refusal::SessionEnded { session };
    assert_eq!(refusal(client.renew().await), ended);
    assert_eq!(refusal(client.acquire("r", "2").await), ended);
    let release = client.release("r", HoldName::Token(token(&hold))).await;
    assert_eq!(refusal(release), ended);
    let next = fixture.client("next").await.take("r", "1").await;
    assert!(token(&next) > token(&hold));
}

/// A client that was cloned or restarted from an image speaks at an older epoch than its successor.
pub(super) async fn an_older_epoch_is_refused(fixture: Fixture) {
    let client = fixture.client("epochs").await;
    let hold = client.at(5).take("r", "1").await;
    let stale = Refusal::EpochStale {
        given: 4,
        stored: 5,
    };
    let late = client.at(4);
    assert_eq!(refusal(late.try_acquire("r", "1").await), stale);
    assert_eq!(refusal(late.acquire("other", "2").await), stale);
    let release = late.release("r", HoldName::Token(token(&hold))).await;
    assert_eq!(refusal(release), stale);
    // The epoch that is stored serves through any coordinator.
    let another = fixture.subject.another().await;
    assert_eq!(client.at(5).through(&another).take("r", "1").await, hold);
}

/// A retry under the same epoch could be overtaken by the delayed first try (I4).
pub(super) async fn a_retry_needs_a_larger_epoch(fixture: Fixture) {
    let client = fixture.client("retries").await.at(7);
    let hold = client.take("r", "1").await;
    let stale = Refusal::EpochStale {
        given: 7,
        stored: 7,
    };
    assert_eq!(
        refusal(client.retrying().try_acquire("r", "1").await),
        stale
    );
    assert_eq!(client.at(8).retrying().take("r", "1").await, hold);
    let stale = Refusal::EpochStale {
        given: 7,
        stored: 8,
    };
    assert_eq!(refusal(client.try_acquire("r", "1").await), stale);
}
