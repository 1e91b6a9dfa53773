//! The methods that are counted: those that the interface describes, and one for everything else.

use std::array;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use palisade_api::FILE_DESCRIPTOR_SET;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use prost::Message;
use prost_types::{FileDescriptorSet, MethodDescriptorProto};
use tonic::Code;

use crate::metrics::series::{Latencies, observe};

/// How many codes gRPC has.
const CODES: usize = 17;
/// What a call is counted as whose path names no method. Paths are whatever clients send: they are never
/// labels (I13).
const UNKNOWN: &str = "unknown";
/// What the names of this interface's services begin with.
const OURS: &str = "palisade.";

type Labels = [(&'static str, String); 3];
type LabelsAndCode = [(&'static str, String); 4];

#[derive(Debug, Clone)]
struct Families {
    started: Family<Labels, Counter>,
    handled: Family<LabelsAndCode, Counter>,
    seconds: Family<Labels, Histogram, Latencies>,
    received: Family<Labels, Counter>,
    sent: Family<Labels, Counter>,
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        let families = Self {
            started: Family::default(),
            handled: Family::default(),
            seconds: Family::new_with_constructor(Latencies),
            received: Family::default(),
            sent: Family::default(),
        };
        registry.register(
            "grpc_server_started",
            "Calls begun",
            families.started.clone(),
        );
        registry.register(
            "grpc_server_handled",
            "Calls ended, by their status code",
            families.handled.clone(),
        );
        registry.register(
            "grpc_server_handling_seconds",
            "How long calls took, streams from their beginning to their end",
            families.seconds.clone(),
        );
        registry.register(
            "grpc_server_msg_received",
            "Messages received on streams of messages",
            families.received.clone(),
        );
        registry.register(
            "grpc_server_msg_sent",
            "Messages sent on streams of messages",
            families.sent.clone(),
        );
        families
    }
}

/// All methods, by path.
#[derive(Debug)]
pub(super) struct Methods {
    by_path: HashMap<String, Arc<Method>>,
    unknown: Arc<Method>,
}

impl Methods {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let families = Families::register(registry);
        let described = [
            FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut by_path = HashMap::new();
        for set in described {
            let files = FileDescriptorSet::decode(set).unwrap_or_default().file;
            for (file, service) in files
                .iter()
                .flat_map(|file| file.service.iter().map(move |service| (file, service)))
            {
                let service_name = format!("{}.{}", file.package(), service.name());
                for described in &service.method {
                    let path = format!("/{service_name}/{}", described.name());
                    let method = Method::new(&families, &service_name, described);
                    by_path.insert(path, Arc::new(method));
                }
            }
        }
        let anything = MethodDescriptorProto {
            name: Some(UNKNOWN.to_owned()),
            ..MethodDescriptorProto::default()
        };
        let unknown = Arc::new(Method::new(&families, UNKNOWN, &anything));
        Self { by_path, unknown }
    }

    pub(super) fn of(&self, path: &str) -> &Arc<Method> {
        self.by_path.get(path).unwrap_or(&self.unknown)
    }
}

/// One method. What is counted of it is resolved when it is first counted: most codes never are.
#[derive(Debug)]
pub(super) struct Method {
    families: Families,
    labels: Labels,
    streams_requests: bool,
    streams_answers: bool,
    started: OnceLock<Counter>,
    handled: [OnceLock<Counter>; CODES],
    seconds: OnceLock<Histogram>,
    received: OnceLock<Counter>,
    sent: OnceLock<Counter>,
}

impl Method {
    fn new(families: &Families, service: &str, method: &MethodDescriptorProto) -> Self {
        let kind = match (method.client_streaming(), method.server_streaming()) {
            (false, false) => "unary",
            (true, false) => "client_stream",
            (false, true) => "server_stream",
            (true, true) => "bidi_stream",
        };
        let labels = [
            ("grpc_type", kind.to_owned()),
            ("grpc_service", service.to_owned()),
            ("grpc_method", method.name().to_owned()),
        ];
        Self {
            families: families.clone(),
            labels,
            streams_requests: method.client_streaming(),
            streams_answers: method.server_streaming(),
            started: OnceLock::new(),
            handled: array::from_fn(|_| OnceLock::new()),
            seconds: OnceLock::new(),
            received: OnceLock::new(),
            sent: OnceLock::new(),
        }
    }

    /// Service and method, if it is one of `palisade.v1`: probes and reflection are nobody's work.
    pub(super) fn ours(&self) -> Option<(&str, &str)> {
        let [_, (_, service), (_, method)] = &self.labels;
        service
            .starts_with(OURS)
            .then_some((service.as_str(), method.as_str()))
    }

    pub(super) fn streams_requests(&self) -> bool {
        self.streams_requests
    }

    pub(super) fn streams_answers(&self) -> bool {
        self.streams_answers
    }

    pub(super) fn started(&self) {
        let family = &self.families.started;
        let resolve = || family.get_or_create_owned(&self.labels);
        self.started.get_or_init(resolve).inc();
    }

    pub(super) fn handled(&self, code: Code, took: Duration) {
        let (number, name) = numbered(code);
        let resolve = || {
            let [kind, service, method] = self.labels.clone();
            let labels = [kind, service, method, ("grpc_code", name.to_owned())];
            self.families.handled.get_or_create_owned(&labels)
        };
        self.handled[number].get_or_init(resolve).inc();
        let family = &self.families.seconds;
        let resolve = || family.get_or_create_owned(&self.labels);
        observe(self.seconds.get_or_init(resolve), took);
    }

    pub(super) fn received(&self, messages: u64) {
        let family = &self.families.received;
        let resolve = || family.get_or_create_owned(&self.labels);
        self.received.get_or_init(resolve).inc_by(messages);
    }

    pub(super) fn sent(&self, messages: u64) {
        let family = &self.families.sent;
        let resolve = || family.get_or_create_owned(&self.labels);
        self.sent.get_or_init(resolve).inc_by(messages);
    }
}

/// A code's number, and its name in go-grpc.
fn numbered(code: Code) -> (usize, &'static str) {
    match code {
        Code::Ok => (0, "OK"),
        Code::Cancelled => (1, "Canceled"),
        Code::Unknown => (2, "Unknown"),
        Code::InvalidArgument => (3, "InvalidArgument"),
        Code::DeadlineExceeded => (4, "DeadlineExceeded"),
        Code::NotFound => (5, "NotFound"),
        Code::AlreadyExists => (6, "AlreadyExists"),
        Code::PermissionDenied => (7, "PermissionDenied"),
        Code::ResourceExhausted => (8, "ResourceExhausted"),
        Code::FailedPrecondition => (9, "FailedPrecondition"),
        Code::Aborted => (10, "Aborted"),
        Code::OutOfRange => (11, "OutOfRange"),
        Code::Unimplemented => (12, "Unimplemented"),
        Code::Internal => (13, "Internal"),
        Code::Unavailable => (14, "Unavailable"),
        Code::DataLoss => (15, "DataLoss"),
        Code::Unauthenticated => (16, "Unauthenticated"),
    }
}
