//! What every command says, held against files in `tests/snapshots`. `tests/snapshots-update` writes them anew.

mod live;

use std::fs;
use std::path::Path;

use crate::shells::pages;

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots");

/// Whether the files are to be written: trycmd's own variable.
fn is_update() -> bool {
    std::env::var_os("TRYCMD").is_some_and(|mode| mode == "overwrite")
}

/// The commands as the manual has them: `palisade-guard-install`.
fn commands() -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let pages = pages(home.path());
    let names = pages.iter().map(|page| page.strip_suffix(".1").unwrap());
    names.map(ToOwned::to_owned).collect()
}

#[test]
fn every_help_is_as_it_was() {
    let directory = Path::new(FILES).join("help");
    let commands = commands();
    for command in &commands {
        let file = directory.join(format!("{command}.trycmd"));
        if is_update() {
            let line = command.replace('-', " ");
            fs::write(file, format!("```console\n$ {line} --help\n\n```\n")).unwrap();
        } else {
            assert!(
                file.exists(),
                "{command} has no snapshot: run tests/snapshots-update"
            );
        }
    }
    for file in crate::program::entries(&directory) {
        let command = file.strip_suffix(".trycmd").unwrap().to_owned();
        let is_left_over = !commands.contains(&command);
        assert!(!is_left_over, "{file} is of no command: remove it");
    }
    let cases = trycmd::TestCases::new();
    cases.register_bin("palisade", Path::new(env!("CARGO_BIN_EXE_palisade")));
    // What a help shows of variables that are set here is not of the program.
    for name in variables() {
        cases.env(name, "");
    }
    cases.case(directory.join("*.trycmd"));
}

/// Those that flags can be given by.
fn variables() -> Vec<String> {
    let all = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    all.filter(|name| name.starts_with("PALISADE_")).collect()
}
