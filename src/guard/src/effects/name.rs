use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// What a producer, cursor, entity, consumer, outbox, topic, aggregate or message is called: 1 to 255 bytes
/// without control characters. Compared byte by byte. A clone is cheap.
///
/// ```
/// use palisade_guard::effects::Name;
///
/// let name = Name::new("billing/partition-7")?;
/// assert_eq!(name.as_str(), "billing/partition-7");
/// assert_eq!(Name::new("").unwrap_err().to_string(), "a name has 1 to 255 bytes, not 0");
/// # Ok::<(), palisade_guard::effects::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a [`Name`].
///
/// ```
/// use palisade_guard::effects::{Name, NameError};
///
/// match Name::new("orders\n") {
///     Ok(name) => println!("{name}"),
///     Err(NameError::Length { given }) => println!("{given} bytes"),
///     Err(NameError::Control { given, at }) => assert_eq!((given, at), ('\n', 6)),
///     Err(error) => println!("{error}"),
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is empty or too long.
    #[error("a name has 1 to {} bytes, not {given}", Name::MAX_BYTES)]
    Length {
        /// The length given, in bytes.
        given: usize,
    },
    /// It has a control character.
    #[error("a name has no control characters, and this one has {given:?} at byte {at}")]
    Control {
        /// The first such character.
        given: char,
        /// Where it stands, in bytes from 0.
        at: usize,
    },
}

impl Name {
    /// The longest name, in bytes: two of them and a resource fit one entry of an index.
    pub const MAX_BYTES: usize = 255;

    /// Checks a text.
    ///
    /// # Errors
    /// [`NameError`] if it is empty, longer than [`Name::MAX_BYTES`], or has a control character.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
        let text = text.as_ref();
        if text.is_empty() || text.len() > Self::MAX_BYTES {
            return Err(NameError::Length { given: text.len() });
        }
        // ASCII only, as the stores have it: all other characters are somebody's letters.
        match text.char_indices().find(|(_, c)| c.is_ascii_control()) {
            Some((at, given)) => Err(NameError::Control { given, at }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_told() {
        assert!(Name::new("x".repeat(255)).is_ok());
        assert_eq!(
            Name::new("x".repeat(256)).unwrap_err(),
            NameError::Length { given: 256 }
        );
        let control = NameError::Control { given: '\0', at: 2 };
        assert_eq!(Name::new("ab\0").unwrap_err(), control);
        assert!(Name::new("Zürich, straße 7").is_ok());
    }
}
