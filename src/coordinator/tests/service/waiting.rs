//! Acquires that wait.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use palisade_api::v1::CloseSessionRequest;
use palisade_api::v1::release_request::Hold;
use palisade_api::{ErrorReason, SessionRef};
use palisade_test_support::eventually;
use tonic::{Code, Request};

use crate::store::{Mode, Switch};
use crate::support::{
    Client, Coordinator, LONG, acquire, acquiring, again, asking, get, memory, open, outcome,
    refused, release, releasing, settings, token,
};

/// A wait that no test sits out.
const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);

/// A holder of `x` with its token, and another session.
async fn held(client: &Client) -> (SessionRef, i64, SessionRef) {
    let (holder, other) = (open(client, "holder").await, open(client, "other").await);
    let request = asking(&holder, "r1", "x", Duration::ZERO);
    let granted = acquire(client, request).await.unwrap();
    (holder, token(&granted), other)
}

#[tokio::test]
async fn a_release_hands_over_to_who_waits() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (holder, first, other) = held(client).await;
    let waiting = acquiring(client, asking(&other, "r1", "x", HOUR));
    coordinator.waiting("x", 1).await;
    release(client, &holder, "x", first).await;
    let granted = outcome(waiting).await.unwrap();
    assert!(token(&granted) > first);
    assert_eq!(granted.session_id, other.session_id);
    assert!(granted.ttl_left_ms > 0);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_wait_that_is_over_leaves_no_place() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (holder, first, other) = held(client).await;
    let request = asking(&other, "r1", "x", SHORT);
    let status = acquire(client, request).await.unwrap_err();
    let told = refused(&status, Code::Aborted, ErrorReason::WaitExpired);
    assert_eq!(
        (told["resource"].as_str(), told["requestId"].as_str()),
        ("x", "r1")
    );
    assert_eq!(get(client, "x").await.waiters, 0);
    release(client, &holder, "x", first).await;
    assert_eq!(
        get(client, "x").await.lease,
        None,
        "nobody was told to wait any more"
    );
    coordinator.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_keeps_its_place_and_takes_it_up_again() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (holder, first, other) = held(client).await;
    let third = open(client, "third").await;

    let request = asking(&other, "r1", "x", HOUR);
    let gone = acquiring(client, request.clone());
    coordinator.waiting("x", 1).await;
    gone.abort();
    let behind = acquiring(client, asking(&third, "r1", "x", HOUR));
    coordinator.waiting("x", 2).await;

    // A retry under the same epoch could be overtaken by a copy of its first try.
    let mut stale = request.clone();
    stale.attempt = 2;
    let status = acquire(client, stale).await.unwrap_err();
    refused(&status, Code::Aborted, ErrorReason::EpochStale);

    let back = acquiring(client, again(request.clone()));
    coordinator.waiting("x", 2).await;
    release(client, &holder, "x", first).await;
    let granted = outcome(back).await.unwrap();
    assert_eq!(
        granted.session_id, other.session_id,
        "the first in the queue is served first"
    );

    // Taken up once more, it is the same lease (I4).
    let once_more = acquire(client, again(again(request))).await.unwrap();
    assert_eq!(token(&once_more), token(&granted));
    behind.abort();
    coordinator.stop().await;
}

#[tokio::test]
async fn a_call_whose_deadline_is_shorter_than_its_wait_keeps_its_place() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (_, _, other) = held(client).await;
    let mut request = Request::new(asking(&other, "r1", "x", HOUR));
    request.set_timeout(Duration::from_millis(400));
    let status = client.clone().acquire(request).await.unwrap_err();
    refused(
        &status,
        Code::DeadlineExceeded,
        ErrorReason::DeadlineExceeded,
    );
    assert_eq!(get(client, "x").await.waiters, 1);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_session_that_ends_ends_its_waits() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (_, _, other) = held(client).await;
    let waiting = acquiring(client, asking(&other, "r1", "x", HOUR));
    coordinator.waiting("x", 1).await;
    let close = CloseSessionRequest {
        session: Some(other.clone()),
    };
    client.clone().close_session(close).await.unwrap();
    let status = outcome(waiting).await.unwrap_err();
    let told = refused(&status, Code::NotFound, ErrorReason::SessionEnded);
    assert_eq!(told["sessionId"], other.session_id);
    coordinator.stop().await;
}

