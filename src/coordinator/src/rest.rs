//! The calls of `palisade.v1.LeaseService` as JSON over HTTP, for curl and what is like it: the same methods, the
//! same bounds, rules and errors, in another dress.
//!
//! | route | call | sent | answered |
//! |---|---|---|---|
//! | `POST /v1/sessions` | `OpenSession` | `{"opening": {…}}` | the session |
//! | `POST /v1/sessions/{session_id}:renew` | `RenewSession` | `{"session": {"secret", "epoch"}}` | the TTL |
//! | `DELETE /v1/sessions/{session_id}` | `CloseSession` | as for renew | `{}` |
//! | `POST /v1/leases:acquire` | `Acquire` | `{"session": {…}` or `"opening": {…}, "request_id", "resource", "wait_ms", …}` | the lease |
//! | `POST /v1/leases:release` | `Release` | `{"session": {…}, "resource", "token"` or `"request_id", …}` | what was done |
//! | `GET /v1/leases/{resource}` | `GetLease` | `?queue_size=` | who holds it |
//! | `GET /v1/leases` | `ListLeases` | `?prefix=&page_size=&page_token=` | a page |
//! | `GET /v1/leases:watch` | `WatchLeases` | `?resource=` or `?prefix=`, `&resume_revision=&bookmark_interval_ms=` | server-sent events |
//! | `GET /v1/tokens:check` | `CheckToken` | `?resource=&token=` | how it stands |
//!
//! Fields have their names in the `.proto` files. Numbers are JSON numbers: tokens and revisions fit 2^53. Secrets
//! and metadata are base64; a holder is 32 hexadecimal digits. A field that is not known is refused by its name. A
//! secret never is in a URL: instead of a body, renew and close take the header `x-palisade-session-secret`, with
//! `?epoch=`. Each call takes `?timeout_ms=`, or the header `grpc-timeout`.
//!
//! An error is `{"error": {"code", "status", "message", "details"}}` (AIP-193) with the code of HTTP that belongs to
//! that of gRPC, and `Retry-After` where it helps to try again. What only HTTP knows (no such path, another method
//! or content type, a body too large) comes in the same shape.

mod answer;
mod events;
mod fault;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::BytesMut;
use futures::StreamExt;
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use palisade_api::v1::lease_service_server::{LeaseService, SERVICE_NAME};
use palisade_api::v1::{CloseSessionRequest, RenewSessionRequest};
use serde_json::{Value, json};
use tonic::Code;
use tonic::metadata::MetadataMap;

use self::fault::Fault;
use self::fields::Fields;
use crate::clock::{Clock, within};
use crate::config::{Limits, Timeouts};
use crate::metrics::{CountCalls, Counting};
use crate::service::{BadField, CallError, Service, bad};

/// The deadline of a call, as the service reads it.
const DEADLINE: HeaderName = HeaderName::from_static("grpc-timeout");
/// The longest that `grpc-timeout` can say in milliseconds; longer than any that is honoured.
const MAX_TIMEOUT_MS: u64 = 99_999_999;

/// What the routes share.
#[derive(Debug, Clone)]
struct Rest {
    service: Service,
    calls: CountCalls,
    clock: Arc<dyn Clock>,
    max_body_bytes: usize,
    body_time: Duration,
}

/// The routes. Whatever no route takes, of these and of those they are merged with, is refused in their shape by
/// [`unknown`] and [`other_method`].
pub(crate) fn router(
    (service, calls): (Service, CountCalls),
    clock: &Arc<dyn Clock>,
    limits: &Limits,
    timeouts: &Timeouts,
) -> Router {
    let rest = Rest {
        service,
        calls,
        clock: Arc::clone(clock),
        max_body_bytes: limits.max_message_bytes,
        body_time: timeouts.default_call,
    };
    Router::new()
        .route("/v1/sessions", post(open))
        .route("/v1/sessions/{session}", post(renew).delete(close))
        .route("/v1/leases", get(list))
        .route("/v1/leases/{*resource}", get(lease))
        .route("/v1/leases:acquire", post(acquire))
        .route("/v1/leases:release", post(release))
        .route("/v1/leases:watch", get(watch))
        .route("/v1/tokens:check", get(check))
        .with_state(rest)
}

/// Nothing is served at this path.
pub(crate) async fn unknown() -> impl axum::response::IntoResponse {
    // gRPC reads a 404 that is none of its own in the same way.
    Fault::from(CallError::NotServed("this path")).code(StatusCode::NOT_FOUND)
}

