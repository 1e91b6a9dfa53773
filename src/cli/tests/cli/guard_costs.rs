//! `palisade bench guard`: what it prints and what it leaves behind; never how fast anything is.

use std::fs;
use std::path::Path;

use palisade_test_support::Postgres;
use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Ended, Running, entries, palisade};

const SHORT: [&str; 6] = ["--rounds", "1", "--round", "100ms", "-o", "jsonl"];

fn bench(home: &Path, arguments: &[&str]) -> Running {
    let mut command = palisade(&["bench", "guard"]);
    command.args(arguments).env("TMPDIR", home);
    Running::start(command)
}

fn objects(ended: &Ended) -> Vec<Value> {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn assert_nothing_left(postgres: &Postgres, home: &Path) {
    let databases = "SELECT datname FROM pg_database ORDER BY 1";
    let databases = postgres.psql("postgres", databases).await.unwrap();
    assert_eq!(databases.trim(), "postgres\ntemplate0\ntemplate1");
    assert_eq!(entries(home), Vec::<String>::new());
}

#[tokio::test]
async fn each_variant_is_told_beside_the_unguarded_one() {
    let (postgres, home) = (
        Postgres::start().await.unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let target = ["--postgres", &postgres.url(), "--concurrency", "2"];
    let only = ["--only", "postgres,sqlite"];
    let ended = bench(home.path(), &[&target[..], &only, &SHORT].concat()).ends();
    let objects = objects(&ended);
    let (last, rows) = objects.split_last().unwrap();
    let told: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| {
            (
                row["store"].as_str().unwrap(),
                row["variant"].as_str().unwrap(),
            )
        })
        .collect();
    let postgres_rows = [
        "unguarded-4",
        "guarded-4",
        "share-4",
        "upsert-4",
        "unguarded",
        "guarded",
        "share",
        "upsert",
        "autocommit",
        "autocommit-checked",
        "seal-busy",
        "seal-idle",
        "seal-share",
        "seal-upsert",
    ];
    let sqlite_rows = ["unguarded-4", "guarded-4", "unguarded", "guarded"];
    let expected: Vec<(&str, &str)> = postgres_rows
        .map(|variant| ("postgres", variant))
        .into_iter()
        .chain(sqlite_rows.map(|variant| ("sqlite", variant)))
        .collect();
    assert_eq!(told, expected);
    for row in rows {
        assert_eq!(row["bench"], "guard", "{row}");
        for key in ["statements", "concurrency", "ops_per_s", "p50_us", "p99_us"] {
            assert!(row[key].is_number(), "{key}: {row}");
        }
        assert!(row["cpu_s_per_100k"].is_object(), "{row}");
    }
    assert_eq!(last["bench"], "guard");
    // A check leaves no old version of a fence, and no multixact; the upsert does.
    assert_eq!(last["dead_tuples"]["guarded"], 0, "{last}");
    assert_eq!(last["multixacts"]["guarded"], 0, "{last}");
    assert_eq!(last["synchronous_commit"], "on", "{last}");
    assert_eq!(last["ratios"].as_array().unwrap().len(), 12, "{last}");
    assert_nothing_left(&postgres, home.path()).await;
}

#[test]
fn the_fences_in_memory_are_measured_by_the_operation() {
    let home = tempfile::tempdir().unwrap();
    let ended = bench(home.path(), &[&["--only", "memory"][..], &SHORT].concat()).ends();
    let objects = objects(&ended);
    let Some((last, rows)) = objects.split_last() else {
        panic!("{objects:?}")
    };
    let told: Vec<&Value> = rows.iter().map(|row| &row["variant"]).collect();
    let expected = [
        "handle-all",
        "handle-hot",
        "handle-one",
        "name-all",
        "name-hot",
        "sealed-all",
        "sealed-hot",
    ];
    assert_eq!(told, expected);
    for row in rows {
        assert_eq!(row["store"], "memory", "{row}");
        assert_eq!(row["concurrency"], 2, "{row}");
        assert!(row["ns_per_op"].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(last["ratio"], Value::Null);
}

#[tokio::test]
async fn a_stopped_bench_drops_its_database() {
    let (postgres, home) = (
        Postgres::start().await.unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let target = ["--postgres", &postgres.url(), "--concurrency", "2"];
    let mut running = bench(home.path(), &[&target[..], &["--round", "10m"]].concat());
    running.says("round 1");
    running.signal(Signal::INT);
    let ended = running.ends();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_nothing_left(&postgres, home.path()).await;
}

#[test]
fn a_file_that_is_there_is_not_touched() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("data.sqlite");
    fs::write(&file, "somebody's").unwrap();
    let path = file.to_str().unwrap();
    let only = ["--only", "sqlite", "--sqlite", path];
    let ended = bench(home.path(), &[&only[..], &SHORT].concat()).ends();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("exists"), "{ended:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "somebody's");
    assert_eq!(entries(home.path()), ["data.sqlite"]);

    let ended = bench(home.path(), &["--only", "postgres"]).ends();
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--postgres"), "{ended:?}");
}
