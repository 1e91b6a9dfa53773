//! etcd away at the start or during work: a clear error within the call's deadline, and recovery by itself.

use std::time::Duration;

use palisade_api::v1::lease_service_client::LeaseServiceClient;
use palisade_api::v1::{GetLeaseRequest, OpenSessionRequest, SessionOpening};
use palisade_test_support::{Coordinator, Etcd, eventually, within};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::setup::{LIMIT, acquired, client_of, name, open, waiting};

/// What a client of any language sets.
const CALL_LIMIT: Duration = Duration::from_secs(3);

async fn call(coordinator: &Coordinator) -> Result<(), Status> {
    let mut stub = LeaseServiceClient::connect(coordinator.addr())
        .await
        .unwrap();
    let opening = SessionOpening {
        open_id: "outage".to_owned(),
        secret: vec![7; 32],
        ..SessionOpening::default()
    };
    let mut request = Request::new(OpenSessionRequest {
        opening: Some(opening),
    });
    request.set_timeout(CALL_LIMIT);
    within("an answer", CALL_LIMIT, stub.open_session(request))
        .await
        .unwrap()?;
    let mut request = Request::new(GetLeaseRequest {
        resource: "r".to_owned(),
        ..GetLeaseRequest::default()
    });
    request.set_timeout(CALL_LIMIT);
    within("an answer", CALL_LIMIT, stub.get_lease(request))
        .await
        .unwrap()?;
    Ok(())
}

async fn expect_unavailable(coordinator: &Coordinator) {
    let status = call(coordinator).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.domain.as_str(), info.reason.as_str()),
        ("palisade", "STORE_UNAVAILABLE")
    );
    let (code, _) = coordinator.http_get("/livez").await.unwrap();
    assert_eq!(code, 200, "it is alive, whatever its store is");
}

async fn expect_readiness(coordinator: &Coordinator, ready: bool) {
    let reached = async || coordinator.is_ready().await == ready;
    eventually("readiness to follow the store", LIMIT, reached)
        .await
        .unwrap();
}

#[tokio::test]
async fn etcd_away_at_the_start() {
    let mut etcd = Etcd::start().await.unwrap();
    etcd.kill().unwrap();
    let coordinator = Coordinator::builder()
        .etcd(&etcd.endpoints())
        .without_waiting()
        .start()
        .await
        .unwrap();
    let listens = async || coordinator.http_get("/livez").await.is_ok();
    eventually("the coordinator to listen", LIMIT, listens)
        .await
        .unwrap();
    assert!(!coordinator.is_ready().await);
    expect_unavailable(&coordinator).await;
    etcd.start_again().await.unwrap();
    expect_readiness(&coordinator, true).await;
    assert!(acquired(&client_of(&[&coordinator]), "r").await.is_ok());
}

#[tokio::test]
async fn etcd_killed_during_work() {
    let mut etcd = Etcd::start().await.unwrap();
    let coordinator = crate::setup::coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&coordinator]);
    let before = acquired(&client, "r").await.unwrap();
    let token = before.token();
    etcd.kill().unwrap();
    expect_unavailable(&coordinator).await;
    expect_readiness(&coordinator, false).await;
    expect_unavailable(&coordinator).await;
    etcd.start_again().await.unwrap();
    expect_readiness(&coordinator, true).await;
    call(&coordinator).await.unwrap();
    before.release().await.unwrap();
    assert!(acquired(&client, "r").await.unwrap().token() > token);
}

/// A frozen etcd accepts connections and answers nothing.
#[tokio::test]
async fn etcd_frozen_during_work() {
    let mut etcd = Etcd::start().await.unwrap();
    let coordinator = crate::setup::coordinator(&etcd.endpoints()).await;
    call(&coordinator).await.unwrap();
    etcd.pause().unwrap();
    expect_unavailable(&coordinator).await;
    expect_readiness(&coordinator, false).await;
    etcd.resume().unwrap();
    expect_readiness(&coordinator, true).await;
    call(&coordinator).await.unwrap();
}

#[tokio::test]
async fn a_waiter_is_served_across_an_outage() {
    let mut etcd = Etcd::start().await.unwrap();
    let coordinator = crate::setup::coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&coordinator]);
    let session = open(&client).await;
    let held = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    let token = held.token();
    let other = client.clone();
    let waiter = crate::setup::spawn(async move { acquired(&other, "r").await });
    let queued = async || client.get_lease(&name("r"), 0).await.unwrap().waiters == 1;
    eventually("a place in the queue", LIMIT, queued)
        .await
        .unwrap();
    etcd.kill().unwrap();
    etcd.start_again().await.unwrap();
    expect_readiness(&coordinator, true).await;
    held.release().await.unwrap();
    let next = within("the waiter", LIMIT, waiter)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(next.token() > token);
}
