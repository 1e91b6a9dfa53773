//! Calls that are under way: counted, and given up with their connection where they are waited for in vain.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::warn;

use super::Link;
use crate::clock::Moment;

/// A caller that gives up after this long without an answer takes the connection with it: it may be half
/// open, and a caller with a shorter limit than a call's would never find out.
const PATIENCE: Duration = Duration::from_secs(3);

/// From when on a caller that gives up shows enough for the member to be asked whether it is there: those that come
/// behind it may have no more patience, and none of them would find out.
const DOUBT: Duration = Duration::from_millis(200);

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
        if self.is_over {
            return;
        }
        let waited = self.since.until(self.link.context.clock.now());
        if waited >= PATIENCE {
            warn!("etcd connection given up: no answer while a caller waited");
            self.link.give_up();
        } else if waited >= DOUBT {
            self.link.keepalive.ask_for_a_sign_of_life();
        }
    }
}
