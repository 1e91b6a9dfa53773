use std::fmt;
use std::str::FromStr;

/// The id of one hold: 128 bits, made by the coordinator from the session and the request.
///
/// A guard admits an equal token only from the holder that sealed it, so that two holds which were ever
/// given one number cannot both write (I2). It is never a name that a person chose.
///
/// ```
/// use palisade_token::HolderId;
///
/// let holder = HolderId::from_bytes([0xab; 16]);
/// assert_eq!(holder.to_string(), "abababababababababababababababab");
/// assert_eq!(holder.to_string().parse::<HolderId>(), Ok(holder));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HolderId([u8; 16]);

/// The text is not 32 lowercase hexadecimal digits.
///
/// ```
/// use palisade_token::HolderId;
///
/// let error = "0A".parse::<HolderId>().unwrap_err();
/// assert_eq!(error.given, 2);
/// assert!("A".repeat(32).parse::<HolderId>().is_err(), "lowercase only");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("holder has {given} bytes or other characters; it is 32 of [0-9a-f]")]
#[non_exhaustive]
pub struct ParseHolderError {
    /// The length given, in bytes.
    pub given: usize,
}

impl HolderId {
    /// Makes an id from its bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes of the id.
    ///
    /// ```
    /// use palisade_token::HolderId;
    ///
    /// let stored: Vec<u8> = HolderId::from_bytes([0xab; 16]).as_bytes().to_vec();
    /// let read = HolderId::from_bytes(stored.try_into().expect("16 bytes"));
    /// assert_eq!(read, HolderId::from_bytes([0xab; 16]));
    /// ```
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for HolderId {
    /// Writes 32 lowercase hexadecimal digits.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for HolderId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "HolderId({self})")
    }
}

impl FromStr for HolderId {
    type Err = ParseHolderError;

    fn from_str(text: &str) -> Result<Self, ParseHolderError> {
        let error = ParseHolderError { given: text.len() };
        let mut bytes = [0; 16];
        let digits = text.as_bytes();
        if digits.len() != 32 {
            return Err(error);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (nibble(pair[0]).ok_or(error)? << 4) | nibble(pair[1]).ok_or(error)?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for HolderId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for HolderId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{HolderId, ParseHolderError};

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "ab",
            &"A".repeat(32),
            &"g".repeat(32),
            &"a".repeat(33),
            &"ä".repeat(16),
        ] {
            assert_eq!(
                text.parse::<HolderId>(),
                Err(ParseHolderError { given: text.len() })
            );
        }
    }

    proptest! {
        #[test]
        fn text_returns_the_holder(bytes in any::<[u8; 16]>()) {
            let holder = HolderId::from_bytes(bytes);
            prop_assert_eq!(holder.to_string().len(), 32);
            prop_assert_eq!(holder.to_string().parse::<HolderId>(), Ok(holder));
        }
    }
}
