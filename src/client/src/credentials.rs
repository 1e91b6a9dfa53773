use std::fmt;

use palisade_api::SessionRef;

use crate::error::ClientError;
use crate::random::Random;

/// Bytes of a new session's secret: beyond guessing.
const SECRET_BYTES: usize = 32;
/// What a coordinator accepts as a secret, in bytes.
const SECRET_BOUND: std::ops::RangeInclusive<usize> = 16..=64;

/// What proves that a call is its session's own. Never printed by `{:?}`.
///
/// ```
/// use palisade_client::{ClientError, Secret};
///
/// let secret = Secret::from_hex("000102030405060708090a0b0c0d0e0f")?;
/// assert_eq!(format!("{secret:?}"), "Secret(..)");
/// assert_eq!(Secret::from_hex(&secret.expose_hex())?, secret);
/// assert!(matches!(Secret::from_hex("0001"), Err(ClientError::Invalid { .. })));
/// # Ok::<(), ClientError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    pub(crate) fn random(random: &Random) -> Self {
        Self(random.bytes::<SECRET_BYTES>().to_vec())
    }

    /// A secret from its hexadecimal form.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] unless it is 32 to 128 hexadecimal digits, two for each byte.
    pub fn from_hex(text: &str) -> Result<Self, ClientError> {
        match hex::decode(text) {
            Ok(bytes) if SECRET_BOUND.contains(&bytes.len()) => Ok(Self(bytes)),
            _ => Err(ClientError::invalid(
                "secret",
                "32 to 128 hexadecimal digits, two for each byte",
                "",
            )),
        }
    }

    /// The secret in hexadecimal. Whoever has it can release all that the session holds: show it to nobody.
    #[must_use]
    pub fn expose_hex(&self) -> String {
        hex::encode(&self.0)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What another process needs to take a session over: see [`Session::detach`](crate::Session::detach) and
/// [`Client::detached`](crate::Client::detached). The first process is shut out by the other's first release,
/// not by its renewals.
///
/// ```
/// use palisade_client::{Credentials, Secret};
///
/// let secret = Secret::from_hex("000102030405060708090a0b0c0d0e0f")?;
/// let credentials = Credentials::new("0123456789abcdef", secret, 1);
/// assert!(!format!("{credentials:?}").contains("0a0b0c"));
/// # Ok::<(), palisade_client::ClientError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// The session's id.
    pub session_id: String,
    /// Its secret.
    pub secret: Secret,
    /// The largest epoch that it used, or 0 if that is not known: then a call goes on from the stored one,
    /// and what the first process may still have under way is not shut out.
    pub epoch: u64,
}

impl Credentials {
    /// Credentials as they were given away.
    #[must_use]
    pub fn new(session_id: impl Into<String>, secret: Secret, epoch: u64) -> Self {
        Self {
            session_id: session_id.into(),
            secret,
            epoch,
        }
    }

    pub(crate) fn at(&self, epoch: u64) -> SessionRef {
        SessionRef {
            session_id: self.session_id.clone(),
            secret: self.secret.bytes(),
            epoch,
        }
    }
}
