//! How `palisade acquire` ends: by loss, by signals, and when nobody hears what it was granted.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Dev, Ended, Running};

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

#[test]
fn a_terminal_that_goes_away_releases_what_is_held() {
    let dev = Dev::start();
    let (holder, _) = hold(&dev, "60s");
    holder.signal(Signal::HUP);
    let ended = holder.ends();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!is_held(&dev));
}

#[test]
fn under_nohup_a_terminal_may_go_away() {
    const HANGUP: u64 = 1 << 0;
    let dev = Dev::start();
    let mut command = Command::new("sh");
    let script = "trap '' HUP; exec \"$0\" acquire a";
    command.args(["-c", script, env!("CARGO_BIN_EXE_palisade")]);
    let mut holder = Running::start({
        command.env("PALISADE_ADDR", &dev.addr);
        command
    });
    holder.line();
    assert_ne!(holder.signals("SigIgn") & HANGUP, 0);
    assert_eq!(holder.signals("SigCgt") & HANGUP, 0);
    holder.signal(Signal::TERM);
    assert_eq!(holder.ends().code, Some(0));
}

#[tokio::test]
async fn a_release_that_nobody_takes_is_tried_for_as_long_as_the_lease_stands() {
    let dev = Dev::start();
    let (mut holder, _) = hold(&dev, "5s");
    dev.running.signal(Signal::KILL);
    holder.signal(Signal::INT);
    holder.says("releasing a");
    let ended = holder.ends_within(SOON_AFTER_TTL).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
}

#[tokio::test]
async fn a_second_signal_ends_a_release_at_once() {
    let dev = Dev::start();
    let (mut holder, _) = hold(&dev, "60s");
    dev.running.signal(Signal::KILL);
    holder.signal(Signal::INT);
    holder.says("a second signal");
    holder.signal(Signal::TERM);
    let ended = holder.ends_within(AT_ONCE).await;
    assert_eq!(ended.code, Some(143), "{ended:?}");
}

#[test]
fn what_nobody_hears_of_is_given_back() {
    let dev = Dev::start();
    for more in [&["--detach"][..], &["--detach", "-o", "json"], &[]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = dev.command(&["acquire", "a", "--ttl", "60s"]);
        let child = command
            .args(more)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn();
        let ended: Ended = child.unwrap().wait_with_output().unwrap().into();
        assert_eq!(ended.code, Some(1), "{more:?}: {ended:?}");
        assert!(!is_held(&dev), "{more:?}");
    }
}
