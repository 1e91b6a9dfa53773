//! What must hold for everything that is read here from others: requests, files, what etcd keeps. Run by tests on edited
//! corpora, and by `tests/chaos/fuzz`.

use crate::access::{TokenFileError, Tokens};
use crate::config::{Document, DocumentError, StoreChoice};
use crate::{rest, service, store};

/// A target for fuzzing: panics where a property does not hold.
pub type Target = fn(&[u8]);

/// All targets of this crate, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("messages", service::fuzz::messages),
    ("etcd_records", store::etcd::fuzz::records),
    ("etcd_keys", store::etcd::fuzz::keys),
    ("rest_body", rest::fuzz::body),
    ("rest_query", rest::fuzz::query),
    ("config", config),
    ("config_word", config_word),
    ("token_file", token_file),
];

/// An error in a text stands within it.
fn stands_in(text: &str, line: usize, column: usize) {
    let lines = text.matches('\n').count() + 1;
    assert!((1..=lines).contains(&line), "line {line} of {lines}");
    assert!((1..=text.len() + 1).contains(&column), "column {column}");
}

/// A file of settings: what is read can be written and read again, and made into settings or refused.
fn config(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let _lines = Document::lines(text);
    match Document::parse(text) {
        Ok(document) => settles(&document),
        Err(DocumentError::Text {
            line,
            column,
            message,
        }) => {
            stands_in(text, line, column);
            assert!(!message.is_empty());
        }
        Err(other) => assert!(!other.to_string().is_empty()),
    }
}

fn settles(document: &Document) {
    let written = document.to_toml().expect("text can be written");
    assert_eq!(
        Document::parse(&written).as_ref(),
        Ok(document),
        "{written}"
    );
    if let Ok(settings) = document.clone().settings(StoreChoice::Memory) {
        let whole = Document::of(&settings);
        let again = whole.clone().settings(StoreChoice::Memory);
        assert_eq!(Document::of(&again.expect("settings are settings")), whole);
        if let Err(error) = settings.validate() {
            assert!(!error.setting.is_empty() && !error.bound.is_empty());
        }
    }
}

/// A setting as a word or a variable: a key, and on the next line its value.
fn config_word(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let (key, value) = text.split_once('\n').unwrap_or((text, ""));
    match Document::word(key, value) {
        Ok(document) => settles(&document),
        Err(error) => assert!(error.to_string().starts_with(key)),
    }
    let variables = [(key.to_owned(), value.to_owned())];
    if let Ok(document) = Document::from_variables(variables) {
        settles(&document);
    }
}

/// A file of tokens: it is never quoted.
fn token_file(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match Tokens::parse(text) {
        Ok(tokens) => {
            assert!(tokens.count() <= Tokens::MAX);
            assert_eq!(tokens.principal(text), None, "a file is no token");
        }
        Err(TokenFileError::Form { line, column }) => stands_in(text, line, column),
        Err(error) => {
            let said = format!("{error} {error:?}");
            let words = text.split(|c: char| !c.is_ascii_hexdigit());
            let mut hashes = words.filter(|word| word.len() >= 16);
            assert!(!hashes.any(|hash| said.contains(hash)), "{said}");
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_test_support::fuzz;

    fn run(name: &str) {
        let target = super::TARGETS.iter().find(|(known, _)| *known == name);
        fuzz(name, target.expect("a target").1);
    }

    #[test]
    fn every_message_keeps_its_bounds_or_is_refused_by_field_and_bound() {
        run("messages");
    }

    #[test]
    fn every_record_in_etcd_is_read_back_or_refused() {
        run("etcd_records");
    }

    #[test]
    fn every_key_in_etcd_is_the_one_that_it_is_taken_for() {
        run("etcd_keys");
    }

    #[test]
    fn every_body_is_read_or_refused_without_telling_a_secret() {
        run("rest_body");
    }

    #[test]
    fn every_query_is_read_or_refused_without_telling_a_secret() {
        run("rest_query");
    }

    #[test]
    fn every_file_of_settings_is_read_back_or_refused_by_its_place() {
        run("config");
    }

    #[test]
    fn every_setting_by_name_is_read_back_or_refused_by_its_name() {
        run("config_word");
    }

    #[test]
    fn every_file_of_tokens_is_read_or_refused_without_quoting_it() {
        run("token_file");
    }
}
