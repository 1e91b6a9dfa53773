//! Processes end when told, and with those who started them.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use palisade_test_support::{Error, Process, eventually};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

/// Set in the copy of this test program that is to be killed.
const INNER: &str = "PALISADE_TEST_INNER_LOG";

fn shell(script: &str, log: &Path) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Process::spawn("shell", &command, log).expect("sh starts")
}

/// Runs, and is no zombie. `ps` is not on every Linux, and `/proc` not on every other system.
fn runs(pid: &str) -> bool {
    let state = match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit_once(") ")
            .map(|(_, state)| state.to_owned())
            .unwrap_or_default(),
        Err(_) if Path::new("/proc/self").exists() => String::new(),
        Err(_) => {
            let mut ps = Command::new("ps");
            let state = ps
                .args(["-o", "stat=", "-p", pid])
                .output()
                .expect("ps runs")
                .stdout;
            String::from_utf8_lossy(&state).into_owned()
        }
    };
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

async fn first_line(process: &Process) -> String {
    eventually("a line of output", SOON, async || {
        process.output().contains('\n')
    })
    .await
    .expect("the process writes");
    process
        .output()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn output_and_status_are_kept() {
    let dir = TempDir::new().unwrap();
    let mut process = shell("echo out; echo err >&2; exit 3", &dir.path().join("a.log"));
    assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3));
    assert_eq!(process.output(), "out\nerr\n");
    process.kill().unwrap();
    assert!(
        process.pause().is_err(),
        "an ended process cannot be paused"
    );
}

#[tokio::test]
async fn a_deaf_process_is_killed_at_the_deadline() {
    let dir = TempDir::new().unwrap();
    let script = "trap '' TERM; echo ready; while :; do sleep 1; done";
    let mut process = shell(script, &dir.path().join("a.log"));
    first_line(&process).await;
    let status = process
        .stop_gracefully(Duration::from_millis(300))
        .await
        .unwrap();
    assert!(status.code().is_none(), "ended by a signal: {status}");
}

#[tokio::test]
async fn a_frozen_process_still_stops_gracefully() {
    let dir = TempDir::new().unwrap();
    let script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done";
    let mut process = shell(script, &dir.path().join("a.log"));
    first_line(&process).await;
    process.pause().unwrap();
    assert_eq!(process.stop_gracefully(SOON).await.unwrap().code(), Some(7));
}

#[tokio::test]
async fn descendants_in_groups_of_their_own_are_killed_too() {
    let dir = TempDir::new().unwrap();
    let process = shell(
        "setsid sleep 1000 & echo $!; wait",
        &dir.path().join("a.log"),
    );
    let child = first_line(&process).await;
    assert!(runs(&child));
    drop(process);
    assert!(!runs(&child), "a descendant outlived its parent");
}

/// Not a test of its own: what `a_killed_test_takes_its_processes_along` starts and kills.
#[tokio::test]
async fn inner_that_starts_a_process_and_is_killed() {
    let Some(log) = env::var_os(INNER) else {
        return;
    };
    let mut process = shell("echo $$; exec sleep 1000", Path::new(&log));
    process.wait(Duration::from_secs(1_000)).await.unwrap();
}

#[tokio::test]
async fn a_killed_test_takes_its_processes_along() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("inner.log");
    let mut inner = Command::new(env::current_exe().unwrap())
        .args(["--exact", "inner_that_starts_a_process_and_is_killed"])
        .env(INNER, &log)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the inner process", SOON, async || read().contains('\n'))
        .await
        .unwrap();
    let pid = read().trim().to_owned();
    assert!(runs(&pid));
    inner.kill().unwrap();
    inner.wait().unwrap();
    eventually("the end of the inner process", SOON, async || !runs(&pid))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_process_outlives_the_thread_that_started_it() {
    let dir = TempDir::new().unwrap();
    let log = dir.path().join("a.log");
    let thread = std::thread::spawn(move || {
        let process = shell("echo $$; exec sleep 1000", &log);
        // Only now has the kernel been told whom the process ends with.
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(first_line(&process));
        process
    });
    let mut process = thread.join().unwrap();
    let ended = process.wait(Duration::from_millis(200)).await;
    assert!(matches!(ended, Err(Error::TimedOut { .. })), "{ended:?}");
}
