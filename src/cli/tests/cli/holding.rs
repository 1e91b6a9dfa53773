//! How `palisade acquire` ends: by loss, by signals, and when nobody hears what it was granted.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Dev, Ended, Running, palisade};

/// The least TTL, and some more for a busy machine; far below the `--timeout` of the calls here.
const SOON_AFTER_TTL: Duration = Duration::from_secs(8);
/// What needs no wait at all.
const AT_ONCE: Duration = Duration::from_secs(3);

fn hold(dev: &Dev, ttl: &str) -> (Running, String) {
    let line = ["acquire", "a", "--ttl", ttl, "--timeout", "60s"];
    let mut holder = Running::start(dev.command(&line));
    let token = holder.line();
    (holder, token)
}

fn is_held(dev: &Dev) -> bool {
    let seen = dev.run(&["get", "a", "-o", "json"]);
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    seen["held"].as_bool().unwrap()
}

#[tokio::test]
async fn a_holder_that_cannot_renew_says_that_it_lost_and_tries_nothing_more() {
    let dev = Dev::start();
    let (holder, token) = hold(&dev, "5s");
    dev.running.signal(Signal::KILL);
    let ended = holder.ends_within(SOON_AFTER_TTL).await;
    assert_eq!(ended.code, Some(70), "{ended:?}");
    let first = ended.stderr.lines().next().unwrap();
    assert!(
        first.contains(&token) && first.contains("lost"),
        "{}",
        ended.stderr
    );
}
