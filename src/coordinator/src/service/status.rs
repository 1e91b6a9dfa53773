//! The one place where what went wrong becomes a gRPC status.
//!
//! Each status carries exactly one `ErrorInfo` whose metadata has every variable of the message. Nothing
//! that a store says is passed on: it is logged where the call is handled.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use palisade_api::{ERROR_DOMAIN, ErrorReason};
use palisade_token::{FencingToken, ResourceName};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};
use tracing::{debug, error, warn};

use super::error::{About, BadField, CallError};
use super::parse::millis;
use crate::access::AccessError;
use crate::domain::{GenerationError, Refusal};
use crate::store::{Failure, Outcome, StoreError};

/// When to try again what another lease stands in the way of: about as long as a short lease is held.
const RETRY_HELD: Duration = Duration::from_secs(1);
/// When to try again what the store's state stands in the way of: about an election of etcd.
const RETRY_STORE: Duration = Duration::from_millis(500);
/// When to try again what a full queue or store stands in the way of.
const RETRY_LIMIT: Duration = Duration::from_secs(5);
/// At another coordinator it can be tried at once.
const RETRY_ELSEWHERE: Duration = Duration::ZERO;

/// The type of `ResourceInfo.resource_type`.
const RESOURCE_TYPE: &str = "palisade.v1.Lease";

/// A status in the making.
struct Telling {
    code: Code,
    reason: ErrorReason,
    message: String,
    metadata: HashMap<String, String>,
    retry: Option<Duration>,
}

impl Telling {
    fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            metadata: HashMap::new(),
            retry: None,
        }
    }

    fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    fn resource(self, about: &About) -> Self {
        match &about.resource {
            Some(resource) => self.with("resource", resource),
            None => self,
        }
    }

    fn request(self, about: &About) -> Self {
        match &about.request {
            Some(request) => self.with("requestId", request),
            None => self,
        }
    }

    fn session(self, about: &About) -> Self {
        match about.session {
            Some(session) => self.with("sessionId", session),
            None => self,
        }
    }

    fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    fn refusal(self) -> palisade_api::Refusal {
        palisade_api::Refusal {
            code: i32::from(self.code),
            reason: self.reason.reason().to_owned(),
            message: self.message,
            metadata: self.metadata,
            retry_after_ms: self.retry.map_or(0, millis),
        }
    }

    fn status(self) -> Status {
        let resource = self.metadata.get("resource").cloned();
        let mut details =
            ErrorDetails::with_error_info(self.reason.reason(), ERROR_DOMAIN, self.metadata);
        if self.retry.is_some() {
            details.set_retry_info(self.retry);
        }
        if let Some(resource) = resource {
            details.set_resource_info(RESOURCE_TYPE, resource, "", self.message.clone());
        }
        Status::with_error_details(self.code, self.message, details)
    }
}

/// The same as [`status`], inside a stream.
pub(crate) fn refusal(error: &CallError, about: &About) -> palisade_api::Refusal {
    telling(error, about).refusal()
}

/// The status of an error.
pub(crate) fn status(error: &CallError, about: &About) -> Status {
    telling(error, about).status()
}

/// Logs what a person may have to know and the caller is not told: what the store said.
pub(crate) fn log(error: &CallError, about: &About) {
    let (session, resource) = (
        about.session,
        about.resource.as_ref().map(ResourceName::as_str),
    );
    match error {
        CallError::Store(StoreError::Failed {
            failure,
            outcome,
            source,
        }) => {
            let source = source.as_deref().map(|source| -> &dyn Error { source });
            warn!(%failure, ?outcome, source, ?session, resource, "the store failed a call");
        }
        CallError::Broken(what) => error!(what, ?session, resource, "a fault of this program"),
        CallError::StoreSlow(outcome) => {
            warn!(
                ?outcome,
                ?session,
                resource,
                "the store did not answer in time"
            );
        }
        refused => debug!(?refused, ?session, resource, "refused"),
    }
}

