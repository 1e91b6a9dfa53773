//! `palisade run` as people and scripts use it: what the command sees, and how both end.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use palisade_api::v1::RevokeLeaseRequest;
use palisade_api::v1::admin_service_client::AdminServiceClient;
use palisade_test_support::eventually;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::groups::{self, SOON, members};
use crate::program::{Dev, Ended, Running, run};

/// Longer than any test waits for a renewal.
const LONG: &str = "60s";

fn start(dev: &Dev, arguments: &[&str], script: &str) -> Running {
    let mut line = vec!["run", "a"];
    line.extend(arguments);
    line.extend(["--", "sh", "-c", script]);
    let mut command = dev.command(&line);
    // What nobody is left to remove goes with the test.
    command.env("TMPDIR", dev.home.path());
    command.env_remove("XDG_RUNTIME_DIR").stdin(Stdio::null());
    Running::start(command)
}

/// Runs it to its end.
fn run_to_end(dev: &Dev, arguments: &[&str], script: &str) -> Ended {
    start(dev, arguments, script).ends()
}

fn lease(dev: &Dev) -> Value {
    let seen = dev.run(&["get", "a", "-o", "json"]);
    serde_json::from_str(&seen.stdout).unwrap()
}

fn is_held(dev: &Dev) -> bool {
    lease(dev)["held"].as_bool().unwrap()
}

fn number(line: &str) -> i32 {
    line.parse().expect(line)
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

async fn revoke(dev: &Dev) {
    let mut admin = AdminServiceClient::connect(dev.addr.clone()).await.unwrap();
    let request = RevokeLeaseRequest {
        resource: "a".to_owned(),
        token: lease(dev)["lease"]["token"].as_i64().unwrap(),
        cooperative_ms: 20_000,
        reason: "for a test".to_owned(),
        actor: "a test".to_owned(),
    };
    admin.revoke_lease(request).await.unwrap();
}

#[test]
fn the_command_finds_its_grant_and_its_streams_are_passed_through() {
    let dev = Dev::start();
    let script = "echo $PALISADE_RESOURCE $PALISADE_TOKEN $PALISADE_HOLDER $PALISADE_GRANT; \
                  echo $PALISADE_DEADLINE_UNIX_MS $PALISADE_STATUS_FILE; \
                  cat $PALISADE_STATUS_FILE; cat; echo aside >&2; exit 3";
    let mut command = dev.command(&["run", "a", "--", "sh", "-c", script]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    let ended: Ended = child.wait_with_output().unwrap().into();
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(ended.stderr, "aside\n");
    let lines: Vec<_> = ended.stdout.lines().collect();
    let [grant, more, status, typed] = lines[..] else {
        panic!("{ended:?}")
    };
    let [resource, token, holder, grant] = words(grant);
    assert_eq!((resource, typed), ("a", "typed"));
    assert_eq!(grant, format!("a#{token}#{holder}"));
    let [deadline, file] = words(more);
    let status: Value = serde_json::from_str(status).unwrap();
    assert_eq!(status["state"], "held");
    assert_eq!(status["grant"], grant);
    assert_eq!(status["token"].as_u64(), token.parse().ok());
    let told = status["deadline_unix_ms"].as_i64().unwrap();
    let apart = told - deadline.parse::<i64>().unwrap();
    assert!(apart.abs() < 60_000, "{told} {deadline}");
    assert!(!Path::new(file).exists() && !Path::new(file).parent().unwrap().exists());
    assert!(!is_held(&dev));
}

fn words<const N: usize>(line: &str) -> [&str; N] {
    let words: Vec<_> = line.split_whitespace().collect();
    words.try_into().unwrap()
}

#[test]
fn codes_are_passed_on_and_say_what_kept_a_command_from_running() {
    let dev = Dev::start();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill -TERM $$", 143),
    ] {
        let ended = run_to_end(&dev, &["--try"], script);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(code), ""));
    }
    let missing = dev.run(&["run", "a", "--restart", "--", "/no/such/program"]);
    assert_eq!(missing.code, Some(127), "{missing:?}");
    assert!(missing.stderr.contains("/no/such/program was not found"));
    let directory = dev.run(&["run", "a", "--", "/"]);
    assert_eq!(directory.code, Some(126), "{directory:?}");
    let grace = ["run", "a", "--ttl", "9s", "--grace", "3001ms", "--", "true"];
    let grace = dev.run(&grace);
    assert_eq!(grace.code, Some(2), "{grace:?}");
    assert!(grace.stderr.contains("3000 ms"), "{grace:?}");
    let nobody = [
        "run",
        "a",
        "--addr",
        "127.0.0.1:1",
        "--timeout",
        "200ms",
        "--",
        "true",
    ];
    assert_eq!(run(&nobody).code, Some(69));
}

