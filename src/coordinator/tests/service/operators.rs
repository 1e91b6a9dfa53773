//! What operators ask for: ending leases, generations, status, draining.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::admin_service_client::AdminServiceClient;
use palisade_api::v1::{
    AdvanceGenerationRequest, DrainRequest, GetStatusRequest, RevokeLeaseRequest,
    RevokeLeaseResponse, RevokeOutcome, StoreKind,
};
use palisade_api::{ErrorReason, LeaseEnd, SessionRef};
use palisade_coordinator::domain::Event;
use palisade_coordinator::store::Store;
use palisade_test_support::within;
use palisade_token::{FencingToken, ResourceName};
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::store::{Mode, Switch};
use crate::support::{
    Coordinator, LONG, acquire, acquiring, asking, channel, get, http_get, memory, open, outcome,
    refused, release, settings, token,
};

type Admin = AdminServiceClient<Channel>;

const HOUR: Duration = Duration::from_secs(3600);
const DAY_MICROS: i64 = 86_400_000_000;

async fn admin(coordinator: &Coordinator) -> Admin {
    AdminServiceClient::new(channel(coordinator.addresses).await)
}

fn revoking(token: i64, patience: Duration) -> RevokeLeaseRequest {
    RevokeLeaseRequest {
        resource: "x".to_owned(),
        token,
        cooperative_ms: u64::try_from(patience.as_millis()).unwrap(),
        reason: "it hangs".to_owned(),
        actor: "somebody".to_owned(),
    }
}

async fn revoke(admin: &Admin, request: RevokeLeaseRequest) -> Result<RevokeLeaseResponse, Status> {
    let answer = admin.clone().revoke_lease(request).await;
    answer.map(tonic::Response::into_inner)
}

/// Two coordinators on one store, and a holder of `x` at the second.
async fn held() -> (Coordinator, Coordinator, Arc<dyn Store>, SessionRef, i64) {
    let memory = memory().await;
    let one = Coordinator::with(Switch::new(Arc::clone(&memory)), settings()).await;
    let other = Coordinator::with(Switch::new(Arc::clone(&memory)), settings()).await;
    let store: Arc<dyn Store> = memory;
    let holder = open(&other.client, "holder").await;
    let request = asking(&holder, "r1", "x", Duration::ZERO);
    let held = token(&acquire(&other.client, request).await.unwrap());
    (one, other, store, holder, held)
}

/// Waits until a holder is asked, as its stream is told at whichever coordinator.
async fn until_asked(events: &mut palisade_coordinator::store::Events) {
    use futures::StreamExt;
    let asked = async {
        loop {
            let batch = events.next().await.unwrap().unwrap();
            if batch.iter().any(|event| matches!(event, Event::Asked(_))) {
                return;
            }
        }
    };
    within("the holder is asked", LONG, asked).await.unwrap();
}

fn asks(admin: &Admin, held: i64) -> JoinHandle<Result<RevokeLeaseResponse, Status>> {
    let admin = admin.clone();
    tokio::spawn(async move { revoke(&admin, revoking(held, Duration::from_secs(60))).await })
}

