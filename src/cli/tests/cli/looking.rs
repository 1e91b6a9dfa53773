//! `palisade get`, `list` and `watch`.

use std::time::Duration;

use palisade_test_support::Coordinator;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::program::{Dev, Ended, Running, palisade};

/// Others share the machine.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) fn parsed(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect(&ended.stdout)
}

/// Holds a resource until it is told to end.
pub(crate) fn holder(dev: &Dev, resource: &str, label: &str) -> (Running, u64) {
    let line = ["acquire", resource, "--wait", "10m", "--label", label];
    let mut holder = Running::start(dev.command(&line));
    let token = holder.line().parse().unwrap();
    (holder, token)
}

fn get(dev: &Dev, resource: &str) -> Value {
    parsed(&dev.run(&["get", resource, "-o", "json"]))
}

/// Asks until it is so: each look is an answer of the coordinator.
fn until(what: &str, mut so: impl FnMut() -> bool) {
    assert!((0..2_000).any(|_| so()), "{what}");
}

#[test]
fn a_resource_is_shown_with_its_queue_and_how_its_last_lease_ended() {
    let dev = Dev::start();
    let never = get(&dev, "a");
    assert_eq!(
        (&never["held"], &never["queue"]),
        (&json!(false), &json!([]))
    );
    assert_eq!(
        never.get("previous"),
        None,
        "what is not known is left out: {never}"
    );

    let (first, token) = holder(&dev, "a", "first");
    let mut waiters = Vec::new();
    for label in ["second", "third"] {
        let line = ["acquire", "a", "--wait", "10m", "--label", label];
        waiters.push(Running::start(dev.command(&line)));
        until("it waits", || get(&dev, "a")["waiters"] == waiters.len());
    }

    let held = get(&dev, "a");
    assert_eq!(held["lease"]["token"], token);
    let queue: Vec<_> = held["queue"].as_array().unwrap().iter().collect();
    let places: Vec<_> = queue
        .iter()
        .map(|one| (&one["place"], &one["label"]))
        .collect();
    let (second, third) = (json!("second"), json!("third"));
    assert_eq!(places, [(&json!(1), &second), (&json!(2), &third)]);
    for one in queue {
        let text = |name: &str| one[name].as_str().is_some_and(|text| !text.is_empty());
        assert!(text("session") && text("request"), "{one}");
        assert!(one["enqueued_revision"].as_i64() > held["lease"]["granted_revision"].as_i64());
    }
    let short = dev.run(&["get", "a", "--queue", "1"]).stdout;
    assert!(
        short.contains("2, of which the first 1 are listed"),
        "{short}"
    );
    assert!(
        short.contains("second") && !short.contains("third"),
        "{short}"
    );
    let none = dev.run(&["get", "a", "--queue", "0"]).stdout;
    assert!(!none.contains("PLACE"), "{none}");
    assert_eq!(dev.run(&["get", "a", "--queue", "1001"]).code, Some(2));

    for one in [first].into_iter().chain(waiters) {
        one.signal(Signal::TERM);
        assert_eq!(one.ends().code, Some(0));
    }
    let vacant = get(&dev, "a");
    assert_eq!(vacant["held"], false, "{vacant}");
    assert_eq!(vacant["previous"]["end"], "released", "{vacant}");
    let shown = dev.run(&["get", "a"]).stdout;
    assert!(
        shown.contains("last lease") && shown.contains("released"),
        "{shown}"
    );
}

#[test]
fn times_are_shown_as_asked_and_else_in_a_form_that_can_be_kept() {
    let dev = Dev::start();
    let (_first, _) = holder(&dev, "a", "first");
    for (arguments, end) in [
        (&["get", "a"][..], "Z"),
        (&["get", "a", "--time", "iso"], "Z"),
    ] {
        let shown = dev.run(arguments).stdout;
        let granted = shown
            .lines()
            .find(|line| line.starts_with("granted"))
            .unwrap();
        assert!(granted.ends_with(end), "{granted}");
    }
    let shown = dev.run(&["get", "a", "--time", "relative"]).stdout;
    let granted = shown
        .lines()
        .find(|line| line.starts_with("granted"))
        .unwrap();
    assert!(
        granted.ends_with("ago") || granted.ends_with("now"),
        "{granted}"
    );
}

