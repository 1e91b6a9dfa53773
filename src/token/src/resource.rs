use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of what is protected.
///
/// It has 1 to [`ResourceName::MAX_BYTES`] bytes: segments of `[A-Za-z0-9._:-]` joined by `/`, none of
/// them empty, `.` or `..`. Access rules are prefixes of it. A clone is cheap.
///
/// ```
/// use palisade_token::ResourceName;
///
/// assert_eq!(ResourceName::new("orders/eu-1")?.as_str(), "orders/eu-1");
/// assert!(ResourceName::new("orders//eu").is_err());
/// # Ok::<(), palisade_token::ResourceNameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(Arc<str>);

/// Why a text is not a [`ResourceName`].
///
/// ```
/// use palisade_token::{ResourceName, ResourceNameError};
///
/// let refused = match ResourceName::new("orders/eu 1") {
///     Ok(name) => format!("{name} can be asked for"),
///     Err(ResourceNameError::Empty) => "give the resource a name".to_owned(),
///     Err(ResourceNameError::TooLong { given }) => format!("{given} bytes: use an id instead"),
///     Err(ResourceNameError::Character { given, at }) => format!("{given:?} at {at}: escape it"),
///     Err(error) => error.to_string(),
/// };
/// assert_eq!(refused, "' ' at 9: escape it");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResourceNameError {
    /// The name is empty.
    #[error("resource name is empty; it has 1 to {max} bytes", max = ResourceName::MAX_BYTES)]
    Empty,
    /// The name is longer than [`ResourceName::MAX_BYTES`].
    #[error("resource name has {given} bytes; it has 1 to {max} bytes", max = ResourceName::MAX_BYTES)]
    TooLong {
        /// The length given, in bytes.
        given: usize,
    },
    /// A character outside `[A-Za-z0-9._:-]` and `/`.
    #[error(
        "resource name has {given:?} at byte {at}; segments are of [A-Za-z0-9._:-], joined by '/'"
    )]
    Character {
        /// The first such character.
        given: char,
        /// Where it stands, in bytes from 0.
        at: usize,
    },
    /// A segment that is empty (so also a leading, trailing or double `/`), `.` or `..`.
    #[error(
        "resource name has the segment {given:?} at byte {at}; no segment is empty, \".\" or \"..\""
    )]
    Segment {
        /// The segment.
        given: String,
        /// Where it begins, in bytes from 0.
        at: usize,
    },
}

impl ResourceName {
    /// The longest name, in bytes: long enough for a path of ids, short enough for a key or an index.
    pub const MAX_BYTES: usize = 256;

    /// Checks a text and makes a name of it.
    ///
    /// # Errors
    /// A [`ResourceNameError`] that says which rule the text breaks, and where.
    pub fn new(text: impl AsRef<str>) -> Result<Self, ResourceNameError> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(ResourceNameError::Empty);
        }
        if text.len() > Self::MAX_BYTES {
            return Err(ResourceNameError::TooLong { given: text.len() });
        }
        if let Some((at, given)) = text.char_indices().find(|(_, given)| !is_allowed(*given)) {
            return Err(ResourceNameError::Character { given, at });
        }
        let mut at = 0;
        for segment in text.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(ResourceNameError::Segment {
                    given: segment.to_owned(),
                    at,
                });
            }
            at += segment.len() + 1;
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | ':' | '-' | '/')
}

impl fmt::Display for ResourceName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for ResourceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ResourceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for ResourceName {
    type Err = ResourceNameError;

    fn from_str(text: &str) -> Result<Self, ResourceNameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for ResourceName {
    type Error = ResourceNameError;

    fn try_from(text: String) -> Result<Self, ResourceNameError> {
        Self::new(text)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for ResourceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for ResourceName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ResourceName, ResourceNameError};

    #[test]
    fn length_is_1_to_256_bytes() {
        assert_eq!(ResourceName::new(""), Err(ResourceNameError::Empty));
        assert!(ResourceName::new("a".repeat(256)).is_ok());
        assert_eq!(
            ResourceName::new("a".repeat(257)),
            Err(ResourceNameError::TooLong { given: 257 })
        );
    }

    #[test]
    fn segments_are_not_empty_nor_dots() {
        for text in ["/", "/a", "a/", "a//b", ".", "..", "a/./b", "../a", "a/.."] {
            assert!(
                matches!(
                    ResourceName::new(text),
                    Err(ResourceNameError::Segment { .. })
                ),
                "{text:?}"
            );
        }
        for text in ["a", "...", "a.b", ".a", "a/..b", "A-Z_0:9/x.y"] {
            assert!(ResourceName::new(text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn other_characters_are_named_with_their_place() {
        for (text, given, at) in [
            ("a b", ' ', 1),
            ("a\0", '\0', 1),
            ("ä", 'ä', 0),
            ("a/b#", '#', 3),
            ("a\n", '\n', 1),
        ] {
            assert_eq!(
                ResourceName::new(text),
                Err(ResourceNameError::Character { given, at })
            );
        }
    }

    proptest! {
        #[test]
        fn a_name_is_exactly_what_the_rule_says(text in "[a-c./:#_ -]{0,12}") {
            let by_rule = !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._:-/".contains(&byte))
                && text.split('/').all(|segment| !["", ".", ".."].contains(&segment));
            prop_assert_eq!(ResourceName::new(&text).is_ok(), by_rule);
        }

        #[test]
        fn text_returns_the_name(text in "[A-Za-z0-9_:-]{1,20}(/[A-Za-z0-9_:-]{1,20}){0,5}") {
            let name = ResourceName::new(&text).unwrap();
            prop_assert_eq!(name.as_str(), text.as_str());
            prop_assert_eq!(name.to_string().parse::<ResourceName>(), Ok(name));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ignored = ResourceName::new(text);
        }
    }
}
