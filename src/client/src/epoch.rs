use std::sync::atomic::{AtomicU64, Ordering};

/// A session's epochs: chosen by the client, only ever raised.
///
/// A try whose outcome is unknown is followed by one with an epoch of its own, which shuts out delayed
/// copies of the first (I4). Calls that are no retries share the present one.
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

    /// An epoch that no call had before: for a retry.
    pub(crate) fn raised(&self) -> u64 {
        let raise = |epoch: u64| Some(epoch.saturating_add(1));
        let (Ok(before) | Err(before)) =
            self.0
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, raise);
        before.saturating_add(1)
    }

    /// An epoch larger than `used`: the present one if it is, else a new one.
    pub(crate) fn above(&self, used: u64) -> u64 {
        let least = used.saturating_add(1);
        self.0.fetch_max(least, Ordering::SeqCst).max(least)
    }

    /// The epoch after a call that carried `used` was refused because `stored` is above it. Where this
    /// client itself has gone that far meanwhile, its present epoch will do.
    pub(crate) fn after_stale(&self, used: u64, stored: u64) -> u64 {
        let current = self.current();
        if current > used && current >= stored {
            current
        } else {
            self.above(used.max(stored))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Epochs;

    #[test]
    fn a_retry_has_an_epoch_of_its_own_and_giving_back_one_that_is_larger() {
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
        assert_eq!(epochs.raised(), 42);
        assert_eq!(epochs.raised(), 43);
        assert_eq!(epochs.current(), 43);
    }

    #[test]
    fn a_stale_epoch_is_raised_unless_this_client_raised_it_itself() {
        let epochs = Epochs::starting_at(5);
        assert_eq!(
            epochs.after_stale(3, 5),
            5,
            "overtaken by this client's own retry"
        );
        assert_eq!(epochs.after_stale(5, 9), 10, "overtaken by somebody else");
        assert_eq!(
            epochs.after_stale(10, 10),
            11,
            "the stored epoch was not enough"
        );
    }
}
