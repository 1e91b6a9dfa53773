//! Time, for faults that take some and for how long recovery took.
#![allow(
    clippy::disallowed_methods,
    reason = "the field is of real processes on real time; all of it is read here"
)]

use std::time::{Duration, Instant};

pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
