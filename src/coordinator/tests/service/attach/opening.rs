//! How a stream begins and ends.

use std::time::Duration;

use palisade_api::v1::OpenRequestState;
use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::attach_response::Message as Told;
use palisade_api::{ErrorReason, LeaseEnd, ReleaseOutcome};
use palisade_test_support::eventually;
use tonic::Code;

use super::support::{HOUR, Stream, close, known, open as opens, reference, renew};
use crate::support::{Coordinator, LONG, get, opening, refused};

#[tokio::test]
async fn a_stream_opens_acquires_renews_releases_and_closes() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    assert!(!opened.resumed);
    assert_eq!((opened.ttl_ms, opened.requests.len()), (300_000, 0));
    assert!(opened.ttl_left_ms > 0 && opened.ttl_left_ms <= opened.ttl_ms);

    let token = stream.granted("x", "r1").await;
    let lease = get(client, "x").await.lease.unwrap();
    assert_eq!(
        (lease.token, lease.session_id),
        (token, opened.session_id.clone())
    );
    stream.renew(vec![known("x", "r1", token)]).await;
    let released = stream.release("x", token).await;
    assert_eq!(released.outcome(), ReleaseOutcome::Released);
    assert_eq!(released.request_id, "r1");
    let again = stream.release("x", token).await;
    assert_eq!(
        (again.outcome(), again.end()),
        (ReleaseOutcome::NotHeld, LeaseEnd::Unknown)
    );

    let second = stream.granted("x", "r2").await;
    assert!(second > token, "tokens grow (I3)");
    let seq = stream.send(close()).await;
    assert_eq!(stream.told().await, (seq, Told::Closed(Default::default())));
    stream.end().await.unwrap();
    assert_eq!(get(client, "x").await.lease, None);
    coordinator.stop().await;
}

/// A cut stream costs no lease; what its client forgot is given back (I5).
#[tokio::test]
async fn a_resumed_session_keeps_what_is_named_and_gives_back_the_rest() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let kept = stream.granted("kept", "r1").await;
    stream.granted("forgotten", "r2").await;
    let (mut other, _) = Stream::open(client, "other").await;
    other.granted("busy", "r").await;
    stream.acquire("busy", "r3", HOUR).await;
    coordinator.waiting("busy", 1).await;
    drop(stream);

    let named = vec![
        known("kept", "r1", kept),
        known("absent", "r4", 0),
        known("gone", "r5", 7),
    ];
    let (mut resumed, again) = Stream::resume(client, &reference(&opened, 2), named).await;
    assert!(again.resumed);
    assert_eq!(again.session_id, opened.session_id);
    let states: Vec<_> = again.requests.iter().map(|one| one.state()).collect();
    assert_eq!(
        states,
        [
            OpenRequestState::Held,
            OpenRequestState::Absent,
            OpenRequestState::Absent
        ]
    );
    assert_eq!(again.requests[0].request.as_ref().unwrap().token, kept);
    match resumed.told().await {
        (0, Told::Lost(lost)) => assert_eq!((lost.resource.as_str(), lost.token), ("gone", 7)),
        other => panic!("{other:?}"),
    }
    let given_back = async || {
        get(client, "forgotten").await.lease.is_none() && get(client, "busy").await.waiters == 0
    };
    eventually("what is not named is given back", LONG, given_back)
        .await
        .unwrap();
    assert_eq!(get(client, "kept").await.lease.unwrap().token, kept);
    let released = resumed.release("kept", kept).await;
    assert_eq!(released.outcome(), ReleaseOutcome::Released);
    drop((resumed, other));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_stream_that_ends_leaves_its_session_alive() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let token = stream.granted("x", "r1").await;
    let mut rest = stream.hang_up();
    assert!(
        rest.message().await.unwrap().is_none(),
        "it ends well, and with a status"
    );
    let named = vec![known("x", "r1", token)];
    let (stream, again) = Stream::resume(client, &reference(&opened, 2), named).await;
    assert_eq!(again.requests[0].state(), OpenRequestState::Held);
    drop(stream);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let mut short = opening("s");
    short.ttl_ms = 5_000;
    let (mut stream, opened) = Stream::with(client, Owner::Opening(short), Vec::new()).await;
    let status = stream.end().await.unwrap_err();
    let told = refused(&status, Code::NotFound, ErrorReason::SessionEnded);
    assert_eq!(told["sessionId"], opened.session_id);
    coordinator.stop().await;
}

#[tokio::test]
async fn what_is_out_of_order_ends_the_stream() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let first = |name| opens(Owner::Opening(opening(name)), Vec::new());
    let rows: Vec<(&str, Vec<_>, &str)> = vec![
        ("not open", vec![(1, Some(renew(Vec::new())))], "message"),
        ("empty", vec![(1, None)], "message"),
        ("another number", vec![(2, Some(first("a")))], "seq"),
        (
            "opened twice",
            vec![(1, Some(first("b"))), (2, Some(first("b")))],
            "message",
        ),
        (
            "the same number",
            vec![(1, Some(first("c"))), (1, Some(renew(Vec::new())))],
            "seq",
        ),
        ("unknown", vec![(1, Some(first("d"))), (9, None)], "message"),
    ];
    for (row, messages, field) in rows {
        let mut stream = Stream::begin(client).await;
        for (seq, message) in messages {
            stream.send_as(seq, message).await;
        }
        let status = stream.end().await.unwrap_err();
        let told = refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
        assert_eq!(told["field"], field, "{row}");
    }
    // A number may be passed over.
    let (mut stream, _) = Stream::open(client, "e").await;
    let seq = stream.send_as(9, Some(renew(Vec::new()))).await;
    assert!(matches!(stream.told().await, (reply, Told::Renewed(_)) if reply == seq));
    drop(stream);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_bad_opening_ends_the_stream_and_a_bad_message_is_refused() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let mut stream = Stream::begin(client).await;
    let mut short = opening("s");
    short.secret.truncate(3);
    stream.send(opens(Owner::Opening(short), Vec::new())).await;
    let status = stream.end().await.unwrap_err();
    let told = refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
    assert_eq!(told["field"], "opening.secret");

    let (mut stream, opened) = Stream::open(client, "s").await;
    let seq = stream.acquire("a//b", "r", Duration::ZERO).await;
    let told = stream
        .hears_refusal(seq, Code::InvalidArgument, ErrorReason::InvalidField)
        .await;
    assert_eq!(told["field"], "resource");
    let many = vec![known("x", "r", 0); 1001];
    let seq = stream.send(renew(many)).await;
    let told = stream
        .hears_refusal(seq, Code::InvalidArgument, ErrorReason::InvalidField)
        .await;
    assert_eq!(told["field"], "open_requests");
    stream.granted("x", "r").await;

    let mut theirs = reference(&opened, 2);
    theirs.secret = vec![9; 16];
    let mut thief = Stream::begin(client).await;
    thief.send(opens(Owner::Session(theirs), Vec::new())).await;
    let status = thief.end().await.unwrap_err();
    refused(
        &status,
        Code::PermissionDenied,
        ErrorReason::PermissionDenied,
    );
    stream.renew(vec![known("x", "r", 0)]).await;
    drop(stream);
    coordinator.stop().await;
}
