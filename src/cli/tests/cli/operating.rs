//! What operators do: `palisade revoke`, `generation`, `drain` and `check`.

use std::time::Duration;

use palisade_test_support::{Coordinator, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::looking::{holder, parsed};
use crate::program::{Dev, Ended, palisade, run};

const LIMIT: Duration = Duration::from_secs(30);
const WHY: [&str; 2] = ["--reason", "a test"];

fn refused(ended: &Ended, code: i32, says: &[&str]) {
    assert_eq!((ended.code, &*ended.stdout), (Some(code), ""), "{ended:?}");
    for text in says {
        assert!(ended.stderr.contains(text), "{text}: {}", ended.stderr);
    }
}

#[test]
fn a_lease_is_revoked_only_by_who_says_yes_and_why() {
    let dev = Dev::start();
    let (held, token) = holder(&dev, "a", "stuck");
    let by_token = ["--token", &token.to_string()];
    let revoke = |more: &[&[&str]]| dev.run(&[&["revoke", "a"][..], &more.concat()].concat());

    // Nobody to ask: nothing is done by silence.
    refused(&revoke(&[&["--current"], &WHY]), 2, &["--yes"]);
    refused(&revoke(&[&by_token, &WHY]), 2, &["--yes"]);
    refused(&revoke(&[&["--current", "--yes"]]), 2, &["--reason"]);
    refused(&revoke(&[&["--yes"], &WHY]), 2, &["--token", "--current"]);
    refused(
        &revoke(&[&["--current", "--yes", "--reason", ""]]),
        2,
        &["--reason"],
    );
    let long = ["--cooperative", "11m"];
    refused(
        &revoke(&[&["--current", "--yes"], &long, &WHY]),
        2,
        &["--cooperative"],
    );
    let above = ["--yes", "--token", &(token + 1).to_string()];
    refused(
        &revoke(&[&above, &WHY]),
        1,
        &["never issued", &token.to_string()],
    );
    assert_eq!(dev.run(&["check", "a", &token.to_string()]).code, Some(0));

    let asked = ["--cooperative", "200ms", "--actor", "alice"];
    let json = ["--yes", "-o", "json"];
    let revoked = revoke(&[&["--current"], &asked, &json, &WHY]);
    let outcome = parsed(&revoked);
    assert_eq!(
        (
            &outcome["outcome"],
            &outcome["token"],
            &outcome["may_still_write"]
        ),
        (&json!("revoked"), &json!(token), &json!(true)),
        "{revoked:?}"
    );
    assert!(
        revoked.stderr.contains("sealed"),
        "who is revoked may write: {revoked:?}"
    );
    let ended = held.ends();
    assert_eq!(ended.code, Some(70), "{ended:?}");
    let seen = parsed(&dev.run(&["get", "a", "-o", "json"]));
    assert_eq!(
        (&seen["previous"]["end"], &seen["previous"]["reason"]),
        (&json!("revoked"), &json!("a test")),
        "{seen}"
    );

    // Again it is no error, and said to be nothing new.
    let again = revoke(&[&by_token, &json, &WHY]);
    assert_eq!(parsed(&again)["outcome"], "not_held", "{again:?}");
    let vacant = revoke(&[&["--current"], &json, &WHY]);
    assert_eq!(parsed(&vacant)["outcome"], "not_held", "{vacant:?}");
    assert!(vacant.stderr.contains("nobody holds a"), "{vacant:?}");
}

#[tokio::test]
async fn a_revocation_that_was_not_answered_is_told_as_such() {
    let mut coordinator = Coordinator::builder().start().await.unwrap();
    let run = |line: &[&str]| -> Ended {
        let mut command = palisade(line);
        command.env("PALISADE_ADDR", coordinator.addr());
        command.output().unwrap().into()
    };
    let held = run(&["acquire", "a", "--ttl", "60s", "--detach"]);
    assert_eq!(held.code, Some(0), "{held:?}");
    let token = held
        .stdout
        .lines()
        .next()
        .unwrap()
        .strip_prefix("token=")
        .unwrap();
    let addr = coordinator.addr();
    coordinator.pause().unwrap();
    let line = [
        "revoke",
        "a",
        "--token",
        token,
        "--yes",
        "--timeout",
        "1s",
        "--addr",
        &addr,
    ];
    let unknown: Ended = palisade(&[&line, &WHY[..]].concat())
        .output()
        .unwrap()
        .into();
    refused(
        &unknown,
        69,
        &["outcome is unknown", "palisade get a", "safe"],
    );
    coordinator.resume().unwrap();
}

#[test]
fn how_a_token_stands_is_told_by_word_and_by_code() {
    let dev = Dev::start();
    let (first, stale) = holder(&dev, "a", "one");
    first.signal(Signal::TERM);
    first.ends();
    let check = |token: u64, json: bool| {
        let (token, more) = (token.to_string(), ["-o", "json"]);
        dev.run(&[&["check", "a", &token][..], if json { &more } else { &[] }].concat())
    };
    assert_eq!(
        (check(stale, false).code, &*check(stale, false).stdout),
        (Some(70), "vacant\n")
    );
    let (_second, current) = holder(&dev, "a", "two");
    for (token, code, state) in [
        (current, 0, "current"),
        (stale, 70, "stale"),
        ((1 << 53) - 1, 1, "ahead"),
    ] {
        let told = check(token, false);
        assert_eq!(
            (told.code, told.stdout.trim()),
            (Some(code), state),
            "{told:?}"
        );
        assert_eq!(told.stderr.is_empty(), code == 0, "{told:?}");
        let told: Value = serde_json::from_str(&check(token, true).stdout).unwrap();
        assert_eq!(
            (&told["state"], &told["current"]),
            (&json!(state), &json!(current))
        );
    }
}

#[test]
fn a_generation_is_shown_and_advanced_only_with_a_yes() {
    let dev = Dev::start();
    let show = || parsed(&dev.run(&["generation", "show", "-o", "json"]));
    let before = show();
    let highest = before["highest_token"].as_u64().unwrap();
    assert!(before["base"].as_u64() <= Some(highest), "{before}");
    let advance = |past: u64, more: &[&str]| {
        let past = past.to_string();
        dev.run(&[&["generation", "advance", "--past", &past][..], &WHY, more].concat())
    };
    let minute = highest + 60_000_000;
    refused(&advance(minute, &[]), 2, &["--yes", &minute.to_string()]);
    assert_eq!(show(), before);
    let advanced = parsed(&advance(minute, &["--yes", "-o", "json"]));
    assert_eq!(advanced["generation"]["base"], minute + 1, "{advanced}");
    assert_eq!(advanced["previous"]["nonce"], before["nonce"]);
    assert_eq!(show()["base"], minute + 1);
    let (_held, token) = holder(&dev, "a", "one");
    assert!(token > minute);

    let days = highest + 3 * 86_400_000_000;
    refused(
        &advance(days, &["--yes"]),
        1,
        &["past the coordinator's clock", "--force"],
    );
    refused(&advance((1 << 52) + 1, &["--yes"]), 2, &["--past"]);
    let forced = advance(days, &["--yes", "--force"]);
    assert_eq!(forced.code, Some(0), "{forced:?}");
    assert!(
        forced.stdout.contains(&(days + 1).to_string()),
        "{forced:?}"
    );
}

#[tokio::test]
async fn a_coordinator_is_drained_by_its_address() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let addr = coordinator.addr();
    refused(&run(&["drain", &addr]), 2, &["--reason"]);
    assert!(coordinator.is_ready().await);
    let line = ["drain", &addr, "--within", "1s", "-o", "json"];
    let drained = parsed(&run(&[&line, &WHY[..]].concat()));
    assert_eq!(drained, json!({"coordinator": addr, "streams_ended": 0}));
    eventually("it is not ready", LIMIT, async || {
        !coordinator.is_ready().await
    })
    .await
    .unwrap();
    let away = ["drain", "127.0.0.1:1", "--timeout", "300ms"];
    refused(
        &run(&[&away, &WHY[..]].concat()),
        69,
        &["no coordinator can be reached"],
    );
}
