//! Where a coordinator's answer becomes an error: by code and `ErrorInfo.reason`, never by its text.

use std::collections::HashMap;
use std::time::Duration;

use palisade_api::prost::Message as _;
use palisade_api::{ERROR_DOMAIN, ErrorReason, Refusal};
use palisade_token::{FencingToken, ResourceName};
use tonic::{Code, Status};
use tonic_types::{StatusExt, pb};

use super::{ClientError, Source, Unavailable};
use crate::standing::LostReason;

#[cfg(test)]
mod tests;

const RETRY_INFO: &str = "type.googleapis.com/google.rpc.RetryInfo";
const NANOS_OF_A_SECOND: u32 = 1_000_000_000;

/// What one try of a call came to, if not to an answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: ClientError,
    pub(crate) verdict: Verdict,
    /// It may have been done all the same, also where the error has no room to say so.
    pub(crate) may_have_happened: bool,
    /// Another endpoint may do better.
    pub(crate) endpoint_at_fault: bool,
}

/// How a try that failed goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again: nothing was done.
    NotDone,
    /// Try again, as a retry: it may have been done.
    Unknown,
    /// Try again above this epoch: nothing was done.
    EpochStale { stored: u64 },
    /// This is the answer.
    Final,
}

impl Failure {
    pub(crate) fn unreachable(source: impl Into<Source>) -> Self {
        Self::unavailable(
            Unavailable::Unreachable,
            Verdict::NotDone,
            true,
            Some(source.into()),
            None,
        )
    }

    pub(crate) fn no_answer(endpoint_at_fault: bool) -> Self {
        Self::unavailable(
            Unavailable::NoAnswer,
            Verdict::Unknown,
            endpoint_at_fault,
            None,
            None,
        )
    }

    /// Whether the try came to nothing that anybody said.
    pub(crate) fn is_no_answer(&self) -> bool {
        let ClientError::Unavailable { cause, .. } = &self.error else {
            return false;
        };
        *cause == Unavailable::NoAnswer
    }

    pub(crate) fn unexpected(source: impl Into<Source>) -> Self {
        let source = source.into();
        Self::last(ClientError::Unexpected { source })
    }

    /// An answer that no coordinator sends: what it was about may have been done.
    pub(crate) fn garbled(source: impl Into<Source>) -> Self {
        Self::unavailable(
            Unavailable::Internal,
            Verdict::Unknown,
            true,
            Some(source.into()),
            None,
        )
    }

    fn last(error: ClientError) -> Self {
        Self {
            may_have_happened: error.may_have_happened(),
            error,
            verdict: Verdict::Final,
            endpoint_at_fault: false,
        }
    }

    fn unavailable(
        cause: Unavailable,
        verdict: Verdict,
        endpoint_at_fault: bool,
        source: Option<Source>,
        retry_after: Option<Duration>,
    ) -> Self {
        Self {
            error: ClientError::Unavailable {
                cause,
                may_have_happened: verdict == Verdict::Unknown,
                retry_after,
                source,
            },
            verdict,
            may_have_happened: verdict == Verdict::Unknown,
            endpoint_at_fault,
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let info = status
            .get_details_error_info()
            .filter(|info| info.domain == ERROR_DOMAIN);
        let retry_after = retry_after(&status);
        let reason = info
            .as_ref()
            .and_then(|info| ErrorReason::from_reason(&info.reason));
        let facts = Facts {
            metadata: info.map(|info| info.metadata).unwrap_or_default(),
            retry_after,
        };
        let code = status.code();
        facts.failure(reason, code, status.into())
    }
}

/// After how long a new try may help. Read here: what `tonic-types` makes of a negative delay overflows.
fn retry_after(status: &Status) -> Option<Duration> {
    let details = pb::Status::decode(status.details()).ok()?;
    let mut all = details.details.iter();
    let info = all.find(|any| any.type_url == RETRY_INFO)?;
    let delay = pb::RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    let nanos = u32::try_from(delay.nanos).ok();
    let nanos = nanos.filter(|nanos| *nanos < NANOS_OF_A_SECOND)?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, nanos))
}

/// What a coordinator said of a message on a stream that was refused.
#[derive(Debug, thiserror::Error)]
#[error("{reason}: {message}")]
struct Refused {
    reason: String,
    message: String,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let reason = ErrorReason::from_reason(&refusal.reason);
        let pause = Duration::from_millis(refusal.retry_after_ms);
        let facts = Facts {
            metadata: refusal.metadata,
            retry_after: (!pause.is_zero()).then_some(pause),
        };
        let source = Refused {
            reason: refusal.reason,
            message: refusal.message,
        };
        facts.failure(reason, Code::from_i32(refusal.code), source.into())
    }
}

