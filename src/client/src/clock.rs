//! The one place where the client reads a clock or waits for one.
#![allow(
    clippy::disallowed_methods,
    reason = "this module wraps what the rest of the crate may not call"
)]

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rustix::time::{ClockId, clock_gettime};

/// How long a timer sleeps before it looks at the clock again. Timers stand still while the machine is
/// suspended and the lease clock does not, so this bounds how late a notice can be after a resume.
const SLICE: Duration = Duration::from_millis(250);

/// A point of the lease clock, as the time since an origin that only comparisons make sense of.
///
/// ```
/// use std::time::Duration;
/// use palisade_client::Moment;
///
/// let sent = Moment(Duration::from_secs(100));
/// let deadline = sent.after(Duration::from_secs(15));
/// assert_eq!(sent.until(deadline), Duration::from_secs(15));
/// assert_eq!(deadline.until(sent), Duration::ZERO, "it has passed");
/// assert!(deadline.before(Duration::from_secs(1)) < deadline);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// The moment a while later; the last one there is, where it would be beyond.
    #[must_use]
    pub fn after(self, while_: Duration) -> Self {
        Self(self.0.saturating_add(while_))
    }

    /// The moment a while earlier; the first one there is, where it would be before.
    #[must_use]
    pub fn before(self, while_: Duration) -> Self {
        Self(self.0.saturating_sub(while_))
    }

    /// How long it is from this moment to a later one; zero where that has passed.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        later.0.saturating_sub(self.0)
    }
}

/// Where the client gets its time from: the machine's clock, or a test's.
///
/// ```
/// use std::{future, pin::Pin, sync::Mutex, time::Duration};
/// use palisade_client::{Clock, Moment};
///
/// /// Goes on only when it is slept on.
/// #[derive(Debug, Default)]
/// struct Jumping(Mutex<Moment>);
///
/// impl Clock for Jumping {
///     fn now(&self) -> Moment {
///         *self.0.lock().unwrap()
///     }
///     fn sleep(&self, while_: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
///         let mut now = self.0.lock().unwrap();
///         *now = now.after(while_);
///         Box::pin(future::ready(()))
///     }
/// }
///
/// let clock = Jumping::default();
/// drop(clock.sleep(Duration::from_secs(3)));
/// assert_eq!(clock.now(), Moment(Duration::from_secs(3)));
/// let builder = palisade_client::Client::builder().clock(std::sync::Arc::new(clock));
/// # let _ = builder;
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now, by a clock that never goes back and goes on while the machine is suspended.
    fn now(&self) -> Moment;

    /// Waits at least this long by [`Clock::now`]. It only wakes: whoever decides looks at the clock.
    fn sleep(&self, while_: Duration) -> BoxFuture<'static, ()>;
}

/// `CLOCK_BOOTTIME`: unlike [`std::time::Instant`] it counts the time that the machine was suspended.
///
/// A virtual machine that was paused from outside may not count that time on any of its clocks. No
/// local deadline is sound there; the guard is what stops a stale writer.
///
/// ```
/// use palisade_client::{Clock, SystemClock};
///
/// let clock = SystemClock::shared();
/// let earlier = clock.now();
/// assert!(clock.now() >= earlier);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock, as an injectable whole.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const LEASE_CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const LEASE_CLOCK: ClockId = ClockId::Monotonic;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        let time = clock_gettime(LEASE_CLOCK);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Moment(Duration::new(seconds, nanos))
    }

    fn sleep(&self, while_: Duration) -> BoxFuture<'static, ()> {
        let clock = *self;
        Box::pin(async move {
            let end = clock.now().after(while_);
            loop {
                let left = clock.now().until(end);
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(SLICE)).await;
            }
        })
    }
}

/// The result of `work`, or nothing if `while_` is over first; `work` is dropped then.
pub(crate) async fn within<T>(
    clock: &Arc<dyn Clock>,
    while_: Duration,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = clock.sleep(while_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, SystemClock};

    #[tokio::test]
    async fn a_sleep_lasts_at_least_as_long_as_told_by_the_lease_clock() {
        let before = SystemClock.now();
        SystemClock.sleep(Duration::from_millis(20)).await;
        assert!(before.until(SystemClock.now()) >= Duration::from_millis(20));
    }
}
