//! Calls that are under way: counted, and given up with their connection where they are waited for in vain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::warn;

use super::Link;
use crate::clock::Moment;

/// A caller that gives up after this long without an answer takes the connection with it: it may be half
/// open, and a caller with a shorter limit than a call's would never find out.
const PATIENCE: Duration = Duration::from_secs(3);

/// A call under way, counted.
pub(super) struct InFlight<'a>(&'a AtomicU64);

impl<'a> InFlight<'a> {
    pub(super) fn one(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call under way, which its caller may drop.
pub(super) struct Patience<'a> {
    link: &'a Link,
    since: Moment,
    is_over: bool,
}

impl<'a> Patience<'a> {
    pub(super) fn begin(link: &'a Link) -> Self {
        Self {
            link,
            since: link.context.clock.now(),
            is_over: false,
        }
    }

    /// It was not waited for in vain.
    pub(super) fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Patience<'_> {
    fn drop(&mut self) {
        if !self.is_over && self.since.until(self.link.context.clock.now()) >= PATIENCE {
            warn!("etcd connection given up: no answer while a caller waited");
            self.link.give_up();
        }
    }
}
