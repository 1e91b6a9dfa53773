use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

/// The name of one effect: what was asked for, by whom, and which time of asking.
///
/// A key counts within its scope, a tenant (or principal) and an operation: two tenants that choose the
/// same key do not meet, nor do two operations. The key itself comes from whoever asks, and is the same for
/// every retry; 64 bits of chance in it are enough. It never contains a fencing token: a retry after a
/// takeover has another token and must find the same key.
///
/// A key that is a UUID of version 7 tells when it was made. Such a key is refused when it is older than the
/// lifetime of its answer, instead of being taken for a new one
/// ([`GuardError::KeyExpired`](crate::GuardError::KeyExpired)). A clone is cheap.
///
/// ```
/// use palisade_guard::effects::IdempotencyKey;
///
/// let key = IdempotencyKey::new("tenant-7", "charge", "01977d1e-9d2c-7e5e-8a6c-0c9b1f6f3a10")?;
/// assert_eq!(key.operation(), "charge");
/// assert!(key.made_at().is_some());
/// let refused = IdempotencyKey::new("tenant-7", "charge", "").unwrap_err();
/// assert_eq!(refused.to_string(), "key has 0 bytes; it has 1 to 255 bytes");
/// # Ok::<(), palisade_guard::effects::KeyError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Arc<Parts>);

#[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Parts {
    tenant: Box<str>,
    operation: Box<str>,
    key: Box<str>,
}

/// Why something is not an [`IdempotencyKey`]: which field, its bound, and what was given.
///
/// ```
/// use palisade_guard::effects::{IdempotencyKey, KeyError};
///
/// match IdempotencyKey::new("tenant-7", "charge", "order 7") {
///     Ok(key) => println!("{key}"),
///     Err(KeyError::Length { field, bound, .. }) => println!("{field} has 1 to {bound} bytes"),
///     Err(KeyError::Character { field, given, at }) => {
///         assert_eq!((field, given, at), ("key", ' ', 5)); // refuse the request, naming these
///     }
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The field is empty or too long.
    #[error("{field} has {given} bytes; it has 1 to {bound} bytes")]
    Length {
        /// `tenant`, `operation` or `key`.
        field: &'static str,
        /// The longest that is allowed, in bytes.
        bound: usize,
        /// The length given, in bytes.
        given: usize,
    },
    /// The field has a character other than visible ASCII (`!` to `~`).
    #[error("{field} has {given:?} at byte {at}; it has visible ASCII only, '!' to '~'")]
    Character {
        /// `tenant`, `operation` or `key`.
        field: &'static str,
        /// The first such character.
        given: char,
        /// Where it stands, in bytes from 0.
        at: usize,
    },
}

impl IdempotencyKey {
    /// The longest tenant, in bytes: a principal or an account id.
    pub const MAX_TENANT_BYTES: usize = 128;

    /// The longest name of an operation, in bytes.
    pub const MAX_OPERATION_BYTES: usize = 64;

    /// The longest key within a scope, in bytes: as payment providers and the IETF draft have it, and the
    /// three together fit one entry of an index.
    pub const MAX_KEY_BYTES: usize = 255;

    /// Makes a key of its scope and the caller's text.
    ///
    /// # Errors
    /// [`KeyError`] unless each has 1 byte or more, is not too long, and is visible ASCII.
    pub fn new(tenant: &str, operation: &str, key: &str) -> Result<Self, KeyError> {
        check("tenant", tenant, Self::MAX_TENANT_BYTES)?;
        check("operation", operation, Self::MAX_OPERATION_BYTES)?;
        check("key", key, Self::MAX_KEY_BYTES)?;
        Ok(Self(Arc::new(Parts {
            tenant: tenant.into(),
            operation: operation.into(),
            key: key.into(),
        })))
    }

