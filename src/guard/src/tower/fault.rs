mod facts;

use std::time::Duration;

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde_json::json;

use super::{DETAIL, HeaderError, IDEMPOTENCY_KEY, Protocol, REASON, grpc};
use crate::GuardError;
use facts::Facts;

/// When to ask again after what stands in the way for about as long as a transaction runs.
const RETRY: Duration = Duration::from_secs(1);

/// What a service answers in place of what was asked for, and what its client makes of the answer.
///
/// ```
/// use palisade_guard::GuardError;
/// use palisade_guard::tower::{Fault, Protocol, Reason};
///
/// // The service:
/// let refused = GuardError::Stale {
///     resource: "orders".parse()?,
///     presented: "41".parse()?,
///     fence: "42".parse()?,
/// };
/// let response = Fault::from(refused).response(Protocol::Http);
/// // Its client:
/// let fault = Fault::of_headers(response.headers()).ok_or("not a refusal")?;
/// assert_eq!((response.status(), fault.reason()), (Reason::Stale.http(), Reason::Stale));
/// match fault {
///     Fault::Guard(error) => assert!(matches!(error, GuardError::Stale { .. })), // step down
///     Fault::Header(error) => println!("a bug in the client: {error}"),
///     other => println!("{other}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The guard has refused, or failed.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The request's headers cannot be right, or lack what the service asks for.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// Every reason with its HTTP status and its gRPC code.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $http:ident, $grpc:literal;)+) => {
        /// What went wrong, for programs: what a client decides by, since many reasons share a status.
        ///
        /// ```
        /// use palisade_guard::tower::{REASON, Reason};
        ///
        /// // A client without this library's types reads the header:
        /// let given = "FENCE_STALE";
        /// let reason = Reason::ALL.iter().find(|reason| reason.as_str() == given);
        /// assert_eq!(reason, Some(&Reason::Stale));
        /// assert_eq!((Reason::Stale.http().as_u16(), Reason::Stale.grpc()), (412, 9));
        /// # assert_eq!(REASON, "x-palisade-reason");
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $name,)+ }

        impl Reason {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// As it stands in the header.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The HTTP status.
            #[must_use]
            pub const fn http(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$http),+ }
            }

            /// The gRPC code.
            #[must_use]
            pub const fn grpc(self) -> u8 {
                match self { $(Self::$name => $grpc),+ }
            }
        }
    };
}

reasons! {
    /// [`GuardError::Stale`]
    Stale = "FENCE_STALE", PRECONDITION_FAILED, 9;
    /// [`GuardError::Unsealed`]
    Unsealed = "FENCE_UNSEALED", PRECONDITION_FAILED, 9;
    /// [`GuardError::StoreWentBackwards`]
    Backwards = "FENCE_WENT_BACKWARDS", PRECONDITION_FAILED, 9;
    /// [`GuardError::Unguarded`], or a request without a grant
    Missing = "FENCE_MISSING", PRECONDITION_REQUIRED, 9;
    /// [`GuardError::Collision`]
    Collision = "FENCE_COLLISION", CONFLICT, 6;
    /// [`GuardError::SealTimeout`]
    SealTimeout = "SEAL_TIMEOUT", SERVICE_UNAVAILABLE, 4;
    /// [`GuardError::Serialization`]
    Serialization = "SERIALIZATION", CONFLICT, 10;
    /// [`GuardError::RolledBack`]
    RolledBack = "ROLLED_BACK", CONFLICT, 10;
    /// [`GuardError::CommitUnknown`]: it may have happened
    CommitUnknown = "COMMIT_UNKNOWN", SERVICE_UNAVAILABLE, 2;
    /// [`GuardError::InProgress`]
    InProgress = "KEY_IN_PROGRESS", CONFLICT, 10;
    /// [`GuardError::FingerprintMismatch`]
    Mismatch = "KEY_MISMATCH", UNPROCESSABLE_ENTITY, 3;
    /// [`GuardError::KeyExpired`]
    KeyExpired = "KEY_EXPIRED", CONFLICT, 9;
    /// [`GuardError::Superseded`]
    Superseded = "KEY_SUPERSEDED", CONFLICT, 10;
    /// A request without an idempotency key
    KeyMissing = "KEY_MISSING", BAD_REQUEST, 3;
    /// A header that cannot be right
    HeaderInvalid = "HEADER_INVALID", BAD_REQUEST, 3;
    /// [`GuardError::AnswerTooLarge`]
    AnswerTooLarge = "ANSWER_TOO_LARGE", INTERNAL_SERVER_ERROR, 13;
    /// [`GuardError::Answer`]
    Answer = "ANSWER_UNREADABLE", INTERNAL_SERVER_ERROR, 13;
    /// [`GuardError::SequenceGap`]
    SequenceGap = "SEQUENCE_GAP", CONFLICT, 11;
    /// [`GuardError::OffsetConflict`]
    OffsetConflict = "OFFSET_CONFLICT", CONFLICT, 10;
    /// [`GuardError::VersionConflict`]
    VersionConflict = "VERSION_CONFLICT", CONFLICT, 10;
    /// [`GuardError::LimitReached`]
    LimitReached = "LIMIT_REACHED", SERVICE_UNAVAILABLE, 8;
    /// [`GuardError::Misuse`]
    Misuse = "MISUSE", INTERNAL_SERVER_ERROR, 13;
    /// [`GuardError::Newer`]
    Newer = "SCHEMA_NEWER", INTERNAL_SERVER_ERROR, 13;
    /// [`GuardError::Backend`]
    Backend = "STORE_FAILED", SERVICE_UNAVAILABLE, 14;
}

