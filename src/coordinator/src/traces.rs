//! What a tracing system is told of calls. The coordinator knows none itself; whoever runs it may give it one (see
//! [`Server::with_traces`](crate::serve::Server::with_traces)). Nothing that names a resource, a session, a
//! principal or a token is ever told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tonic::Code;

/// A call of `palisade.v1` that begins.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Begun<'a> {
    /// How it came: `grpc`, gRPC-web among it, or `http`.
    pub protocol: &'static str,
    /// The service, such as `palisade.v1.LeaseService`.
    pub service: &'a str,
    /// The method, such as `Acquire`.
    pub method: &'a str,
    /// What its client sent before its message: credentials, too. Only names of traces are to be taken from it.
    pub headers: &'a HeaderMap,
}

/// Where calls are told of. Its methods are called as calls are served: they must not block, and what they fail in
/// is their own.
pub trait Traces: fmt::Debug + Send + Sync {
    /// A call begins; what is given back is told the rest.
    fn begin(&self, call: &Begun<'_>) -> Arc<dyn Trace>;
}

/// One call.
pub trait Trace: fmt::Debug + Send + Sync {
    /// An acquire that came on the call, which is a stream of messages, was answered: so long after it came, and
    /// with this outcome, as `palisade_lease_acquire_total` has it.
    fn acquired(&self, took: Duration, outcome: &'static str);

    /// It ended; told once. A name of the code is in [`code_name`].
    fn end(&self, code: Code);
}

/// A call's trace, in the extensions of its request.
#[derive(Debug, Clone)]
pub(crate) struct Traced(pub(crate) Arc<dyn Trace>);

/// A code's name in the interface, such as `NOT_FOUND`.
#[must_use]
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
