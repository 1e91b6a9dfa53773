//! What must hold for every text that is read here. Run by tests on edited corpora, and by `tests/chaos/fuzz`.

use crate::{FencingToken, Grant, HolderId, ResourceName};

/// A target for fuzzing: panics where a property does not hold.
pub type Target = fn(&[u8]);

/// All targets of this crate, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[("grant", grant)];

/// The longest message of an error: it names a bound, and of what was given no more than a name's length.
const MOST_SAID: usize = 1024;

fn says_little(error: &impl std::fmt::Display) {
    let said = error.to_string();
    assert!(
        (1..=MOST_SAID).contains(&said.len()),
        "{} bytes: {said}",
        said.len()
    );
}

/// Names, tokens, holders and grants have one text each, within their bounds.
fn grant(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match text.parse::<ResourceName>() {
        Ok(name) => {
            assert_eq!(name.as_str(), text);
            assert!((1..=ResourceName::MAX_BYTES).contains(&text.len()));
            assert!(
                text.split('/')
                    .all(|segment| !matches!(segment, "" | "." | ".."))
            );
            // It stands in keys, headers, SQL and URLs: nothing that ends or parts any of them.
            assert!(!text.contains(['#', ',', ' ', '\'', '"', '\\', '%', '\0', '\n', '?']));
        }
        Err(error) => says_little(&error),
    }
    match text.parse::<FencingToken>() {
        Ok(token) => {
            assert_eq!(token.to_string(), text);
            assert!((1..=FencingToken::MAX).contains(&token.get()));
            assert_eq!(FencingToken::try_from(token.as_i64()), Ok(token));
        }
        Err(error) => says_little(&error),
    }
    match text.parse::<HolderId>() {
        Ok(holder) => {
            assert_eq!(holder.to_string(), text);
            assert_eq!(HolderId::from_bytes(*holder.as_bytes()), holder);
        }
        Err(error) => says_little(&error),
    }
    match text.parse::<Grant>() {
        Ok(grant) => {
            assert_eq!(grant.to_string(), text);
            let parts: Vec<_> = text.split('#').collect();
            assert_eq!(
                parts,
                [
                    grant.resource.as_str(),
                    &grant.token.to_string(),
                    &grant.holder.to_string()
                ]
            );
        }
        Err(error) => says_little(&error),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_text_of_a_grant_is_read_back_or_refused() {
        palisade_test_support::fuzz("grant", super::grant);
    }
}
