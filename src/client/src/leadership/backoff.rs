//! How long to pause after what failed: pure.

use std::time::Duration;

/// Doubles with each failure, between two bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most: most.max(least),
            failures: 0,
        }
    }

    /// The longest that the next pause may be; the shortest is half of it.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = self
            .least
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        doubled.min(self.most)
    }

    /// Something went well.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// A leadership that lasted longer than the longest pause is no part of a tight loop.
    pub(crate) fn after_leadership(&mut self, lasted: Duration) {
        if lasted > self.most {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    #[test]
    fn pauses_double_up_to_their_bound_and_begin_anew_after_a_success() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(seconds(1), seconds(5));
        let pauses: Vec<_> = (0..5).map(|_| backoff.next()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5].map(seconds));
        backoff.after_leadership(seconds(5));
        assert_eq!(backoff.next(), seconds(5), "too short to count");
        backoff.after_leadership(seconds(6));
        assert_eq!(backoff.next(), seconds(1));
        for _more in 0..100 {
            assert!(backoff.next() <= seconds(5));
        }
    }
}
