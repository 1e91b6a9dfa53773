//! What operators do, on real etcd: coordinators are drained, leases are wanted back through another coordinator
//! than their holder's, and etcd is compacted while a coordinator is away.

use std::collections::VecDeque;
use std::time::Duration;

use palisade_api::v1::admin_service_client::AdminServiceClient;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use palisade_api::v1::watch_leases_request::Scope;
use palisade_api::v1::{
    DrainRequest, GetStatusRequest, LeaseEvent, LeaseEventType, RevokeLeaseRequest,
    RevokeLeaseResponse, RevokeOutcome, WatchLeasesRequest, WatchLeasesResponse,
};
use palisade_client::{Lease, LeaseEnd, LostReason, SessionState};
use palisade_test_support::{Coordinator, Etcd, Proxy, eventually, within};
use tonic::Streaming;
use tonic::transport::Channel;

use crate::setup::{LIMIT, TTL, acquired, client_of, coordinator, name, open, spawn, waiting};

type Admin = AdminServiceClient<Channel>;

async fn admin(coordinator: &Coordinator) -> Admin {
    AdminServiceClient::connect(coordinator.addr())
        .await
        .unwrap()
}

async fn two(etcd: &Etcd) -> [Coordinator; 2] {
    let endpoints = etcd.endpoints();
    [coordinator(&endpoints).await, coordinator(&endpoints).await]
}

async fn streams(admin: &mut Admin) -> u32 {
    let status = admin.get_status(GetStatusRequest::default()).await;
    status.unwrap().into_inner().usage.unwrap().streams
}

/// No lease and no place is lost: streams go on through the other coordinator, and the drained one has none.
#[tokio::test(flavor = "multi_thread")]
async fn streams_leave_a_coordinator_that_is_drained_and_lose_nothing() {
    let etcd = Etcd::start().await.unwrap();
    let mut coordinators = two(&etcd).await;
    for drained in [0, 1] {
        let other = 1 - drained;
        let first = client_of(&[&coordinators[drained], &coordinators[other]]);
        let session = open(&first).await;
        let held = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
        let token = held.token();
        let (waiter, resource) = (open(&first).await, name("r"));
        let waits = spawn(async move { waiter.acquire(&resource, waiting(LIMIT)).await.unwrap() });
        let direct = client_of(&[&coordinators[other]]);
        let queued = async || direct.get_lease(&name("r"), 0).await.unwrap().waiters == 1;
        eventually("a place in the queue", LIMIT, queued)
            .await
            .unwrap();

        let mut operator = admin(&coordinators[drained]).await;
        let request = DrainRequest {
            deadline_ms: 5000,
            reason: "an upgrade".to_owned(),
            actor: "somebody".to_owned(),
        };
        let drain = operator.drain(request);
        within("it drains", LIMIT, drain).await.unwrap().unwrap();
        assert!(!coordinators[drained].is_ready().await);
        let left = async || streams(&mut operator.clone()).await == 0;
        eventually("all streams leave", LIMIT, left).await.unwrap();

        // A lifetime later both live: they are renewed through the other one.
        let before = session.deadline();
        let renewed = async || session.deadline().0 > before.0 + TTL;
        eventually("renewals", LIMIT, renewed).await.unwrap();
        assert_eq!(session.state(), SessionState::Held);
        assert_eq!(held.grant().unwrap().token, token);
        let seen = direct.get_lease(&name("r"), 0).await.unwrap();
        assert_eq!(seen.lease.map(|seen| seen.grant.token), Some(token));
        assert_eq!(seen.waiters, 1);
        held.release().await.unwrap();
        let heir = within("the waiter", LIMIT, waits).await.unwrap().unwrap();
        assert!(heir.token() > token);
        heir.release().await.unwrap();
        coordinators[drained].start_again().await.unwrap();
    }
}

fn revoking(lease: &Lease, patience: Duration) -> RevokeLeaseRequest {
    RevokeLeaseRequest {
        resource: lease.resource().to_string(),
        token: lease.token().as_i64(),
        cooperative_ms: u64::try_from(patience.as_millis()).unwrap(),
        reason: "it hangs".to_owned(),
        actor: "somebody".to_owned(),
    }
}

type Revoking = tokio::task::JoinHandle<RevokeLeaseResponse>;