/// The next line as JSON.
fn event(watch: &mut Running) -> Value {
    let line = watch.line();
    serde_json::from_str(&line).expect(&line)
}

#[test]
fn a_watch_tells_what_is_held_and_then_what_happens() {
    let dev = Dev::start();
    let (before, held) = holder(&dev, "orders/a", "one");
    let mut watch = Running::start(dev.command(&["watch", "orders/", "-o", "jsonl"]));
    let mut lines = Running::start(dev.command(&["watch", "orders/"]));
    let snapshot = event(&mut watch);
    assert_eq!(
        (&snapshot["event"], &snapshot["token"]),
        (&json!("held"), &json!(held))
    );
    assert_eq!(snapshot["resource"], "orders/a");
    assert!(
        snapshot["heard_unix_ms"].as_i64() > snapshot["granted_unix_ms"].as_i64().map(|at| at - 1)
    );
    let end = event(&mut watch);
    assert_eq!(end["event"], "snapshot_end");
    lines.says("1 held");

    // Of others nothing is told.
    let (other, _) = holder(&dev, "other", "two");
    before.signal(Signal::TERM);
    assert_eq!(before.ends().code, Some(0));
    let released = event(&mut watch);
    assert_eq!(
        (&released["event"], &released["token"]),
        (&json!("released"), &json!(held))
    );
    assert_eq!(event(&mut watch)["event"], "vacant");
    let (_next, token) = holder(&dev, "orders/b", "three");
    let granted = event(&mut watch);
    assert_eq!(
        (&granted["event"], &granted["token"]),
        (&json!("granted"), &json!(token))
    );
    assert_eq!(granted["label"], "three");

    let text: Vec<String> = (0..4).map(|_| lines.line()).collect();
    for (line, (what, resource)) in text.iter().zip([
        ("held", "orders/a"),
        ("released", "orders/a"),
        ("vacant", "orders/a"),
        ("granted", "orders/b"),
    ]) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert!(words[0].ends_with('Z'), "{line}");
        assert_eq!((words[1], words[2]), (what, resource), "{line}");
    }

    // From a revision on: what came after it, and no list.
    let from = released["revision"].to_string();
    let mut resumed =
        Running::start(dev.command(&["watch", "orders/", "-o", "json", "--from", &from]));
    let resumed = event(&mut resumed);
    assert_eq!(
        (&resumed["event"], &resumed["token"]),
        (&json!("granted"), &json!(token))
    );

    // Told to end is how it ends.
    for (watch, signal) in [(watch, Signal::INT), (lines, Signal::TERM)] {
        watch.signal(signal);
        let ended = watch.ends();
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    other.signal(Signal::TERM);
}

#[test]
fn a_watch_can_wait_for_one_thing() {
    let dev = Dev::start();
    let vacant = dev.run(&["watch", "a", "--until", "vacant", "-o", "jsonl"]);
    assert_eq!(vacant.code, Some(0), "{vacant:?}");
    let (holder, token) = holder(&dev, "a", "one");
    let granted = dev.run(&["watch", "a", "--until", "granted", "-o", "jsonl"]);
    assert_eq!(parsed(&granted)["token"], token, "{granted:?}");
    let mut waiting = Running::start(dev.command(&["watch", "a", "--until", "released"]));
    let mut told = Running::start(dev.command(&["watch", "a", "--until", "vacant"]));
    waiting.says("1 held");
    told.says("1 held");
    told.signal(Signal::INT);
    let told = told.ends();
    assert_eq!(told.code, Some(130), "{told:?}");
    holder.signal(Signal::TERM);
    let waited = waiting.ends();
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert!(waited.stdout.contains("vacant"), "{waited:?}");
    for line in [
        &["watch", "orders/", "--until", "vacant"][..],
        &["watch", "--until", "vacant"],
        &["watch", "a//b"],
        &["watch", "--from", "0"],
    ] {
        assert_eq!(dev.run(line).code, Some(2), "{line:?}");
    }
}

