//! Why a call is not answered with what it asked for. What becomes of it on the wire: see `status.rs`.

use std::borrow::Cow;

use palisade_token::{FencingToken, ResourceName};

use crate::access::AccessError;
use crate::domain::{Refusal, RequestId, SessionId};
use crate::store::{Outcome, StoreError};

/// What a call is about, as far as it was understood: the answer names it.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) session: Option<SessionId>,
    pub(crate) resource: Option<ResourceName>,
    pub(crate) request: Option<RequestId>,
}

/// A field that breaks its bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadField {
    /// Its path in the request.
    pub(crate) field: Cow<'static, str>,
    /// What is allowed.
    pub(crate) bound: String,
    /// What was sent, shortened; of a secret or metadata only the length.
    pub(crate) given: String,
}

/// Why a call is not answered with what it asked for.
#[derive(Debug)]
pub(crate) enum CallError {
    /// A field breaks its bound.
    Field(BadField),
    /// The store refused or failed.
    Store(StoreError),
    /// The store did not answer within the call's time.
    StoreSlow(Outcome),
    /// The call's deadline had passed before anything was sent to the store.
    TooLate,
    /// The call's deadline passed while the request waited. Its place stands.
    WaitCutShort,
    /// The coordinator drains, and nothing was done.
    Draining,
    /// The coordinator drains while the request waits. Its place stands.
    DrainingPlaceStands,
    /// Another call of the session raised its epoch meanwhile.
    Superseded,
    /// The request was given back by another call while it waited.
    Cancelled,
    /// A guard's fence is too far ahead.
    FenceAhead {
        token: FencingToken,
        fence: FencingToken,
    },
    /// No credentials, bad ones, or no rule that allows it.
    Access(AccessError),
    /// A limit of this coordinator.
    Limit { limit: &'static str, bound: u64 },
    /// This version does not serve it.
    #[allow(
        dead_code,
        reason = "what comes next is refused so by those that do not serve it yet"
    )]
    NotServed(&'static str),
    /// A fault of the coordinator.
    Broken(&'static str),
}

impl CallError {
    /// The same failure after a write was sent: never told as if nothing could come of it.
    pub(crate) fn or_happened(self) -> Self {
        match self {
            Self::TooLate | Self::StoreSlow(_) => Self::StoreSlow(Outcome::Unknown),
            Self::Store(error) => Self::Store(error.or_happened()),
            other => other,
        }
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        Self::Store(StoreError::Refused(refusal))
    }
}

impl From<AccessError> for CallError {
    fn from(error: AccessError) -> Self {
        Self::Access(error)
    }
}

impl From<BadField> for CallError {
    fn from(field: BadField) -> Self {
        Self::Field(field)
    }
}
