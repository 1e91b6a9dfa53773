use std::fs;
use std::path::Path;
use std::time::Duration;

use palisade_test_support::{Etcd, Postgres, eventually};
use rustix::process::Signal;

use crate::program::{Ended, Running, entries, palisade};

/// What nothing else on this machine has in its environment: the demo's processes inherit it.
fn mark(home: &Path) -> String {
    format!("TMPDIR={}", home.display())
}

/// How many processes of the demo are there, those that have ended and wait for their parent aside.
fn processes(home: &Path) -> usize {
    let mark = mark(home);
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == mark.as_bytes())
    })
    .count()
}

fn start(home: &Path, arguments: &[&str]) -> Running {
    let mut command = palisade(&["demo"]);
    command.args(arguments).env("TMPDIR", home);
    Running::start(command)
}

/// The story must have been told as it is meant, and nothing may be left.
fn assert_told(ended: &Ended, home: &Path) {
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    for part in [
        "FREEZES ann",
        "THAWS ann",
        "REFUSES ann's write",
        "the update is lost: 30 of 180",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("NOT SO"), "{}", ended.stdout);
    assert!(
        !ended.stdout.contains('\u{1b}'),
        "colours where there is no terminal"
    );
    assert_eq!(entries(home), Vec::<String>::new());
    assert_eq!(processes(home), 0);
}

#[test]
fn the_demo_shows_what_it_promises_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let ended = start(home.path(), &[]).ends();
    assert_told(&ended, home.path());
}

#[tokio::test]
async fn the_demo_on_real_servers_leaves_them_clean() {
    let (etcd, postgres) = tokio::join!(Etcd::start(), Postgres::start());
    let (etcd, postgres) = (etcd.unwrap(), postgres.unwrap());
    let home = tempfile::tempdir().unwrap();
    let arguments = ["--etcd", &etcd.url(), "--postgres", &postgres.url()];
    let ended = start(home.path(), &arguments).ends();
    assert_told(&ended, home.path());
    let keys = etcd
        .etcdctl(&["get", "", "--prefix", "--keys-only"])
        .await
        .unwrap();
    assert_eq!(keys.trim(), "");
    let databases = "SELECT count(*) FROM pg_database WHERE datname LIKE 'palisade%'";
    assert_eq!(
        postgres.psql("postgres", databases).await.unwrap().trim(),
        "0"
    );
}

#[test]
fn a_stopped_demo_cleans_up_even_while_a_worker_is_frozen() {
    for (signal, code) in [(Signal::INT, 130), (Signal::HUP, 129)] {
        let home = tempfile::tempdir().unwrap();
        let mut demo = start(home.path(), &[]);
        while !demo.line().contains("FREEZES") {}
        assert_eq!(
            processes(home.path()),
            4,
            "the demo, its coordinator and two workers"
        );
        demo.signal(signal);
        let ended = demo.ends();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(entries(home.path()), Vec::<String>::new());
        assert_eq!(processes(home.path()), 0);
    }
}

#[tokio::test]
async fn no_process_outlives_a_demo_that_was_killed() {
    let home = tempfile::tempdir().unwrap();
    let mut demo = start(home.path(), &[]);
    while !demo.line().contains("FREEZES") {}
    demo.signal(Signal::KILL);
    assert_eq!(demo.ends().code, None);
    let gone = async || processes(home.path()) == 0;
    eventually("the demo's processes to end", Duration::from_secs(20), gone)
        .await
        .unwrap();
}