struct Facts {
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl Facts {
    fn failure(&self, reason: Option<ErrorReason>, code: Code, source: Source) -> Failure {
        let mut failure = match reason {
            Some(reason) => by_reason(reason, self, source),
            None => by_code(code, self, source),
        };
        failure.may_have_happened |= self.may_have_happened(false);
        failure
    }

    fn text(&self, key: &str) -> String {
        self.metadata.get(key).cloned().unwrap_or_default()
    }

    fn token(&self, key: &str) -> Option<FencingToken> {
        self.metadata.get(key)?.parse().ok()
    }

    /// What the coordinator said of it, or `unsaid`.
    fn may_have_happened(&self, unsaid: bool) -> bool {
        match self.metadata.get("mayHaveHappened").map(String::as_str) {
            Some("true") => true,
            Some("false") => false,
            _ => unsaid,
        }
    }

    fn resource(&self) -> Result<ResourceName, Failure> {
        ResourceName::new(self.text("resource")).map_err(Failure::unexpected)
    }

    fn away(
        &self,
        cause: Unavailable,
        unsaid: Verdict,
        endpoint_at_fault: bool,
        source: Source,
    ) -> Failure {
        let verdict = match self.may_have_happened(unsaid == Verdict::Unknown) {
            true => Verdict::Unknown,
            false => Verdict::NotDone,
        };
        let source = Some(source);
        Failure::unavailable(cause, verdict, endpoint_at_fault, source, self.retry_after)
    }

    fn limit_reached(&self, unsaid: bool) -> ClientError {
        ClientError::LimitReached {
            limit: self.text("limit"),
            bound: self.text("bound"),
            may_have_happened: self.may_have_happened(unsaid),
            retry_after: self.retry_after,
        }
    }

    fn denied(&self, unsaid: bool, source: Source) -> ClientError {
        ClientError::Denied {
            may_have_happened: self.may_have_happened(unsaid),
            source,
        }
    }
}

fn by_reason(reason: ErrorReason, facts: &Facts, source: Source) -> Failure {
    use Verdict::{NotDone, Unknown};
    let (cause, unsaid, at_fault) = match reason {
        ErrorReason::StoreUnavailable => (Unavailable::Store, Unknown, true),
        ErrorReason::Draining => (Unavailable::Draining, NotDone, true),
        ErrorReason::HistoryRegressed => (Unavailable::HistoryRegressed, Unknown, true),
        ErrorReason::WrongCluster => (Unavailable::WrongCluster, Unknown, true),
        ErrorReason::Superseded => (Unavailable::Superseded, Unknown, false),
        ErrorReason::DeadlineExceeded => (Unavailable::NoAnswer, Unknown, true),
        ErrorReason::Internal => (Unavailable::Internal, Unknown, true),
        ErrorReason::EpochStale => return epoch_stale(facts, source),
        _ => return Failure::last(answer(reason, facts, source)),
    };
    facts.away(cause, unsaid, at_fault, source)
}

fn epoch_stale(facts: &Facts, source: Source) -> Failure {
    match facts.text("storedEpoch").parse() {
        Ok(stored) => Failure::unavailable(
            Unavailable::Superseded,
            Verdict::EpochStale { stored },
            false,
            Some(source),
            facts.retry_after,
        ),
        Err(error) => Failure::unexpected(error),
    }
}

/// The reasons after which the same call would be answered the same.
fn answer(reason: ErrorReason, facts: &Facts, source: Source) -> ClientError {
    match reason {
        ErrorReason::InvalidField => ClientError::Invalid {
            field: facts.text("field"),
            bound: facts.text("bound"),
            given: facts.text("given"),
        },
        ErrorReason::RequestMismatch => ClientError::Invalid {
            field: facts.text("field"),
            bound: "what the request id was first used with".into(),
            given: facts.text("requestId"),
        },
        ErrorReason::LeaseHeld => match facts.resource() {
            Ok(resource) => ClientError::Held {
                resource,
                token: facts.token("token"),
                retry_after: facts.retry_after,
            },
            Err(failure) => failure.error,
        },
        ErrorReason::AlreadyHeld => ClientError::AlreadyHeld {
            request_id: facts.text("requestId"),
            token: facts.token("token"),
        },
        ErrorReason::WaitExpired => match facts.resource() {
            Ok(resource) => ClientError::WaitExpired { resource },
            Err(failure) => failure.error,
        },
        ErrorReason::RequestCancelled => ClientError::Cancelled,
        ErrorReason::SessionEnded => ClientError::SessionLost {
            reason: LostReason::Ended,
        },
        ErrorReason::StaleToken => ClientError::StaleToken {
            presented: facts.token("token"),
            current: facts.token("currentToken"),
        },
        ErrorReason::FenceAhead => ClientError::FenceAhead {
            fence: facts.token("fence"),
        },
        ErrorReason::ForceRequired => ClientError::ForceRequired {
            past: facts.token("past"),
            clock_unix_micros: facts.text("bound").parse().ok(),
        },
        ErrorReason::LimitReached => facts.limit_reached(false),
        ErrorReason::Unauthenticated | ErrorReason::PermissionDenied => facts.denied(false, source),
        ErrorReason::NotServed => ClientError::NotServed,
        _ => ClientError::Unexpected { source },
    }
}

/// A proxy's or the transport's own error, or a reason of a later version.
fn by_code(code: Code, facts: &Facts, source: Source) -> Failure {
    match code {
        Code::Unavailable
        | Code::Unknown
        | Code::Cancelled
        | Code::Aborted
        | Code::DeadlineExceeded => {
            facts.away(Unavailable::NoAnswer, Verdict::Unknown, true, source)
        }
        Code::Internal | Code::DataLoss => {
            facts.away(Unavailable::Internal, Verdict::Unknown, true, source)
        }
        // Also how the transport tells of some connections that broke.
        Code::Unauthenticated | Code::PermissionDenied => Failure::last(facts.denied(true, source)),
        Code::ResourceExhausted => Failure::last(facts.limit_reached(true)),
        Code::Unimplemented => Failure::last(ClientError::NotServed),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange => Failure::unexpected(source),
    }
}
