//! What commands say on real servers: tables, JSON and errors, with all that differs from run to run masked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use palisade_test_support::Postgres;

use super::{FILES, commands, is_update};
use crate::program::{Dev, Ended};

/// Each command, and what is run of it, in order. `$name` stands for a value of the run: the servers, and what the
/// first acquire printed.
const SCENES: &[(&str, &[&str])] = &[
    (
        "palisade-acquire",
        &[
            "acquire orders/eu-1 --ttl 60s --label nightly --metadata hello --detach",
            "acquire orders/eu-2 --ttl 60s --label nightly --detach --output json",
            "acquire orders/eu-3 --ttl 60s --label nightly --detach --output grant",
            "acquire orders/eu-1",
            "acquire orders/eu-1 --wait 10ms",
            "acquire orders//eu-1",
            "acquire orders/eu-1 --ttl 24h",
            "acquire orders/eu-1 --addr 127.0.0.1:1 --timeout 300ms",
        ],
    ),
    (
        "palisade-get",
        &[
            "get orders/eu-1",
            "get orders/eu-1 --output json",
            "get orders/eu-1 --output jsonl",
            "get orders/none",
            "get orders/none --output json",
            "get orders/eu-1 --addr 127.0.0.1:1 --timeout 300ms",
        ],
    ),
    (
        "palisade-list",
        &[
            "list",
            "list orders/eu-1 --output json",
            "list orders/ --output jsonl",
            "list none/",
            "list none/ --output json",
            "list 'a b'",
        ],
    ),
    (
        "palisade-watch",
        &[
            "watch orders/none --until vacant",
            "watch orders/eu-1 --until granted",
            "watch orders/eu-1 --until granted --output jsonl",
            "watch orders/ --until vacant",
            "watch --addr 127.0.0.1:1 --timeout 300ms",
        ],
    ),
    (
        "palisade-check",
        &[
            "check orders/eu-1 $token",
            "check orders/eu-1 $token --output json",
            "check orders/eu-1 1",
            "check orders/none 1 --output jsonl",
            "check orders/eu-1 0",
        ],
    ),
    (
        "palisade-generation-show",
        &["generation show", "generation show --output json"],
    ),
    (
        "palisade-release",
        &[
            "release orders/eu-1 --token 1 --session $session --secret $secret",
            "release orders/eu-1 --token $token --session $session --secret 00112233445566778899aabbccddeeff",
            "release orders/eu-1 --token $token --session $session --secret $secret",
            "release orders/eu-1 --token $token --session $session --secret $secret",
            "release orders/eu-1 --token $token --session nobody --secret $secret",
        ],
    ),
    // How leases are lost has tests of its own.
    (
        "palisade-run",
        &[
            "run orders/eu-2 --try -- true",
            "run orders/eu-2 --wait 10ms -- true",
            "run orders/eu-9 -- echo done",
            "run orders/eu-9 -- false",
            "run orders/eu-9 -- /no/such/program",
            "run orders/eu-9 --on-acquired false -- true",
            "run orders/eu-9 --ttl 9s --grace 4s -- true",
            "run orders/eu-9 --try --wait 1s -- true",
            "run orders/eu-9",
            "run orders/eu-9 --addr 127.0.0.1:1 --timeout 300ms -- true",
        ],
    ),
    (
        "palisade-guard-install",
        &[
            "guard install --postgres $postgres",
            "guard install --postgres postgres://nobody@127.0.0.1:1/orders",
            "guard install --sqlite absent.db",
            "guard install",
        ],
    ),
    (
        "palisade-guard-protect",
        &[
            "guard protect orders --resource orders --postgres $postgres",
            "guard protect accounts --columns shard,id --prefix accounts --postgres $postgres",
            "guard protect absent --resource orders --postgres $postgres",
            "guard protect orders --resource orders --sqlite $sqlite",
            "guard protect orders --columns id --sqlite $sqlite",
        ],
    ),
    (
        "palisade-guard-seal",
        &[
            "guard seal orders --postgres $postgres",
            "guard seal orders --sqlite $sqlite",
            "guard seal --grant orders#1#000102030405060708090a0b0c0d0e0f --postgres $postgres",
            "guard seal orders/eu-2 --sqlite $sqlite",
            "guard seal --grant orders --sqlite $sqlite",
        ],
    ),
    (
        "palisade-guard-status",
        &[
            "guard status orders --postgres $postgres",
            "guard status orders --sqlite $sqlite --output json",
            "guard status orders --postgres $postgres --output jsonl",
            "guard status absent --postgres $postgres",
        ],
    ),
    (
        "palisade-guard-audit",
        &[
            "guard audit --postgres $postgres",
            "guard audit --postgres $postgres --output json",
            "guard audit --postgres $postgres --output jsonl",
        ],
    ),
    (
        "palisade-guard-unprotect",
        &[
            "guard unprotect accounts --postgres $postgres",
            "guard unprotect orders --sqlite $sqlite",
            "guard unprotect absent --sqlite $sqlite",
        ],
    ),
    (
        "palisade-revoke",
        &[
            "revoke orders/eu-2 --current --reason test",
            "revoke orders/eu-2 --current --yes",
            "revoke orders/eu-2 --current --reason test --yes",
            "revoke orders/eu-3 --current --reason test --yes --output json",
            "revoke orders/eu-3 --current --reason test --yes",
            "get orders/eu-2",
        ],
    ),
    (
        "palisade-generation-advance",
        &[
            "generation advance --past 1 --reason test",
            "generation advance --past 1 --reason test --yes",
            "generation advance --past 1 --reason test --yes --output json",
            "generation advance --past 9007199254740990 --reason test --yes",
        ],
    ),
    (
        "palisade-drain",
        &[
            "drain 127.0.0.1:1",
            "drain 127.0.0.1:1 --reason test --timeout 300ms",
        ],
    ),
    (
        "palisade-doctor",
        &[
            "doctor --write",
            "doctor --addr 127.0.0.1:1 --timeout 300ms",
            "doctor --addr 127.0.0.1:1 --timeout 300ms --output json",
        ],
    ),
    // What it prints is the schema itself, which has tests of its own.
    ("palisade-guard-sql", &["guard sql --dialect oracle"]),
    (
        "palisade-config-check",
        &["config check $settings", "config check absent.toml"],
    ),
    (
        "palisade-config-dump",
        &[
            "config dump --set limits.max_ttl=2m",
            "config dump --set limits.max_til=2m",
            "config dump --set limits",
        ],
    ),
    // Their figures differ from run to run.
    (
        "palisade-bench-lease",
        &["bench lease", "bench lease --etcd http://127.0.0.1:1"],
    ),
    (
        "palisade-bench-handoff",
        &["bench handoff --etcd https://127.0.0.1:1"],
    ),
    (
        "palisade-bench-sessions",
        &["bench sessions --etcd http://127.0.0.1:1 --ttl 1s"],
    ),
    ("palisade-bench-guard", &["bench guard --only postgres"]),
    // What runs until it is told to end, and what it tells on the way, have tests of their own.
    (
        "palisade-serve",
        &[
            "serve --listen nowhere",
            "serve --etcd http://root:hunter2@127.0.0.1:2379",
            "serve --config absent.toml",
        ],
    ),
    ("palisade-top", &["top", "top orders/ --addr localhost"]),
    ("palisade-dev", &["dev --http nowhere"]),
    ("palisade-demo", &["demo --ttl 1s"]),
    ("palisade-completions", &["completions tcsh"]),
    ("palisade-man", &["man nonsense"]),
    ("palisade", &["", "nonsense", "acquier a", "--version"]),
];

