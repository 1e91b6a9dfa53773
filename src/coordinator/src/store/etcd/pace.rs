//! Renewals that come close upon each other go on together, so that etcd and this coordinator wake up once for
//! many of them. One that comes by itself does not wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};

/// How long a renewal waits for others at the most: a hundredth of a third of the least time to live.
const TICK: Duration = Duration::from_millis(15);

/// The beat that renewals go by.
#[derive(Debug)]
pub(super) struct Pace {
    clock: Arc<dyn Clock>,
    next: Mutex<Moment>,
}

impl Pace {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            next: Mutex::default(),
        }
    }

    /// Waits where another one went on less than a beat ago.
    pub(super) async fn keep(&self) {
        let pause = self.pause(self.clock.now());
        if !pause.is_zero() {
            self.clock.sleep(pause).await;
        }
    }

    fn pause(&self, now: Moment) -> Duration {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = now.until(*next);
        if pause.is_zero() {
            *next = now.after(TICK);
        }
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Pace, TICK};
    use crate::clock::{Moment, SystemClock};

    #[test]
    fn the_first_goes_at_once_and_those_behind_it_together() {
        let pace = Pace::new(SystemClock::shared());
        let begin = Moment(Duration::from_secs(7));
        let at = |millis| begin.after(Duration::from_millis(millis));
        assert!(pace.pause(begin).is_zero(), "nobody went before");
        for millis in [0, 1, 9, 14] {
            let goes_on = at(millis).after(pace.pause(at(millis)));
            assert_eq!(goes_on, begin.after(TICK), "asked after {millis} ms");
        }
        let next = begin.after(TICK);
        assert!(pace.pause(next).is_zero(), "a beat later");
        assert_eq!(pace.pause(next), TICK, "and then it begins anew");
    }
}
