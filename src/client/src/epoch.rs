use std::sync::atomic::{AtomicU64, Ordering};

/// A session's epochs: chosen by the client, only ever raised.
///
/// A try whose outcome is unknown is followed by one with a larger epoch, which shuts out delayed copies
/// of the first (I4). If the session has moved on meanwhile, its present epoch is larger already: raising
/// it once more would only supersede the session's other calls, which would then do the same to this one.
#[derive(Debug)]
pub(crate) struct Epochs(AtomicU64);

impl Epochs {
    pub(crate) fn starting_at(epoch: u64) -> Self {
        Self(AtomicU64::new(epoch.max(1)))
    }

    /// The epoch for a call that is no retry.
    pub(crate) fn current(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// An epoch larger than `used`: the present one if it is, else a new one.
    pub(crate) fn above(&self, used: u64) -> u64 {
        let least = used.saturating_add(1);
        self.0.fetch_max(least, Ordering::SeqCst).max(least)
    }
}

#[cfg(test)]
mod tests {
    use super::Epochs;

    #[test]
    fn a_retry_raises_only_what_is_not_raised_already() {
        let epochs = Epochs::starting_at(0);
        assert_eq!(epochs.current(), 1);
        assert_eq!(epochs.above(1), 2);
        assert_eq!(
            epochs.above(1),
            2,
            "the other calls of epoch 1 follow without raising"
        );
        assert_eq!(epochs.above(2), 3);
        assert_eq!(epochs.above(40), 41);
        assert_eq!(epochs.current(), 41);
    }
}