/// Asks for a lease through another coordinator, and waits until its holder has heard so.
async fn wanted_back(operator: &Admin, lease: &Lease) -> Revoking {
    let (mut operator, request) = (operator.clone(), revoking(lease, LIMIT * 5));
    let revoking = spawn(async move { operator.revoke_lease(request).await.unwrap().into_inner() });
    let mut heard = lease.revoke_requested();
    let heard = heard.wait_for(Option::is_some);
    let told = within("the holder hears", LIMIT, heard).await.unwrap();
    let told = told.unwrap().clone().unwrap();
    assert_eq!((&*told.reason, &*told.actor), ("it hangs", "somebody"));
    revoking
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_at_one_coordinator_is_asked_through_another() {
    let etcd = Etcd::start().await.unwrap();
    let [here, there] = two(&etcd).await;
    let operator = admin(&there).await;
    let client = client_of(&[&here]);
    let session = open(&client).await;

    let lease = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    let revoking = wanted_back(&operator, &lease).await;
    assert!(lease.answer_revoke(true));
    lease.release().await.unwrap();
    let answer = within("an answer", LIMIT, revoking).await.unwrap().unwrap();
    assert_eq!(answer.outcome(), RevokeOutcome::Released);

    // Who declines is not waited for; who waits has the resource in the same transaction.
    let lease = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    let token = lease.token();
    let next = client_of(&[&there]);
    let waits = spawn(async move { acquired(&next, "r").await.unwrap() });
    let queued = async || client.get_lease(&name("r"), 0).await.unwrap().waiters == 1;
    eventually("a place in the queue", LIMIT, queued)
        .await
        .unwrap();
    let revoking = wanted_back(&operator, &lease).await;
    assert!(lease.answer_revoke(false));
    let answer = within("an answer", LIMIT, revoking).await.unwrap().unwrap();
    assert_eq!(answer.outcome(), RevokeOutcome::Revoked);
    let heir = within("the heir", LIMIT, waits).await.unwrap().unwrap();
    let previous = heir.previous().unwrap();
    assert_eq!(
        (previous.end, previous.token),
        (LeaseEnd::Revoked, Some(token))
    );
    assert_eq!(previous.reason, "it hangs");
    within("the loss is told", LIMIT, lease.lost().cancelled())
        .await
        .unwrap();
    assert_eq!(lease.state(), SessionState::Lost(LostReason::Revoked));
    assert_eq!(
        session.state(),
        SessionState::Held,
        "only the lease is lost"
    );
    assert_eq!(lease.loss().unwrap().successor, Some(heir.token()));
}

struct Watcher {
    stream: Streaming<WatchLeasesResponse>,
    ready: VecDeque<LeaseEvent>,
}

impl Watcher {
    async fn start(coordinator: &Coordinator, after: i64) -> Self {
        let mut stub = LeaseServiceClient::connect(coordinator.addr())
            .await
            .unwrap();
        let request = WatchLeasesRequest {
            scope: Some(Scope::Prefix(String::new())),
            resume_revision: after,
            bookmark_interval_ms: 1000,
        };
        let stream = stub.watch_leases(request).await.unwrap().into_inner();
        let ready = VecDeque::new();
        Self { stream, ready }
    }

    async fn next(&mut self) -> LeaseEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            let message = within("news", LIMIT, self.stream.message()).await.unwrap();
            self.ready.extend(message.unwrap().unwrap().events);
        }
    }

    /// The next event of this kind; those of others, which tell what is passed over, come before it.
    async fn until(&mut self, kind: LeaseEventType) -> (LeaseEvent, Vec<LeaseEventType>) {
        let mut before = Vec::new();
        loop {
            let event = self.next().await;
            if event.r#type() == kind {
                return (event, before);
            }
            before.push(event.r#type());
        }
    }

    /// It is told that it has missed something, and then all that is.
    async fn begins_anew(&mut self, resource: &str, token: i64) {
        let (_, before) = self.until(LeaseEventType::Resync).await;
        let passed_over = [LeaseEventType::Granted, LeaseEventType::Released];
        assert!(
            !before.iter().any(|kind| passed_over.contains(kind)),
            "{before:?}"
        );
        let (shown, _) = self.until(LeaseEventType::Snapshot).await;
        let shown_token = shown.lease.unwrap().token;
        assert_eq!((&*shown.resource, shown_token), (resource, token));
        self.until(LeaseEventType::SnapshotEnd).await;
    }
}

/// How often a coordinator has connected to etcd.
fn connections(coordinator: &mut Coordinator) -> usize {
    let log = coordinator.process().unwrap().output();
    log.matches("connected to etcd").count()
}

/// What happened meanwhile cannot be told any more: whoever watches hears that, and begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_compacted_while_a_coordinator_is_away_is_not_passed_over_in_silence() {
    let etcd = Etcd::start().await.unwrap();
    let link = Proxy::start(&etcd.host_port()).await.unwrap();
    let mut away = coordinator(&[link.url()]).await;
    let stays = coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&stays]);
    let held = acquired(&client, "r").await.unwrap();
    let mut watcher = Watcher::start(&away, 0).await;
    let (end, _) = watcher.until(LeaseEventType::SnapshotEnd).await;

    link.cut().await.unwrap();
    held.release().await.unwrap();
    let session = open(&client).await;
    let mut last = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    for _ in 0..5 {
        last.release().await.unwrap();
        last = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    }
    let revision = etcd.revision().await.unwrap().to_string();
    etcd.etcdctl(&["compact", &revision]).await.unwrap();
    link.heal().await.unwrap();
    let token = last.token().as_i64();
    watcher.begins_anew("r", token).await;
    // One was lost, and one came instead of it; a busy machine may lose another.
    let connections = connections(&mut away);
    assert!(connections < 10, "{connections} connections");

    // Nor by a coordinator that remembers nothing of it.
    away.kill().unwrap();
    away.start_again().await.unwrap();
    let mut resumed = Watcher::start(&away, end.revision).await;
    resumed.begins_anew("r", token).await;
    last.release().await.unwrap();
    resumed.until(LeaseEventType::Released).await;
}