#[tokio::test]
async fn a_watch_ends_when_nobody_reads_it_any_more() {
    let dev = Dev::start();
    for line in [&["watch", "-o", "jsonl"][..], &["list", "--watch"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = dev.command(line);
        let mut child = command.stdout(writer).spawn().unwrap();
        drop(command);
        let mut reader = std::io::BufReader::new(reader);
        let mut first = String::new();
        std::io::BufRead::read_line(&mut reader, &mut first).unwrap();
        assert!(first.contains("snapshot_end"), "{first}");
        // Nothing happens any more, so nothing is written: it notices all the same.
        drop(reader);
        let ended = async || matches!(child.try_wait(), Ok(Some(_)));
        let ended = palisade_test_support::eventually("the watch to end", LIMIT, ended).await;
        if ended.is_err() {
            child.kill().unwrap();
        }
        assert_eq!(child.wait().unwrap().code(), Some(0), "{line:?}");
    }
}

#[tokio::test]
async fn a_watch_goes_on_over_restarts_of_a_coordinator() {
    let mut coordinator = Coordinator::builder().start().await.unwrap();
    let command = |line: &[&str]| {
        let mut command = palisade(line);
        command.env("PALISADE_ADDR", coordinator.addr());
        command
    };
    let mut watch = Running::start(command(&["watch", "-o", "jsonl"]));
    let acquire = command(&["acquire", "a", "--detach"]);
    let mut again = command(&["acquire", "b", "--detach"]);
    assert_eq!(event(&mut watch)["event"], "snapshot_end");
    let acquired: Ended = { acquire }.output().unwrap().into();
    assert_eq!(acquired.code, Some(0), "{acquired:?}");
    assert_eq!(event(&mut watch)["resource"], "a");
    coordinator.kill().unwrap();
    watch.says("tried again");
    coordinator.start_again().await.unwrap();
    let acquired: Ended = again.output().unwrap().into();
    assert_eq!(acquired.code, Some(0), "{acquired:?}");
    watch.says("going on");
    let (mut seen, mut events) = (false, 0);
    while !seen {
        let event = event(&mut watch);
        events += 1;
        seen = event["resource"] == "b";
        assert!(events < 10, "{event}");
    }
    watch.signal(Signal::INT);
    assert_eq!(watch.ends().code, Some(0));
}

#[test]
fn a_list_that_is_watched_elsewhere_than_on_a_terminal_is_lines_of_json() {
    let dev = Dev::start();
    let (_holder, token) = holder(&dev, "orders/a", "one");
    let mut list = Running::start(dev.command(&["list", "orders/", "--watch"]));
    assert_eq!(event(&mut list)["token"], token);
    assert_eq!(event(&mut list)["event"], "snapshot_end");
    list.signal(Signal::INT);
    let ended = list.ends();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stdout.contains('\u{1b}'), "{ended:?}");
}

#[test]
fn a_watch_that_never_begins_ends_with_69() {
    for line in [&["watch"][..], &["list", "--watch"]] {
        let mut command = palisade(line);
        let command = command.args(["--addr", "127.0.0.1:1", "--timeout", "300ms"]);
        let ended: Ended = command.output().unwrap().into();
        assert_eq!((ended.code, &*ended.stdout), (Some(69), ""), "{ended:?}");
        assert!(ended.stderr.contains("--addr"), "{ended:?}");
    }
}
