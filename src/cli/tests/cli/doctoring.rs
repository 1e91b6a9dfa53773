//! `palisade doctor`, on what is well and on what is not.

use std::time::Duration;

use palisade_test_support::{Coordinator, Etcd, EtcdVersion, Postgres, eventually};
use serde_json::{Value, json};

use crate::program::{Dev, Ended, run};

const LIMIT: Duration = Duration::from_secs(60);

/// What it says in JSON, whatever came out.
fn doctor(arguments: &[&str]) -> (Ended, Value) {
    let ended = run(&[&["doctor", "-o", "json"], arguments].concat());
    let told: Value = serde_json::from_str(&ended.stdout).expect(&ended.stderr);
    let checks = told["checks"].as_array().unwrap();
    let count = |verdict: &str| {
        checks
            .iter()
            .filter(|one| one["verdict"] == verdict)
            .count()
    };
    assert_eq!(told["failed"], count("fail"), "{told}");
    assert_eq!(told["warned"], count("warn"), "{told}");
    assert_eq!(told["ok"], count("fail") == 0, "{told}");
    let code = i32::from(told["ok"] == false);
    assert_eq!(ended.code, Some(code), "{told}");
    for check in checks {
        // Whatever is not well says what to do.
        let advice = check["advice"]
            .as_str()
            .is_some_and(|text| !text.is_empty());
        assert_eq!(advice, check["verdict"] != "ok", "{check}");
    }
    (ended, told)
}

/// The verdicts of all checks of one kind.
fn verdicts<'a>(told: &'a Value, check: &str) -> Vec<&'a str> {
    let checks = told["checks"].as_array().unwrap().iter();
    let alike = checks.filter(|one| one["check"] == check);
    alike.map(|one| one["verdict"].as_str().unwrap()).collect()
}

fn found<'a>(told: &'a Value, check: &str) -> &'a Value {
    let mut checks = told["checks"].as_array().unwrap().iter();
    checks.find(|one| one["check"] == check).expect(check)
}

