//! Traces, as a collector gets them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use palisade_api::AcquireRequest;
use palisade_api::v1::SessionOpening;
use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::program::{Ended, Running, address, palisade};

const LIMIT: Duration = Duration::from_secs(60);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const RESOURCE: &str = "resource-named-so";
const SECRET: &str = "a-secret-of-32-bytes-and-no-less";
const SERVER: i32 = 2;

/// What of `opentelemetry.proto.trace.v1` is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<OfResource>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfResource {
    #[prost(message, optional, tag = "1")]
    resource: Option<Attributes>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<OfScope>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attributes {
    #[prost(message, repeated, tag = "1")]
    all: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OfScope {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    begin: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "1")]
    text: String,
}

fn by_name(attributes: &[Attribute]) -> BTreeMap<&str, &str> {
    let mut all = BTreeMap::new();
    for Attribute { key, value } in attributes {
        let text = value.as_ref().map_or("", |value| value.text.as_str());
        all.insert(key.as_str(), text);
    }
    all
}

/// A collector that keeps what it gets.
#[derive(Debug, Clone, Default)]
struct Collector {
    got: Arc<Mutex<Vec<OfResource>>>,
}

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<Export> for Collector {
    type Response = ();
    type Future = std::future::Ready<Result<Response<()>, Status>>;

    fn call(&mut self, request: Request<Export>) -> Self::Future {
        let Export { resources } = request.into_inner();
        self.got.lock().unwrap().extend(resources);
        std::future::ready(Ok(Response::new(())))
    }
}

impl Service<http::Request<Body>> for Collector {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<(), Export>::default());
            Ok(grpc.unary(collector, request).await)
        })
    }
}

impl Collector {
    /// Its URL; it serves until the tasks are dropped.
    async fn start(&self) -> (String, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = TcpListenerStream::new(listener);
        let serving = Server::builder().add_service(self.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async { serving.serve_with_incoming(incoming).await.unwrap() });
        (url, tasks)
    }

    fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let scopes = got.iter().flat_map(|of| &of.scopes);
        scopes.flat_map(|of| of.spans.clone()).collect()
    }

    fn span(&self, name: &str) -> Span {
        let mut spans = self.spans().into_iter();
        let found = spans.find(|span| span.name == name);
        found.unwrap_or_else(|| panic!("no span {name} among {:#?}", self.spans()))
    }
}

/// A coordinator whose traces go there, and where it serves gRPC and HTTP.
fn traced(url: &str) -> (Running, String, String) {
    let mut command = palisade(&["dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    let mut running = Running::start(command);
    let addr = address(&mut running);
    let http = running.line();
    let http = http.strip_prefix("PALISADE_HTTP_ADDR=http://");
    (running, addr, http.unwrap().to_owned())
}

fn acquire(addr: &str, name: &str) -> Ended {
    let mut command = palisade(&["acquire", name, "--detach", "--timeout", "20s"]);
    command.env("PALISADE_ADDR", addr).output().unwrap().into()
}

fn parent() -> String {
    format!("00-{TRACE}-{PARENT}-01")
}

/// Acquires by one call.
async fn acquire_in_one_call(addr: String) {
    let mut client = LeaseServiceClient::connect(addr).await.unwrap();
    let opening = SessionOpening {
        open_id: "opening-named-so".to_owned(),
        secret: SECRET.into(),
        ttl_ms: 60_000,
        ..SessionOpening::default()
    };
    let mut request = Request::new(AcquireRequest {
        owner: Some(Owner::Opening(opening)),
        request_id: "request-named-so".to_owned(),
        resource: RESOURCE.to_owned(),
        ..AcquireRequest::default()
    });
    let headers = request.metadata_mut();
    headers.insert("traceparent", parent().parse().unwrap());
    client.acquire(request).await.unwrap();
}

/// Lists over HTTP.
fn list(http: &str) {
    let mut stream = TcpStream::connect(http).unwrap();
    let parent = parent();
    let head = "GET /v1/leases HTTP/1.1\r\nhost: a\r\nconnection: close";
    write!(stream, "{head}\r\ntraceparent: {parent}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_spans_of_calls_as_part_of_their_callers_traces_and_no_names() {
    let collector = Collector::default();
    let (url, _serving) = collector.start().await;
    let (running, addr, http) = traced(&url);
    acquire_in_one_call(addr.clone()).await;
    list(&http);
    let detached = acquire(&addr, "resource-of-a-stream");
    assert_eq!(detached.code, Some(0), "{detached:?}");
    let refused = acquire(&addr, RESOURCE);
    assert_eq!(refused.code, Some(75), "{refused:?}");
    running.signal(Signal::TERM);
    // It ends once all is sent.
    assert_eq!(running.ends().code, Some(0));

    let acquired = collector.span("palisade.v1.LeaseService/Acquire");
    let attributes = by_name(&acquired.attributes);
    let expected = [
        ("rpc.method", "palisade.v1.LeaseService/Acquire"),
        ("rpc.response.status_code", "OK"),
        ("rpc.system.name", "grpc"),
    ];
    assert_eq!(attributes, BTreeMap::from(expected));
    assert_eq!(acquired.kind, SERVER);
    assert!(acquired.begin < acquired.end, "{acquired:?}");
    let listed = collector.span("palisade.v1.LeaseService/ListLeases");
    assert_eq!(by_name(&listed.attributes)["rpc.system.name"], "http");
    for span in [&acquired, &listed] {
        assert_eq!(hex::encode(&span.trace), TRACE);
        assert_eq!(hex::encode(&span.parent), PARENT);
    }

    // What a stream asks for is told when it is answered, as a part of the stream.
    let spans = collector.spans();
    let asked = spans.iter().filter(|span| span.name == "acquire");
    let outcomes = asked.map(|part| {
        let stream = spans.iter().find(|span| span.id == part.parent).unwrap();
        assert_eq!(stream.name, "palisade.v1.LeaseService/Attach");
        assert!(stream.parent.is_empty(), "{stream:?}");
        by_name(&part.attributes)["palisade.outcome"].to_owned()
    });
    assert_eq!(outcomes.collect::<Vec<_>>(), ["granted", "held"]);

    let all = format!("{:?}", collector.got.lock().unwrap());
    assert!(
        all.contains("service.name") && all.contains("\"palisade\""),
        "{all}"
    );
    for kept in ["-named-so", "resource-of-a-stream", SECRET] {
        assert!(!all.contains(kept), "{kept} is in {all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_never_answers_holds_up_neither_calls_nor_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (running, addr, _) = traced(&format!("http://{}", silent.local_addr().unwrap()));
    let acquired = acquire(&addr, RESOURCE);
    assert_eq!(acquired.code, Some(0), "{acquired:?}");
    running.signal(Signal::TERM);
    let ended = running.ends_within(LIMIT).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stderr.contains("could not be sent"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_collector_that_cannot_be_spoken_to_is_refused_before_anything_is_served() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"),
    ] {
        let mut command = palisade(&["dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        let ended = Ended::from(command.env(name, value).output().unwrap());
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(78), ""),
            "{ended:?}"
        );
        assert!(
            ended.stderr.contains("OTEL_EXPORTER_OTLP"),
            "{}",
            ended.stderr
        );
    }
}
