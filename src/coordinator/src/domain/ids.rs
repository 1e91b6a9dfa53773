use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Why a text or number is not an id. The message names the bound and what was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not 1 to 64 characters of `[A-Za-z0-9._:-]`.
    #[error("is {given:?}; it has 1 to 64 characters of [A-Za-z0-9._:-]")]
    Text {
        /// The text, cut to 64 characters.
        given: String,
    },
    /// Not 16 lowercase hexadecimal digits, or zero, or above 2^63 − 1.
    #[error("is {given:?}; it is 16 of [0-9a-f], from 0000000000000001 to 7fffffffffffffff")]
    Session {
        /// The text, cut to 64 characters.
        given: String,
    },
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The longest client-made id: a UUID with room for a readable prefix.
const TEXT_ID_BYTES: usize = 64;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a text and makes an id of it.
            ///
            /// # Errors
            /// [`IdError::Text`] unless it has 1 to 64 characters of `[A-Za-z0-9._:-]`.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:-".contains(&byte);
                if text.is_empty() || text.len() > TEXT_ID_BYTES || !text.bytes().all(allowed) {
                    return Err(IdError::Text { given: cut(text) });
                }
                Ok(Self(text.into()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

text_id! {
    /// The client's name for one acquire: equal ids of one session mean the same hold (I4).
    RequestId
}
text_id! {
    /// The client's name for one opening of a session: a retry finds the session it opened.
    OpenId
}

/// Who speaks: the authenticated name that a session belongs to. Empty where nobody is asked for one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Principal(String);

impl Principal {
    /// The principal of a coordinator that asks nobody for credentials.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// A principal by its authenticated name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The longest name that is given to anybody, in bytes: it is kept with each session.
    pub const MAX_BYTES: usize = 256;

    /// The name; empty for the anonymous one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether the name can be somebody's: 1 to 256 bytes, nothing that could break a line, and not `*`, which
    /// stands for everybody.
    #[must_use]
    pub fn is_nameable(&self) -> bool {
        let fits = (1..=Self::MAX_BYTES).contains(&self.0.len());
        fits && self.0 != "*" && !self.0.contains(char::is_control)
    }
}

/// A session: 1 to 2^63 − 1, as lease ids of etcd are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(u64);

impl SessionId {
    /// The one session that a principal's open id names.
    #[must_use]
    pub fn derive(principal: &Principal, open_id: &OpenId) -> Self {
        let digest = Sha256::new()
            .chain_update(b"palisade session\0")
            .chain_update(principal.0.as_bytes())
            .chain_update(b"\0")
            .chain_update(open_id.as_str().as_bytes())
            .finalize();
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        let number = u64::from_be_bytes(bytes) & i64::MAX.unsigned_abs();
        Self(number.max(1))
    }

    /// The id as etcd has it: positive.
    #[must_use]
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0).expect("a session id is at most 2^63 - 1")
    }
}

impl TryFrom<i64> for SessionId {
    type Error = IdError;

    fn try_from(number: i64) -> Result<Self, IdError> {
        match u64::try_from(number) {
            Ok(number) if number > 0 => Ok(Self(number)),
            _ => Err(IdError::Session {
                given: number.to_string(),
            }),
        }
    }
}

impl FromStr for SessionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let error = || IdError::Session { given: cut(text) };
        let lower_hex = text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 16 || !lower_hex {
            return Err(error());
        }
        let number = i64::from_str_radix(text, 16).map_err(|_| error())?;
        Self::try_from(number).map_err(|_| error())
    }
}

impl TryFrom<String> for SessionId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SessionId({self})")
    }
}

/// A random number that tells two processes, openings or generations apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(#[serde(with = "hex::serde")] [u8; 16]);

impl Nonce {
    /// Makes a nonce of random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the nonce.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Nonce({})", hex::encode(self.0))
    }
}

/// What a store keeps of a session's secret. Compared in constant time.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretHash(#[serde(with = "hex::serde")] [u8; 32]);

impl SecretHash {
    /// Hashes a secret. It is random and long, so a plain hash serves.
    #[must_use]
    pub fn of(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretHash(…)")
    }
}

/// The number of a committed write in the store: greater means later, within one history.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::{IdError, OpenId, Principal, RequestId, SecretHash, SessionId};

    #[test]
    fn session_ids_are_positive_and_have_one_text() {
        let id = SessionId::derive(&Principal::anonymous(), &OpenId::new("a").unwrap());
        assert!(id.as_i64() > 0);
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        assert_eq!(SessionId::try_from(id.as_i64()), Ok(id));
        for text in [
            "",
            "0",
            "0000000000000000",
            "8000000000000000",
            "00000000000000AB",
            "zz",
        ] {
            assert!(
                matches!(text.parse::<SessionId>(), Err(IdError::Session { .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn one_open_id_of_two_principals_is_two_sessions() {
        let open_id = OpenId::new("a").unwrap();
        let other = Principal::named("other");
        assert_ne!(
            SessionId::derive(&Principal::anonymous(), &open_id),
            SessionId::derive(&other, &open_id)
        );
    }

    #[test]
    fn text_ids_are_bounded() {
        assert!(RequestId::new(&"a".repeat(64)).is_ok());
        for text in ["", "a b", "a/b", "a#b", "ä", &"a".repeat(65)] {
            assert!(RequestId::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn secrets_do_not_show_in_logs() {
        assert_eq!(format!("{:?}", SecretHash::of(b"secret")), "SecretHash(…)");
        assert_ne!(SecretHash::of(b"secret"), SecretHash::of(b"other"));
    }
}
