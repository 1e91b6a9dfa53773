use std::fmt;
use std::str::FromStr;

use palisade_token::{ResourceName, ResourceNameError};
use serde::{Deserialize, Serialize};

/// Whose resources a rule is about.
///
/// | written | covers | does not cover |
/// |---|---|---|
/// | (empty) | every resource | |
/// | `a/b` | `a/b`, `a/b/c` | `a/bc`, `a` |
/// | `a/b/` | `a/b/c` | `a/b`, `a/bc` |
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// A prefix is empty, or a resource's name, or one with `/` at its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{given:?} is no prefix: write the segments of a resource's name as a/b, a/b/ for what is below it \
     alone, or nothing for every resource"
)]
pub struct PrefixError {
    given: String,
    #[source]
    source: ResourceNameError,
}

impl Prefix {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it covers every resource.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it covers a resource.
    #[must_use]
    pub fn covers(&self, resource: &ResourceName) -> bool {
        self.covers_text(resource.as_str())
    }

    /// Whether it covers all that another does.
    pub(super) fn covers_all_of(&self, other: &Self) -> bool {
        self.covers_text(&other.0)
    }

    /// Segments are whole: what is left begins with a `/`, unless that was part of the prefix.
    pub(super) fn covers_text(&self, name: &str) -> bool {
        match name.strip_prefix(&self.0) {
            None => false,
            Some(rest) => {
                self.0.is_empty()
                    || self.0.ends_with('/')
                    || rest.is_empty()
                    || rest.starts_with('/')
            }
        }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let name = text.strip_suffix('/').unwrap_or(text);
        if !text.is_empty() {
            ResourceName::new(name).map_err(|source| PrefixError {
                given: text.chars().take(64).collect(),
                source,
            })?;
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
