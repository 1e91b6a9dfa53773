use std::fmt;

use sha2::{Digest as _, Sha256};

/// What was asked for under a key, so that the key is not used for something else by mistake.
///
/// It covers the fields that the caller names: those that decide what happens, and none that change from
/// try to try (trace ids, times, tokens). Their order does not matter. It is compared before an answer is
/// replayed ([`GuardError::FingerprintMismatch`](crate::GuardError::FingerprintMismatch)).
///
/// ```
/// use palisade_guard::effects::Fingerprint;
///
/// let asked = Fingerprint::of(&[("account", b"7"), ("amount", b"100")]);
/// assert_eq!(asked, Fingerprint::of(&[("amount", b"100"), ("account", b"7")]));
/// assert_ne!(asked, Fingerprint::of(&[("account", b"71"), ("amount", b"00")]));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; Self::BYTES]);

impl Fingerprint {
    /// How long it is: one byte for how it was made, and a SHA-256.
    pub const BYTES: usize = 33;

    /// How fingerprints are made by this version. Another way would get another number, and the two would
    /// never be equal: a mismatch, not a wrong replay.
    pub const ALGORITHM: u8 = 1;

    /// The fingerprint of named fields: SHA-256 over each name and value with its length before it, in the
    /// order of names, then of values.
    #[must_use]
    pub fn of(fields: &[(&str, &[u8])]) -> Self {
        let mut fields = fields.to_vec();
        fields.sort_unstable();
        let mut hash = Sha256::new();
        for (name, value) in fields {
            for part in [name.as_bytes(), value] {
                // Without the lengths ("ab", "c") would be ("a", "bc").
                hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
                hash.update(part);
            }
        }
        let mut bytes = [Self::ALGORITHM; Self::BYTES];
        bytes[1..].copy_from_slice(&hash.finalize());
        Self(bytes)
    }

    /// As stores keep it: the byte of the algorithm, then the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Fingerprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Other languages make the same bytes; so does every later version of this one.
    #[test]
    fn it_is_what_it_was() {
        assert_eq!(
            Fingerprint::of(&[]).to_string(),
            "01e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        // printf '\0\0\0\0\0\0\0\6amount\0\0\0\0\0\0\0\003100' | sha256sum
        assert_eq!(
            Fingerprint::of(&[("amount", b"100")]).to_string(),
            "018672d67895bbbd2d8bffc124f7bbf091a86dd7873898a6450dae7f6316bb6270"
        );
    }

    proptest! {
        #[test]
        fn other_fields_have_another_one(
            a in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0..2_u8, 0..3)), 0..3),
            b in prop::collection::vec(("[ab]{0,2}", prop::collection::vec(0..2_u8, 0..3)), 0..3),
        ) {
            let of = |fields: &[(String, Vec<u8>)]| {
                let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_slice())).collect();
                Fingerprint::of(&fields)
            };
            let (mut left, mut right) = (a.clone(), b.clone());
            left.sort_unstable();
            right.sort_unstable();
            prop_assert_eq!(of(&a) == of(&b), left == right);
        }
    }
}