#[tokio::test]
async fn what_others_hold_is_busy_and_is_waited_for() {
    let dev = Dev::start();
    let mut holder = start_holding(&dev);
    for arguments in [&["--try"][..], &["--wait", "200ms"]] {
        let ended = run_to_end(&dev, arguments, "echo ran");
        assert_eq!(ended.code, Some(75), "{ended:?}");
        assert_eq!(ended.stdout, "");
    }
    let waiter = start(&dev, &[], "echo ran");
    let stopped = start(&dev, &[], "echo ran");
    let queued = async || lease(&dev)["waiters"] == 2;
    eventually("both to wait", SOON, queued).await.unwrap();
    stopped.signal(Signal::TERM);
    assert_eq!(stopped.ends().code, Some(143));
    holder.signal(Signal::TERM);
    assert_eq!(holder.line(), "told");
    assert_eq!(holder.ends().code, Some(5));
    assert_eq!(waiter.ends().stdout, "ran\n");
}

/// One that says when it holds, and ends when it is told to.
fn start_holding(dev: &Dev) -> Running {
    let mut holder = start(
        dev,
        &["--ttl", LONG],
        "trap 'echo told; exit 5' TERM; echo $$; while :; do sleep 0.1; done",
    );
    drop(holder.line());
    holder
}

#[test]
fn signals_are_passed_on() {
    let dev = Dev::start();
    let script = "for name in HUP INT QUIT USR1 USR2 WINCH; do trap \"echo $name\" $name; done; \
                  trap 'echo TERM; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = start(&dev, &["--restart"], script);
    assert_eq!(running.line(), "ready");
    for (signal, name) in [
        (Signal::HUP, "HUP"),
        (Signal::INT, "INT"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
        (Signal::WINCH, "WINCH"),
        (Signal::TERM, "TERM"),
    ] {
        running.signal(signal);
        assert_eq!(running.line(), name);
    }
    assert_eq!(running.ends().code, Some(0));
}

#[tokio::test]
async fn a_stop_stops_the_group_and_a_continue_continues_it() {
    let dev = Dev::start();
    let mut running = start(&dev, &["--ttl", LONG], "echo $$; exec sleep 1000");
    let group = number(&running.line());
    let is_stopped = |pid| groups::find(pid).is_some_and(|one| one.is_stopped());
    running.signal(Signal::TSTP);
    let both = async || is_stopped(group) && is_stopped(running.id());
    eventually("both to stop", SOON, both).await.unwrap();
    running.signal(Signal::CONT);
    let none = async || !is_stopped(group) && !is_stopped(running.id());
    eventually("both to go on", SOON, none).await.unwrap();
    running.signal(Signal::KILL);
    groups::is_gone(group).await;
}

#[tokio::test]
async fn what_is_left_in_the_group_ends_before_the_release_and_what_left_it_goes_on() {
    let dev = Dev::start();
    let script = "trap '' TERM; sleep 1000 & echo $!; setsid sleep 1001 >&- 2>&- & echo $!; \
                  until test $(ps -o sid= $!) = $!; do :; done; exit 4";
    let mut running = start(&dev, &["--grace", "100ms"], script);
    let (inside, outside) = (number(&running.line()), number(&running.line()));
    let ended = running.ends_within(SOON).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(!groups::lives(inside));
    assert!(groups::lives(outside), "{ended:?}");
    assert!(ended.stderr.contains("1 of the processes"), "{ended:?}");
    signal(outside, Signal::KILL);
    assert!(!is_held(&dev));
}

#[tokio::test]
async fn when_the_lease_is_lost_those_who_left_the_group_are_killed_too() {
    let dev = Dev::start();
    let script = "setsid sh -c 'echo $$; exec sleep 1000' & wait";
    let mut running = start(
        &dev,
        &["--ttl", "5s", "--on-lost", "echo $PALISADE_LOSS >&2"],
        script,
    );
    let outside = number(&running.line());
    dev.running.signal(Signal::KILL);
    let ended = running.ends_within(SOON).await;
    assert_eq!(ended.code, Some(70), "{ended:?}");
    assert!(ended.stderr.contains("expired"), "{ended:?}");
    groups::is_gone(outside).await;
}

#[tokio::test]
async fn a_coordinator_that_is_away_for_less_than_the_deadline_is_not_noticed() {
    let dev = Dev::start();
    let script = "echo $$; trap 'echo told' TERM; exec sleep 1000";
    let mut running = start(&dev, &["--ttl", "5s"], script);
    let group = number(&running.line());
    for _ in 0..3 {
        dev.running.signal(Signal::STOP);
        let blip = eventually(
            "the end of a blip",
            Duration::from_millis(900),
            async || false,
        );
        blip.await.unwrap_err();
        dev.running.signal(Signal::CONT);
        let answers = async || dev.run(&["get", "a"]).code == Some(0);
        eventually("an answer", SOON, answers).await.unwrap();
    }
    assert!(groups::lives(group));
    kill_process_group(Pid::from_raw(group).unwrap(), Signal::KILL).unwrap();
    let ended = running.ends_within(SOON).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(137), ""));
}

