//! What an acquire answers, and how it waits.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1;
use palisade_client::{AcquireOptions, Client, ClientError, LeaseEnd, SessionOptions};
use tonic::Code;

use crate::clock::ManualClock;
use crate::fake::{Fake, Method, Step, in_time, orders, refusal, session_of};

#[tokio::test]
async fn a_grant_tells_token_holder_and_how_the_lease_before_ended() {
    let fake = Fake::start().await;
    fake.previous(v1::PreviousEnd {
        end: v1::LeaseEnd::Expired.into(),
        token: 41,
        label: "worker-6".into(),
        ..v1::PreviousEnd::default()
    });
    let session = session_of(&[&fake]).await;
    let options = AcquireOptions::default().metadata(b"pid 4711");
    let lease = in_time(session.acquire(&orders(), options)).await.unwrap();
    let grant = lease.grant().unwrap();
    assert_eq!(grant.to_string(), format!("orders#42#{}", "09".repeat(16)));
    assert_eq!(lease.info().metadata.0, b"pid 4711");
    let previous = lease.previous().unwrap();
    assert_eq!(previous.end, LeaseEnd::Expired);
    assert_eq!(previous.token.map(|token| token.get()), Some(41));
    assert_eq!(fake.calls(Method::Acquire)[0].wait_ms, 0);
}

#[tokio::test]
async fn what_is_refused_is_refused_at_once_and_nothing_is_given_back() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let held = [("resource", "orders"), ("token", "41")];
    fake.next(
        Method::Acquire,
        refusal(Code::FailedPrecondition, "LEASE_HELD", &held),
    );
    let error = in_time(session.try_acquire(&orders())).await.unwrap_err();
    assert!(matches!(error, ClientError::Held { .. }), "{error:?}");

    let own = [("resource", "orders"), ("requestId", "r1"), ("token", "42")];
    fake.next(
        Method::Acquire,
        refusal(Code::FailedPrecondition, "ALREADY_HELD", &own),
    );
    let error = in_time(session.try_acquire(&orders())).await.unwrap_err();
    assert!(
        matches!(error, ClientError::AlreadyHeld { .. }),
        "{error:?}"
    );

    let expired = [("resource", "orders"), ("requestId", "r")];
    fake.next(
        Method::Acquire,
        refusal(Code::Aborted, "WAIT_EXPIRED", &expired),
    );
    let options = AcquireOptions::default().wait(Duration::from_millis(1));
    let error = in_time(session.acquire(&orders(), options))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ClientError::WaitExpired { .. }),
        "{error:?}"
    );

    in_time(session.close()).await.unwrap();
    assert_eq!(fake.calls(Method::Acquire).len(), 3);
    assert_eq!(fake.calls(Method::Release), []);
}

#[tokio::test]
async fn a_long_wait_is_many_calls_and_one_request() {
    let fake = Fake::start().await;
    // Two longest calls must fit before the session would need a renewal.
    fake.ttl(Duration::from_secs(300));
    let clock = ManualClock::shared();
    let client = Client::builder()
        .transport(palisade_client::Transport::Unary)
        .endpoint(&fake.address)
        .clock(Arc::<ManualClock>::clone(&clock));
    let client = client.connect().unwrap();
    let session = in_time(client.open_session(SessionOptions::default()))
        .await
        .unwrap();
    fake.next(Method::Acquire, Step::Hang);
    fake.next(Method::Acquire, Step::Hang);
    let resource = orders();
    let options = AcquireOptions::default().wait(Duration::from_secs(100));
    let waiting = session.acquire(&resource, options);
    let passing = async {
        fake.saw(Method::Acquire, 1).await;
        clock.advance(Duration::from_secs(30));
        fake.saw(Method::Acquire, 2).await;
        clock.advance(Duration::from_secs(30));
    };
    let (lease, ()) = in_time(async { tokio::join!(waiting, passing) }).await;
    let _lease = lease.unwrap();
    let calls = fake.calls(Method::Acquire);
    let waits: Vec<_> = calls.iter().map(|call| call.wait_ms).collect();
    assert_eq!(waits, [100_000, 70_000, 40_000], "what is left of the wait");
    assert!(
        calls
            .iter()
            .all(|call| call.request_id == calls[0].request_id)
    );
    assert_eq!(
        calls.iter().map(|call| call.attempt).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(calls.windows(2).all(|pair| pair[0].epoch < pair[1].epoch));
    assert_eq!(fake.calls(Method::Release), []);
}

#[tokio::test]
async fn a_wait_ends_when_the_session_does() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    fake.next(Method::Acquire, Step::Hang);
    let resource = orders();
    let options = AcquireOptions::default().wait(Duration::from_secs(600));
    let waiting = session.acquire(&resource, options);
    let closing = async {
        fake.saw(Method::Acquire, 1).await;
        session.clone().close().await
    };
    let (waited, closed) = in_time(async { tokio::join!(waiting, closing) }).await;
    closed.unwrap();
    assert!(
        matches!(waited, Err(ClientError::SessionLost { .. })),
        "{waited:?}"
    );
}