fn telling(error: &CallError, about: &About) -> Telling {
    use ErrorReason as Reason;
    match error {
        CallError::Field(bad) => field(bad),
        CallError::Store(StoreError::Refused(refusal)) => refused(refusal, about),
        CallError::Store(StoreError::Failed {
            failure, outcome, ..
        }) => failed(failure, *outcome),
        CallError::StoreSlow(outcome) => unavailable(*outcome),
        CallError::TooLate => Telling::new(
            Code::DeadlineExceeded,
            Reason::DeadlineExceeded,
            "the call's deadline had passed before anything was done",
        )
        .with("mayHaveHappened", false),
        CallError::WaitCutShort => Telling::new(
            Code::DeadlineExceeded,
            Reason::DeadlineExceeded,
            "the call's deadline passed before the wait was over: the place in the queue stands; take \
             the request up again with a larger attempt and epoch, or release it by its id",
        )
        .with("mayHaveHappened", true)
        .resource(about)
        .request(about),
        CallError::Draining => draining("this coordinator is draining and nothing was done")
            .with("mayHaveHappened", false),
        CallError::DrainingPlaceStands => draining(
            "this coordinator is draining and the place in the queue stands: take the request up \
             elsewhere, with a larger attempt and epoch",
        )
        .with("mayHaveHappened", true)
        .resource(about)
        .request(about),
        CallError::Superseded => Telling::new(
            Code::Aborted,
            Reason::Superseded,
            "another call of the session overtook this one; ask again with a larger epoch",
        )
        .session(about),
        CallError::Cancelled => Telling::new(
            Code::Aborted,
            Reason::RequestCancelled,
            "the request was given back while it waited",
        )
        .resource(about)
        .request(about),
        CallError::FenceAhead { token, fence } => fence_ahead(*token, *fence).resource(about),
        CallError::Access(error) => not_let_in(error, about),
        CallError::Limit { limit, bound } => limit_reached(limit, *bound),
        CallError::NotServed(what) => Telling::new(
            Code::Unimplemented,
            Reason::NotServed,
            format!("this version does not serve {what}"),
        )
        .with("what", what),
        CallError::Broken(what) => internal().with("what", what),
    }
}

fn field(bad: &BadField) -> Telling {
    let BadField {
        field,
        bound,
        given,
    } = bad;
    Telling::new(
        Code::InvalidArgument,
        ErrorReason::InvalidField,
        format!("{field} is {given}; it must be {bound}"),
    )
    .with("field", field)
    .with("bound", bound)
    .with("given", given)
}

fn refused(refusal: &Refusal, about: &About) -> Telling {
    use ErrorReason as Reason;
    let say = |code, reason| Telling::new(code, reason, refusal.to_string());
    match refusal {
        Refusal::LeaseHeld { token } => {
            let told = say(Code::FailedPrecondition, Reason::LeaseHeld)
                .resource(about)
                .session(about)
                .retry(RETRY_HELD);
            match token {
                Some(token) => told.with("token", token),
                None => told,
            }
        }
        Refusal::AlreadyHeld { request, token } => {
            say(Code::FailedPrecondition, Reason::AlreadyHeld)
                .resource(about)
                .with("requestId", request)
                .with("token", token)
        }
        Refusal::WaitExpired => say(Code::Aborted, Reason::WaitExpired)
            .resource(about)
            .session(about)
            .request(about),
        Refusal::SessionEnded { session } => {
            say(Code::NotFound, Reason::SessionEnded).with("sessionId", session)
        }
        // One answer for both: which of them it was is nobody else's business.
        Refusal::NotYours { session } | Refusal::OpenIdTaken { session } => Telling::new(
            Code::PermissionDenied,
            Reason::PermissionDenied,
            format!("session {session} is not the caller's, or has another secret"),
        )
        .with("sessionId", session),
        Refusal::EpochStale { given, stored } => say(Code::Aborted, Reason::EpochStale)
            .session(about)
            .with("epoch", given)
            .with("storedEpoch", stored),
        Refusal::Superseded { .. } => say(Code::Aborted, Reason::Superseded).session(about),
        Refusal::RequestMismatch { request, field } => {
            say(Code::InvalidArgument, Reason::RequestMismatch)
                .with("requestId", request)
                .with("field", field)
        }
        Refusal::StaleToken { given, current } => say(Code::FailedPrecondition, Reason::StaleToken)
            .resource(about)
            .with("token", given)
            .with("currentToken", current.map_or(0, FencingToken::get)),
        Refusal::LimitReached { limit, bound } => limit_reached(limit, *bound),
        Refusal::FenceAhead(error) => generation(error),
    }
}

