//! A store that is away, or hangs.

use std::time::Duration;

use palisade_api::ErrorReason;
use palisade_api::v1::release_request::Hold;
use palisade_test_support::eventually;
use tonic::{Code, Request};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::store::{Mode, Switch};
use crate::support::{
    Coordinator, LONG, acquire, asking, channel, get, http_get, memory, open, refused, releasing,
    settings, token,
};

#[tokio::test]
async fn health_and_readiness_follow_the_store() {
    let store = Switch::new(memory().await);
    store.mode.send_replace(Mode::Away);
    let coordinator = Coordinator::with(store, settings()).await;
    let health = HealthClient::new(channel(coordinator.addresses).await);
    for (mode, status, serving) in [
        (Mode::Away, 503, ServingStatus::NotServing),
        (Mode::Up, 200, ServingStatus::Serving),
        (Mode::Hangs, 503, ServingStatus::NotServing),
        (Mode::Up, 200, ServingStatus::Serving),
    ] {
        coordinator.store.mode.send_replace(mode);
        let expected = match status {
            200 => r#""reasons":[]"#,
            _ => r#""reasons":["STORE_UNAVAILABLE"]"#,
        };
        let what = format!("/readyz is {status} while the store is {mode:?}");
        eventually(&what, LONG, async || {
            let (code, body) = http_get(coordinator.addresses, "/readyz?verbose").await;
            code == status && body.contains(expected)
        })
        .await
        .unwrap();
        for service in ["", "palisade.v1.LeaseService"] {
            let what = format!("{service:?} is {serving:?} while the store is {mode:?}");
            eventually(&what, LONG, async || {
                let service = service.to_owned();
                let asked = HealthCheckRequest { service };
                let answer = health.clone().check(asked).await.unwrap();
                answer.into_inner().status() == serving
            })
            .await
            .unwrap();
        }
        assert_eq!(http_get(coordinator.addresses, "/livez").await.0, 200);
    }
    drop(health);
    coordinator.stop().await;
}

/// Before the store was seen once, nobody is told that it is there.
#[tokio::test]
async fn a_new_coordinator_is_not_ready_before_the_store_has_answered() {
    let store = Switch::new(memory().await);
    store.mode.send_replace(Mode::Hangs);
    let mut settings = settings();
    settings.timeouts.readiness_limit = Duration::from_secs(600);
    let coordinator = Coordinator::with(store, settings).await;
    let (status, body) = http_get(coordinator.addresses, "/readyz").await;
    assert_eq!((status, body.as_str()), (503, "not ready: STARTING\n"));
    let mut health = HealthClient::new(channel(coordinator.addresses).await);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status(), ServingStatus::NotServing);
    coordinator.store.mode.send_replace(Mode::Up);
    drop(health);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_slow_store_is_told_before_the_clients_deadline_and_what_may_have_happened_is_said() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "s").await;
    let granted = acquire(client, asking(&session, "r1", "x", Duration::ZERO)).await;
    let held = token(&granted.unwrap());

    for (mode, may) in [
        (Mode::Hangs, "true"),
        (Mode::LosesReleases, "true"),
        (Mode::Away, "false"),
    ] {
        coordinator.store.mode.send_replace(mode);
        let mut request = Request::new(releasing(&session, "x", Hold::Token(held)));
        request.set_timeout(Duration::from_millis(600));
        let status = client.clone().release(request).await.unwrap_err();
        coordinator.store.mode.send_replace(Mode::Up);
        let told = refused(&status, Code::Unavailable, ErrorReason::StoreUnavailable);
        assert_eq!(told["mayHaveHappened"], may, "{mode:?}");
        assert!(
            !format!("{status:?}").contains("secret words"),
            "{status:?}"
        );
    }
    assert_eq!(
        get(client, "x").await.lease,
        None,
        "the lost release had happened"
    );
    coordinator.stop().await;
}
