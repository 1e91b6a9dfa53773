//! Clients of other languages: Python with stubs generated from proto/, as anybody would make them, and the
//! guard through psycopg.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use palisade_test_support::{Etcd, Postgres, within};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::setup::{LIMIT, coordinator};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a script with the client that `tests/python-env` has generated; what it reports.
async fn python(script: &str, arguments: &[&str]) -> Value {
    let environment = repository().join("target/python");
    let interpreter = environment.join("bin/python");
    assert!(
        interpreter.exists(),
        "{} is missing: tests/python-env makes it",
        interpreter.display()
    );
    let path = repository().join("tests/scenarios/languages").join(script);
    let child = Command::new(interpreter)
        .arg(path)
        .args(arguments)
        .env("PYTHONPATH", environment.join("client"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(script, LIMIT, child).await.unwrap().unwrap();
    let (told, complaint) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}: {complaint}");
    serde_json::from_slice(&told).unwrap()
}

#[tokio::test]
async fn python_over_unary_calls_and_a_watch() {
    let etcd = Etcd::start().await.unwrap();
    let coordinator = coordinator(&etcd.endpoints()).await;
    let address = coordinator.addr().replace("http://", "");
    let report = python("unary.py", &[&address, "python/unary"]).await;
    assert!(report["token"].as_u64().unwrap() > 0, "{report}");
    let mut rest = report;
    rest.as_object_mut().unwrap().remove("token");
    let expected = json!({
        "same_token": true,
        "renewed": true,
        "checked": "TOKEN_STATE_CURRENT",
        "released": "RELEASE_OUTCOME_RELEASED",
        "watched": ["SNAPSHOT_END", "GRANTED", "RELEASED", "VACANT"],
        "after_close": "NOT_FOUND",
    });
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn python_over_one_stream() {
    let etcd = Etcd::start().await.unwrap();
    let coordinator = coordinator(&etcd.endpoints()).await;
    let address = coordinator.addr().replace("http://", "");
    let report = python("stream.py", &[&address, "python/stream"]).await;
    assert!(report["token"].as_u64().unwrap() > 0, "{report}");
    let mut rest = report;
    rest.as_object_mut().unwrap().remove("token");
    let expected = json!({
        "resumed": false,
        "renewed": true,
        "released": "RELEASE_OUTCOME_RELEASED",
        "closed": "closed",
        "rest": [],
    });
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn python_writes_through_the_guard() {
    let server = Postgres::start().await.unwrap();
    let url = server.create_database("store").await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("guard.sql");
    std::fs::write(&script, palisade_guard::postgres::script()).unwrap();
    let report = python("guard.py", &[&url, script.to_str().unwrap()]).await;
    let refused = |entered: Value, code: &str, resource: &str, presented: Value, fence: Value| {
        let detail = json!({"resource": resource, "presented": presented, "fence": fence});
        json!({"entered": entered, "refused": [code, detail]})
    };
    let none = Value::Null;
    let expected = json!({
        "admitted": {"entered": ["ok", "ok"], "refused": null},
        "stale": refused(json!(["stale"]), "ZF001", "orders", json!(41), json!(42)),
        "unsealed": refused(json!(["unsealed"]), "ZF002", "orders", json!(43), json!(42)),
        "unguarded": refused(json!([]), "ZF003", "orders", none.clone(), none.clone()),
        "collision": refused(json!(["collision"]), "ZF004", "orders", json!(42), json!(42)),
        "another_row": refused(json!(["ok"]), "ZF003", "accounts/eu/18", none.clone(), none),
        "after_savepoint": "ZF003",
        "afterwards": ["ZF003", null],
        "rows": 2,
        "audit": [],
    });
    assert_eq!(report, expected);
}