#[tokio::test]
async fn what_is_well_is_told_so_and_nothing_is_changed() {
    let etcd = Etcd::start().await.unwrap();
    let builder = || Coordinator::builder().etcd(&etcd.endpoints());
    let one = builder().start().await.unwrap();
    let two = builder().start().await.unwrap();
    let addr = format!("{},{}", one.addr(), two.addr());
    let url = etcd.url();
    let arguments = ["--addr", &addr, "--etcd", &url];
    let before = etcd.revision().await.unwrap();
    let (_, told) = doctor(&arguments);
    assert_eq!(etcd.revision().await.unwrap(), before, "it has written");
    assert_eq!(told["failed"], 0, "{told}");
    assert_eq!(verdicts(&told, "coordinator"), ["ok"; 2], "{told}");
    assert_eq!(verdicts(&told, "coordinator-ready"), ["ok"; 2], "{told}");
    for check in [
        "coordinators",
        "coordinators-etcd",
        "etcd-endpoint",
        "etcd-space",
    ] {
        assert_eq!(verdicts(&told, check), ["ok"], "{check}: {told}");
    }
    assert_eq!(verdicts(&told, "clock"), ["ok"; 2], "{told}");
    assert_eq!(found(&told, "etcd-members")["voters"], 1);
    assert!(
        found(&told, "etcd-read")["read_us"].as_u64() > Some(0),
        "{told}"
    );
    assert!(verdicts(&told, "etcd-write").is_empty(), "{told}");
    let (one_says, etcd_says) = (found(&told, "coordinator"), found(&told, "etcd-endpoint"));
    assert_eq!(one_says["cluster_id"], etcd_says["cluster_id"]);

    // A write is seen to work, and nothing of it stays.
    let (_, told) = doctor(&[&arguments[..], &["--write"]].concat());
    assert_eq!(told["failed"], 0, "{told}");
    let write = found(&told, "etcd-write");
    assert!(write["write_us"].as_u64() > Some(0), "{write}");
    assert!(write["least_ttl_ms"].as_u64() >= Some(1_000), "{write}");
    assert!(etcd.revision().await.unwrap() > before);
    let left = etcd
        .etcdctl(&["get", "/palisade/v1/look/", "--prefix"])
        .await
        .unwrap();
    assert_eq!(left, "");
    assert_eq!(
        etcd.etcdctl(&["lease", "list"])
            .await
            .unwrap()
            .lines()
            .count(),
        1
    );

    // As people and as other programs read it.
    let table = run(&[&["doctor"], &arguments[..]].concat());
    assert_eq!(table.code, Some(0), "{table:?}");
    assert!(
        table.stdout.starts_with("OK    coordinator "),
        "{}",
        table.stdout
    );
    assert!(!table.stdout.contains('\u{1b}'), "{}", table.stdout);
    let lines = run(&[&["doctor", "-o", "jsonl"], &arguments[..]].concat());
    let lines: Vec<Value> = lines
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["check"] == "etcd-version"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn what_is_away_or_silent_fails_with_what_to_do() {
    let nowhere = [
        "--addr",
        "127.0.0.1:1",
        "--etcd",
        "http://127.0.0.1:1",
        "--timeout",
        "1s",
    ];
    let (ended, told) = doctor(&nowhere);
    assert_eq!(verdicts(&told, "coordinator"), ["fail"], "{told}");
    assert_eq!(verdicts(&told, "etcd-endpoint"), ["fail"], "{told}");
    assert!(ended.stderr.contains("2 of "), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");

    let mut etcd = Etcd::start().await.unwrap();
    let one = Coordinator::builder()
        .etcd(&etcd.endpoints())
        .start()
        .await
        .unwrap();
    let url = etcd.url();
    etcd.pause().unwrap();
    eventually("it is not ready", LIMIT, async || !one.is_ready().await)
        .await
        .unwrap();
    let frozen = ["--addr", &one.addr(), "--etcd", &url, "--timeout", "3s"];
    let (_, told) = doctor(&frozen);
    etcd.resume().unwrap();
    assert_eq!(verdicts(&told, "coordinator"), ["ok"], "{told}");
    assert_eq!(
        found(&told, "coordinator-ready")["verdict"],
        "fail",
        "{told}"
    );
    assert_eq!(
        found(&told, "coordinator-ready")["reasons"],
        json!(["STORE_UNAVAILABLE"])
    );
    assert_eq!(verdicts(&told, "etcd-endpoint"), ["fail"], "{told}");
    let said = found(&told, "etcd-endpoint")["found"].as_str().unwrap();
    assert!(said.contains("no answer within"), "{said}");

    // Something else answers there.
    let (_, told) = doctor(&["--addr", &url, "--timeout", "3s"]);
    assert_eq!(verdicts(&told, "coordinator"), ["fail"], "{told}");
}

#[tokio::test]
async fn an_etcd_without_space_fails() {
    let etcd = Etcd::builder()
        .quota_bytes(2 * 1024 * 1024)
        .start()
        .await
        .unwrap();
    let one = Coordinator::builder()
        .etcd(&etcd.endpoints())
        .start()
        .await
        .unwrap();
    let filling = "x".repeat(100 * 1024);
    let mut fill = 0;
    eventually("there is no space", LIMIT, async || {
        fill += 1;
        let key = format!("fill{fill}");
        drop(etcd.etcdctl(&["put", &key, &filling]).await);
        etcd.etcdctl(&["alarm", "list"])
            .await
            .unwrap()
            .contains("NOSPACE")
    })
    .await
    .unwrap();
    eventually("it is not ready", LIMIT, async || !one.is_ready().await)
        .await
        .unwrap();
    let url = etcd.url();
    let (_, told) = doctor(&["--addr", &one.addr(), "--etcd", &url, "--write"]);
    let alarm = found(&told, "etcd-alarm");
    assert_eq!(
        (&alarm["verdict"], &alarm["alarm"]),
        (&json!("fail"), &json!("NOSPACE"))
    );
    assert!(
        alarm["advice"].as_str().unwrap().contains("defrag"),
        "{alarm}"
    );
    assert_eq!(
        found(&told, "coordinator-ready")["reasons"],
        json!(["LIMIT_REACHED"])
    );
    assert_eq!(verdicts(&told, "etcd-write"), ["fail"], "{told}");
}

#[tokio::test]
async fn an_old_etcd_is_told_with_its_known_faults() {
    let old = Etcd::builder()
        .version(EtcdVersion::V3_4)
        .start()
        .await
        .unwrap();
    let new = Etcd::start().await.unwrap();
    let faults = |url: &str| {
        let (_, told) = doctor(&["--etcd", url, "--timeout", "5s"]);
        // No coordinator was named, so that none is there is no failure.
        assert_eq!(verdicts(&told, "coordinator"), ["warn"], "{told}");
        let version = found(&told, "etcd-version").clone();
        assert_eq!(version["verdict"], "warn", "{version}");
        version
    };
    let (old, new) = (faults(&old.url()), faults(&new.url()));
    assert!(
        old["version"].as_str().unwrap().starts_with("3.4."),
        "{old}"
    );
    let grave = |version: &Value| {
        let faults = version["faults"].as_array().unwrap();
        assert!(
            faults.iter().all(|one| one["mended_in"].is_string()),
            "{version}"
        );
        faults.iter().filter(|one| one["grave"] == true).count()
    };
    assert!(grave(&old) > 0, "{old}");
    assert!(
        old["advice"].as_str().unwrap().contains("--strict-etcd"),
        "{old}"
    );
    assert!(grave(&new) == 0, "{new}");
}

#[tokio::test]
async fn coordinators_that_share_no_store_fail() {
    let (first, second) = tokio::join!(Etcd::start(), Etcd::start());
    let (first, second) = (first.unwrap(), second.unwrap());
    let on = |etcd: &Etcd| Coordinator::builder().etcd(&etcd.endpoints());
    let one = on(&first).start().await.unwrap();
    let elsewhere = on(&second).start().await.unwrap();
    let beside = on(&first)
        .arg("--etcd-prefix")
        .arg("/other")
        .start()
        .await
        .unwrap();
    let alone = Coordinator::builder().start().await.unwrap();
    for (other, says) in [
        (&elsewhere, "different etcd clusters"),
        (&beside, "different generations"),
        (&alone, "do not share a store"),
    ] {
        let addr = format!("{},{}", one.addr(), other.addr());
        let (_, told) = doctor(&["--addr", &addr]);
        let together = found(&told, "coordinators");
        assert_eq!(together["verdict"], "fail", "{told}");
        assert!(
            together["found"].as_str().unwrap().contains(says),
            "{together}"
        );
    }
    // And those that use another etcd, or another prefix, than the one that is looked at.
    let url = first.url();
    for (coordinator, verdict) in [
        (&one, "ok"),
        (&elsewhere, "fail"),
        (&beside, "warn"),
        (&alone, "fail"),
    ] {
        let (_, told) = doctor(&["--addr", &coordinator.addr(), "--etcd", &url]);
        assert_eq!(verdicts(&told, "coordinators-etcd"), [verdict], "{told}");
    }
    // Two endpoints of different clusters.
    let both = format!("{url},{}", second.url());
    let (_, told) = doctor(&["--addr", &one.addr(), "--etcd", &both]);
    assert_eq!(verdicts(&told, "etcd-members"), ["fail"], "{told}");
}

#[test]
fn tokens_that_were_pushed_ahead_of_the_clock_are_told() {
    let dev = Dev::start();
    let highest = || {
        let shown = dev.run(&["generation", "show", "-o", "json"]).stdout;
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["highest_token"].as_u64().unwrap()
    };
    let past = (highest() + 3 * 86_400_000_000).to_string();
    let line = [
        "generation",
        "advance",
        "--past",
        &past,
        "--reason",
        "a test",
        "--force",
        "--yes",
    ];
    assert_eq!(dev.run(&line).code, Some(0));
    let (_, told) = doctor(&["--addr", &dev.addr]);
    assert_eq!(verdicts(&told, "clock"), ["ok", "warn"], "{told}");
}

#[tokio::test]
async fn what_goes_past_a_guard_fails() {
    let dev = Dev::start();
    let postgres = Postgres::start().await.unwrap();
    let url = postgres.url();
    let psql = async |sql: &str| postgres.psql("postgres", sql).await.unwrap();
    let look = || doctor(&["--addr", &dev.addr, "--postgres", &url]).1;
    assert_eq!(verdicts(&look(), "guard"), ["fail"], "it is not installed");
    assert_eq!(run(&["guard", "install", "--postgres", &url]).code, Some(0));
    psql("CREATE TABLE orders (id bigint)").await;
    assert_eq!(verdicts(&look(), "guard"), ["warn"], "nothing is protected");
    psql("SELECT palisade.protect('orders', 'orders')").await;
    let told = look();
    assert_eq!(verdicts(&told, "guard"), ["ok"], "{told}");
    // What this server's settings put at risk is warned of.
    assert!(!verdicts(&told, "guard-audit").contains(&"fail"), "{told}");
    psql("ALTER TABLE orders DISABLE TRIGGER zz_palisade_guard").await;
    let told = look();
    assert!(verdicts(&told, "guard-audit").contains(&"fail"), "{told}");

    // A fence of another deployment's, or of a clock that was ahead.
    let holder = "0".repeat(32);
    psql(&format!(
        "SELECT palisade.seal('orders', {}, '{holder}')",
        1_u64 << 52
    ))
    .await;
    let told = look();
    assert_eq!(verdicts(&told, "guard-fences"), ["fail"], "{told}");
    assert!(
        found(&told, "guard-fences")["advice"]
            .as_str()
            .unwrap()
            .contains("--past"),
        "{told}"
    );
    let away = doctor(&[
        "--addr",
        &dev.addr,
        "--postgres",
        "postgres://x@127.0.0.1:1/x",
    ])
    .1;
    assert_eq!(verdicts(&away, "guard"), ["fail"], "{away}");
}

#[tokio::test]
async fn the_guard_in_a_file_is_looked_at_too() {
    let dev = Dev::start();
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("orders.db");
    let path = file.to_str().unwrap();
    let look = || doctor(&["--addr", &dev.addr, "--sqlite", path]).1;
    assert_eq!(verdicts(&look(), "guard"), ["fail"], "it is not there");
    assert!(!file.exists(), "it was made");
    std::fs::File::create(&file).unwrap();
    assert_eq!(verdicts(&look(), "guard"), ["fail"], "it is not installed");
    assert_eq!(run(&["guard", "install", "--sqlite", path]).code, Some(0));
    assert_eq!(verdicts(&look(), "guard"), ["warn"], "nothing is protected");
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{path}"))
        .await
        .unwrap();
    let sql = async |text: &'static str| sqlx::raw_sql(text).execute(&pool).await.unwrap();
    sql("CREATE TABLE orders (id INTEGER)").await;
    let protect = [
        "guard",
        "protect",
        "orders",
        "--resource",
        "orders",
        "--sqlite",
        path,
    ];
    let protected = run(&protect);
    assert_eq!(protected.code, Some(0), "{protected:?}");
    assert_eq!(verdicts(&look(), "guard"), ["ok"]);
    sql("DROP TRIGGER zz_palisade_guard_delete_orders").await;
    pool.close().await;
    let told = look();
    assert_eq!(verdicts(&told, "guard-audit"), ["fail"], "{told}");
}
