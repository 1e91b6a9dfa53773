use ::redis::{FromRedisValue, Value};
use palisade_token::{FencingToken, Grant};

use crate::GuardError;

/// A reply of the functions: its first word says what it is.
pub(super) struct Reply {
    kind: String,
    rest: Vec<Value>,
}

impl Reply {
    /// `None` if it is none.
    pub(super) fn from(value: Value) -> Option<Self> {
        let Value::Array(mut rest) = value else {
            return None;
        };
        if rest.is_empty() {
            return None;
        }
        let kind = text(rest.remove(0))?;
        Some(Self { kind, rest })
    }

    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    pub(super) fn into_rest(self) -> Vec<Value> {
        self.rest
    }

    pub(super) fn texts(self) -> Option<Vec<String>> {
        self.rest.into_iter().map(text).collect()
    }

    /// What a refusal says of the grant; anything else is no answer to it.
    pub(super) fn refusal(self, grant: &Grant) -> GuardError {
        let (resource, presented) = (grant.resource.clone(), grant.token);
        let kind = self.kind.clone();
        let words = self.texts().unwrap_or_default();
        let fence = words.first().and_then(|word| {
            let number: i64 = word.parse().ok()?;
            FencingToken::try_from(number).ok()
        });
        match (kind.as_str(), fence) {
            ("stale", Some(fence)) => GuardError::Stale {
                resource,
                presented,
                fence,
            },
            ("unsealed", fence) => GuardError::Unsealed {
                resource,
                presented,
                fence,
            },
            ("collision", _) => GuardError::Collision {
                resource,
                token: presented,
            },
            ("invalid", _) => GuardError::Misuse(match words.first().map(String::as_str) {
                Some("command") => {
                    "a guarded write has write commands of one key, which is their first argument"
                }
                Some("key") => {
                    "a key of a guarded write has the hash tag of its resource: {orders}"
                }
                Some("arguments") => "a command of a guarded write has 2 to MAX_WORDS words",
                _ => "the function refused the grant as malformed",
            }),
            ("corrupt", _) => {
                GuardError::Backend(Box::from("the key of the fence holds what is no fence"))
            }
            _ => GuardError::Backend(Box::from("the function answered what it cannot answer")),
        }
    }
}

pub(super) fn text(value: Value) -> Option<String> {
    String::from_redis_value(value).ok()
}
