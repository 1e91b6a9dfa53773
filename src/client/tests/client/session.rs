//! Opening, bounds, and what is never shown.

use std::time::Duration;

use palisade_client::{Client, ClientError, SessionOptions, SessionState};

use crate::fake::{Fake, Method, Step, client_of, in_time, orders, session_of};

#[tokio::test]
async fn a_session_renews_itself() {
    let fake = Fake::start().await;
    fake.ttl(Duration::from_secs(2));
    let session = session_of(&[&fake]).await;
    let renewals = fake.saw(Method::Renew, 3).await;
    assert_eq!(session.state(), SessionState::Held);
    assert!(renewals.iter().all(|call| call.session_id == session.id()));
    assert_eq!(session.ttl(), Duration::from_secs(2));
}

#[tokio::test]
async fn arguments_outside_their_bounds_are_refused_with_field_and_bound() {
    let fake = Fake::start().await;
    let field = |error: ClientError| match error {
        ClientError::Invalid { field, bound, .. } if !bound.is_empty() => field,
        error => panic!("{error:?}"),
    };
    assert_eq!(field(Client::builder().connect().unwrap_err()), "endpoints");
    let many = Client::builder().endpoints(vec!["http://127.0.0.1:1"; 17]);
    assert_eq!(field(many.connect().unwrap_err()), "endpoints");
    for address in ["", "127.0.0.1:1", "ftp://127.0.0.1:1", "http://"] {
        assert_eq!(
            field(Client::connect(address).unwrap_err()),
            "endpoint",
            "{address:?}"
        );
    }
    assert!(Client::connect("https://127.0.0.1:1").is_ok());
    let timeout = Client::builder()
        .endpoint(&fake.address)
        .call_timeout(Duration::ZERO);
    assert_eq!(field(timeout.connect().unwrap_err()), "call_timeout");

    let client = client_of(&[&fake]);
    let drift = SessionOptions::default().drift_ppm(100_001);
    assert_eq!(
        field(in_time(client.open_session(drift)).await.unwrap_err()),
        "drift_ppm"
    );
    let margin = SessionOptions::default().margin(Duration::from_millis(7501));
    assert_eq!(
        field(in_time(client.open_session(margin)).await.unwrap_err()),
        "margin"
    );
    assert_eq!(
        fake.saw(Method::Close, 1).await.len(),
        1,
        "what was opened for it is closed"
    );
}

#[tokio::test]
async fn no_secret_is_ever_printed() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let session = in_time(client.open_session(SessionOptions::default()))
        .await
        .unwrap();
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let mut printed = format!("{client:?} {session:?} {lease:?}");
    let credentials = session.detach().unwrap();
    printed += &format!("{credentials:?} {:?}", client.detached(credentials.clone()));
    let secret = &fake.calls(Method::Open)[0].secret;
    assert_eq!(credentials.secret.expose_hex(), hex::encode(secret));
    assert!(!printed.contains(&hex::encode(&secret[..4])), "{printed}");
    assert!(!printed.contains(&format!("{}, {}, {}", secret[0], secret[1], secret[2])));
}

#[tokio::test]
async fn renewals_go_to_another_endpoint_where_one_does_not_answer() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    one.ttl(Duration::from_secs(3));
    other.ttl(Duration::from_secs(3));
    let session = session_of(&[&one, &other]).await;
    let (first, second) = if one.calls(Method::Open).is_empty() {
        (&other, &one)
    } else {
        (&one, &other)
    };
    first.always(Method::Renew, Some(Step::Hang));
    let deadline = session.deadline();
    second.saw(Method::Renew, 2).await;
    assert_eq!(session.state(), SessionState::Held);
    assert!(session.deadline() > deadline);
    assert!(!first.calls(Method::Renew).is_empty());
}

#[test]
fn without_a_runtime_there_is_no_client() {
    let error = Client::connect("http://127.0.0.1:1").unwrap_err();
    assert!(matches!(error, ClientError::NoRuntime), "{error:?}");
}
