use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::Principal;

/// Bearer tokens, of which only the hashes are known.
///
/// They come from a TOML file in which each table names a principal and the SHA-256 of a token, in hexadecimal.
/// A principal may have several, so that a new one is valid before the old one goes. The hash keeps the
/// file from giving tokens away only if they cannot be guessed: make them of at least 16 random bytes.
///
/// ```
/// use palisade_coordinator::access::Tokens;
/// use palisade_coordinator::domain::Principal;
///
/// // printf %s secret | sha256sum
/// let tokens = Tokens::parse(r#"
/// [[token]]
/// principal = "importer"
/// sha256 = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
/// "#)?;
/// assert_eq!(tokens.principal("secret"), Some(Principal::named("importer")));
/// assert_eq!(tokens.principal("guess"), None);
/// # Ok::<(), palisade_coordinator::access::TokenFileError>(())
/// ```
#[derive(Clone, Default)]
pub struct Tokens {
    /// By the beginning of the hash, so that each call compares with one or none. Whoever learns how far a
    /// guess's hash agrees still knows nothing of the token.
    by_start: HashMap<[u8; 8], Vec<Entry>>,
    count: usize,
}

#[derive(Clone)]
struct Entry {
    hash: [u8; 32],
    principal: Principal,
}

/// A file of tokens that cannot be used. It says where, and never what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// It is no TOML of the expected form.
    #[error(
        "line {line}, column {column}: a [[token]] has principal and sha256, both text, and no more"
    )]
    Form {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// A hash is not one.
    #[error(
        "token {number}: sha256 must be 64 hexadecimal digits, of the token without a line's end"
    )]
    Hash {
        /// Which token, counted from 1.
        number: usize,
    },
    /// A name that cannot be a principal's.
    #[error(
        "token {number}: a principal has 1 to {} bytes, no control characters, and is not *",
        Principal::MAX_BYTES
    )]
    Principal {
        /// Which token, counted from 1.
        number: usize,
    },
    /// Two principals cannot share a token.
    #[error("token {number}: another principal has this token, too")]
    Shared {
        /// Which token, counted from 1.
        number: usize,
    },
    /// More than are kept.
    #[error("{given} tokens are too many; at most {} are kept", Tokens::MAX)]
    TooMany {
        /// How many there are.
        given: usize,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    token: Vec<Line>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    principal: String,
    sha256: String,
}

impl Tokens {
    /// As many as one file has: more principals than that want certificates.
    pub const MAX: usize = 10_000;

    /// Reads the text of a file of tokens. A file may have none: then nobody is let in by one.
    ///
    /// # Errors
    /// A [`TokenFileError`] that says where.
    pub fn parse(text: &str) -> Result<Self, TokenFileError> {
        let file: File = toml::from_str(text).map_err(|error| {
            // Its own words quote the file.
            let start = error.span().map_or(0, |span| span.start);
            let (line, column) = crate::config::position(text, start);
            TokenFileError::Form { line, column }
        })?;
        if file.token.len() > Self::MAX {
            let given = file.token.len();
            return Err(TokenFileError::TooMany { given });
        }
        let mut tokens = Self::default();
        for (index, line) in file.token.iter().enumerate() {
            tokens.add(index + 1, line)?;
        }
        Ok(tokens)
    }

    fn add(&mut self, number: usize, line: &Line) -> Result<(), TokenFileError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(&line.sha256, &mut hash)
            .map_err(|_| TokenFileError::Hash { number })?;
        let principal = Principal::named(line.principal.as_str());
        if !principal.is_nameable() {
            return Err(TokenFileError::Principal { number });
        }
        if self.find(&hash).is_some_and(|known| *known != principal) {
            return Err(TokenFileError::Shared { number });
        }
        let bucket = self.by_start.entry(start(&hash)).or_default();
        bucket.push(Entry { hash, principal });
        self.count += 1;
        Ok(())
    }

    /// Whose token this is.
    #[must_use]
    pub fn principal(&self, token: &str) -> Option<Principal> {
        self.find(&Sha256::digest(token.as_bytes()).into()).cloned()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    fn find(&self, hash: &[u8; 32]) -> Option<&Principal> {
        let bucket = self.by_start.get(&start(hash))?;
        let same = |entry: &&Entry| bool::from(entry.hash.ct_eq(hash));
        bucket.iter().find(same).map(|entry| &entry.principal)
    }
}

fn start(hash: &[u8; 32]) -> [u8; 8] {
    let mut start = [0; 8];
    start.copy_from_slice(&hash[..8]);
    start
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tokens")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