/// Other methods are served at this path: `Allow` says which.
pub(crate) async fn other_method() -> impl axum::response::IntoResponse {
    not_allowed()
}

fn not_allowed() -> Fault {
    Fault::from(CallError::NotServed("this method at this path"))
        .code(StatusCode::METHOD_NOT_ALLOWED)
}

/// A call as it came in.
struct Call {
    head: Parts,
    query: Fields,
    body: Fields,
}

impl Call {
    /// The call as the service takes it, once nothing is left of what was sent.
    fn of<T>(self, message: T) -> Result<tonic::Request<T>, BadField> {
        self.query.finish()?;
        self.body.finish()?;
        let headers = MetadataMap::from_headers(self.head.headers);
        Ok(tonic::Request::from_parts(
            headers,
            self.head.extensions,
            message,
        ))
    }
}

impl Rest {
    /// Ends the count of a call with what came of it.
    async fn counted<T>(
        counting: Counting,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let done = work.await;
        counting.end(done.as_ref().map_or_else(Fault::grpc_code, |_| Code::Ok));
        done
    }

    /// Counts a call with those that gRPC brings: it is the same method.
    fn begin(&self, method: &str, request: &Request) -> Counting {
        let path = format!("/{SERVICE_NAME}/{method}");
        self.calls.begin(&path, request.headers())
    }

    /// Takes a call in. Who is not let in is told nothing about what was sent, and none of it is read.
    async fn take(&self, request: Request) -> Result<Call, Fault> {
        let (mut head, body) = request.into_parts();
        let access = self.service.access();
        let known = access.authenticate(&head.headers, &head.extensions);
        known.map_err(CallError::from)?;
        let mut query = Fields::of_query(head.uri.query())?;
        if let Some(deadline) = timeout(&mut query)? {
            head.headers.insert(DEADLINE, deadline);
        }
        let reading = self.read(&head.headers, body);
        let read = within(&self.clock, self.body_time, reading).await;
        let body = read.map_err(|_| CallError::TooLate)??;
        Ok(Call { head, query, body })
    }

