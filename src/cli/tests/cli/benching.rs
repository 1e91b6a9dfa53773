//! `palisade bench`: what it prints and what it leaves behind; never how fast anything is.

use std::fs;
use std::path::Path;

use palisade_test_support::{Etcd, EtcdVersion};
use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Ended, Running, entries, palisade, run};

const ROW: [&str; 7] = [
    "bench",
    "concurrency",
    "cpu_s_per_100k",
    "ops_per_s",
    "p50_us",
    "p99_us",
    "variant",
];

fn bench(home: &Path, etcd: &Etcd, arguments: &[&str]) -> Running {
    let mut command = palisade(&["bench"]);
    command.args(arguments).args(["--etcd", &etcd.url()]);
    command.env("TMPDIR", home);
    Running::start(command)
}

fn objects(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn assert_row(row: &Value, bench: &str, variant: &str, concurrency: u32) {
    let keys: Vec<&String> = row.as_object().unwrap().keys().collect();
    assert_eq!(keys, ROW, "{row}");
    assert_eq!(row["bench"], bench, "{row}");
    assert_eq!(row["variant"], variant, "{row}");
    assert_eq!(row["concurrency"], concurrency, "{row}");
    assert!(row["ops_per_s"].as_f64().unwrap() > 0.0, "{row}");
    let (p50, p99) = (row["p50_us"].as_u64(), row["p99_us"].as_u64());
    assert!(p50.unwrap() > 0 && p99 >= p50, "{row}");
    // etcd is on this machine, and found.
    for process in ["load", "coordinator", "etcd"] {
        let seconds = &row["cpu_s_per_100k"][process];
        assert!(seconds.is_f64(), "{process}: {row}");
    }
}

/// Neither keys nor files nor processes.
async fn assert_nothing_left(etcd: &Etcd, home: &Path) {
    let keys = etcd.etcdctl(&["get", "", "--prefix", "--keys-only"]);
    assert_eq!(keys.await.unwrap().trim(), "");
    assert_eq!(entries(home), Vec::<String>::new());
    let mark = format!("TMPDIR={}", home.display());
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let left = processes.filter(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == mark.as_bytes())
    });
    assert_eq!(left.count(), 0);
}

async fn etcd(version: EtcdVersion) -> Etcd {
    Etcd::builder().version(version).start().await.unwrap()
}

#[tokio::test]
async fn leases_and_hand_overs_are_measured_in_turns() {
    let (etcd, home) = (etcd(EtcdVersion::V3_4).await, tempfile::tempdir().unwrap());
    let rounds = ["--rounds", "2", "--round", "300ms", "-o", "jsonl"];
    for (name, concurrency) in [("lease", [1, 8]), ("handoff", [2, 4])] {
        let tasks = concurrency.map(|tasks| tasks.to_string()).join(",");
        let arguments = [&[name, "--concurrency", &tasks][..], &rounds].concat();
        let ended = bench(home.path(), &etcd, &arguments).ends();
        let objects = objects(&ended);
        assert_eq!(objects.len(), 7, "{ended:?}");
        for (index, tasks) in concurrency.into_iter().enumerate() {
            for (step, variant) in ["v3lock", "stream", "unary"].into_iter().enumerate() {
                assert_row(&objects[3 * index + step], name, variant, tasks);
            }
        }
        let last = &objects[6];
        assert_eq!(last["bench"], name);
        assert!(last["ratio"].as_f64().unwrap() > 0.0, "{last}");
        assert_eq!(last["ratios"].as_array().unwrap().len(), 4, "{last}");
        assert_nothing_left(&etcd, home.path()).await;
    }
}

#[tokio::test]
async fn sessions_are_counted_and_weighed() {
    let (etcd, home) = (etcd(EtcdVersion::V3_5).await, tempfile::tempdir().unwrap());
    let size = ["--sessions", "20", "--ttl", "30s", "--for", "4s"];
    for variant in ["stream", "unary"] {
        let how = ["sessions", "--variant", variant, "-o", "jsonl"];
        let ended = bench(home.path(), &etcd, &[&how, &size[..]].concat());
        let objects = objects(&ended.ends());
        assert_eq!(objects.len(), 2);
        assert_row(&objects[0], "sessions", variant, 20);
        let last = &objects[1];
        assert_eq!(last["ratio"], 1.0, "{last}");
        assert_eq!(last["false_expiries"], 0, "{last}");
        assert!(last["rss_bytes_per_session"].is_u64(), "{last}");
        assert_nothing_left(&etcd, home.path()).await;
    }
}

#[tokio::test]
async fn a_table_names_the_etcd_that_was_measured() {
    let (etcd, home) = (etcd(EtcdVersion::V3_5).await, tempfile::tempdir().unwrap());
    let short = ["--variants", "v3lock,unary", "--concurrency", "2"];
    let rounds = ["--rounds", "1", "--round", "300ms"];
    let ended = bench(
        home.path(),
        &etcd,
        &[&["lease"], &short[..], &rounds].concat(),
    )
    .ends();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("etcd 3.5."), "{}", ended.stdout);
    assert!(ended.stdout.contains("\nv3lock   2 "), "{}", ended.stdout);
    assert_nothing_left(&etcd, home.path()).await;
}

#[tokio::test]
async fn a_stopped_bench_cleans_up() {
    let (etcd, home) = (etcd(EtcdVersion::V3_5).await, tempfile::tempdir().unwrap());
    let mut running = bench(home.path(), &etcd, &["lease", "--round", "10m"]);
    running.says("round 1");
    running.signal(Signal::INT);
    let ended = running.ends();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_nothing_left(&etcd, home.path()).await;
}

#[tokio::test]
async fn what_cannot_be_measured_says_why() {
    // Port 1 is reserved, and nothing listens there.
    let ended = run(&["bench", "lease", "--etcd", "http://127.0.0.1:1"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(69), ""));
    assert!(
        ended.stderr.contains("etcd at http://127.0.0.1:1"),
        "{ended:?}"
    );
    let (etcd, home) = (etcd(EtcdVersion::V3_5).await, tempfile::tempdir().unwrap());
    let ended = bench(
        home.path(),
        &etcd,
        &["lease", "--coordinator-arg", "--nonsense"],
    )
    .ends();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("--nonsense"), "{ended:?}");
    assert_nothing_left(&etcd, home.path()).await;
}
