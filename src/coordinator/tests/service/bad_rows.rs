//! What can be wrong with what clients send, by call, by stream and by JSON: each has its code and reason, nothing
//! panics, and nothing is left behind. Fields are in `bad_input` and `rest::refused`; credentials in `access`; a
//! store that is away in `away`; watches that cannot be resumed in `watching`.

use std::pin::pin;
use std::time::Duration;

use axum::body::Body;
use palisade_api::ErrorReason as Reason;
use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::attach_release::Hold as StreamHold;
use palisade_api::v1::release_request::Hold;
use palisade_api::v1::{CloseSessionRequest, GetLeaseRequest, OpenSessionRequest, ReleaseOutcome};
use palisade_coordinator::serve::Addresses;
use palisade_test_support::{eventually, within};
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::{Service, ServiceExt};

use crate::attach::support::{self as streams, Stream};
use crate::metrics::scrape;
use crate::rest;
use crate::store::{Mode, Switch};
use crate::support::{
    Client, Coordinator, LONG, acquire, acquiring, again, asking, channel, get, memory, open,
    opening, outcome, refused, release, releasing, settings, token,
};

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);
const LEASES: &str = "palisade.v1.LeaseService";

/// One message in gRPC's framing.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

/// The status of a call of these very bytes.
async fn raw(channel: &Channel, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Status {
    let mut request = http::Request::post(format!("/{path}")).header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if headers.iter().all(|(name, _)| *name != "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    let body = tonic::body::Body::new(Body::from(body));
    let mut channel = channel.clone();
    let service = channel.ready().await.unwrap();
    let answer = service.call(request.body(body).unwrap());
    let answer = within("an answer", LONG, answer).await.unwrap().unwrap();
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    if answer.status() != 200 {
        return Status::unknown(format!("HTTP {}", answer.status().as_u16()));
    }
    // It comes at the end.
    let mut body = pin!(answer.into_body());
    loop {
        let next =
            std::future::poll_fn(|context| http_body::Body::poll_frame(body.as_mut(), context));
        let frame = within("an end", LONG, next)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        if let Ok(trailers) = frame.into_trailers() {
            return Status::from_header_map(&trailers).unwrap();
        }
    }
}

/// What nobody could send through a library: bytes that are no message, and what is no call.
#[tokio::test]
async fn what_is_no_message_and_what_is_no_call() {
    let coordinator = Coordinator::start().await;
    let channel = channel(coordinator.addresses).await;
    // A field of text that is not UTF-8; a field that is cut off; more than is read.
    let bad_text = framed(&[0x12, 2, 0xff, 0xfe]);
    let garbage = framed(&[0xff; 40]);
    let large = framed(&vec![0; 65 * 1024]);
    let cut_off = framed(b"abc")[..6].to_vec();
    for method in [
        "Acquire",
        "Release",
        "GetLease",
        "WatchLeases",
        "OpenSession",
        "Attach",
    ] {
        let path = format!("{LEASES}/{method}");
        for (what, body) in [
            ("garbage", &garbage),
            ("large", &large),
            ("cut off", &cut_off),
        ] {
            let status = raw(&channel, &path, &[], body.clone()).await;
            let told = refused(&status, Code::InvalidArgument, Reason::InvalidField);
            assert_eq!(told["field"], "message", "{method}, {what}");
        }
        let gzip = [("grpc-encoding", "gzip")];
        let mut packed = garbage.clone();
        packed[0] = 1;
        let status = raw(&channel, &path, &gzip, packed).await;
        refused(&status, Code::Unimplemented, Reason::NotServed);
        let text = [("content-type", "text/plain")];
        let status = raw(&channel, &path, &text, framed(b"")).await;
        assert_eq!(status.message(), "HTTP 415", "{method}: {status:?}");
    }
    let path = format!("{LEASES}/ListLeases");
    let status = raw(&channel, &path, &[], bad_text).await;
    refused(&status, Code::InvalidArgument, Reason::InvalidField);
    for path in [
        "palisade.v1.LeaseService/Steal",
        "palisade.v2.LeaseService/Acquire",
        "x",
    ] {
        let status = raw(&channel, path, &[], framed(b"")).await;
        refused(&status, Code::Unimplemented, Reason::NotServed);
    }
    drop(channel);
    nothing_is_left(&coordinator).await;
    coordinator.stop().await;
}

/// Whose time is over before it begins, does nothing: the store is not asked.
#[tokio::test]
async fn a_deadline_that_is_past_does_nothing() {
    let coordinator = Coordinator::start().await;
    let mut client = coordinator.client.clone();
    let body = json!({ "opening": rest::opening("late") }).to_string();
    // Clients of gRPC give up by themselves.
    for timeout in ["0n", "0m", "1n"] {
        let headers = [
            ("content-type", "application/json"),
            ("grpc-timeout", timeout),
        ];
        let answer = rest::send(coordinator.addresses, "POST /v1/sessions", &headers, &body).await;
        assert_eq!(answer.status, 504, "{answer:?}");
        let info = &answer.body["error"]["details"][0];
        assert_eq!(info["reason"], "DEADLINE_EXCEEDED");
        assert_eq!(info["metadata"]["mayHaveHappened"], "false");
    }
    // Nobody has opened it: another secret opens it.
    let mut other = opening("late");
    other.secret = vec![9; 16];
    let request = OpenSessionRequest {
        opening: Some(other),
    };
    client.open_session(request).await.unwrap();
    coordinator.stop().await;
}

struct Row {
    what: &'static str,
    code: Code,
    reason: Reason,
}

fn row(what: &'static str, code: Code, reason: Reason) -> Row {
    Row { what, code, reason }
}

/// What a holder and another session can do wrong with a resource.
fn rows() -> Vec<Row> {
    vec![
        row("name", Code::InvalidArgument, Reason::InvalidField),
        row("request id", Code::InvalidArgument, Reason::InvalidField),
        row("wait", Code::InvalidArgument, Reason::InvalidField),
        row("metadata", Code::InvalidArgument, Reason::InvalidField),
        row("lock-delay", Code::InvalidArgument, Reason::InvalidField),
        row("token 0", Code::InvalidArgument, Reason::InvalidField),
        row("token 2^53", Code::InvalidArgument, Reason::InvalidField),
        row("held", Code::FailedPrecondition, Reason::LeaseHeld),
        row(
            "already held",
            Code::FailedPrecondition,
            Reason::AlreadyHeld,
        ),
        row(
            "other metadata",
            Code::InvalidArgument,
            Reason::RequestMismatch,
        ),
        row(
            "other lock-delay",
            Code::InvalidArgument,
            Reason::RequestMismatch,
        ),
        row("waited out", Code::Aborted, Reason::WaitExpired),
        row(
            "foreign token",
            Code::FailedPrecondition,
            Reason::StaleToken,
        ),
        row("later token", Code::FailedPrecondition, Reason::StaleToken),
        row("crowded", Code::ResourceExhausted, Reason::LimitReached),
    ]
}

/// What each row asks for: with which session, request, resource, token and so on.
#[derive(Debug, Clone)]
struct Wrong {
    is_holder: bool,
    request: String,
    resource: String,
    wait: Duration,
    metadata: Vec<u8>,
    lock_delay_ms: u64,
    /// A release, not an acquire.
    token: Option<i64>,
}

/// Nothing is wrong, but that another holds it.
fn good() -> Wrong {
    Wrong {
        is_holder: false,
        request: "r".to_owned(),
        resource: "x".to_owned(),
        wait: NOW,
        metadata: Vec::new(),
        lock_delay_ms: 0,
        token: None,
    }
}

/// `x` is held under request `r`, by this token; one waits for `y`, and no more may.
fn wrong(what: &str, held: i64) -> Wrong {
    let good = good();
    let own = Wrong {
        is_holder: true,
        ..good.clone()
    };
    match what {
        "name" => Wrong {
            resource: "a//b".to_owned(),
            ..good
        },
        "request id" => Wrong {
            request: "a".repeat(65),
            ..good
        },
        "wait" => Wrong {
            wait: HOUR * 2,
            ..good
        },
        "metadata" => Wrong {
            metadata: vec![0; 4097],
            ..good
        },
        "lock-delay" => Wrong {
            lock_delay_ms: 300_001,
            ..good
        },
        "token 0" => Wrong {
            token: Some(0),
            ..good
        },
        "token 2^53" => Wrong {
            token: Some(1 << 53),
            ..good
        },
        "held" => good,
        "already held" => Wrong {
            request: "r2".to_owned(),
            ..own
        },
        "other metadata" => Wrong {
            metadata: vec![1],
            ..own
        },
        "other lock-delay" => Wrong {
            lock_delay_ms: 1000,
            ..own
        },
        "waited out" => Wrong {
            wait: Duration::from_millis(20),
            ..good
        },
        "foreign token" => Wrong {
            token: Some(held),
            ..good
        },
        "later token" => Wrong {
            token: Some(held + 1),
            ..own
        },
        "crowded" => Wrong {
            resource: "y".to_owned(),
            wait: HOUR,
            ..good
        },
        other => panic!("no such row: {other}"),
    }
}

/// A coordinator where `x` and `y` are held, and somebody waits for `y`.
async fn busy() -> (Coordinator, [palisade_api::SessionRef; 2], i64, i64) {
    let mut settings = settings();
    settings.limits.max_waiters_per_resource = 1;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let (holder, other) = (open(client, "holder").await, open(client, "other").await);
    let x = acquire(client, asking(&holder, "r", "x", NOW)).await;
    let y = acquire(client, asking(&holder, "r", "y", NOW)).await;
    let (x, y) = (token(&x.unwrap()), token(&y.unwrap()));
    (coordinator, [holder, other], x, y)
}

async fn by_call(client: &Client, session: &palisade_api::SessionRef, wrong: Wrong) -> Status {
    let mut client = client.clone();
    let Some(token) = wrong.token else {
        let mut request = asking(session, &wrong.request, &wrong.resource, wrong.wait);
        request.metadata = wrong.metadata;
        request.lock_delay_ms = wrong.lock_delay_ms;
        return client.acquire(request).await.unwrap_err();
    };
    let request = releasing(session, &wrong.resource, Hold::Token(token));
    client.release(request).await.unwrap_err()
}

async fn by_json(at: Addresses, session: &palisade_api::SessionRef, wrong: Wrong) -> Value {
    let session = json!({
        "session_id": session.session_id, "secret": rest::SECRET, "epoch": session.epoch
    });
    let answer = match wrong.token {
        Some(token) => {
            let body = json!({ "session": session, "resource": wrong.resource, "token": token });
            rest::call(at, "POST /v1/leases:release", &body).await
        }
        None => {
            use base64::Engine as _;
            let metadata = base64::engine::general_purpose::STANDARD.encode(wrong.metadata);
            let body = json!({
                "session": session, "request_id": wrong.request, "resource": wrong.resource,
                "wait_ms": u64::try_from(wrong.wait.as_millis()).unwrap(),
                "metadata": metadata, "lock_delay_ms": wrong.lock_delay_ms,
            });
            rest::call(at, "POST /v1/leases:acquire", &body).await
        }
    };
    assert!(answer.status >= 400, "{answer:?}");
    answer.body
}

async fn by_stream(stream: &mut Stream, wrong: Wrong, row: &Row) {
    let message = match (
        wrong.token,
        streams::acquire(&wrong.resource, &wrong.request, wrong.wait),
    ) {
        (Some(token), _) => streams::release(&wrong.resource, StreamHold::Token(token)),
        (None, palisade_api::v1::attach_request::Message::Acquire(acquire)) => {
            let mut acquire = acquire;
            acquire.metadata = wrong.metadata;
            acquire.lock_delay_ms = wrong.lock_delay_ms;
            palisade_api::v1::attach_request::Message::Acquire(acquire)
        }
        (None, other) => panic!("{other:?}"),
    };
    let seq = stream.send(message).await;
    stream.hears_refusal(seq, row.code, row.reason).await;
}

#[tokio::test]
async fn each_row_has_its_code_and_reason_by_call_by_stream_and_by_json() {
    let (coordinator, sessions, x, y) = busy().await;
    let client = &coordinator.client;
    let waiting = acquiring(client, asking(&open(client, "first").await, "w", "y", HOUR));
    coordinator.waiting("y", 1).await;
    for row in rows() {
        let wrong = wrong(row.what, x);
        let session = &sessions[usize::from(!wrong.is_holder)];
        let status = by_call(client, session, wrong.clone()).await;
        refused(&status, row.code, row.reason);
        let body = by_json(coordinator.addresses, session, wrong).await;
        let info = &body["error"]["details"][0];
        assert_eq!(info["reason"], row.reason.reason(), "{}: {body}", row.what);
    }
    let mut open_streams = Vec::new();
    for session in &sessions {
        let owner = palisade_api::SessionRef {
            epoch: 2,
            ..session.clone()
        };
        let known = ["x", "y"].map(|name| streams::known(name, "r", 0)).to_vec();
        open_streams.push(Stream::resume(client, &owner, known).await.0);
    }
    for row in rows() {
        let wrong = wrong(row.what, x);
        by_stream(
            &mut open_streams[usize::from(!wrong.is_holder)],
            wrong,
            &row,
        )
        .await;
    }
    // All that was wrong has changed nothing.
    for (name, held) in [("x", x), ("y", y)] {
        assert_eq!(get(client, name).await.lease.unwrap().token, held);
    }
    assert_eq!(get(client, "x").await.waiters, 0);
    drop(open_streams);
    waiting.abort();
    for name in ["holder", "other", "first"] {
        end(client, name).await;
    }
    nothing_is_left(&coordinator).await;
    coordinator.stop().await;
}

/// Ends a session, whatever its epoch is.
async fn end(client: &Client, name: &str) {
    let mut session = open(client, name).await;
    session.epoch = 9;
    let request = CloseSessionRequest {
        session: Some(session),
    };
    client.clone().close_session(request).await.unwrap();
}

/// No stream, waiter, watch or lease.
async fn nothing_is_left(coordinator: &Coordinator) {
    let gauges = [
        "palisade_waiters",
        "palisade_streams",
        "palisade_watches",
        "palisade_leases_active",
    ];
    let is_empty = async || {
        let found = scrape(coordinator.addresses).await;
        gauges
            .iter()
            .all(|name| found.get(*name).is_none_or(|value| *value == 0.0))
    };
    eventually("nothing is left", LONG, is_empty).await.unwrap();
}

/// What was done before, or is asked for once more, is no mistake.
#[tokio::test]
async fn what_is_done_already_is_answered() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "s").await;
    let never = releasing(&session, "never", Hold::RequestId("r".to_owned()));
    let answer = client.clone().release(never).await.unwrap().into_inner();
    assert_eq!(answer.outcome(), ReleaseOutcome::NotHeld);
    let asked = asking(&session, "r", "x", NOW);
    let first = token(&acquire(client, asked.clone()).await.unwrap());
    let mut waits = again(asked);
    waits.wait_ms = 1000;
    assert_eq!(token(&acquire(client, waits).await.unwrap()), first);
    let session = palisade_api::SessionRef {
        epoch: 2,
        ..session
    };
    release(client, &session, "x", first).await;
    let twice = releasing(&session, "x", Hold::Token(first));
    let answer = client.clone().release(twice).await.unwrap().into_inner();
    assert_eq!(answer.outcome(), ReleaseOutcome::NotHeld);
    end(client, "s").await;
    nothing_is_left(&coordinator).await;
    coordinator.stop().await;
}

