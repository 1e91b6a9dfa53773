//! `palisade config`, and settings in three places.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Ended, palisade, run};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/palisade.toml");

fn with(variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
    let mut command = palisade(arguments);
    command.envs(variables.iter().copied());
    command.output().unwrap().into()
}

fn file(directory: &Path, text: &str) -> String {
    let file = directory.join("palisade.toml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn the_example_can_be_used_and_is_what_is_in_force_without_it() {
    let checked = run(&["config", "check", EXAMPLE]);
    assert_eq!(
        (checked.code, &*checked.stdout),
        (Some(0), ""),
        "{checked:?}"
    );
    let (with, without) = (
        run(&["config", "dump", "--config", EXAMPLE]),
        run(&["config", "dump"]),
    );
    assert_eq!(with.code, Some(0), "{with:?}");
    assert_eq!(settings(&with), settings(&without));
}

/// What is printed, without where each setting was said.
fn settings(dumped: &Ended) -> Vec<&str> {
    let lines = dumped.stdout.lines();
    lines
        .map(|line| line.split("  # ").next().unwrap().trim_end())
        .collect()
}

/// Some settings of each origin, and the others.
fn origins(file: &str) -> [(&'static str, Value, &'static str, String); 6] {
    [
        (
            "listen",
            json!("127.0.0.1:1"),
            "flag",
            "--listen".to_owned(),
        ),
        ("http", json!("127.0.0.1:3"), "file", format!("{file}:1")),
        (
            "limits.max_calls",
            json!(1),
            "flag",
            "--set limits.max_calls".to_owned(),
        ),
        (
            "limits.max_waiters",
            json!(2),
            "environment",
            "PALISADE_LIMITS__MAX_WAITERS".to_owned(),
        ),
        ("limits.max_watchers", json!(3), "file", format!("{file}:7")),
        (
            "limits.max_streams_per_connection",
            json!(10_000),
            "default",
            String::new(),
        ),
    ]
}

#[test]
fn each_setting_is_told_with_where_it_was_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(
        directory.path(),
        "http = \"127.0.0.1:3\"\n\n[limits]\n# three\nmax_calls = 3\nmax_waiters = 3\nmax_watchers = 3\n",
    );
    let variables = [
        ("PALISADE_LIMITS__MAX_CALLS", "2"),
        ("PALISADE_LIMITS__MAX_WAITERS", "2"),
        ("PALISADE_HTTP", ""),
    ];
    let arguments = [
        "config",
        "dump",
        "--config",
        &file,
        "--listen",
        "127.0.0.1:1",
        "--set",
        "limits.max_calls=1",
    ];
    let dumped = with(&variables, &arguments);
    assert_eq!(dumped.code, Some(0), "{dumped:?}");
    let json = with(&variables, &[&arguments[..], &["-o", "json"]].concat());
    let json: Vec<Value> = serde_json::from_str(&json.stdout).expect(&json.stdout);
    for (key, value, origin, place) in origins(&file) {
        let name = key.rsplit('.').next().unwrap();
        let line = dumped
            .stdout
            .lines()
            .find(|line| line.starts_with(&format!("{name} =")));
        let told = format!("# {origin} {place}");
        assert!(line.unwrap().ends_with(told.trim_end()), "{told}: {line:?}");
        let found = json.iter().find(|setting| setting["key"] == key).unwrap();
        assert_eq!(
            (&found["value"], &found["origin"]),
            (&value, &json!(origin)),
            "{found}"
        );
        let place = (!place.is_empty()).then_some(place);
        assert_eq!(found["place"].as_str(), place.as_deref(), "{found}");
    }
    // Every setting has an origin, and what is printed is a file still.
    let is_setting = |line: &&str| line.contains(" = ");
    for line in dumped.stdout.lines().filter(is_setting) {
        assert!(line.contains("  # "), "{line}");
    }
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_ends_with_78() {
    let directory = tempfile::tempdir().unwrap();
    for (text, said) in [
        ("[limits]\nmax_waitrs = 1\n", "line 2, column 1"),
        ("[limits]\nmax_ttl = \"500ms\"\n", "limits.max_ttl is 500ms"),
        (
            "[tls]\ncert_file = \"/none\"\nkey_file = \"/none\"\n",
            "/none",
        ),
        ("[auth]\ntoken_file = \"/none\"\n", "/none"),
        ("[store]\nfile = \"f\"\netcd = []\n", "store.file"),
    ] {
        let file = file(directory.path(), text);
        for arguments in [
            &["config", "check", &file][..],
            &["serve", "--config", &file],
        ] {
            let ended = run(arguments);
            assert_eq!((ended.code, &*ended.stdout), (Some(78), ""), "{ended:?}");
            assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
        }
    }
    let none = run(&["config", "check", "/none.toml"]);
    assert_eq!(none.code, Some(78), "{none:?}");
    let variable = ("PALISADE_LIMITS__MAX_WAITRS", "1");
    let unknown = with(&[variable], &["config", "check"]);
    assert_eq!(unknown.code, Some(78), "{unknown:?}");
    assert!(unknown.stderr.contains(variable.0), "{}", unknown.stderr);
    let word = run(&["config", "dump", "--set", "limits.max_waitrs=1"]);
    assert_eq!(word.code, Some(2), "{word:?}");
    assert!(word.stderr.contains("max_waitrs"), "{}", word.stderr);
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let file = file(
        directory.path(),
        "http = \"127.0.0.1:3\"\n[limits]\nmax_calls = 3\n",
    );
    let variables = [
        ("PALISADE_CONFIG", &*file),
        ("PALISADE_HTTP", "127.0.0.1:2"),
        ("PALISADE_LIMITS__MAX_CALLS", "2"),
    ];
    let flags = ["--http", "127.0.0.1:1", "--set", "limits.max_calls=1"];
    let dump = ["config", "dump"];
    for (variables, flags, http, calls) in [
        (&[][..], &[][..], 7651, 20_000),
        (&variables[..1], &[], 3, 3),
        (&variables[..], &[], 2, 2),
        (&variables[..], &flags, 1, 1),
        (&[], &flags, 1, 1),
    ] {
        let dumped = with(variables, &[&dump, flags].concat());
        assert_eq!(dumped.code, Some(0), "{dumped:?}");
        for line in [
            format!("http = \"127.0.0.1:{http}\""),
            format!("max_calls = {calls}"),
        ] {
            assert!(
                settings(&dumped).contains(&&*line),
                "{line}: {}",
                dumped.stdout
            );
        }
        // What is printed is a file that says the same.
        let again = directory.path().join("again.toml");
        fs::write(&again, &dumped.stdout).unwrap();
        let again = again.to_str().unwrap();
        assert_eq!(run(&["config", "check", again]).code, Some(0));
        let again = run(&["config", "dump", "--config", again]);
        assert_eq!(settings(&again), settings(&dumped));
    }
}
