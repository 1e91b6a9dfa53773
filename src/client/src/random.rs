//! The one place where the client gets random numbers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Request and open ids have 128 bits: never made twice.
const ID_BYTES: usize = 16;

/// Where the client gets random numbers from: the operating system, or a test.
///
/// Secrets and request ids are made of them. Whoever can guess the bytes can take over sessions; where they
/// repeat, two requests count as one.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU8, Ordering};
/// use palisade_client::{Client, Entropy};
///
/// /// Counts: for a test that wants the same ids each time, and never for anything else.
/// #[derive(Debug, Default)]
/// struct Counting(AtomicU8);
///
/// impl Entropy for Counting {
///     fn fill(&self, bytes: &mut [u8]) {
///         bytes.fill_with(|| self.0.fetch_add(1, Ordering::Relaxed));
///     }
/// }
///
/// let builder = Client::builder().entropy(Arc::new(Counting::default()));
/// # let _ = builder;
/// ```
pub trait Entropy: fmt::Debug + Send + Sync + 'static {
    /// Fills all of `bytes` with what nobody can guess.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's random numbers.
///
/// ```
/// use palisade_client::{Entropy, SystemEntropy};
///
/// let mut bytes = [0; 32];
/// SystemEntropy.fill(&mut bytes);
/// assert_ne!(bytes, [0; 32]);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    /// # Panics
    /// Where the operating system has no random source: no secret may be made then.
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has a random source");
    }
}

/// What a client makes of its entropy. A clone draws from the same.
#[derive(Debug, Clone)]
pub(crate) struct Random(Arc<dyn Entropy>);

impl Default for Random {
    fn default() -> Self {
        Self(Arc::new(SystemEntropy))
    }
}

impl Random {
    pub(crate) fn from(entropy: Arc<dyn Entropy>) -> Self {
        Self(entropy)
    }

    /// Bytes that nobody can guess.
    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill(&mut bytes);
        bytes
    }

    /// An id that was never made before, in hexadecimal.
    pub(crate) fn id(&self) -> String {
        hex::encode(self.bytes::<ID_BYTES>())
    }

    /// A duration between `share_permille` of `whole` and all of it, so that many clients do not act at once.
    pub(crate) fn jittered(&self, whole: Duration, share_permille: u32) -> Duration {
        let span = 1000_u32.saturating_sub(share_permille);
        let random = u32::from(u16::from_le_bytes(self.bytes())) * span / u32::from(u16::MAX);
        whole * (share_permille.min(1000) + random) / 1000
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Random;

    #[test]
    fn ids_are_32_hexadecimal_digits_and_differ() {
        let random = Random::default();
        let (one, other) = (random.id(), random.id());
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }

    #[test]
    fn jitter_stays_between_its_share_and_the_whole() {
        let (random, whole) = (Random::default(), Duration::from_secs(5));
        for _round in 0..1000 {
            let given = random.jittered(whole, 850);
            assert!(given >= whole * 850 / 1000 && given <= whole, "{given:?}");
        }
    }
}
