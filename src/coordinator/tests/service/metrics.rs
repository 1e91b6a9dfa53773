//! What is counted and timed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use palisade_api::v1::release_request::Hold;
use palisade_coordinator::serve::Addresses;
use palisade_coordinator::store::memory::MemoryStore;
use palisade_test_support::eventually;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::Code;
use tonic_reflection::pb::v1;
use tower::{Service, ServiceExt};

use crate::rest;
use crate::store::Switch;
use crate::support::{
    Coordinator, LONG, acquire, acquiring, asking, channel, http_get, memory, open, release,
    releasing, settings, token,
};

/// The value of every series, by name and labels as they are written.
pub(crate) async fn scrape(addresses: Addresses) -> BTreeMap<String, f64> {
    let (code, text) = http_get(addresses, "/metrics").await;
    assert_eq!(code, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let series = text.lines().filter(|line| !line.starts_with('#'));
    series
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn counters_equal_what_was_done() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (one, two) = (open(client, "one").await, open(client, "two").await);
    for round in 0..3 {
        let request = asking(&one, &format!("r{round}"), "x", Duration::ZERO);
        let granted = acquire(client, request).await.unwrap();
        let refused = acquire(client, asking(&two, "r", "x", Duration::ZERO)).await;
        assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
        release(client, &one, "x", token(&granted)).await;
    }
    let again = releasing(&one, "x", Hold::RequestId("r1".to_owned()));
    client.clone().release(again).await.unwrap();

    let found = scrape(coordinator.addresses).await;
    for (series, value) in [
        (r#"palisade_lease_acquire_total{outcome="granted"}"#, 3.0),
        (r#"palisade_lease_acquire_total{outcome="held"}"#, 3.0),
        (r#"palisade_lease_acquire_total{outcome="limit"}"#, 0.0),
        ("palisade_lease_acquire_wait_seconds_count", 3.0),
        ("palisade_tokens_issued_total", 3.0),
        ("palisade_generations_made_total", 1.0),
        (r#"palisade_lease_ended_total{reason="released"}"#, 3.0),
        ("palisade_waiters", 0.0),
    ] {
        assert_eq!(found.get(series), Some(&value), "{series}: {found:?}");
    }
    coordinator.stop().await;
}

fn series(name: &str, kind: &str, method: &str, code: &str) -> String {
    let (service, method) = method.split_once('/').unwrap_or((method, method));
    let mut labels =
        format!(r#"grpc_type="{kind}",grpc_service="{service}",grpc_method="{method}""#);
    if !code.is_empty() {
        labels.push_str(&format!(r#",grpc_code="{code}""#));
    }
    format!("{name}{{{labels}}}")
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code_as_go_grpc_does() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "one").await;
    acquire(client, asking(&session, "r", "x", Duration::ZERO))
        .await
        .unwrap();
    let bad = acquire(client, asking(&session, "r", "..", Duration::ZERO)).await;
    assert_eq!(bad.unwrap_err().code(), Code::InvalidArgument);
    let waiting = acquiring(
        client,
        asking(&open(client, "two").await, "r", "x", LONG * 2),
    );
    coordinator.waiting("x", 1).await;
    let reflection = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    list_services(&coordinator, 3).await;

    let found = scrape(coordinator.addresses).await;
    let acquire = "palisade.v1.LeaseService/Acquire";
    for (series, value) in [
        (
            series("grpc_server_started_total", "unary", acquire, ""),
            3.0,
        ),
        (
            series("grpc_server_handled_total", "unary", acquire, "OK"),
            1.0,
        ),
        (
            series(
                "grpc_server_handled_total",
                "unary",
                acquire,
                "InvalidArgument",
            ),
            1.0,
        ),
        (
            series("grpc_server_handling_seconds_count", "unary", acquire, ""),
            2.0,
        ),
        (
            series("grpc_server_handled_total", "bidi_stream", reflection, "OK"),
            1.0,
        ),
        (
            series(
                "grpc_server_msg_received_total",
                "bidi_stream",
                reflection,
                "",
            ),
            3.0,
        ),
        (
            series("grpc_server_msg_sent_total", "bidi_stream", reflection, ""),
            3.0,
        ),
    ] {
        assert_eq!(found.get(&series), Some(&value), "{series}: {found:?}");
    }

    waiting.abort();
    coordinator.stop().await;
}

#[tokio::test]
async fn calls_over_http_are_counted_with_those_of_grpc() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let session = rest::open(at, "one").await;
    let line = "POST /v1/leases:acquire";
    let asked = serde_json::json!({ "session": session, "request_id": "r", "resource": "x" });
    rest::call(at, line, &asked).await.good();
    let bad = rest::call(at, line, &serde_json::json!({ "resorce": "x" })).await;
    assert_eq!(bad.status, 400);
    let taken = rest::get(at, "/v1/leases/x").await.good();
    assert_eq!(taken["lease"]["request_id"], "r");
    let watch = rest::get(at, "/v1/leases:watch?prefix=%20").await;
    assert_eq!(watch.status, 400);
    let found = scrape(at).await;
    let handled = |kind: &str, method: &str, code: &str| {
        let method = format!("palisade.v1.LeaseService/{method}");
        let series = series("grpc_server_handled_total", kind, &method, code);
        found.get(&series).copied().unwrap_or_default()
    };
    assert_eq!(handled("unary", "OpenSession", "OK"), 1.0, "{found:?}");
    assert_eq!(handled("unary", "Acquire", "OK"), 1.0);
    assert_eq!(handled("unary", "Acquire", "InvalidArgument"), 1.0);
    assert_eq!(handled("unary", "GetLease", "OK"), 1.0);
    assert_eq!(
        handled("server_stream", "WatchLeases", "InvalidArgument"),
        1.0
    );
    coordinator.stop().await;
}

/// Until its client hangs up: that is counted, too.
#[tokio::test]
async fn a_watch_over_http_is_counted_as_long_as_it_goes_on() {
    let coordinator = Coordinator::start().await;
    let at = coordinator.addresses;
    let mut stream = TcpStream::connect(at.http).await.unwrap();
    let request = "GET /v1/leases:watch?prefix= HTTP/1.1\r\nhost: test\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let method = "palisade.v1.LeaseService/WatchLeases";
    let sent = series("grpc_server_msg_sent_total", "server_stream", method, "");
    let told = async || scrape(at).await.get(&sent) == Some(&1.0);
    eventually("the watch begins", LONG, told).await.unwrap();
    let ended = series(
        "grpc_server_handled_total",
        "server_stream",
        method,
        "Canceled",
    );
    assert_eq!(scrape(at).await.get(&ended), None);
    drop(stream);
    let counted = async || scrape(at).await.get(&ended) == Some(&1.0);
    eventually("its end is counted", LONG, counted)
        .await
        .unwrap();
    coordinator.stop().await;
}

#[tokio::test]
async fn whose_client_hangs_up_is_counted_too() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let session = open(client, "one").await;
    acquire(client, asking(&session, "r", "x", Duration::ZERO))
        .await
        .unwrap();
    let request = asking(&open(client, "two").await, "r", "x", LONG * 2);
    let waiting = acquiring(client, request);
    coordinator.waiting("x", 1).await;
    assert_eq!(scrape(coordinator.addresses).await["palisade_waiters"], 1.0);
    let acquire = "palisade.v1.LeaseService/Acquire";
    waiting.abort();
    let hung_up = series("grpc_server_handled_total", "unary", acquire, "Canceled");
    let counted = async || {
        let found = scrape(coordinator.addresses).await;
        found.get(&hung_up) == Some(&1.0)
            && found[r#"palisade_lease_acquire_total{outcome="abandoned"}"#] == 1.0
            && found["palisade_waiters"] == 0.0
    };
    eventually("the end of the call is counted", LONG, counted)
        .await
        .unwrap();
    coordinator.stop().await;
}

/// Asks so often for the names of all services, on one stream.
async fn list_services(coordinator: &Coordinator, times: usize) {
    let channel = channel(coordinator.addresses).await;
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel);
    let list = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let asked = futures::stream::iter(vec![list; times]);
    let answers = client.server_reflection_info(asked).await.unwrap();
    let answers: Vec<_> = answers.into_inner().collect().await;
    assert_eq!(answers.len(), times);
}

#[tokio::test]
async fn leases_are_counted_in_the_store_whoever_granted_them() {
    let memory = memory().await;
    let one = Coordinator::with(Switch::new(Arc::<MemoryStore>::clone(&memory)), settings()).await;
    let session = open(&one.client, "s").await;
    for (request, resource) in [("r1", "x"), ("r2", "y")] {
        let asked = asking(&session, request, resource, Duration::ZERO);
        acquire(&one.client, asked).await.unwrap();
    }
    let other = Coordinator::with(Switch::new(memory), settings()).await;
    let counted = async || {
        let found = scrape(other.addresses).await;
        found.get("palisade_leases_active") == Some(&2.0)
    };
    eventually("its leases are counted", LONG, counted)
        .await
        .unwrap();
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn what_clients_make_up_makes_no_series() {
    let coordinator = Coordinator::start().await;
    let mut channel = channel(coordinator.addresses).await;
    let before = scrape(coordinator.addresses).await.len();
    let mut after = Vec::new();
    for round in 0..2 {
        for path in ["x", "palisade.v1.LeaseService/Steal", "a/b/c", "..", "{}"] {
            let request = http::Request::post(format!("/{path}{round}"))
                .header("content-type", "application/grpc")
                .body(tonic::body::Body::empty())
                .unwrap();
            let service = channel.ready().await.unwrap();
            let answer = service.call(request).await.unwrap();
            let status = answer.headers()["grpc-status"].to_str().unwrap();
            assert_eq!(status, "12", "{path}");
        }
        after.push(scrape(coordinator.addresses).await);
    }
    let unknown = series(
        "grpc_server_handled_total",
        "unary",
        "unknown",
        "Unimplemented",
    );
    assert_eq!(after[1].get(&unknown), Some(&10.0));
    assert_eq!(after[0].len(), after[1].len());
    // Begun, ended, and the histogram.
    assert!(after[0].len() - before <= 2 + 18, "{:?}", after[0]);
    drop(channel);
    coordinator.stop().await;
}
