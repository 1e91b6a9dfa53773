use crate::program::{Dev, palisade, run};

#[test]
fn what_cannot_be_used_ends_with_2_and_says_why() {
    let lines: [&[&str]; 7] = [
        &[],
        &["nonsense"],
        &["acquire", "a//b"],
        &["acquire", "a", "--ttl", "5"],
        &["acquire", "a", "--addr", "localhost"],
        &["serve", "--etcd", "not-a-url"],
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
fn a_bound_that_the_coordinator_keeps_is_told_as_such() {
    let dev = Dev::start();
    let ended = dev.run(&["acquire", "a", "--ttl", "24h"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("ttl"), "{}", ended.stderr);
    assert!(
        !ended.stderr.contains("Invalid"),
        "no names of types: {}",
        ended.stderr
    );
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
