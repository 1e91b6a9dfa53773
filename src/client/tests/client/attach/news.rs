//! What a coordinator tells of leases by itself.

use std::time::Duration;

use palisade_api::v1;
use palisade_client::{ClientError, LeaseEnd, LeaseError, LostReason, SessionState};
use palisade_test_support::eventually;

use super::world::{Asked, Host, Kind, Told};
use super::{held, session_of};
use crate::fake::{PATIENCE, in_time};

#[tokio::test]
async fn a_revoked_lease_is_lost_at_once_and_for_good() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let (lease, other) = (
        held(&session, "orders").await,
        held(&session, "other").await,
    );
    host.revoke("orders", "maintenance");
    in_time(lease.lost().cancelled()).await;
    let revoked = LostReason::Revoked;
    assert_eq!(lease.state(), SessionState::Lost(revoked));
    assert_eq!(lease.grant(), Err(LeaseError::Lost(revoked)));
    assert_eq!(lease.time_left(), Duration::ZERO);
    let loss = lease.loss().unwrap();
    assert_eq!(
        (loss.end, loss.reason.as_str()),
        (LeaseEnd::Revoked, "maintenance")
    );
    assert_eq!(
        (loss.successor, loss.successor_label.as_str()),
        (None, "worker-8")
    );
    assert_eq!(session.state(), SessionState::Held, "the session goes on");
    assert!(other.grant().is_ok() && other.loss().is_none());
    let released = in_time(lease.release()).await.unwrap();
    assert_eq!(released.ended_before, Some(LeaseEnd::Revoked));
    assert_eq!(host.seen(Kind::Release).len(), 0);
    assert_eq!(held(&session, "orders").await.token().get(), 103);
}

#[tokio::test]
async fn a_successor_is_told() {
    let host = Host::start().await;
    let (one, other) = (session_of(&[&host]).await, session_of(&[&host]).await);
    let lease = held(&one, "orders").await;
    let resource = lease.resource().clone();
    let waiter = other.acquire(&resource, super::waiting());
    let revoking = async {
        host.saw(Kind::Acquire, 2).await;
        host.revoke("orders", "");
    };
    let (next, ()) = in_time(async { tokio::join!(waiter, revoking) }).await;
    in_time(lease.lost().cancelled()).await;
    assert_eq!(lease.loss().unwrap().successor, Some(next.unwrap().token()));
}

#[tokio::test]
async fn what_was_lost_while_the_stream_was_cut_is_lost_when_it_is_back() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    {
        let mut world = host.world();
        world.held.clear();
    }
    assert!(lease.grant().is_ok(), "nobody could know");
    host.cut();
    in_time(lease.lost().cancelled()).await;
    assert!(lease.grant().is_err());
    let told = async || lease.loss().unwrap().end == LeaseEnd::Revoked;
    eventually("how it was lost", PATIENCE, told).await.unwrap();
}

#[tokio::test]
async fn what_a_renewal_does_not_find_is_lost() {
    let host = Host::start().await;
    host.ttl(Duration::from_secs(2));
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    host.world().held.clear();
    in_time(lease.lost().cancelled()).await;
    assert_eq!(lease.state(), SessionState::Lost(LostReason::Revoked));
    assert!(session.state().is_held());
}

fn wanted(lease: &palisade_client::Lease, request_id: &str) -> Told {
    Told::RevokeRequested(v1::AttachRevokeRequested {
        resource: lease.resource().to_string(),
        request_id: request_id.to_owned(),
        token: lease.token().as_i64(),
        deadline_ms: 60_000,
        reason: "moving".to_owned(),
        actor: "ops".to_owned(),
    })
}

#[tokio::test]
async fn a_wish_to_have_it_back_is_told_and_answered_once() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    let mut watching = lease.revoke_requested();
    assert_eq!(*watching.borrow(), None);
    assert!(!lease.answer_revoke(true), "nobody asked");
    host.tell(&wanted(&lease, &lease.info().request_id));
    let request = in_time(watching.wait_for(Option::is_some))
        .await
        .unwrap()
        .clone();
    let request = request.unwrap();
    assert_eq!(
        (request.reason.as_str(), request.actor.as_str()),
        ("moving", "ops")
    );
    assert!(lease.grant().is_ok(), "a wish ends nothing");
    assert!(lease.answer_revoke(true));
    assert!(!lease.answer_revoke(true), "once");
    let acks = host.saw(Kind::RevokeAck, 1).await;
    match &acks[0].message {
        Some(Asked::RevokeAck(ack)) => {
            assert_eq!(
                (ack.token, ack.will_release),
                (lease.token().as_i64(), true)
            );
        }
        other => panic!("{other:?}"),
    }
    // Whoever looks later sees it, too.
    assert!(lease.revoke_requested().borrow().is_some());
}

#[tokio::test]
async fn news_of_what_nobody_knows_is_passed_over() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    let lost = |request_id: &str, token| {
        Told::Lost(v1::AttachLost {
            resource: "orders".to_owned(),
            request_id: request_id.to_owned(),
            token,
            end: v1::LeaseEnd::Expired.into(),
            ..v1::AttachLost::default()
        })
    };
    let own = lease.info().request_id.clone();
    host.tell(&lost("somebody else's", 101));
    host.tell(&lost(&"0".repeat(32), 101));
    host.tell(&lost(&own, 100));
    host.tell(&wanted(&lease, "somebody else's"));
    let other = held(&session, "other").await;
    assert!(lease.grant().is_ok());
    host.tell(&lost(&own, 101));
    in_time(lease.lost().cancelled()).await;
    assert_eq!(lease.grant(), Err(LeaseError::Expired));
    assert!(other.grant().is_ok());
    assert_eq!(host.seen(Kind::Open).len(), 1);
}

#[tokio::test]
async fn a_grant_that_nobody_asked_for_is_given_back() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let granted = v1::AttachGranted {
        lease: Some(palisade_api::Lease {
            resource: "stray".to_owned(),
            token: 77,
            holder: vec![9; 16],
            session_id: session.id().to_owned(),
            request_id: "0".repeat(32),
            ..palisade_api::Lease::default()
        }),
        ..v1::AttachGranted::default()
    };
    host.tell(&Told::Granted(granted));
    let releases = host.saw(Kind::Release, 1).await;
    match &releases[0].message {
        Some(Asked::Release(release)) => assert_eq!(release.resource, "stray"),
        other => panic!("{other:?}"),
    }
    assert!(session.state().is_held());
}

#[tokio::test]
async fn more_than_1000_open_requests_are_refused_before_they_are_sent() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let mut leases = Vec::new();
    for number in 0..1000 {
        leases.push(held(&session, &format!("r/{number}")).await);
    }
    let error = in_time(session.try_acquire(&"r/1000".parse().unwrap())).await;
    match error.unwrap_err() {
        ClientError::LimitReached { limit, bound, .. } => {
            assert_eq!(limit, "openRequests");
            assert!(bound.contains("1000"), "{bound}");
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(host.seen(Kind::Acquire).len(), 1000);
    in_time(leases.pop().unwrap().release()).await.unwrap();
    leases.push(held(&session, "r/1000").await);
    host.cut();
    host.saw(Kind::Open, 2).await;
    leases.pop().unwrap().release().await.unwrap();
    assert!(leases.iter().all(|lease| lease.grant().is_ok()));
    assert_eq!(host.world().violations, Vec::<String>::new());
}
