//! One stream does it all.

use std::time::Duration;

use palisade_client::{AcquireOptions, ClientError, LostReason, SessionState};
use palisade_test_support::eventually;
use tokio::sync::watch;
use tonic::Code;

use super::world::{Asked, Fault, Host, Kind, refusal};
use super::{held, session_of, waiting};
use crate::fake::{PATIENCE, in_time, orders};

#[tokio::test]
async fn a_lease_is_acquired_and_released_and_the_session_closed_on_one_stream() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    assert_eq!(lease.token().get(), 101);
    assert_eq!(lease.info().session_id, session.id());
    let released = in_time(lease.release()).await.unwrap();
    assert_eq!(released.ended_before, None);
    let again = held(&session, "orders").await;
    assert_eq!(again.token().get(), 102);
    in_time(session.close()).await.unwrap();
    assert_eq!(again.state(), SessionState::Lost(LostReason::Closed));
    assert!(host.world().held.is_empty());
    assert_eq!(host.seen(Kind::Open).len(), 1);
    assert_eq!(host.seen(Kind::Close).len(), 1);
    let numbers: Vec<_> = [Kind::Open, Kind::Acquire, Kind::Release, Kind::Close]
        .iter()
        .flat_map(|kind| host.seen(*kind))
        .map(|request| request.seq)
        .collect();
    assert_eq!(numbers, [1, 2, 4, 3, 5], "by kind");
}

#[tokio::test]
async fn a_session_that_is_dropped_is_closed_and_a_dropped_lease_released() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    drop(held(&session, "orders").await);
    let again = held(&session, "orders").await;
    assert_eq!(host.seen(Kind::Release).len(), 1);
    drop(session);
    assert!(again.grant().is_ok(), "its lease keeps it");
    drop(again);
    host.saw(Kind::Close, 1).await;
}

#[tokio::test]
async fn a_waiter_hears_of_its_place_and_gets_its_turn() {
    let host = Host::start().await;
    let (one, other) = (session_of(&[&host]).await, session_of(&[&host]).await);
    let first = held(&one, "orders").await;
    let (place, mut moved) = watch::channel(None);
    let resource = orders();
    let waiter = other.acquire(&resource, waiting().progress(place));
    let releasing = async {
        let seen = *moved.wait_for(Option::is_some).await.unwrap();
        let seen = seen.unwrap();
        assert_eq!((seen.ahead, seen.holder), (0, Some(first.token())));
        first.release().await.unwrap();
    };
    let (second, ()) = in_time(async { tokio::join!(waiter, releasing) }).await;
    assert_eq!(second.unwrap().token().get(), 102);
}

#[tokio::test]
async fn what_is_refused_is_refused_at_once() {
    let host = Host::start().await;
    let (one, other) = (session_of(&[&host]).await, session_of(&[&host]).await);
    let first = held(&one, "orders").await;
    let error = in_time(other.try_acquire(&orders())).await.unwrap_err();
    assert!(matches!(error, ClientError::Held { .. }), "{error:?}");
    let error = in_time(one.try_acquire(&orders())).await.unwrap_err();
    assert!(
        matches!(error, ClientError::AlreadyHeld { .. }),
        "{error:?}"
    );
    let of = [("resource", "orders"), ("requestId", "r")];
    let over = refusal(Code::Aborted, "WAIT_EXPIRED", &of);
    host.next(Kind::Acquire, Fault::Refuse(over));
    let short = AcquireOptions::default().wait(Duration::from_millis(1));
    let error = in_time(other.acquire(&orders(), short)).await.unwrap_err();
    assert!(
        matches!(error, ClientError::WaitExpired { .. }),
        "{error:?}"
    );
    in_time(first.release()).await.unwrap();
    assert_eq!(host.seen(Kind::Cancel).len(), 0);
    assert_eq!(host.seen(Kind::Acquire).len(), 4);
}

#[tokio::test]
async fn an_abandoned_wait_is_cancelled() {
    let host = Host::start().await;
    let (one, other) = (session_of(&[&host]).await, session_of(&[&host]).await);
    let first = held(&one, "orders").await;
    let resource = orders();
    tokio::select! {
        lease = other.acquire(&resource, waiting()) => panic!("{lease:?}"),
        _seen = host.saw(Kind::Acquire, 2) => {}
    }
    host.saw(Kind::Cancel, 1).await;
    in_time(first.release()).await.unwrap();
    let again = held(&other, "orders").await;
    assert_eq!(again.token().get(), 102, "no place was left in the queue");
}

#[tokio::test]
async fn what_was_granted_to_nobody_is_given_back() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    host.next(Kind::Acquire, Fault::LoseReply);
    let resource = orders();
    tokio::select! {
        lease = session.acquire(&resource, waiting()) => panic!("{lease:?}"),
        _seen = host.saw(Kind::Acquire, 1) => {}
    }
    eventually("given back", PATIENCE, async || {
        host.world().held.is_empty()
    })
    .await
    .unwrap();
    assert_eq!(host.seen(Kind::Cancel).len(), 1);
}

#[tokio::test]
async fn a_refusal_for_now_is_asked_again_and_one_that_may_have_happened_as_a_retry() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let undone = [("mayHaveHappened", "false")];
    let undone = refusal(Code::Unavailable, "STORE_UNAVAILABLE", &undone);
    host.next(Kind::Acquire, Fault::Refuse(undone));
    host.next(Kind::Acquire, Fault::Refuse(super::world::away()));
    let lease = held(&session, "orders").await;
    assert!(lease.grant().is_ok());
    let attempts: Vec<_> = host
        .seen(Kind::Acquire)
        .into_iter()
        .map(|request| match request.message {
            Some(Asked::Acquire(acquire)) => (acquire.attempt, acquire.request_id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(attempts.iter().all(|(_, id)| *id == attempts[0].1));
    let numbers: Vec<_> = attempts.iter().map(|(attempt, _)| *attempt).collect();
    assert_eq!(numbers, [1, 1, 2]);
}

#[tokio::test]
async fn a_release_that_is_refused_for_now_is_tried_until_it_is_done() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    host.next(Kind::Release, Fault::Refuse(super::world::away()));
    let released = in_time(lease.release_refused_by("7".parse().unwrap())).await;
    assert_eq!(released.unwrap().ended_before, None);
    let fences: Vec<_> = host
        .seen(Kind::Release)
        .into_iter()
        .map(|request| match request.message {
            Some(Asked::Release(release)) => release.refused_by_fence,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(fences, [7, 7]);
}

#[tokio::test]
async fn a_detached_session_keeps_what_it_holds() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    let credentials = session.detach().unwrap();
    assert_eq!(credentials.epoch, 1);
    assert_eq!(lease.state(), SessionState::Lost(LostReason::Detached));
    drop(lease);
    assert_eq!(host.seen(Kind::Close).len(), 0);
    assert_eq!(host.world().held.len(), 1);
}
