//! The calls as JSON over HTTP.

use std::time::Duration;

use palisade_coordinator::serve::Addresses;
use palisade_test_support::within;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::store::Switch;
use crate::support::{Coordinator, LONG, memory, settings};

#[path = "rest/let_in.rs"]
mod let_in;
#[path = "rest/refused.rs"]
mod refused;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap();
        let headers = lines.map(|line| line.split_once(": ").unwrap());
        Self {
            status: status.parse().unwrap(),
            headers: headers
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect(),
            body: serde_json::from_str(body).unwrap_or(Value::Null),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The body of an answer that is none but good.
    pub(crate) fn good(self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        self.body
    }
}

/// Sends bytes and reads until the other side is done.
pub(crate) async fn exchange(addresses: Addresses, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(addresses.http).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    let read = within("an answer", LONG, stream.read_to_end(&mut answer)).await;
    read.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

/// A request with headers of its own.
pub(crate) async fn send(
    addresses: Addresses,
    line: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let mut request = format!("{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n{body}", body.len());
    Answer::read(&exchange(addresses, request.as_bytes()).await)
}

/// A request with a JSON body.
pub(crate) async fn call(addresses: Addresses, line: &str, body: &Value) -> Answer {
    let json = [("content-type", "application/json; charset=utf-8")];
    send(addresses, line, &json, &body.to_string()).await
}

pub(crate) async fn get(addresses: Addresses, path: &str) -> Answer {
    send(addresses, &format!("GET {path}"), &[], "").await
}

/// `[7; 16]`, the secret of all sessions here.
pub(crate) const SECRET: &str = "BwcHBwcHBwcHBwcHBwcHBw==";

pub(crate) fn opening(name: &str) -> Value {
    json!({ "open_id": name, "secret": SECRET, "ttl_ms": 300_000, "label": "a test" })
}

/// Opens a session and names it as calls do.
pub(crate) async fn open(addresses: Addresses, name: &str) -> Value {
    let body = json!({ "opening": opening(name) });
    let opened = call(addresses, "POST /v1/sessions", &body).await.good();
    assert_eq!(opened["ttl_ms"], 300_000);
    assert!(opened["ttl_left_ms"].as_u64().unwrap() <= 300_000);
    json!({ "session_id": opened["session_id"], "secret": SECRET, "epoch": 1 })
}

fn asking(session: &Value, request: &str, resource: &str, wait_ms: u64) -> Value {
    json!({
        "session": session,
        "request_id": request,
        "resource": resource,
        "wait_ms": wait_ms,
        "metadata": "aGVsbG8=",
    })
}

#[tokio::test]
async fn a_lease_is_acquired_seen_and_released() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let session = open(at, "s").await;
    let body = asking(&session, "r1", "orders/eu/1", 0);
    let granted = call(at, "POST /v1/leases:acquire", &body).await.good();
    let lease = &granted["lease"];
    let token = lease["token"].as_i64().unwrap();
    assert!((1..1 << 53).contains(&token));
    assert_eq!(lease["resource"], "orders/eu/1");
    assert_eq!(lease["metadata"], "aGVsbG8=");
    assert_eq!(lease["label"], "a test");
    assert_eq!(lease["holder"].as_str().unwrap().len(), 32);
    assert_eq!(granted["session_id"], session["session_id"]);
    assert_eq!(granted["previous"]["end"], "UNKNOWN");

    // gRPC sees the same.
    let seen = crate::support::get(&coordinator.client, "orders/eu/1").await;
    let seen = seen.lease.unwrap();
    assert_eq!((seen.token, seen.metadata), (token, b"hello".to_vec()));
    for path in ["/v1/leases/orders/eu/1", "/v1/leases/orders%2Feu%2F1"] {
        let found = get(at, path).await.good();
        assert_eq!(found["lease"]["token"], token, "{path}");
        assert_eq!(found["waiters"], 0);
    }
    let listed = get(at, "/v1/leases?prefix=orders/&page_size=10")
        .await
        .good();
    assert_eq!(listed["leases"][0]["token"], token);
    assert_eq!(listed["next_page_token"], "");
    let others = get(at, "/v1/leases?prefix=others/").await.good();
    assert_eq!(others["leases"], json!([]));

    let body = json!({ "session": session, "resource": "orders/eu/1", "token": token });
    let released = call(at, "POST /v1/leases:release", &body).await.good();
    assert_eq!(released["outcome"], "RELEASED");
    assert!(released["revision"].as_i64().unwrap() > 0);
    let again = call(at, "POST /v1/leases:release", &body).await.good();
    assert_eq!(again["outcome"], "NOT_HELD");
    let vacant = get(at, "/v1/leases/orders/eu/1").await.good();
    assert_eq!(vacant["lease"], Value::Null);
    coordinator.stop().await;
}

