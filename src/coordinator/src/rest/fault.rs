//! From a gRPC status to an answer over HTTP, in the shape of AIP-193.

use std::time::Duration;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::service::{BadField, CallError, refuse};
use crate::traces::code_name;

const TYPES: &str = "type.googleapis.com/google.rpc";
/// Not in the registry of HTTP, but in the table of gRPC and in the logs of proxies: the client hung up.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Why a call is not answered with what it asked for.
#[derive(Debug)]
pub(super) struct Fault {
    // A status is large, and most calls have none.
    status: Box<Status>,
    code: StatusCode,
    headers: HeaderMap,
}

impl Fault {
    /// The same, with another code of HTTP: where that says more than the table.
    pub(super) fn code(mut self, code: StatusCode) -> Self {
        self.code = code;
        self
    }

    /// The same, with a header.
    pub(super) fn header(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// What the call is counted as.
    pub(super) fn grpc_code(&self) -> Code {
        self.status.code()
    }

    /// The error, as it is sent in bodies and in events.
    pub(super) fn json(&self) -> Value {
        error(&self.status, self.code)
    }

    /// When to try again.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.status.get_details_retry_info()?.retry_delay
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self {
            code: code(status.code()),
            status: Box::new(status),
            headers: HeaderMap::new(),
        }
    }
}

impl From<CallError> for Fault {
    fn from(error: CallError) -> Self {
        refuse(&error).into()
    }
}

impl From<BadField> for Fault {
    fn from(bad: BadField) -> Self {
        CallError::from(bad).into()
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(self.json())).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after() {
            // Whole seconds, and never too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.headers);
        response
    }
}

/// The table of gRPC (`google/rpc/code.proto`).
fn code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => {
            StatusCode::from_u16(CLIENT_CLOSED_REQUEST).unwrap_or(StatusCode::BAD_REQUEST)
        }
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn error(status: &Status, code: StatusCode) -> Value {
    let details = status.get_error_details();
    let mut listed = Vec::new();
    if let Some(info) = details.error_info() {
        listed.push(json!({
            "@type": format!("{TYPES}.ErrorInfo"),
            "reason": info.reason,
            "domain": info.domain,
            "metadata": info.metadata,
        }));
    }
    if let Some(after) = details.retry_info().and_then(|retry| retry.retry_delay) {
        listed.push(json!({
            "@type": format!("{TYPES}.RetryInfo"),
            "retryDelay": seconds(after),
        }));
    }
    if let Some(resource) = details.resource_info() {
        listed.push(json!({
            "@type": format!("{TYPES}.ResourceInfo"),
            "resourceType": resource.resource_type,
            "resourceName": resource.resource_name,
            "owner": resource.owner,
            "description": resource.description,
        }));
    }
    json!({
        "error": {
            "code": code.as_u16(),
            "status": code_name(status.code()),
            "message": status.message(),
            "details": listed,
        }
    })
}

/// A duration, as JSON of protocol buffers has it.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        millis => format!("{}.{millis:03}s", duration.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::seconds;

    #[test]
    fn durations_are_written_as_protocol_buffers_have_them() {
        assert_eq!(seconds(Duration::ZERO), "0s");
        assert_eq!(seconds(Duration::from_millis(500)), "0.500s");
        assert_eq!(seconds(Duration::from_millis(61_007)), "61.007s");
    }
}
