//! How a coordinator goes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_api::ErrorReason;
use palisade_api::v1::OpenSessionRequest;
use palisade_coordinator::store::memory::MemoryStore;
use palisade_test_support::eventually;
use tonic::Code;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::store::{Mode, Switch};
use crate::support::{
    Coordinator, LONG, acquire, acquiring, again, asking, channel, get, http_get, memory, open,
    opening, outcome, refused, release, settings, token,
};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_draining_coordinator_says_so_everywhere_and_revokes_nothing() {
    let memory = memory().await;
    let mut slow = settings();
    // Ended by the test long before: what is looked at meanwhile must not race with the end.
    slow.timeouts.drain_notice = HOUR;
    slow.timeouts.drain_limit = HOUR;
    let old = Coordinator::with(Switch::new(Arc::<MemoryStore>::clone(&memory)), slow).await;
    let client = &old.client;
    let (holder, other) = (open(client, "holder").await, open(client, "other").await);
    let first = acquire(client, asking(&holder, "r1", "x", Duration::ZERO)).await;
    let first = token(&first.unwrap());
    let request = asking(&other, "r1", "x", HOUR);
    let waiting = acquiring(client, request.clone());
    old.waiting("x", 1).await;
    let ready = async || http_get(old.addresses, "/readyz").await.0 == 200;
    eventually("it is ready", LONG, ready).await.unwrap();

    old.shutdown.cancel();
    let status = outcome(waiting).await.unwrap_err();
    refused(&status, Code::Unavailable, ErrorReason::Draining);
    let status = acquire(client, asking(&holder, "r2", "y", Duration::ZERO)).await;
    refused(
        &status.unwrap_err(),
        Code::Unavailable,
        ErrorReason::Draining,
    );
    let opening = OpenSessionRequest {
        opening: Some(opening("new")),
    };
    let status = client.clone().open_session(opening).await.unwrap_err();
    refused(&status, Code::Unavailable, ErrorReason::Draining);
    let (code, body) = http_get(old.addresses, "/readyz?verbose").await;
    assert_eq!(code, 503);
    assert!(body.contains(r#""reasons":["DRAINING"]"#), "{body}");
    assert_eq!(http_get(old.addresses, "/livez").await.0, 200);
    let mut health = HealthClient::new(channel(old.addresses).await);
    let check = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(check.into_inner().status(), ServingStatus::NotServing);
    // What is held goes on, and can be given back here.
    assert_eq!(get(client, "x").await.waiters, 1, "the place stands");
    release(client, &holder, "x", first).await;

    let new = Coordinator::with(Switch::new(memory), settings()).await;
    let granted = acquire(&new.client, again(request)).await.unwrap();
    assert_eq!(granted.session_id, other.session_id);
    assert!(token(&granted) > first);
    new.stop().await;
    old.running.abort();
}

/// Neither an idle connection nor one that watches health holds up the end.
#[tokio::test]
async fn it_ends_well_before_its_bound() {
    let coordinator = Coordinator::start().await;
    let mut health = HealthClient::new(channel(coordinator.addresses).await);
    let watch = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    let addresses = coordinator.addresses;
    let idle = tokio::net::TcpStream::connect(addresses.http)
        .await
        .unwrap();
    coordinator.shutdown.cancel();
    let told = async {
        // The last word is "not serving".
        let mut last = None;
        while let Ok(Some(answer)) = watch.message().await {
            last = Some(answer.status());
        }
        last
    };
    let last = palisade_test_support::within("the watch ends", LONG, told).await;
    assert_eq!(last.unwrap(), Some(ServingStatus::NotServing));
    let half = Duration::from_secs(5);
    let ended = palisade_test_support::within("it ends", half, coordinator.running).await;
    ended.unwrap().unwrap().unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_call_under_way_is_answered_before_the_end() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "s").await;
    coordinator.store.mode.send_replace(Mode::Hangs);
    let call = acquiring(client, asking(&session, "r1", "x", Duration::ZERO));
    let reached = async || coordinator.store.acquires.load(Ordering::Relaxed) > 0;
    eventually("the call has reached the store", LONG, reached)
        .await
        .unwrap();
    coordinator.shutdown.cancel();
    coordinator.store.mode.send_replace(Mode::Up);
    assert!(outcome(call).await.is_ok());
    coordinator.stop().await;
}