#[tokio::test]
async fn one_call_opens_and_acquires_and_pages_follow_each_other() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    for resource in ["a", "b", "c"] {
        let body = json!({ "opening": opening(resource), "request_id": "r", "resource": resource });
        call(at, "POST /v1/leases:acquire", &body).await.good();
    }
    let (mut names, mut page) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/leases?page_size=2&page_token={page}");
        let listed = get(at, &path).await.good();
        let leases = listed["leases"].as_array().unwrap();
        names.extend(leases.iter().map(|lease| lease["resource"].clone()));
        listed["next_page_token"]
            .as_str()
            .unwrap()
            .clone_into(&mut page);
        if page.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["a", "b", "c"]);
    coordinator.stop().await;
}

#[tokio::test]
async fn sessions_are_renewed_and_closed_by_body_or_by_header() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let json = json!({ "session": { "secret": SECRET, "epoch": 1 } });
    let secret = [("x-palisade-session-secret", SECRET)];
    for name in ["body", "header"] {
        let session = open(at, name).await;
        let id = session["session_id"].as_str().unwrap();
        let renew = format!("POST /v1/sessions/{id}:renew");
        let renewed = match name {
            "body" => call(at, &renew, &json).await.good(),
            _ => send(at, &format!("{renew}?epoch=1"), &secret, "")
                .await
                .good(),
        };
        assert_eq!(renewed["ttl_ms"], 300_000);
        let close = format!("DELETE /v1/sessions/{id}");
        let closed = match name {
            "body" => call(at, &close, &json).await.good(),
            _ => send(at, &close, &secret, "").await.good(),
        };
        assert_eq!(closed, json!({}));
        let ended = call(at, &renew, &json).await;
        refused::expect(&ended, 404, "NOT_FOUND", "SESSION_ENDED");
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_waiting_acquire_is_granted_and_one_whose_client_hangs_up_is_dropped() {
    let mut settings = settings();
    // A wait goes on beyond it.
    settings.timeouts.http_connection = Duration::from_millis(300);
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let at = coordinator.addresses;
    let (holder, waiter) = (open(at, "holder").await, open(at, "waiter").await);
    let body = asking(&holder, "h", "x", 0);
    let held = call(at, "POST /v1/leases:acquire", &body).await.good();
    let token = held["lease"]["token"].clone();

    let body = asking(&waiter, "gone", "x", 60_000).to_string();
    let mut leaving = TcpStream::connect(at.http).await.unwrap();
    let request = format!(
        "POST /v1/leases:acquire HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    leaving.write_all(request.as_bytes()).await.unwrap();
    coordinator.waiting("x", 1).await;
    drop(leaving);
    let what = "the call that nobody waits for is gone";
    let metrics = async || crate::support::http_get(at, "/metrics").await.1;
    palisade_test_support::eventually(what, LONG, async || {
        metrics().await.contains("palisade_waiters 0\n")
    })
    .await
    .unwrap();
    // Its place stands, as it does for gRPC; it is given back by its id.
    let body = json!({ "session": waiter, "resource": "x", "request_id": "gone" });
    let given_back = call(at, "POST /v1/leases:release", &body).await.good();
    assert_eq!(given_back["queue_place_given_back"], true);

    let body = asking(&waiter, "stays", "x", 60_000);
    let waiting = tokio::spawn(async move { call(at, "POST /v1/leases:acquire", &body).await });
    coordinator.waiting("x", 1).await;
    // Time itself is the condition: the wait outlasts what a silent connection is given.
    tokio::time::sleep(Duration::from_millis(400)).await;
    let body = json!({ "session": holder, "resource": "x", "token": token });
    call(at, "POST /v1/leases:release", &body).await.good();
    let granted = crate::support::outcome(waiting).await.good();
    assert!(granted["lease"]["token"].as_i64() > token.as_i64());
    coordinator.stop().await;
}

#[tokio::test]
async fn connections_are_used_again_and_a_drain_lets_calls_end() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let mut stream = TcpStream::connect(at.http).await.unwrap();
    for _ in 0..2 {
        let request = b"GET /v1/leases/x HTTP/1.1\r\nhost: test\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let mut bytes = [0; 1024];
            let read = within("an answer", LONG, stream.read(&mut bytes)).await;
            let read = read.unwrap().unwrap();
            assert_ne!(read, 0);
            answer += std::str::from_utf8(&bytes[..read]).unwrap();
        }
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    // An idle connection keeps no coordinator from ending.
    coordinator.stop().await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}