impl Fault {
    /// What went wrong, for programs.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Guard(error) => Reason::of(error),
            Self::Header(error) => match (&error.given, error.field) {
                (Some(_), _) => Reason::HeaderInvalid,
                (None, IDEMPOTENCY_KEY) => Reason::KeyMissing,
                (None, _) => Reason::Missing,
            },
        }
    }

    /// When it is worth asking again, where time alone may help.
    ///
    /// ```
    /// use palisade_guard::GuardError;
    /// use palisade_guard::tower::Fault;
    ///
    /// let failed = Fault::from(GuardError::Backend("the store is away".into()));
    /// assert!(failed.retry_after().is_some());
    /// let misuse = Fault::from(GuardError::Misuse("a bug in the caller"));
    /// assert_eq!(misuse.retry_after(), None); // time alone does not help
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Guard(GuardError::InProgress { retry_after, .. }) => Some(*retry_after),
            Self::Guard(
                GuardError::SealTimeout { .. }
                | GuardError::LimitReached { .. }
                | GuardError::Backend(_),
            ) => Some(RETRY),
            _ => None,
        }
    }

    /// The whole answer: with a problem (RFC 9457) as its body, or, for a gRPC call, with headers only.
    #[must_use]
    pub fn response(&self, protocol: Protocol) -> Response<Vec<u8>> {
        let reason = self.reason();
        let body = match protocol {
            Protocol::Http => json!({
                "type": "about:blank",
                "title": reason.http().canonical_reason(),
                "status": reason.http().as_u16(),
                "detail": self.message(),
                "reason": reason.as_str(),
                "facts": Facts::of(self),
            })
            .to_string()
            .into_bytes(),
            Protocol::Grpc => Vec::new(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = match protocol {
            Protocol::Http => reason.http(),
            Protocol::Grpc => StatusCode::OK,
        };
        *response.headers_mut() = self.headers(protocol);
        response
    }

    /// The headers of the answer; for a gRPC call also its trailers, if it has begun to answer.
    ///
    /// ```
    /// use http::HeaderMap;
    /// use palisade_guard::GuardError;
    /// use palisade_guard::tower::{Fault, Protocol};
    ///
    /// fn trailers(refused: GuardError) -> HeaderMap {
    ///     Fault::from(refused).headers(Protocol::Grpc)
    /// }
    /// let trailers = trailers(GuardError::Backend("the store is away".into()));
    /// assert_eq!(trailers["grpc-status"], "14");
    /// assert!(!trailers["grpc-message"].to_str().unwrap().contains("away")); // never sent
    /// ```
    #[must_use]
    pub fn headers(&self, protocol: Protocol) -> HeaderMap {
        let reason = self.reason();
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: HeaderValue| {
            headers.insert(HeaderName::from_static(name), value);
        };
        put(REASON, HeaderValue::from_static(reason.as_str()));
        let facts = Facts::of(self);
        put(DETAIL, facts.header());
        match protocol {
            Protocol::Http => {
                let problem = HeaderValue::from_static("application/problem+json");
                put(CONTENT_TYPE.as_str(), problem);
                if let Some(after) = self.retry_after() {
                    // Whole seconds, and zero would be at once.
                    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
                    put(RETRY_AFTER.as_str(), HeaderValue::from(seconds.max(1)));
                }
            }
            Protocol::Grpc => {
                let message = self.message();
                let details = grpc::Details {
                    code: reason.grpc(),
                    message: &message,
                    reason: reason.as_str(),
                    metadata: &facts.strings(),
                    retry: self.retry_after(),
                };
                put(
                    CONTENT_TYPE.as_str(),
                    HeaderValue::from_static("application/grpc"),
                );
                put("grpc-status", HeaderValue::from(u16::from(reason.grpc())));
                put("grpc-message", grpc::message(&message));
                put("grpc-status-details-bin", details.header());
            }
        }
        headers
    }

    /// Reads what [`Fault::headers`] wrote: from the headers of a response, or the trailers or metadata of a
    /// gRPC call. `None` if it is no refusal of this library, or one of a version that is not known here.
    ///
    /// What only the service may know is not there: sources, and who kept a seal waiting. Facts that cannot
    /// be read make it a [`GuardError::Backend`], or a [`GuardError::CommitUnknown`] where it may have happened.
    #[must_use]
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let given = headers.get(REASON)?.as_bytes();
        let reason = Reason::ALL
            .iter()
            .find(|reason| reason.as_str().as_bytes() == given)?;
        let facts = headers
            .get(DETAIL)
            .and_then(|value| serde_json::from_slice::<Facts>(value.as_bytes()).ok());
        Some(
            facts
                .and_then(|facts| facts.fault(*reason))
                .unwrap_or_else(|| Self::Guard(unreadable(*reason))),
        )
    }

    /// For people. Who kept a seal waiting is the service's affair.
    fn message(&self) -> String {
        match self {
            Self::Guard(GuardError::SealTimeout {
                resource, waited, ..
            }) => format!("seal of {resource} waited {waited:?} in vain"),
            // A row's resource is made of what the row holds, however long that is.
            Self::Guard(GuardError::Unguarded { resource, .. }) => GuardError::Unguarded {
                resource: facts::shortened(resource),
                table: None,
            }
            .to_string(),
            other => other.to_string(),
        }
    }
}

