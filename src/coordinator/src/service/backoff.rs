//! How long to wait before trying again, so that many do not do it at the same moment.

use std::time::Duration;

use crate::entropy::Entropy;

/// The first wait after a failure: about a round trip to a store that comes back at once.
const FIRST: Duration = Duration::from_millis(50);
/// The longest: a store that is back is found within this.
const LONGEST: Duration = Duration::from_secs(2);

/// The wait after so many failures in a row: doubling up to a bound, spread over half to all of it.
pub(crate) fn backoff(entropy: &dyn Entropy, failures: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10));
    spread(entropy, doubled.min(LONGEST))
}

/// A random duration from half of a given one to all of it.
pub(crate) fn spread(entropy: &dyn Entropy, whole: Duration) -> Duration {
    let random = u32::from(entropy.nonce().as_bytes()[0]);
    let half = whole / 2;
    half.saturating_add(half.saturating_mul(random) / 255)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST, backoff, spread};
    use crate::entropy::SystemEntropy;

    #[test]
    fn waits_grow_to_a_bound_and_are_spread() {
        for failures in [0, 1, 5, 20, u32::MAX] {
            let waited = backoff(&SystemEntropy, failures);
            assert!(
                waited >= Duration::from_millis(25) && waited <= LONGEST,
                "{waited:?}"
            );
        }
        assert!(backoff(&SystemEntropy, 20) >= LONGEST / 2);
        let second = Duration::from_secs(1);
        assert!((second / 2..=second).contains(&spread(&SystemEntropy, second)));
    }
}