#[tokio::test]
async fn what_is_said_on_real_servers_is_as_it_was() {
    let dev = Dev::start();
    let postgres = Postgres::builder()
        .setting("idle_in_transaction_session_timeout", "1min")
        .start()
        .await
        .unwrap();
    let tables = "CREATE TABLE orders (id bigint); CREATE TABLE accounts (shard text, id bigint)";
    postgres.psql("postgres", tables).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let sqlite = home.path().join("shop.db");
    fs::File::create(&sqlite).unwrap();
    let url = format!("sqlite:{}", sqlite.display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE orders (id INTEGER)")
        .execute(&pool)
        .await
        .unwrap();
    pool.close().await;
    let mut values = BTreeMap::from([
        ("postgres".to_owned(), postgres.url()),
        ("sqlite".to_owned(), sqlite.to_str().unwrap().to_owned()),
        (
            "settings".to_owned(),
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/palisade.toml").to_owned(),
        ),
    ]);
    let mut differing = Vec::new();
    for (name, lines) in SCENES {
        let mut told = String::new();
        for line in *lines {
            let ended = one(&dev, home.path(), line, &values);
            learn(&ended, &mut values);
            tell(line, &ended, &values, &mut told);
        }
        let file = Path::new(FILES).join(format!("live/{name}.txt"));
        if is_update() {
            fs::write(&file, &told).unwrap();
        }
        let kept = fs::read_to_string(&file).unwrap_or_default();
        if kept != told {
            differing.push(format!("--- {} now says:\n{told}", file.display()));
        }
    }
    assert!(
        differing.is_empty(),
        "run tests/snapshots-update, and look at the difference:\n{}",
        differing.concat()
    );
}

#[test]
fn every_command_has_been_run() {
    let scenes: BTreeSet<&str> = SCENES.iter().map(|scene| scene.0).collect();
    assert_eq!(scenes.len(), SCENES.len(), "one is there twice");
    let commands = commands();
    for command in &commands {
        let has_more = commands
            .iter()
            .any(|one| one.starts_with(&format!("{command}-")));
        let is_there = scenes.contains(command.as_str());
        assert!(is_there || has_more, "{command} is in no scene of live.rs");
    }
    for scene in scenes {
        assert!(
            commands.iter().any(|one| one == scene),
            "{scene} is no command"
        );
        let file = Path::new(FILES).join(format!("live/{scene}.txt"));
        let is_kept = is_update() || file.exists();
        assert!(
            is_kept,
            "{scene} has no snapshot: run tests/snapshots-update"
        );
    }
}

fn one(dev: &Dev, home: &Path, line: &str, values: &BTreeMap<String, String>) -> Ended {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ').filter(|word| !word.is_empty()) {
        // One word has a space in it, to be refused.
        match words.last_mut() {
            Some(before) if before.starts_with('\'') && !before.ends_with('\'') => {
                before.push(' ');
                before.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    for word in &mut words {
        if let Some(name) = word.strip_prefix('$') {
            *word = values.get(name).expect(name).clone();
        }
        *word = word.trim_matches('\'').to_owned();
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut command = dev.command(&words);
    command.current_dir(home).output().unwrap().into()
}

/// The first acquire prints values for a shell.
fn learn(ended: &Ended, values: &mut BTreeMap<String, String>) {
    for line in ended.stdout.lines() {
        if let Some((name @ ("token" | "session" | "secret"), value)) = line.split_once('=') {
            values
                .entry(name.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
}

fn tell(line: &str, ended: &Ended, values: &BTreeMap<String, String>, told: &mut String) {
    writeln!(told, "$ palisade {line}").unwrap();
    told.push_str(&masked(&ended.stdout, values));
    for line in masked(&ended.stderr, values).lines() {
        writeln!(told, "2> {line}").unwrap();
    }
    match ended.code {
        Some(0) => {}
        code => writeln!(told, "? {}", code.unwrap_or(-1)).unwrap(),
    }
    told.push('\n');
}

/// Without what differs: tokens, ids, times, ports and places.
fn masked(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut text = text.to_owned();
    for name in ["postgres", "sqlite", "settings"] {
        text = text.replace(&values[name], &format!("[{name}]"));
    }
    let mut shown = String::new();
    let mut word = String::new();
    for character in text.chars().chain(['\n']) {
        if character.is_ascii_alphanumeric() {
            word.push(character);
            continue;
        }
        shown.push_str(mask(&word, &shown));
        word.clear();
        shown.push(character);
    }
    shown.pop();
    times(&shown)
}

fn mask<'a>(word: &'a str, before: &str) -> &'a str {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let hex = word
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    match word.len() {
        0 => word,
        // How many steps it took to get here may differ by one that was given up in time, or was not.
        _ if digits && named(before).ends_with("revision") => "[REVISION]",
        _ if digits && (before.ends_with("127.0.0.1:") || before.ends_with("pid ")) => "[N]",
        13 if digits => "[UNIX MS]",
        16 if digits && !word.starts_with('0') => "[TOKEN]",
        16 if hex => "[ID 16]",
        32 if hex => "[ID 32]",
        64 if hex => "[SECRET]",
        _ => word,
    }
}

/// What a value stands behind.
fn named(before: &str) -> &str {
    before.trim_end_matches([' ', ':', '"'])
}

/// 2026-11-21T15:10:39Z
fn times(text: &str) -> String {
    const FORM: &str = "0000-00-00T00:00:00Z";
    let mut shown = String::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let is_time = rest.is_char_boundary(FORM.len().min(rest.len()))
            && rest.len() >= FORM.len()
            && rest
                .bytes()
                .zip(FORM.bytes())
                .all(|(byte, form)| match form {
                    b'0' => byte.is_ascii_digit(),
                    other => byte == other,
                });
        let taken = if is_time {
            shown.push_str("[TIME]");
            FORM.len()
        } else {
            shown.push(character);
            character.len_utf8()
        };
        rest = &rest[taken..];
    }
    shown
}