#[tokio::test]
async fn an_operator_gets_it_back_once_the_group_is_gone() {
    let dev = Dev::start();
    let script = "echo $$; trap 'echo told; exit 0' TERM; while :; do sleep 0.1; done";
    let hook = "echo lost: $PALISADE_LOSS >&2";
    let mut running = start(&dev, &["--ttl", LONG, "--on-lost", hook], script);
    let group = number(&running.line());
    revoke(&dev).await;
    assert!(members(group).is_empty());
    assert_eq!(running.line(), "told");
    let ended = running.ends_within(SOON).await;
    assert_eq!(ended.code, Some(70), "{ended:?}");
    assert!(ended.stderr.contains("lost: revoked"), "{ended:?}");
    assert!(!is_held(&dev));
}

#[tokio::test]
async fn restart_starts_again_under_the_lease_and_acquires_another_when_it_is_lost() {
    let dev = Dev::start();
    let script = "echo $PALISADE_TOKEN; test -e go && { rm go; exit 1; }; exec sleep 1000";
    let mut command = dev.command(&[
        "run",
        "a",
        "--restart",
        "--ttl",
        LONG,
        "--",
        "sh",
        "-c",
        script,
    ]);
    command.current_dir(dev.home.path());
    std::fs::write(dev.home.path().join("go"), "").unwrap();
    let mut running = Running::start(command);
    let first = running.line();
    assert_eq!(running.line(), first);
    revoke(&dev).await;
    let second = running.line();
    assert!(second.parse::<u64>().unwrap() > first.parse().unwrap());
    running.signal(Signal::TERM);
    let ended = running.ends_within(SOON).await;
    assert_eq!(ended.code, Some(143), "{ended:?}");
}

#[test]
fn hooks_decide_whether_it_starts_and_are_bounded() {
    let dev = Dev::start();
    let good = run_to_end(
        &dev,
        &["--on-acquired", "echo $PALISADE_GRANT"],
        "echo $PALISADE_GRANT",
    );
    assert_eq!(
        (good.code, &good.stdout),
        (Some(0), &good.stderr),
        "{good:?}"
    );
    let bad = run_to_end(&dev, &["--on-acquired", "exit 9"], "echo ran");
    assert_eq!((bad.code, bad.stdout.as_str()), (Some(1), ""));
    assert!(bad.stderr.contains("failed with 9"), "{bad:?}");
    let slow = ["--on-acquired", "sleep 1000", "--hook-timeout", "300ms"];
    let slow = run_to_end(&dev, &slow, "echo ran");
    assert_eq!((slow.code, slow.stdout.as_str()), (Some(1), ""));
    assert!(slow.stderr.contains("--hook-timeout"), "{slow:?}");
    assert!(!is_held(&dev));
}

#[tokio::test]
async fn whoever_kills_both_kills_the_command() {
    let dev = Dev::start();
    let mut running = start(&dev, &["--ttl", LONG], "echo $$; exec sleep 1000");
    let group = number(&running.line());
    let guardian = groups::guardian_of(running.id());
    // Frozen, neither can do anything about the end of the other.
    signal(guardian, Signal::STOP);
    running.signal(Signal::STOP);
    signal(guardian, Signal::KILL);
    groups::is_gone(group).await;
    running.signal(Signal::KILL);
}

#[tokio::test]
async fn a_guardian_that_stands_still_is_no_reason_to_run_on() {
    let dev = Dev::start();
    let mut running = start(
        &dev,
        &["--ttl", "5s"],
        "trap '' TERM; echo $$; sleep 1000; sleep 1000",
    );
    let group = number(&running.line());
    let guardian = groups::guardian_of(running.id());
    signal(guardian, Signal::STOP);
    dev.running.signal(Signal::KILL);
    let ended = running.ends_within(SOON).await;
    assert_eq!(ended.code, Some(70), "{ended:?}");
    assert!(members(group).is_empty());
    assert!(!groups::lives(guardian));
}