/// I4: what the client gave back is not asked for again on its behalf.
#[tokio::test]
async fn a_request_that_is_given_back_while_it_waits_is_never_granted() {
    let mut settings = settings();
    settings.timeouts.sweep = HOUR;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let (holder, first, other) = held(client).await;
    let waiting = acquiring(client, asking(&other, "r1", "x", HOUR));
    coordinator.waiting("x", 1).await;
    let give_back = releasing(&other, "x", Hold::RequestId("r1".to_owned()));
    let released = client
        .clone()
        .release(give_back)
        .await
        .unwrap()
        .into_inner();
    assert!(released.queue_place_given_back);
    let status = outcome(waiting).await.unwrap_err();
    refused(&status, Code::Aborted, ErrorReason::RequestCancelled);
    assert_eq!(get(client, "x").await.waiters, 0);
    release(client, &holder, "x", first).await;
    assert_eq!(get(client, "x").await.lease, None);
    coordinator.stop().await;
}

#[tokio::test]
async fn news_that_never_comes_strands_nobody() {
    let mut store = Switch::new(memory().await);
    store.is_silent = true;
    let coordinator = Coordinator::with(store, settings()).await;
    let client = &coordinator.client;
    let (holder, first, other) = held(client).await;
    let waiting = acquiring(client, asking(&other, "r1", "x", HOUR));
    coordinator.waiting("x", 1).await;
    release(client, &holder, "x", first).await;
    assert!(token(&outcome(waiting).await.unwrap()) > first);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_watch_that_breaks_off_is_taken_up_again() {
    let mut store = Switch::new(memory().await);
    store.broken_watches = AtomicUsize::new(3);
    let mut settings = settings();
    settings.timeouts.sweep = HOUR;
    let coordinator = Coordinator::with(store, settings).await;
    let client = &coordinator.client;
    let (holder, first, other) = held(client).await;
    let waiting = acquiring(client, asking(&other, "r1", "x", HOUR));
    coordinator.waiting("x", 1).await;
    release(client, &holder, "x", first).await;
    assert!(token(&outcome(waiting).await.unwrap()) > first);
    coordinator.stop().await;
}

#[tokio::test]
async fn waiting_calls_are_bounded_here_and_per_resource() {
    let mut settings = settings();
    settings.limits.max_waiters = 2;
    settings.limits.max_waiters_per_resource = 1;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let (holder, _, other) = held(client).await;
    let taken = asking(&holder, "r2", "y", Duration::ZERO);
    acquire(client, taken).await.unwrap();
    let third = open(client, "third").await;

    let first = acquiring(client, asking(&other, "r1", "x", HOUR));
    coordinator.waiting("x", 1).await;
    let status = acquire(client, asking(&third, "r1", "x", HOUR)).await;
    let exhausted = (Code::ResourceExhausted, ErrorReason::LimitReached);
    let told = refused(&status.unwrap_err(), exhausted.0, exhausted.1);
    assert_eq!(
        (told["limit"].as_str(), told["bound"].as_str()),
        ("waitersPerResource", "1")
    );

    let second = acquiring(client, asking(&other, "r2", "y", HOUR));
    coordinator.waiting("y", 1).await;
    let status = acquire(client, asking(&third, "r2", "z", HOUR)).await;
    let told = refused(&status.unwrap_err(), exhausted.0, exhausted.1);
    assert_eq!(
        (told["limit"].as_str(), told["bound"].as_str()),
        ("waiters", "2")
    );

    // A client that goes makes room.
    first.abort();
    second.abort();
    eventually("there is room again", LONG, async || {
        let request = asking(&third, "r3", "z", Duration::from_secs(1));
        acquire(client, request).await.is_ok()
    })
    .await
    .unwrap();
    coordinator.stop().await;
}

/// A release that may have failed leaves a place that may be granted yet: that is said.
#[tokio::test]
async fn a_wait_that_cannot_be_given_up_for_certain_says_that_it_may_have_happened() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (_, _, other) = held(client).await;
    for mode in [Mode::LosesReleases, Mode::Away] {
        let name = format!("{mode:?}");
        let waiting = acquiring(client, asking(&other, &name, "x", SHORT));
        coordinator.waiting("x", 1).await;
        coordinator.store.mode.send_replace(mode);
        let status = outcome(waiting).await.unwrap_err();
        coordinator.store.mode.send_replace(Mode::Up);
        let told = refused(&status, Code::Unavailable, ErrorReason::StoreUnavailable);
        assert_eq!(told["mayHaveHappened"], "true", "{mode:?}");
        assert!(!format!("{status:?}").contains("secret words"));
        let give_back = releasing(&other, "x", Hold::RequestId(name));
        client.clone().release(give_back).await.unwrap();
    }
    coordinator.stop().await;
}
