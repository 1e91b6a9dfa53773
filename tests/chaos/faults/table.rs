//! FAULTS.md names tests that exist, and has every row.

use std::fs;
use std::path::Path;

const ROWS: usize = 30;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// `file.rs::name`, in back quotes.
fn named(table: &str) -> Vec<(&str, &str)> {
    let quoted = table.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once(".rs::")).collect()
}

#[test]
fn every_test_that_the_table_names_exists() {
    let table = fs::read_to_string(root().join("tests/chaos/FAULTS.md")).unwrap();
    let named = named(&table);
    assert!(named.len() > ROWS, "it names hardly any test");
    for (file, test) in named {
        let path = root().join(format!("{file}.rs"));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}.rs: {error}"));
        let is_there = text.lines().any(|line| {
            let line = line.trim_start().trim_start_matches("pub(crate) ");
            let name = line.trim_start_matches("async ").strip_prefix("fn ");
            name.is_some_and(|rest| rest.starts_with(&format!("{test}(")))
        });
        assert!(is_there, "{file}.rs has no test {test}");
    }
}

#[test]
fn the_table_has_every_row() {
    let table = fs::read_to_string(root().join("tests/chaos/FAULTS.md")).unwrap();
    for row in 1..=ROWS {
        let start = format!("| F{row} ");
        assert!(
            table.lines().any(|line| line.starts_with(&start)),
            "there is no row F{row}"
        );
    }
}
