use palisade_test_support::Etcd;

use crate::program::{Dev, Running, address, palisade, run};

#[test]
fn what_cannot_be_used_ends_with_2_and_says_why() {
    let lines: [&[&str]; 8] = [
        &[],
        &["nonsense"],
        &["acquire", "a//b"],
        &["acquire", "a", "--ttl", "5"],
        &["acquire", "a", "--addr", "localhost"],
        &["serve", "--etcd", "not-a-url"],
        &[
            "release",
            "a",
            "--token",
            "1",
            "--session",
            "0",
            "--secret",
            "00",
        ],
        &["serve", "--listen", "127.0.0.1:7", "--http", "127.0.0.1:7"],
    ];
    for line in lines {
        let ended = run(line);
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{line:?}: {ended:?}"
        );
        assert!(!ended.stderr.is_empty(), "{line:?}");
    }
}

#[test]
fn a_bound_that_the_coordinator_keeps_is_told_of_the_flag() {
    let dev = Dev::start();
    let (long, secret) = ("x".repeat(129), "00".repeat(32));
    let release = |more: &[&str]| {
        let session = ["release", "a", "--session", "0123456789abcdef"];
        dev.run(&[&session, more].concat())
    };
    for (ended, start) in [
        (dev.run(&["acquire", "a", "--ttl", "24h"]), "--ttl is "),
        (dev.run(&["acquire", "a", "--ttl", "1ms"]), "--ttl is 1 ms;"),
        (dev.run(&["acquire", "a", "--wait", "99h"]), "--wait is "),
        (
            dev.run(&["acquire", "a", "--label", &long]),
            "--label is 129 bytes;",
        ),
        (
            dev.run(&["acquire", "a", "--metadata", &"x".repeat(4097)]),
            "--metadata is 4097 bytes;",
        ),
        (
            release(&["--token", "1", "--secret", "zz"]),
            "--secret has 2 characters; it must be 32 to 128 hexadecimal digits",
        ),
        (
            release(&["--request", "", "--secret", &secret]),
            "--request is ",
        ),
        (dev.run(&["list", "a b"]), "PREFIX is "),
    ] {
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let message = ended.stderr.strip_prefix("palisade: ").unwrap();
        assert!(message.starts_with(start), "{start}: {message}");
        assert!(!message.contains("\\\""), "quoted twice: {message}");
    }
}

#[test]
fn an_etcd_that_cannot_be_used_is_refused_while_parsing_and_not_shown() {
    for (url, says) in [
        ("garbage", "http://HOST:PORT"),
        ("", "http://HOST:PORT"),
        ("http://a:1,", "http://HOST:PORT"),
        ("http://a", "the port is missing"),
        ("http://root:hunter2@a:1", "--etcd-user"),
    ] {
        for command in [&["serve"][..], &["demo"], &["bench", "lease"]] {
            let ended = run(&[command, &["--etcd", url]].concat());
            assert_eq!(
                (ended.code, ended.stdout.as_str()),
                (Some(2), ""),
                "{url}: {ended:?}"
            );
            assert!(ended.stderr.contains("--etcd"), "{url}: {}", ended.stderr);
            assert!(ended.stderr.contains(says), "{url}: {}", ended.stderr);
            assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
        }
    }
    for command in [&["demo"][..], &["bench", "lease"]] {
        let ended = run(&[command, &["--etcd", "https://a:1"]].concat());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("TLS"), "{}", ended.stderr);
    }
    let secret = ["serve", "--etcd", "https://root:hunter2@a:1"];
    let ended = run(&secret);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(!ended.stderr.contains("hunter2"), "{}", ended.stderr);
    let clear = ["serve", "--etcd", "http://a:1", "--etcd-ca-file", "ca.pem"];
    let ended = run(&clear);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--etcd"), "{}", ended.stderr);
    assert!(ended.stderr.contains("https://"), "{}", ended.stderr);
    let ended = run(&["serve", "--etcd", "http://127.0.0.1:1", "--etcd-prefix", ""]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("--etcd-prefix is 0 bytes"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn what_is_no_coordinator_is_told_as_such() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = palisade(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.current_dir(directory.path());
    let mut coordinator = Running::start(command);
    address(&mut coordinator);
    let http = coordinator.line();
    let http = http.strip_prefix("PALISADE_HTTP_ADDR=").unwrap();
    let etcd = Etcd::start().await.unwrap();
    for addr in [http, &etcd.url()] {
        for line in [&["get", "a"][..], &["acquire", "a"]] {
            let ended = run(&[line, &["--addr", addr, "--timeout", "2s"]].concat());
            assert_eq!(ended.code, Some(69), "{addr}: {ended:?}");
            assert!(ended.stderr.contains("--listen"), "{}", ended.stderr);
        }
    }
}

#[test]
fn without_a_coordinator_clients_end_with_69() {
    let secret = "00".repeat(16);
    let release = [
        "release",
        "a",
        "--token",
        "1",
        "--session",
        "0123456789abcdef",
        "--secret",
        &secret,
    ];
    for line in [&["acquire", "a"][..], &["get", "a"], &["list"], &release] {
        // Port 1 is reserved, and nothing listens there.
        let mut command = palisade(line);
        let output = command
            .args(["--addr", "127.0.0.1:1", "--timeout", "300ms"])
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(69), "{line:?}: {stderr}");
        assert!(
            stderr.contains("--addr"),
            "{line:?} does not say what to do: {stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{line:?}: {stderr}");
    }
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let output = palisade(&["list"])
        .env("PALISADE_LOG", "a=b=c")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("PALISADE_LOG")
    );
}

#[test]
fn every_help_and_the_version_go_to_stdout() {
    for line in [
        "--help",
        "serve --help",
        "dev --help",
        "demo --help",
        "acquire --help",
        "release --help",
        "get --help",
        "list --help",
        "guard --help",
        "guard install --help",
        "bench --help",
        "bench lease --help",
        "bench handoff --help",
        "bench sessions --help",
        "--version",
    ] {
        let ended = run(&line.split(' ').collect::<Vec<_>>());
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{line}");
        assert!(!ended.stdout.is_empty(), "{line}");
    }
    assert!(
        run(&["--help"])
            .stdout
            .contains("75  another session holds")
    );
}