fn failed(failure: &Failure, outcome: Outcome) -> Telling {
    use ErrorReason as Reason;
    let may = outcome == Outcome::Unknown;
    match failure {
        Failure::Unavailable => unavailable(outcome),
        Failure::NoSpace => Telling::new(
            Code::ResourceExhausted,
            Reason::LimitReached,
            "storeSpace is reached: the store takes no more data; sessions can still be closed",
        )
        .with("limit", "storeSpace")
        .with("bound", 0)
        .retry(RETRY_LIMIT)
        .with("mayHaveHappened", may),
        Failure::HistoryRegressed => Telling::new(
            Code::Unavailable,
            Reason::HistoryRegressed,
            "no generation is trusted now, so nothing is granted",
        )
        .retry(RETRY_STORE)
        .with("mayHaveHappened", may),
        Failure::WrongCluster => Telling::new(
            Code::Unavailable,
            Reason::WrongCluster,
            "the store is not the cluster this coordinator started with, so nothing is granted",
        )
        .with("mayHaveHappened", may),
        Failure::Generation(error) => generation(error).with("mayHaveHappened", may),
        Failure::Damaged(_) => internal().with("mayHaveHappened", may),
    }
}

fn unavailable(outcome: Outcome) -> Telling {
    let may = outcome == Outcome::Unknown;
    let message = if may {
        "the store did not confirm: it may have happened; ask again with a larger epoch"
    } else {
        "the store is unavailable and nothing was done"
    };
    Telling::new(Code::Unavailable, ErrorReason::StoreUnavailable, message)
        .with("mayHaveHappened", may)
        .retry(RETRY_STORE)
}

fn generation(error: &GenerationError) -> Telling {
    match error {
        GenerationError::FarAhead { past, clock } => Telling::new(
            Code::FailedPrecondition,
            ErrorReason::ForceRequired,
            format!(
                "token {past} is over a day ahead of the clock at {}",
                clock.0
            ),
        )
        .with("past", past)
        .with("bound", clock.0),
        GenerationError::Clock { .. } | GenerationError::Exhausted { .. } => Telling::new(
            Code::Unavailable,
            ErrorReason::HistoryRegressed,
            "no generation can be made, so nothing is granted: an operator must check the clock",
        ),
    }
}

fn fence_ahead(token: FencingToken, fence: FencingToken) -> Telling {
    Telling::new(
        Code::FailedPrecondition,
        ErrorReason::FenceAhead,
        format!(
            "the lease with token {token} is released, but fence {fence} is over a day ahead of the \
             clock: set right whichever of the two is wrong"
        ),
    )
    .with("token", token)
    .with("fence", fence)
}

fn draining(message: &'static str) -> Telling {
    Telling::new(Code::Unavailable, ErrorReason::Draining, message).retry(RETRY_ELSEWHERE)
}

/// What a caller is told of its own credentials and of rules: never whose they are, nor who may.
fn not_let_in(error: &AccessError, about: &About) -> Telling {
    use ErrorReason as Reason;
    let say = |code, reason| Telling::new(code, reason, error.to_string());
    match error {
        AccessError::Unauthenticated(_) => say(Code::Unauthenticated, Reason::Unauthenticated),
        AccessError::Denied { verb } => say(Code::PermissionDenied, Reason::PermissionDenied)
            .with("verb", verb.name())
            .resource(about),
    }
}

fn limit_reached(limit: &str, bound: u64) -> Telling {
    let limit = lower_camel(limit);
    Telling::new(
        Code::ResourceExhausted,
        ErrorReason::LimitReached,
        format!("{limit} is reached: {bound}"),
    )
    .with("limit", limit)
    .with("bound", bound)
    .retry(RETRY_LIMIT)
}

/// Limits are named in words; in metadata they are names.
fn lower_camel(words: &str) -> String {
    let mut name = String::with_capacity(words.len());
    for word in words.split(' ') {
        let mut letters = word.chars();
        match letters.next() {
            Some(first) if !name.is_empty() => name.push(first.to_ascii_uppercase()),
            Some(first) => name.push(first),
            None => {}
        }
        name.push_str(letters.as_str());
    }
    name
}

fn internal() -> Telling {
    Telling::new(
        Code::Internal,
        ErrorReason::Internal,
        "a fault of the coordinator; its log says more",
    )
}

#[cfg(test)]
mod tests;