/// What a reason says without its facts.
fn unreadable(reason: Reason) -> GuardError {
    let source = Box::from("the service's refusal has facts that cannot be read");
    match reason {
        Reason::CommitUnknown | Reason::KeyExpired => GuardError::CommitUnknown {
            transaction: None,
            source,
        },
        _ => GuardError::Backend(source),
    }
}

impl Reason {
    fn of(error: &GuardError) -> Self {
        match error {
            GuardError::Stale { .. } => Self::Stale,
            GuardError::Unsealed { .. } => Self::Unsealed,
            GuardError::StoreWentBackwards { .. } => Self::Backwards,
            GuardError::Unguarded { .. } => Self::Missing,
            GuardError::Collision { .. } => Self::Collision,
            GuardError::SealTimeout { .. } => Self::SealTimeout,
            GuardError::Serialization(_) => Self::Serialization,
            GuardError::RolledBack(_) => Self::RolledBack,
            GuardError::CommitUnknown { .. } => Self::CommitUnknown,
            GuardError::InProgress { .. } => Self::InProgress,
            GuardError::FingerprintMismatch { .. } => Self::Mismatch,
            GuardError::KeyExpired { .. } => Self::KeyExpired,
            GuardError::Superseded { .. } => Self::Superseded,
            GuardError::AnswerTooLarge { .. } => Self::AnswerTooLarge,
            GuardError::Answer(_) => Self::Answer,
            GuardError::SequenceGap { .. } => Self::SequenceGap,
            GuardError::OffsetConflict { .. } => Self::OffsetConflict,
            GuardError::VersionConflict { .. } => Self::VersionConflict,
            GuardError::Misuse(_) => Self::Misuse,
            GuardError::Newer { .. } => Self::Newer,
            GuardError::LimitReached { .. } => Self::LimitReached,
            GuardError::Backend(_) => Self::Backend,
        }
    }
}