    async fn read(&self, headers: &HeaderMap, body: axum::body::Body) -> Result<Fields, Fault> {
        let mut bytes = BytesMut::new();
        let mut parts = body.into_data_stream();
        while let Some(part) = parts.next().await {
            // Browsers ask before they send JSON to another site, and not before they send a form.
            if bytes.is_empty() && !is_json(headers) {
                return Err(content_type(headers));
            }
            let part = part.map_err(|_| bad("body", "sent to its end", "cut off"))?;
            if bytes.len() + part.len() > self.max_body_bytes {
                return Err(self.too_large());
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Fields::of_body(&bytes)?)
    }

    fn too_large(&self) -> Fault {
        let bound = format!("at most {} bytes", self.max_body_bytes);
        Fault::from(bad("body", bound, "more"))
            .code(StatusCode::PAYLOAD_TOO_LARGE)
            .header(header::CONNECTION, "close")
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(sent)) = headers.get(header::CONTENT_TYPE).map(HeaderValue::to_str) else {
        return false;
    };
    let essence = sent.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

fn content_type(headers: &HeaderMap) -> Fault {
    let given = match headers.get(header::CONTENT_TYPE) {
        Some(_) => "another one",
        None => "missing",
    };
    Fault::from(bad("content-type", "application/json", given))
        .code(StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// How long a call may take, if the query says so.
fn timeout(query: &mut Fields) -> Result<Option<HeaderValue>, BadField> {
    const NAME: &str = "timeout_ms";
    if !query.has(NAME) {
        return Ok(None);
    }
    let millis: u64 = query.number(NAME)?;
    let bound = || format!("1 to {MAX_TIMEOUT_MS}");
    let allowed = (1..=MAX_TIMEOUT_MS).contains(&millis);
    let header = HeaderValue::from_str(&format!("{millis}m")).ok();
    header
        .filter(|_| allowed)
        .map(Some)
        .ok_or_else(|| bad(NAME, bound(), millis))
}

/// JSON that is true now only.
type Answer = ([(HeaderName, &'static str); 1], Json<Value>);

fn answer(value: Value) -> Answer {
    ([(header::CACHE_CONTROL, "no-store")], Json(value))
}

type Named = Result<Path<String>, PathRejection>;

fn named(path: Named) -> Result<String, BadField> {
    let bad = |_| {
        bad(
            "path",
            "UTF-8, where it is percent-decoded",
            "something else",
        )
    };
    path.map(|Path(name)| name).map_err(bad)
}

async fn open(State(rest): State<Rest>, request: Request) -> Result<Answer, Fault> {
    let counting = rest.begin("OpenSession", &request);
    let work = async {
        let mut call = rest.take(request).await?;
        let message = request::open(&mut call.body)?;
        let response = rest.service.open_session(call.of(message)?).await?;
        Ok(answer(answer::opened(response.get_ref())))
    };
    Rest::counted(counting, work).await
}

async fn renew(State(rest): State<Rest>, path: Named, request: Request) -> Result<Answer, Fault> {
    const VERB: &str = ":renew";
    let path = named(path)?;
    let Some(session) = path.strip_suffix(VERB) else {
        return Err(not_allowed().header(header::ALLOW, "DELETE"));
    };
    let counting = rest.begin("RenewSession", &request);
    let work = async {
        let mut call = rest.take(request).await?;
        let Call { head, query, body } = &mut call;
        let session = Some(request::of_path(session, &head.headers, query, body)?);
        let message = RenewSessionRequest {
            session,
            ..Default::default()
        };
        let response = rest.service.renew_session(call.of(message)?).await?;
        Ok(answer(answer::renewed(response.get_ref())))
    };
    Rest::counted(counting, work).await
}

async fn close(State(rest): State<Rest>, path: Named, request: Request) -> Result<Answer, Fault> {
    let session = named(path)?;
    if session.contains(':') {
        return Err(not_allowed().header(header::ALLOW, "POST"));
    }
    let counting = rest.begin("CloseSession", &request);
    let work = async {
        let mut call = rest.take(request).await?;
        let Call { head, query, body } = &mut call;
        let session = Some(request::of_path(&session, &head.headers, query, body)?);
        let message = CloseSessionRequest { session };
        rest.service.close_session(call.of(message)?).await?;
        Ok(answer(json!({})))
    };
    Rest::counted(counting, work).await
}

async fn acquire(State(rest): State<Rest>, request: Request) -> Result<Answer, Fault> {
    let counting = rest.begin("Acquire", &request);
    let work = async {
        let mut call = rest.take(request).await?;
        let message = request::acquire(&mut call.body)?;
        let response = rest.service.acquire(call.of(message)?).await?;
        Ok(answer(answer::acquired(response.get_ref())))
    };
    Rest::counted(counting, work).await
}

async fn release(State(rest): State<Rest>, request: Request) -> Result<Answer, Fault> {
    let counting = rest.begin("Release", &request);
    let work = async {
        let mut call = rest.take(request).await?;
        let message = request::release(&mut call.body)?;
        let response = rest.service.release(call.of(message)?).await?;
        Ok(answer(answer::released(response.get_ref())))
    };
    Rest::counted(counting, work).await
}

async fn lease(State(rest): State<Rest>, path: Named, request: Request) -> Result<Answer, Fault> {
    let counting = rest.begin("GetLease", &request);
    let work = async {
        let mut call = rest.take(request).await?;
        let message = request::get(named(path)?, &mut call.query)?;
        let response = rest.service.get_lease(call.of(message)?).await?;
        Ok(answer(answer::standing(response.get_ref())))
    };
    Rest::counted(counting, work).await
}

async fn list(State(rest): State<Rest>, request: Request) -> Result<Answer, Fault> {
    let counting = rest.begin("ListLeases", &request);
    let work = async {
        let mut call = rest.take(request).await?;
        let message = request::list(&mut call.query)?;
        let response = rest.service.list_leases(call.of(message)?).await?;
        Ok(answer(answer::page(response.get_ref())))
    };
    Rest::counted(counting, work).await
}

async fn watch(
    State(rest): State<Rest>,
    request: Request,
) -> Result<axum::response::Response, Fault> {
    let counting = rest.begin("WatchLeases", &request);
    let begun = async {
        let mut call = rest.take(request).await?;
        let message = request::watch(&call.head.headers, &mut call.query)?;
        Ok(rest.service.watch_leases(call.of(message)?).await?)
    };
    match begun.await {
        Ok(response) => Ok(events::response(response.into_inner(), counting)),
        Err(fault) => {
            counting.end(Fault::grpc_code(&fault));
            Err(fault)
        }
    }
}

async fn check(State(rest): State<Rest>, request: Request) -> Result<Answer, Fault> {
    let counting = rest.begin("CheckToken", &request);
    let work = async {
        let mut call = rest.take(request).await?;
        let message = request::check(&mut call.query)?;
        let response = rest.service.check_token(call.of(message)?).await?;
        Ok(answer(answer::checked(response.get_ref())))
    };
    Rest::counted(counting, work).await
}
