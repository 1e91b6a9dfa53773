use std::collections::HashMap;
use std::process::Stdio;

use palisade_token::Grant;
use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Dev, Ended, Running};

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect(&ended.stdout)
}

/// The NAME=VALUE lines of `acquire --detach`.
fn detached(dev: &Dev, resource: &str) -> HashMap<String, String> {
    let ended = dev.run(&["acquire", resource, "--ttl", "60s", "--detach"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let pairs = ended
        .stdout
        .lines()
        .map(|line| line.split_once('=').expect(line));
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
        .collect()
}

#[test]
fn a_lease_is_held_until_a_signal_and_then_released() {
    let dev = Dev::start();
    let line = [
        "acquire",
        "orders/eu-1",
        "--ttl",
        "5s",
        "--label",
        "it's me",
        "-o",
        "json",
    ];
    let mut holder = Running::start(dev.command(&line));
    let held: Value = serde_json::from_str(&holder.line()).unwrap();
    let grant: Grant = held["grant"].as_str().unwrap().parse().unwrap();
    assert_eq!(grant.resource.as_str(), "orders/eu-1");
    assert_eq!(held["token"].as_u64(), Some(grant.token.get()));
    assert_eq!(
        held["holder"].as_str(),
        Some(grant.holder.to_string().as_str())
    );
    assert_eq!(held["ttl_ms"], 5_000);
    assert!(
        held.get("credentials").is_none(),
        "the secret stays inside: {held}"
    );

    let seen = json(&dev.run(&["get", "orders/eu-1", "-o", "json"]));
    assert_eq!(seen["lease"]["grant"], held["grant"]);
    assert_eq!(seen["lease"]["label"], "it's me");
    let table = dev.run(&["get", "orders/eu-1"]);
    assert!(
        table.stdout.contains(&grant.token.to_string()),
        "{}",
        table.stdout
    );

    for busy in [
        dev.run(&["acquire", "orders/eu-1"]),
        dev.run(&["acquire", "orders/eu-1", "--wait", "200ms"]),
    ] {
        assert_eq!(
            (busy.code, busy.stdout.as_str()),
            (Some(75), ""),
            "{busy:?}"
        );
        assert!(
            busy.stderr.starts_with("palisade: orders/eu-1 "),
            "{}",
            busy.stderr
        );
    }

    holder.signal(Signal::TERM);
    assert_eq!(holder.ends().code, Some(0));
    let vacant = json(&dev.run(&["get", "orders/eu-1", "-o", "jsonl"]));
    assert_eq!(
        (&vacant["held"], &vacant["lease"]),
        (&Value::Bool(false), &Value::Null)
    );

    let next = detached(&dev, "orders/eu-1");
    assert!(next["token"].parse::<u64>().unwrap() > grant.token.get());
}

#[test]
fn a_waiter_is_granted_what_is_released_and_gives_back_its_place_when_told_to_end() {
    let dev = Dev::start();
    let mut first = Running::start(dev.command(&["acquire", "a", "-o", "grant"]));
    let grant: Grant = first.line().parse().unwrap();
    let impatient = Running::start(dev.command(&["acquire", "a", "--wait", "10m"]));
    let waiters = |number: u64| {
        // Waits for the condition: each look is an answer of the coordinator.
        (0..2_000).any(|_| json(&dev.run(&["get", "a", "-o", "json"]))["waiters"] == number)
    };
    assert!(waiters(1));
    impatient.signal(Signal::INT);
    let ended = impatient.ends();
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (Some(130), ""),
        "{ended:?}"
    );
    assert!(waiters(0));

    let mut second = Running::start(dev.command(&["acquire", "a", "--wait", "10m"]));
    assert!(waiters(1));
    first.signal(Signal::INT);
    let token: u64 = second.line().parse().unwrap();
    assert!(token > grant.token.get());
    assert_eq!(first.ends().code, Some(0));
}

#[test]
fn a_detached_lease_is_released_with_its_secret_only() {
    let dev = Dev::start();
    let lease = detached(&dev, "a/b");
    let grant: Grant = lease["grant"].parse().unwrap();
    assert_eq!(grant.token.to_string(), lease["token"]);

    let release = |secret: &str, epoch: &str| -> Ended {
        let (token, session) = (lease["token"].as_str(), lease["session"].as_str());
        let line = [
            "release",
            "a/b",
            "--token",
            token,
            "--session",
            session,
            "--epoch",
            epoch,
        ];
        dev.command(&line)
            .env("PALISADE_SECRET", secret)
            .output()
            .unwrap()
            .into()
    };
    let wrong = release(&"00".repeat(32), &lease["epoch"]);
    assert_eq!(
        (wrong.code, wrong.stdout.as_str()),
        (Some(1), ""),
        "{wrong:?}"
    );
    let malformed = release("secret", &lease["epoch"]);
    assert_eq!(malformed.code, Some(2), "{malformed:?}");
    assert!(
        !malformed.stderr.contains("\"secret\""),
        "{}",
        malformed.stderr
    );

    let released = release(&lease["secret"], &lease["epoch"]);
    assert_eq!(
        (released.code, released.stdout.trim()),
        (Some(0), "released a/b"),
        "{released:?}"
    );
    // The epoch need not be known, and twice is no error.
    let again = release(&lease["secret"], "0");
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.starts_with("not held: a/b"), "{again:?}");
}

#[test]
fn leases_are_listed_by_prefix_in_every_form() {
    let dev = Dev::start();
    for resource in ["orders/a", "orders/b", "other"] {
        detached(&dev, resource);
    }
    let all = json(&dev.run(&["list", "-o", "json"]));
    assert_eq!(all.as_array().map(Vec::len), Some(3));
    let lines = dev.run(&["list", "orders/", "-o", "jsonl"]).stdout;
    let names: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["resource"].clone())
        .collect();
    assert_eq!(names, ["orders/a", "orders/b"]);
    let table = dev.run(&["list", "orders/"]).stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("RESOURCE"), "{table}");
    assert_eq!(
        json(&dev.run(&["list", "nothing", "-o", "json"])),
        Value::Array(vec![])
    );
}

#[test]
fn a_reader_of_a_list_that_goes_away_is_no_error() {
    let dev = Dev::start();
    detached(&dev, "a");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let listing = dev
        .command(&["list"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended: Ended = listing.wait_with_output().unwrap().into();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}
