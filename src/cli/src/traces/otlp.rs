//! Spans of calls, batched and sent to a collector over gRPC.
//!
//! A span never waits: it goes into a bounded queue of the SDK's (`OTEL_BSP_MAX_QUEUE_SIZE`, 2,048), is dropped where
//! that is full, and a thread of the SDK's sends what is in it. A collector that is away costs a log line.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use palisade_coordinator::traces::{Begun, Trace, Traces, code_name};
use tokio::task::spawn_blocking;
use tonic::Code;
use tracing::warn;

use super::{ENDPOINTS, set};
use crate::clock;
use crate::failure::{Failure, Kind};

/// How long the end of a coordinator waits for its last spans to be sent; those that are left then are lost.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];

/// Everything that one coordinator's spans go through.
pub(super) struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// Connects when there is something to send.
    pub(super) fn start() -> Result<Self, Failure> {
        let named = |name| set(name).map(|given| (name, given));
        if let Some((name, given)) = PROTOCOLS.into_iter().find_map(named)
            && given != "grpc"
        {
            let message = format!("{name} is {given}; it must be grpc, the only one here");
            return Err(Failure::new(Kind::Config, message));
        }
        let exporter = SpanExporter::builder().with_tonic().build();
        let exporter = exporter.map_err(|error| {
            let [name, _] = ENDPOINTS;
            Failure::new(Kind::Config, format!("{name} cannot be used: {error}"))
        })?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(exporter)
            .build();
        Ok(Self { provider })
    }

    pub(super) fn traces(&self) -> Arc<dyn Traces> {
        let scope = InstrumentationScope::builder("palisade")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Arc::new(Spans {
            tracer: self.provider.tracer_with_scope(scope),
        })
    }

    pub(super) async fn end(self) {
        // It waits in a thread for what the runtime sends.
        let flushed = spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_LIMIT));
        if !matches!(flushed.await, Ok(Ok(()))) {
            warn!(limit = ?FLUSH_LIMIT, "the last traces could not be sent in time");
        }
    }
}

/// Who sends: `palisade`, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say otherwise.
fn resource() -> Resource {
    let builder = Resource::builder_empty()
        .with_service_name("palisade")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match set("OTEL_SERVICE_NAME") {
        Some(name) => builder.with_service_name(name).build(),
        None => builder.build(),
    }
}

/// Makes a span of each call.
#[derive(Debug)]
struct Spans {
    tracer: SdkTracer,
}

impl Traces for Spans {
    fn begin(&self, call: &Begun<'_>) -> Arc<dyn Trace> {
        // Not whatever this thread is in the middle of.
        let nothing = Context::new();
        let parent =
            TraceContextPropagator::new().extract_with_context(&nothing, &Headers(call.headers));
        let name = format!("{}/{}", call.service, call.method);
        let span = self
            .tracer
            .span_builder(name.clone())
            .with_kind(SpanKind::Server)
            .with_attributes([
                KeyValue::new("rpc.system.name", call.protocol),
                KeyValue::new("rpc.method", name),
            ])
            .start_with_context(&self.tracer, &parent);
        Arc::new(Call {
            context: parent.with_span(span),
            tracer: self.tracer.clone(),
        })
    }
}

/// The span of a call, and what makes those of its parts.
#[derive(Debug)]
struct Call {
    context: Context,
    tracer: SdkTracer,
}

impl Trace for Call {
    fn acquired(&self, took: Duration, outcome: &'static str) {
        let end = clock::wall();
        let begin = end.checked_sub(took).unwrap_or(end);
        let span = self
            .tracer
            .span_builder("acquire")
            .with_kind(SpanKind::Internal)
            .with_start_time(begin)
            .with_attributes([KeyValue::new("palisade.outcome", outcome)])
            .start_with_context(&self.tracer, &self.context);
        self.context.with_span(span).span().end_with_timestamp(end);
    }

    fn end(&self, code: Code) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("rpc.response.status_code", code_name(code)));
        if is_fault(code) {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// Whether a code says that the server failed, rather than that it refused.
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// Where `traceparent` and `tracestate` are.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}
