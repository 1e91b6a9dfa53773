//! The example: a file with fences, killed, torn and taken over.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use palisade_guard::GuardError;

use crate::{grant, name};

#[allow(dead_code, reason = "its main is for people")]
#[path = "../../examples/file_engine.rs"]
mod file_engine;

use file_engine::Engine;

/// Where the log is that a copy of this process writes.
const LOG: &str = "PALISADE_TEST_ENGINE_LOG";

fn log() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data.log");
    (directory, path)
}

#[track_caller]
fn assert_stale(error: &(dyn std::error::Error + Send + Sync + 'static), at: u64) {
    let error = error.downcast_ref::<GuardError>();
    assert!(
        matches!(error, Some(GuardError::Stale { fence, .. }) if fence.get() == at),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_example_runs_and_runs_again() {
    let (_directory, path) = log();
    for _ in 0..2 {
        assert_eq!(file_engine::demonstrate(&path).await.unwrap(), Some(200));
    }
}

#[tokio::test]
async fn a_stale_writer_is_refused_and_leaves_nothing_in_the_file() {
    let (_directory, path) = log();
    let engine = Engine::open(&path).unwrap();
    let old = engine.seal(&grant("orders", 10)).await.unwrap();
    old.put(1).unwrap();
    let new = engine.seal(&grant("orders", 11)).await.unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_stale(&*old.put(2).unwrap_err(), 11);
    assert_stale(&*engine.put_for(&grant("orders", 10), 3).unwrap_err(), 11);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    new.put(4).unwrap();
    engine.put_for(&grant("orders", 11), 5).unwrap();
    assert_eq!(engine.get(&name("orders")), Some(5));
    assert!(Engine::open(&path).is_err(), "two tables for one file");
}

/// A crash tears the last record off; what was acknowledged before stays, fences first of all.
#[tokio::test]
async fn a_torn_record_is_cut_off_wherever_it_is_torn() {
    let (_directory, path) = log();
    {
        let engine = Engine::open(&path).unwrap();
        let writer = engine.seal(&grant("orders", 10)).await.unwrap();
        writer.put(1).unwrap();
        engine.seal(&grant("orders", 11)).await.unwrap();
    }
    let whole = std::fs::read(&path).unwrap();
    let mut lines = whole.split_inclusive(|byte| *byte == b'\n');
    let last = lines.next_back().unwrap().len();
    for torn in 1..last {
        std::fs::write(&path, &whole[..whole.len() - torn]).unwrap();
        let engine = Engine::open(&path).unwrap();
        // This one was never answered: the one before it counts.
        assert_eq!(engine.fence(&name("orders")).unwrap().get(), 10);
        assert_eq!(engine.get(&name("orders")), Some(1));
        engine.put_for(&grant("orders", 10), 2).unwrap();
        drop(engine);
        let engine = Engine::open(&path).unwrap();
        assert_eq!(
            engine.get(&name("orders")),
            Some(2),
            "written behind the tear"
        );
    }
    let mut garbage = OpenOptions::new().append(true).open(&path).unwrap();
    garbage.write_all(b"0123 value orders 9\n\xff\xff").unwrap();
    assert_eq!(Engine::open(&path).unwrap().get(&name("orders")), Some(2));
}

/// Not a test by itself: it runs as the process that is killed.
#[allow(clippy::print_stdout, reason = "how a process tells its parent")]
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(LOG) else {
        return;
    };
    let engine = Engine::open(Path::new(&path)).unwrap();
    let writer = engine.seal(&grant("orders", 10)).await.unwrap();
    for value in 1..100_000 {
        writer.put(value).unwrap();
        // A line of its own behind the harness's words.
        println!("\nwritten {value}");
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// kill -9 in the middle of writes: what was acknowledged is there, the fence too, and the takeover holds.
#[tokio::test]
async fn a_killed_engine_recovers_its_fence_and_what_it_acknowledged() {
    let (_directory, path) = log();
    for killed_after in [1, 50] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "engine::writes_until_it_is_killed",
                "--nocapture",
            ])
            .env(LOG, &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let acknowledged = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("written ")?.parse::<u64>().ok())
            .find(|value| *value >= killed_after)
            .unwrap();
        drop(child);
        let engine = Engine::open(&path).unwrap();
        let value = engine.get(&name("orders")).unwrap();
        assert!(
            value >= acknowledged,
            "{value} after {acknowledged} was acknowledged"
        );
        assert_eq!(engine.fence(&name("orders")).unwrap().get(), 10);
    }
    {
        let engine = Engine::open(&path).unwrap();
        let new = engine.seal(&grant("orders", 11)).await.unwrap();
        new.put(7).unwrap();
    }
    let engine = Engine::open(&path).unwrap();
    assert_stale(&*engine.put_for(&grant("orders", 10), 8).unwrap_err(), 11);
    assert_stale(&engine.seal(&grant("orders", 10)).await.unwrap_err(), 11);
    assert_eq!(engine.get(&name("orders")), Some(7));
}
