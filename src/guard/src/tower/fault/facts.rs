//! The facts of a refusal, as JSON: the same names as in the detail of the guard's SQL errors.

use std::time::Duration;

use http::HeaderValue;
use palisade_token::{FencingToken, Grant, ResourceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{HOLDER, IDEMPOTENCY_KEY, RESOURCE, TOKEN};
use super::{Fault, HeaderError, Reason};
use crate::GuardError;
use crate::effects::{IdempotencyKey, Name};

/// The most that is told of a name that the store has made, in characters.
const MOST_OF_NAME: usize = 256;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presented: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// A grant's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    millis: Option<u64>,
    /// Of a producer, a cursor or an entity.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<i64>,
    /// The header that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    given: Option<String>,
}

impl Facts {
    pub(super) fn of(fault: &Fault) -> Self {
        match fault {
            Fault::Guard(error) => Self::of_guard(error),
            Fault::Header(error) => Self {
                field: Some(error.field.to_owned()),
                bound: Some(error.bound.clone()),
                given: error.given.clone(),
                ..Self::default()
            },
        }
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each error")]
    fn of_guard(error: &GuardError) -> Self {
        match error {
            GuardError::Stale {
                resource,
                presented,
                fence,
            } => Self::fenced(resource, *presented, Some(*fence)),
            GuardError::Unsealed {
                resource,
                presented,
                fence,
            }
            | GuardError::StoreWentBackwards {
                resource,
                sealed: presented,
                fence,
            } => Self::fenced(resource, *presented, *fence),
            GuardError::Collision { resource, token } => {
                Self::fenced(resource, *token, Some(*token))
            }
            GuardError::Unguarded { resource, table } => Self {
                resource: Some(shortened(resource)),
                table: table.as_deref().map(shortened),
                ..Self::default()
            },
            GuardError::SealTimeout {
                resource, waited, ..
            } => Self {
                resource: Some(resource.to_string()),
                millis: Some(millis(*waited)),
                ..Self::default()
            },
            GuardError::InProgress {
                key,
                retry_after,
                owner,
            } => Self {
                millis: Some(millis(*retry_after)),
                owner: owner.as_deref().map(Grant::to_string),
                ..Self::keyed(key)
            },
            GuardError::FingerprintMismatch { key }
            | GuardError::KeyExpired { key }
            | GuardError::Superseded { key } => Self::keyed(key),
            GuardError::SequenceGap {
                producer: name,
                expected,
                got: found,
            }
            | GuardError::OffsetConflict {
                cursor: name,
                expected,
                found,
            }
            | GuardError::VersionConflict {
                entity: name,
                expected,
                found,
            } => Self {
                name: Some(name.to_string()),
                expected: Some(*expected),
                found: Some(*found),
                ..Self::default()
            },
            GuardError::CommitUnknown { transaction, .. } => Self {
                transaction: *transaction,
                ..Self::default()
            },
            GuardError::AnswerTooLarge { given, bound } => Self {
                expected: u64::try_from(*bound).ok(),
                found: u64::try_from(*given).ok(),
                ..Self::default()
            },
            GuardError::LimitReached { what, limit } => Self {
                name: Some((*what).to_owned()),
                expected: Some(*limit),
                ..Self::default()
            },
            GuardError::Newer { found, known } => Self {
                expected: u64::try_from(*known).ok(),
                found: u64::try_from(*found).ok(),
                ..Self::default()
            },
            GuardError::Serialization(_)
            | GuardError::RolledBack(_)
            | GuardError::Answer(_)
            | GuardError::Misuse(_)
            | GuardError::Backend(_) => Self::default(),
        }
    }

    fn fenced(
        resource: &ResourceName,
        presented: FencingToken,
        fence: Option<FencingToken>,
    ) -> Self {
        Self {
            resource: Some(resource.to_string()),
            presented: Some(presented.get()),
            fence: fence.map(FencingToken::get),
            ..Self::default()
        }
    }

    fn keyed(key: &IdempotencyKey) -> Self {
        Self {
            tenant: Some(key.tenant().to_owned()),
            operation: Some(key.operation().to_owned()),
            key: Some(key.key().to_owned()),
            ..Self::default()
        }
    }

    /// As JSON in ASCII.
    pub(super) fn header(&self) -> HeaderValue {
        let json = serde_json::to_string(self).expect("texts and numbers are JSON");
        let mut ascii = String::with_capacity(json.len());
        for letter in json.chars() {
            if letter.is_ascii() && !letter.is_ascii_control() {
                ascii.push(letter);
            } else {
                // Stands in a string: outside of those JSON is ASCII.
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    ascii.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
        HeaderValue::from_str(&ascii).expect("visible ASCII and blanks make a header")
    }

    /// For the metadata of an `ErrorInfo`.
    pub(super) fn strings(&self) -> Vec<(String, String)> {
        let Ok(Value::Object(facts)) = serde_json::to_value(self) else {
            return Vec::new();
        };
        let facts = facts.into_iter().map(|(name, value)| match value {
            Value::String(text) => (name, text),
            other => (name, other.to_string()),
        });
        facts.collect()
    }

    /// What these facts and the reason say; `None` if they do not fit.
    pub(super) fn fault(self, reason: Reason) -> Option<Fault> {
        if let Some(field) = &self.field {
            let fields = [RESOURCE, TOKEN, HOLDER, IDEMPOTENCY_KEY];
            let error = HeaderError {
                field: fields.into_iter().find(|known| known == field)?,
                bound: self.bound?,
                given: self.given,
            };
            let fault = Fault::Header(error);
            return (fault.reason() == reason).then_some(fault);
        }
        self.guard(reason).map(Fault::Guard)
    }

    #[allow(clippy::too_many_lines, reason = "one arm for each error")]
    fn guard(self, reason: Reason) -> Option<GuardError> {
        let there = || Box::from("told by the service");
        Some(match reason {
            Reason::Stale => GuardError::Stale {
                resource: self.resource()?,
                presented: token(self.presented)?,
                fence: token(self.fence)?,
            },
            Reason::Unsealed => GuardError::Unsealed {
                resource: self.resource()?,
                presented: token(self.presented)?,
                fence: self.fence()?,
            },
            Reason::Backwards => GuardError::StoreWentBackwards {
                resource: self.resource()?,
                sealed: token(self.presented)?,
                fence: self.fence()?,
            },
            Reason::Collision => GuardError::Collision {
                resource: self.resource()?,
                token: token(self.presented)?,
            },
            Reason::Missing => GuardError::Unguarded {
                resource: shortened(&self.resource?),
                table: self.table.as_deref().map(shortened),
            },
            Reason::SealTimeout => GuardError::SealTimeout {
                resource: self.resource()?,
                waited: Duration::from_millis(self.millis?),
                blockers: Vec::new(),
            },
            Reason::InProgress => GuardError::InProgress {
                key: self.key()?,
                retry_after: Duration::from_millis(self.millis?),
                owner: match &self.owner {
                    Some(owner) => Some(Box::new(owner.parse().ok()?)),
                    None => None,
                },
            },
            Reason::Mismatch => GuardError::FingerprintMismatch { key: self.key()? },
            Reason::KeyExpired => GuardError::KeyExpired { key: self.key()? },
            Reason::Superseded => GuardError::Superseded { key: self.key()? },
            Reason::SequenceGap => GuardError::SequenceGap {
                producer: self.name()?,
                expected: self.expected?,
                got: self.found?,
            },
            Reason::OffsetConflict => GuardError::OffsetConflict {
                cursor: self.name()?,
                expected: self.expected?,
                found: self.found?,
            },
            Reason::VersionConflict => GuardError::VersionConflict {
                entity: self.name()?,
                expected: self.expected?,
                found: self.found?,
            },
            Reason::AnswerTooLarge => GuardError::AnswerTooLarge {
                given: self.found?.try_into().ok()?,
                bound: self.expected?.try_into().ok()?,
            },
            Reason::LimitReached => GuardError::LimitReached {
                // Its kinds of things grow with the service: only it knows them all.
                what: "of the service's",
                limit: self.expected?,
            },
            Reason::Newer => GuardError::Newer {
                found: self.found?.try_into().ok()?,
                known: self.expected?.try_into().ok()?,
            },
            Reason::CommitUnknown => GuardError::CommitUnknown {
                transaction: self.transaction,
                source: there(),
            },
            Reason::Serialization => GuardError::Serialization(there()),
            Reason::RolledBack => GuardError::RolledBack(None),
            Reason::Answer => GuardError::Answer(there()),
            Reason::Misuse => GuardError::Misuse("the service has misused the guard"),
            Reason::Backend => GuardError::Backend(there()),
            // They have a field.
            Reason::KeyMissing | Reason::HeaderInvalid => return None,
        })
    }

    fn resource(&self) -> Option<ResourceName> {
        ResourceName::new(self.resource.as_deref()?).ok()
    }

    /// `None` if there is one that cannot be.
    #[allow(
        clippy::option_option,
        reason = "there may be no fence, or one that cannot be read"
    )]
    fn fence(&self) -> Option<Option<FencingToken>> {
        match self.fence {
            None => Some(None),
            some => token(some).map(Some),
        }
    }

    fn key(&self) -> Option<IdempotencyKey> {
        let (tenant, operation) = (self.tenant.as_deref()?, self.operation.as_deref()?);
        IdempotencyKey::new(tenant, operation, self.key.as_deref()?).ok()
    }

    fn name(&self) -> Option<Name> {
        Name::new(self.name.as_deref()?).ok()
    }
}

fn token(number: Option<u64>) -> Option<FencingToken> {
    FencingToken::new(number?).ok()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn shortened(name: &str) -> String {
    name.chars().take(MOST_OF_NAME).collect()
}
