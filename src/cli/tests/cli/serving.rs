use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Dev, Ended, Running, address, entries, palisade};

fn serve(directory: &Path, more: &[&str]) -> Running {
    let mut command = palisade(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    Running::start({
        command.args(more).current_dir(directory);
        command
    })
}

fn client(addr: &str, arguments: &[&str]) -> Ended {
    palisade(arguments)
        .env("PALISADE_ADDR", addr)
        .output()
        .unwrap()
        .into()
}

#[test]
fn without_etcd_the_state_is_in_a_file_here_that_outlives_the_process_and_has_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = serve(directory.path(), &[]);
    let addr = address(&mut first);
    let acquired = client(
        &addr,
        &["acquire", "a", "--ttl", "60s", "--detach", "-o", "json"],
    );
    let acquired: Value = serde_json::from_str(&acquired.stdout).unwrap();
    assert!(entries(directory.path()).contains(&"palisade.db".to_owned()));

    let second = serve(directory.path(), &["--embedded", "palisade.db"]).ends();
    assert_eq!(
        (second.code, second.stdout.as_str()),
        (Some(1), ""),
        "{second:?}"
    );

    first.signal(Signal::TERM);
    let ended = first.ends();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let file = directory.path().join("palisade.db");
    assert!(
        ended.stderr.contains(file.to_str().unwrap()),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("high availability"),
        "{}",
        ended.stderr
    );

    let mut again = serve(directory.path(), &[]);
    let addr = address(&mut again);
    let seen = client(&addr, &["get", "a", "-o", "json"]);
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    assert_eq!(seen["lease"]["token"], acquired["token"]);
}

#[test]
fn a_service_manager_says_where_the_file_is() {
    let (here, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = palisade(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command
        .current_dir(here.path())
        .env("STATE_DIRECTORY", state.path());
    let mut running = Running::start(command);
    address(&mut running);
    assert!(entries(state.path()).contains(&"palisade.db".to_owned()));
    assert_eq!(entries(here.path()), Vec::<String>::new());
}

#[test]
fn dev_throws_its_state_away() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let Dev {
            running,
            addr: _,
            home,
        } = Dev::start();
        assert_eq!(entries(home.path()).len(), 1);
        running.signal(signal);
        let ended = running.ends();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(
            ended.stderr.contains("NOT for production"),
            "{}",
            ended.stderr
        );
        assert_eq!(entries(home.path()), Vec::<String>::new());
    }
}

#[test]
fn nobody_has_to_read_what_is_logged() {
    let home = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = palisade(&["dev", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command.env("TMPDIR", home.path());
    let mut running = Running::start_logging_to(command, Stdio::from(writer));
    address(&mut running);
    running.signal(Signal::HUP);
    let ended = running.ends();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(entries(home.path()), Vec::<String>::new());
}

#[test]
fn a_coordinator_ends_with_a_parent_that_asked_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = palisade(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command
        .arg("--end-with-stdin")
        .current_dir(directory.path());
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdin(Stdio::from(reader));
    let mut running = Running::start(command);
    address(&mut running);
    drop(writer);
    assert_eq!(running.ends().code, Some(0));
}

#[test]
fn a_second_signal_ends_a_drain_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = serve(directory.path(), &[]);
    let addr = address(&mut running);
    // One that says nothing is waited for, up to the drain's bound.
    let silent = TcpStream::connect(addr.strip_prefix("http://").unwrap()).unwrap();
    running.signal(Signal::INT);
    running.says("draining");
    running.signal(Signal::TERM);
    let ended = running.ends();
    assert_eq!(ended.code, Some(143), "{ended:?}");
    drop(silent);
}

#[test]
fn log_lines_are_json_if_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = serve(directory.path(), &["--log-format", "json"]);
    address(&mut running);
    running.signal(Signal::TERM);
    let stderr = running.ends().stderr;
    let lines = stderr.lines().filter(|line| line.starts_with('{'));
    let logged: Vec<Value> = lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        logged
            .iter()
            .any(|line| line["fields"]["message"] == "serving"),
        "{stderr}"
    );
}

/// Neither what is logged nor who does not read it holds up whoever is served.
#[test]
fn a_log_that_is_not_read_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = palisade(&["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
    command
        .env("PALISADE_LOG", "trace")
        .current_dir(directory.path());
    let mut running = Running::start(command);
    let addr = address(&mut running);
    // Each fills a good part of the 64 KiB that a pipe takes.
    for round in 0..20 {
        let name = format!("r{round}");
        let acquired = client(&addr, &["acquire", &name, "--detach", "--timeout", "20s"]);
        assert_eq!(acquired.code, Some(0), "{acquired:?}");
    }
    // It would say that it ends where nobody reads.
    running.signal(Signal::KILL);
}

#[test]
fn a_grant_is_written_down_as_json() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = serve(directory.path(), &["--log-format", "json"]);
    let addr = address(&mut running);
    let acquired = client(&addr, &["acquire", "a", "--detach", "-o", "json"]);
    let acquired: Value = serde_json::from_str(&acquired.stdout).unwrap();
    running.signal(Signal::TERM);
    let log = running.ends().stderr;
    let grant = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let grant = grant
        .into_iter()
        .find(|line| line["fields"]["event"] == "grant")
        .expect(&log);
    assert_eq!(grant["target"], "palisade::audit");
    assert_eq!(grant["fields"]["resource"], "a");
    assert_eq!(grant["fields"]["token"], acquired["token"]);
    let secret = acquired["credentials"]["secret"].as_str().unwrap();
    assert!(!log.contains(secret), "{log}");
}