    /// For whom the effect is.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.0.tenant
    }

    /// What kind of effect it is.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The key within the scope.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The key under which the outside world is asked for the same effect (a payment provider, a mailer): 64
    /// hex digits that follow from tenant, operation and key, and so are the same at every attempt of every
    /// holder.
    ///
    /// ```
    /// use palisade_guard::effects::IdempotencyKey;
    ///
    /// let key = IdempotencyKey::new("tenant-7", "charge", "5f0c8d1e42aa7b90")?;
    /// let again = IdempotencyKey::new("tenant-7", "charge", "5f0c8d1e42aa7b90")?;
    /// let other = IdempotencyKey::new("tenant-8", "charge", "5f0c8d1e42aa7b90")?;
    /// assert_eq!(key.external(), again.external());
    /// assert_ne!(key.external(), other.external());
    /// # Ok::<(), palisade_guard::effects::KeyError>(())
    /// ```
    #[must_use]
    pub fn external(&self) -> String {
        let hash = Sha256::digest(self.to_string());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// When the key was made, if it is a UUID of version 7 in its usual form; by its maker's clock.
    #[must_use]
    pub fn made_at(&self) -> Option<SystemTime> {
        let text = self.0.key.as_bytes();
        let is_uuid = text.len() == 36
            && text.iter().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => *byte == b'-',
                14 => *byte == b'7',
                19 => matches!(byte, b'8' | b'9' | b'a' | b'b' | b'A' | b'B'),
                _ => byte.is_ascii_hexdigit(),
            });
        if !is_uuid {
            return None;
        }
        let digits = format!("{}{}", &self.0.key[..8], &self.0.key[9..13]);
        let millis = u64::from_str_radix(&digits, 16).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(millis))
    }
}

fn check(field: &'static str, text: &str, bound: usize) -> Result<(), KeyError> {
    let given = text.len();
    if given == 0 || given > bound {
        return Err(KeyError::Length {
            field,
            bound,
            given,
        });
    }
    match text.char_indices().find(|(_, c)| !c.is_ascii_graphic()) {
        Some((at, given)) => Err(KeyError::Character { field, given, at }),
        None => Ok(()),
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts {
            tenant,
            operation,
            key,
        } = &*self.0;
        write!(formatter, "{tenant} {operation} {key}")
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "IdempotencyKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_error_names_the_field_its_bound_and_what_was_given() {
        let long = "x".repeat(256);
        let cases = [
            (("", "o", "k"), "tenant has 0 bytes; it has 1 to 128 bytes"),
            (
                ("t", &long[..65], "k"),
                "operation has 65 bytes; it has 1 to 64 bytes",
            ),
            (
                ("t", "o", &long[..]),
                "key has 256 bytes; it has 1 to 255 bytes",
            ),
            (
                ("t", "o", "a b"),
                "key has ' ' at byte 1; it has visible ASCII only, '!' to '~'",
            ),
            (
                ("té", "o", "k"),
                "tenant has 'é' at byte 1; it has visible ASCII only, '!' to '~'",
            ),
        ];
        for ((tenant, operation, key), message) in cases {
            let error = IdempotencyKey::new(tenant, operation, key).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn only_a_uuid_of_version_7_tells_its_time() {
        let made_at = |key: &str| IdempotencyKey::new("t", "o", key).unwrap().made_at();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(0x0197_7d1e_9d2c);
        assert_eq!(made_at("01977d1e-9d2c-7e5e-8a6c-0c9b1f6f3a10"), Some(at));
        assert_eq!(made_at("01977D1E-9D2C-7E5E-BA6C-0C9B1F6F3A10"), Some(at));
        assert_eq!(made_at("01977d1e-9d2c-4e5e-8a6c-0c9b1f6f3a10"), None);
        assert_eq!(made_at("01977d1e-9d2c-7e5e-ca6c-0c9b1f6f3a10"), None);
        assert_eq!(made_at("01977d1e99d2c-7e5e-8a6c-0c9b1f6f3a10"), None);
        assert_eq!(made_at("01977d1e-9d2c-7e5e-8a6c-0c9b1f6f3a1"), None);
        assert_eq!(made_at("+1977d1e-9d2c-7e5e-8a6c-0c9b1f6f3a10"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_or_an_error(tenant in ".*", operation in ".{0,70}", key in "\\PC{0,300}") {
            if let Ok(made) = IdempotencyKey::new(&tenant, &operation, &key) {
                prop_assert_eq!((made.tenant(), made.operation()), (&*tenant, &*operation));
                prop_assert_eq!(made.key(), &*key);
                prop_assert!(key.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(made.made_at().is_none() || key.len() == 36);
            }
        }
    }
}