#[tokio::test]
async fn a_lease_is_ended_by_force() {
    let (one, other, _, _, held) = held().await;
    let admin = admin(&one).await;
    let heir = open(&other.client, "heir").await;
    let waiting = acquiring(&other.client, asking(&heir, "r1", "x", HOUR));
    other.waiting("x", 1).await;
    let status = revoke(&admin, revoking(held + 1, Duration::ZERO)).await;
    refused(
        &status.unwrap_err(),
        Code::FailedPrecondition,
        ErrorReason::StaleToken,
    );
    let revoked = revoke(&admin, revoking(held, Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(
        (revoked.outcome(), revoked.end()),
        (RevokeOutcome::Revoked, LeaseEnd::Revoked)
    );
    let granted = outcome(waiting).await.unwrap();
    assert_eq!(
        granted.lease.as_ref().unwrap().granted_revision,
        revoked.revision
    );
    let previous = granted.previous.unwrap();
    assert_eq!((previous.end(), previous.token), (LeaseEnd::Revoked, held));
    assert_eq!(previous.reason, "it hangs");
    let again = revoke(&admin, revoking(held, Duration::ZERO))
        .await
        .unwrap();
    assert_eq!(
        (again.outcome(), again.end()),
        (RevokeOutcome::NotHeld, LeaseEnd::Revoked)
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_holder_that_is_asked_releases() {
    let (one, other, store, holder, held) = held().await;
    let mut events = store.watch().await.unwrap();
    let asking = asks(&admin(&one).await, held);
    until_asked(&mut events).await;
    release(&other.client, &holder, "x", held).await;
    let answer = outcome(asking).await.unwrap();
    assert_eq!(
        (answer.outcome(), answer.end()),
        (RevokeOutcome::Released, LeaseEnd::Released)
    );
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_holder_that_declines_is_forced_at_once() {
    let (one, other, store, _, held) = held().await;
    let mut events = store.watch().await.unwrap();
    let asking = asks(&admin(&one).await, held);
    until_asked(&mut events).await;
    let token = FencingToken::try_from(held).unwrap();
    let resource = ResourceName::new("x").unwrap();
    store.decline(&resource, token).await.unwrap();
    let answer = outcome(asking).await.unwrap();
    assert_eq!(
        (answer.outcome(), answer.end()),
        (RevokeOutcome::Revoked, LeaseEnd::Revoked)
    );
    assert_eq!(get(&other.client, "x").await.lease, None);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_holder_that_says_nothing_is_forced_when_its_time_is_over() {
    let (one, other, _, holder, held) = held().await;
    let admin = admin(&one).await;
    let patience = Duration::from_millis(300);
    let answer = revoke(&admin, revoking(held, patience)).await.unwrap();
    assert_eq!(answer.outcome(), RevokeOutcome::Revoked);
    // Another one's token is no reason to wait.
    let request = asking(&holder, "r2", "x", Duration::ZERO);
    let next = token(&acquire(&other.client, request).await.unwrap());
    assert!(next > held);
    let old = revoke(&admin, revoking(held, HOUR / 60)).await.unwrap();
    assert_eq!(old.outcome(), RevokeOutcome::NotHeld);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_operators_send_is_bounded() {
    let coordinator = Coordinator::start().await;
    let admin = admin(&coordinator).await;
    let good = revoking(1, Duration::ZERO);
    let rows = [
        (
            "token",
            RevokeLeaseRequest {
                token: 0,
                ..good.clone()
            },
        ),
        (
            "resource",
            RevokeLeaseRequest {
                resource: "/".to_owned(),
                ..good.clone()
            },
        ),
        (
            "reason",
            RevokeLeaseRequest {
                reason: String::new(),
                ..good.clone()
            },
        ),
        (
            "reason",
            RevokeLeaseRequest {
                reason: "r".repeat(257),
                ..good.clone()
            },
        ),
        (
            "actor",
            RevokeLeaseRequest {
                actor: "a\n".to_owned(),
                ..good.clone()
            },
        ),
        (
            "cooperative_ms",
            RevokeLeaseRequest {
                cooperative_ms: 600_001,
                ..good
            },
        ),
    ];
    for (field, request) in rows {
        let status = revoke(&admin, request).await.unwrap_err();
        let told = refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
        assert_eq!(told["field"], field);
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_generation_is_advanced_past_a_token() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let mut admin = admin(&coordinator).await;
    let holder = open(client, "holder").await;
    let first = acquire(client, asking(&holder, "r1", "x", Duration::ZERO))
        .await
        .unwrap();
    let advance = |past_token, force| AdvanceGenerationRequest {
        past_token,
        force,
        reason: "a restore".to_owned(),
        actor: "somebody".to_owned(),
    };
    let past = token(&first) + DAY_MICROS / 2;
    let made = admin
        .advance_generation(advance(past, false))
        .await
        .unwrap()
        .into_inner();
    assert!(made.generation.as_ref().unwrap().base > past);
    assert_eq!(made.previous, first.lease.unwrap().generation);
    let next = acquire(client, asking(&holder, "r2", "y", Duration::ZERO))
        .await
        .unwrap();
    assert!(token(&next) > past);
    let far = past + 3 * DAY_MICROS;
    let status = admin
        .advance_generation(advance(far, false))
        .await
        .unwrap_err();
    refused(
        &status,
        Code::FailedPrecondition,
        ErrorReason::ForceRequired,
    );
    let made = admin
        .advance_generation(advance(far, true))
        .await
        .unwrap()
        .into_inner();
    assert!(made.generation.unwrap().base > far);
    for past in [-1, (1 << 52) + 1, i64::MAX] {
        let status = admin
            .advance_generation(advance(past, true))
            .await
            .unwrap_err();
        let told = refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
        assert_eq!(told["field"], "past_token");
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_coordinator_tells_how_it_stands_while_the_store_is_away() {
    let coordinator = Coordinator::start().await;
    let mut admin = admin(&coordinator).await;
    let wait = palisade_test_support::eventually("it is ready", LONG, async || {
        http_get(coordinator.addresses, "/readyz").await.0 == 200
    });
    wait.await.unwrap();
    let status = admin
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(status.ready && !status.draining);
    assert_eq!(status.store(), StoreKind::Memory);
    assert_eq!(status.instance_id.len(), 32);
    assert!(status.generation.is_some() && status.limits.unwrap().max_ttl_ms > 0);
    coordinator.store.mode.send_replace(Mode::Away);
    let wait = palisade_test_support::eventually("it is not ready", LONG, async || {
        http_get(coordinator.addresses, "/readyz").await.0 != 200
    });
    wait.await.unwrap();
    let status = admin
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(!status.ready);
    assert_eq!(status.not_ready_reasons, ["STORE_UNAVAILABLE"]);
    coordinator.store.mode.send_replace(Mode::Up);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_drained_coordinator_stays_and_begins_nothing() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let mut admin = admin(&coordinator).await;
    let holder = open(client, "holder").await;
    let held = acquire(client, asking(&holder, "r1", "x", Duration::ZERO))
        .await
        .unwrap();
    let drain = DrainRequest {
        deadline_ms: 1000,
        reason: "an upgrade".to_owned(),
        actor: "somebody".to_owned(),
    };
    for _ in 0..2 {
        let drained = admin.drain(drain.clone()).await.unwrap().into_inner();
        assert_eq!(drained.streams_ended, 0);
    }
    let status = acquire(client, asking(&holder, "r2", "y", Duration::ZERO))
        .await
        .unwrap_err();
    refused(&status, Code::Unavailable, ErrorReason::Draining);
    let status = admin
        .get_status(GetStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(status.draining && !status.ready);
    assert_eq!(status.not_ready_reasons, ["DRAINING"]);
    assert_ne!(http_get(coordinator.addresses, "/readyz").await.0, 200);
    // Nothing is revoked, and what is held can be released.
    assert!(get(client, "x").await.lease.is_some());
    release(client, &holder, "x", token(&held)).await;
    coordinator.stop().await;
}
