//! What must not compile: a write without `Sealed`, a `Sealed` that no seal made, one of another store, a
//! transaction that has ended.
//!
//! Each file in `compile_fail/` is given to rustc with the library that this test was built with, and has exactly
//! the errors in the `.stderr` beside it (`PALISADE_BLESS=1` writes them). Not with trybuild: that builds
//! every dependency once more, SQLite and all, for minutes.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Compiles as it stands: else an error elsewhere would say nothing.
const CONTROL: &str = "compiles.rs";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail")
}

/// Cargo's directory of libraries: this test is there itself.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().to_owned()
}

/// The libraries of a crate, built last first: each set of features, and each older build, is a file.
fn built(crate_name: &str) -> Vec<PathBuf> {
    let prefix = format!("lib{crate_name}-");
    let mut found: Vec<(SystemTime, PathBuf)> = fs::read_dir(libraries())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.starts_with(&prefix) && path.extension() == Some(OsStr::new("rlib"))
        })
        .map(|path| (path.metadata().unwrap().modified().unwrap(), path))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// The errors of a file, one line each; empty if it compiles.
fn errors(guard: &Path, file: &str) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let compiled = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .current_dir(directory())
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--emit",
            "metadata",
        ])
        .args(["--error-format", "short", "--cap-lints", "allow"])
        .arg("--out-dir")
        .arg(scratch.path())
        .arg("-L")
        .arg(format!("dependency={}", libraries().display()))
        .arg("--extern")
        .arg(format!("palisade_guard={}", guard.display()))
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(compiled.stderr).unwrap();
    let lines = text.lines().filter(|line| line.contains(": error"));
    let errors: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert_eq!(compiled.status.success(), errors.is_empty(), "{text}");
    errors
}

#[test]
fn misuse_does_not_compile() {
    let candidates = built("palisade_guard");
    let guard = candidates
        .iter()
        .find(|library| errors(library, CONTROL).is_empty());
    let Some(guard) = guard else {
        panic!(
            "{CONTROL} compiles with none of {candidates:?}: {}",
            errors(candidates.first().unwrap(), CONTROL)
        )
    };
    let bless = std::env::var_os("PALISADE_BLESS").is_some();
    let mut cases = 0;
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().and_then(OsStr::to_str).unwrap().to_owned();
        if path.extension() != Some(OsStr::new("rs")) || file == CONTROL {
            continue;
        }
        cases += 1;
        let (found, expected) = (errors(guard, &file), path.with_extension("stderr"));
        assert!(!found.is_empty(), "{file} compiles");
        if bless {
            fs::write(expected, found).unwrap();
            continue;
        }
        let expected = fs::read_to_string(expected).unwrap_or_default();
        assert_eq!(found, expected, "{file} has other errors than expected");
    }
    assert!(cases >= 4, "cases were lost");
}
