//! The tables beside this file name tests: each of them is there, under that name.
//!
//! A test is written as `nextest` shows it, in backquotes: `palisade-coordinator::service attach::own::NAME`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Those whose tests are named so.
const TABLES: [&str; 1] = ["ATTACKS.md"];

/// A test that a table names.
#[derive(Debug)]
struct Named<'a> {
    package: &'a str,
    modules: Vec<&'a str>,
    test: &'a str,
}

impl<'a> Named<'a> {
    /// `None` for what is in backquotes and no test.
    fn parse(quoted: &'a str) -> Option<Self> {
        let (binary, path) = quoted.split_once(' ')?;
        let package = binary.split("::").next()?;
        let mut modules: Vec<_> = path.split("::").collect();
        let test = modules.pop()?;
        let is_path = !path.contains(' ') && (binary.contains("::") || !modules.is_empty());
        let is_test = is_path && package.starts_with("palisade");
        is_test.then_some(Self {
            package,
            modules,
            test,
        })
    }

    /// Where the sources of its package are.
    fn sources(&self) -> PathBuf {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = tests.parent().unwrap();
        match self.package.trim_start_matches("palisade-") {
            "tests" => tests.to_owned(),
            name => workspace.join("src").join(name),
        }
    }

    /// Whether a file has it: in its module, and as a test.
    fn is_in(&self, file: &Path, text: &str) -> bool {
        let stem = file.with_extension("");
        let mut folders = stem.iter().filter_map(|part| part.to_str());
        let mut modules = self.modules.iter().filter(|module| **module != "tests");
        let is_there = modules.all(|module| folders.any(|folder| folder == *module));
        let is_test = |line: &str| {
            let name = line
                .trim_start()
                .trim_start_matches("async ")
                .strip_prefix("fn ");
            name.and_then(|name| name.split('(').next()) == Some(self.test)
        };
        let lines: Vec<_> = text.lines().collect();
        let mut found = lines.iter().enumerate().filter(|(_, line)| is_test(line));
        is_there
            && found.any(|(at, _)| {
                let before = lines[..at].iter().rev();
                let mut attributes = before.take_while(|line| !line.trim().is_empty());
                attributes.any(|line| line.contains("test]") || line.contains("test("))
            })
    }
}

/// Files and their texts, by package: each is read once.
#[derive(Debug, Default)]
struct Sources(BTreeMap<String, Vec<(PathBuf, String)>>);

impl Sources {
    fn have(&mut self, named: &Named<'_>) -> bool {
        let files = self.0.entry(named.package.to_owned()).or_insert_with(|| {
            let mut found = Vec::new();
            rust_files(&named.sources(), &mut found);
            found
        });
        files.iter().any(|(file, text)| named.is_in(file, text))
    }
}

fn rust_files(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn every_test_that_a_table_names_is_there() {
    let mut sources = Sources::default();
    for table in TABLES {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("chaos")
            .join(table);
        let text = fs::read_to_string(file).unwrap();
        let quoted = text.split('`').skip(1).step_by(2);
        let named: Vec<_> = quoted.filter_map(Named::parse).collect();
        assert!(!named.is_empty(), "{table} names no test");
        for named in named {
            assert!(
                sources.have(&named),
                "{table} names what is not there: {named:?}"
            );
        }
    }
}

#[test]
fn what_is_not_there_is_found() {
    let mut sources = Sources::default();
    let there = "palisade-tests::chaos tables::what_is_not_there_is_found";
    assert!(sources.have(&Named::parse(there).unwrap()));
    for name in [
        "palisade-tests::chaos tables::what_is_there_is_found",
        "palisade-tests::chaos faults::what_is_not_there_is_found",
        "palisade-tests::chaos tables::rust_files",
    ] {
        assert!(!sources.have(&Named::parse(name).unwrap()), "{name}");
    }
    for text in ["tests/run", "decide_raise", "SELECT a::text"] {
        assert!(Named::parse(text).is_none(), "{text}");
    }
}