/// Heartbeats that come faster than they can be relayed are refused; the stream goes on.
#[tokio::test]
async fn a_flood_of_heartbeats_is_refused_and_the_session_lives() {
    let coordinator = Coordinator::start().await;
    let (mut stream, _) = Stream::open(&coordinator.client, "s").await;
    coordinator.store.mode.send_replace(Mode::Hangs);
    let mut asked = Vec::new();
    for _ in 0..20 {
        asked.push(stream.send(streams::renew(Vec::new())).await);
    }
    // One is under way and sixteen are behind it.
    for seq in asked.split_off(17) {
        let code = Code::ResourceExhausted;
        let told = stream.hears_refusal(seq, code, Reason::LimitReached).await;
        assert_eq!(
            (told["limit"].as_str(), told["bound"].as_str()),
            ("renewals", "16")
        );
    }
    coordinator.store.mode.send_replace(Mode::Up);
    for seq in asked {
        match stream.told().await {
            (reply, palisade_api::v1::attach_response::Message::Renewed(_)) => {
                assert_eq!(reply, seq);
            }
            other => panic!("{other:?}"),
        }
    }
    drop(stream);
    end(&coordinator.client, "s").await;
    nothing_is_left(&coordinator).await;
    coordinator.stop().await;
}

/// Calls that are given up, streams that are cut and openings of which nothing comes leave nothing.
#[tokio::test]
async fn what_is_given_up_half_way_leaves_nothing() {
    let (coordinator, sessions, _, _) = busy().await;
    let client = &coordinator.client;
    let mut given_up = Vec::new();
    for number in 0..20 {
        let session = open(client, &format!("s{number}")).await;
        given_up.push(acquiring(
            client,
            asking(&session, "r", &format!("own/{number}"), NOW),
        ));
        let mut client = client.clone();
        let begun = tokio::spawn(async move { client.attach(futures::stream::pending()).await });
        given_up.push(tokio::spawn(async move {
            drop(begun.await);
            Err(Status::ok(""))
        }));
    }
    let waiting = acquiring(client, asking(&sessions[1], "w", "y", HOUR));
    coordinator.waiting("y", 1).await;
    waiting.abort();
    for task in given_up {
        drop(outcome(task).await);
    }
    for name in (0..20).map(|number| format!("s{number}")) {
        end(client, &name).await;
    }
    for name in ["holder", "other"] {
        end(client, name).await;
    }
    nothing_is_left(&coordinator).await;
    let request = GetLeaseRequest::default();
    let status = client.clone().get_lease(request).await.unwrap_err();
    refused(&status, Code::InvalidArgument, Reason::InvalidField);
    let owner = Owner::Opening(opening("last"));
    let (stream, _) = Stream::with(client, owner, Vec::new()).await;
    drop(stream);
    coordinator.stop().await;
}
