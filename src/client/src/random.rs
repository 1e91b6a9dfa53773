//! The one place where the client gets random numbers.

use std::time::Duration;

/// Request and open ids have 128 bits: never made twice.
const ID_BYTES: usize = 16;

/// Bytes that nobody can guess.
///
/// # Panics
/// Where the operating system has no random source: no secret may be made then.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[cfg(test)]
    if crate::simulation::fill(&mut bytes) {
        return bytes;
    }
    getrandom::fill(&mut bytes).expect("the operating system has a random source");
    bytes
}

/// An id that was never made before, in hexadecimal.
pub(crate) fn id() -> String {
    hex::encode(bytes::<ID_BYTES>())
}

/// A duration between `share_permille` of `whole` and all of it, so that many clients do not act at once.
pub(crate) fn jittered(whole: Duration, share_permille: u32) -> Duration {
    let span = 1000_u32.saturating_sub(share_permille);
    let random = u32::from(u16::from_le_bytes(bytes())) * span / u32::from(u16::MAX);
    whole * (share_permille.min(1000) + random) / 1000
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{id, jittered};

    #[test]
    fn ids_are_32_hexadecimal_digits_and_differ() {
        let (one, other) = (id(), id());
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }

    #[test]
    fn jitter_stays_between_its_share_and_the_whole() {
        let whole = Duration::from_secs(5);
        for _round in 0..1000 {
            let given = jittered(whole, 850);
            assert!(given >= whole * 850 / 1000 && given <= whole, "{given:?}");
        }
    }
}
