use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// A number that orders the leases of one resource: greater means later, for ever (I3).
///
/// It lies between 1 and [`FencingToken::MAX`], which is below 2^53, so that it is exact in an SQL
/// `BIGINT`, in JSON, in JavaScript and in Lua. Zero means "unfenced" and cannot be made. Tokens are
/// unique per resource, not across resources, and carry no arithmetic: only a coordinator makes one.
///
/// ```
/// use palisade_token::FencingToken;
///
/// let earlier = FencingToken::new(41)?;
/// let later = FencingToken::new(42)?;
/// assert!(earlier < later);
/// assert!(FencingToken::new(0).is_err());
/// # Ok::<(), palisade_token::TokenError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(NonZeroU64);

/// Why a number is not a [`FencingToken`].
///
/// ```
/// use palisade_token::{FencingToken, TokenError};
///
/// fn read(column: i64) -> Result<Option<FencingToken>, TokenError> {
///     match FencingToken::try_from(column) {
///         Ok(token) => Ok(Some(token)),
///         Err(TokenError::Zero) => Ok(None), // unfenced
///         Err(error) => Err(error),       // no token was ever this
///     }
/// }
/// assert_eq!(read(0), Ok(None));
/// assert_eq!(read(-5), Err(TokenError::OutOfRange { given: -5 }));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Zero is "unfenced", which no guard admits. Acquire a lease and use its token.
    #[error("token is 0, which means unfenced; a token lies between 1 and {max}", max = FencingToken::MAX)]
    Zero,
    /// The number is negative, or not below 2^53.
    #[error("token is {given}; a token lies between 1 and {max}", max = FencingToken::MAX)]
    OutOfRange {
        /// The number given.
        given: i128,
    },
    /// The text is not a decimal number without sign, spaces or leading zeros.
    #[error("token is not a plain decimal number")]
    NotANumber,
}

impl FencingToken {
    /// The greatest token: 2^53 − 1, about the year 2255 in microseconds.
    pub const MAX: u64 = (1 << 53) - 1;

    /// Makes a token from its number.
    ///
    /// # Errors
    /// [`TokenError::Zero`] for 0, [`TokenError::OutOfRange`] above [`FencingToken::MAX`].
    pub const fn new(number: u64) -> Result<Self, TokenError> {
        match NonZeroU64::new(number) {
            None => Err(TokenError::Zero),
            Some(number) if number.get() <= Self::MAX => Ok(Self(number)),
            // Widening: `From` is not const.
            Some(number) => Err(TokenError::OutOfRange {
                given: widen(number.get()),
            }),
        }
    }

    /// The number, for the wire and for SQL.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The number as SQL and protobuf have it. Never negative.
    ///
    /// ```
    /// use palisade_token::FencingToken;
    ///
    /// let token: FencingToken = "1790000000000000".parse()?;
    /// let column: i64 = token.as_i64();
    /// assert_eq!(FencingToken::try_from(column)?, token);
    /// # Ok::<(), palisade_token::TokenError>(())
    /// ```
    #[must_use]
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.0.get()).expect("a token is below 2^53")
    }
}

#[allow(
    clippy::as_conversions,
    reason = "u64 to i128 is lossless, and From is not const"
)]
const fn widen(number: u64) -> i128 {
    number as i128
}

impl TryFrom<i64> for FencingToken {
    type Error = TokenError;

    fn try_from(number: i64) -> Result<Self, TokenError> {
        let unsigned = u64::try_from(number).map_err(|_| TokenError::OutOfRange {
            given: i128::from(number),
        })?;
        Self::new(unsigned)
    }
}

impl FromStr for FencingToken {
    type Err = TokenError;

    /// Reads the decimal form that [`fmt::Display`] writes, and no other.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits || (text.len() > 1 && text.starts_with('0')) {
            return Err(TokenError::NotANumber);
        }
        match text.parse::<i128>() {
            Ok(number) => match u64::try_from(number) {
                Ok(number) => Self::new(number),
                Err(_) => Err(TokenError::OutOfRange { given: number }),
            },
            Err(_) => Err(TokenError::OutOfRange { given: i128::MAX }),
        }
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for FencingToken {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.get())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for FencingToken {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(u64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FencingToken, TokenError};

    #[test]
    fn bounds_are_one_and_two_to_the_53_less_one() {
        assert_eq!(FencingToken::new(0), Err(TokenError::Zero));
        assert_eq!(FencingToken::new(1).map(FencingToken::get), Ok(1));
        assert_eq!(
            FencingToken::new(9_007_199_254_740_991).map(FencingToken::get),
            Ok((1 << 53) - 1)
        );
        let above = 9_007_199_254_740_992;
        assert_eq!(
            FencingToken::new(above),
            Err(TokenError::OutOfRange {
                given: i128::from(above)
            })
        );
        assert_eq!(
            FencingToken::try_from(-1_i64),
            Err(TokenError::OutOfRange { given: -1 })
        );
        assert_eq!(FencingToken::try_from(0_i64), Err(TokenError::Zero));
    }

    #[test]
    fn text_has_one_form() {
        for text in ["", "+1", "-1", " 1", "1 ", "01", "00", "1.0", "0x1", "١"] {
            assert_eq!(
                text.parse::<FencingToken>(),
                Err(TokenError::NotANumber),
                "{text:?}"
            );
        }
        assert_eq!("0".parse::<FencingToken>(), Err(TokenError::Zero));
        assert!(matches!(
            "9007199254740992".parse::<FencingToken>(),
            Err(TokenError::OutOfRange { .. })
        ));
        let endless = "9".repeat(60);
        assert!(matches!(
            endless.parse::<FencingToken>(),
            Err(TokenError::OutOfRange { .. })
        ));
    }

    #[test]
    fn errors_name_the_bound_and_what_was_given() {
        let message = FencingToken::try_from(-5_i64).unwrap_err().to_string();
        assert_eq!(
            message,
            "token is -5; a token lies between 1 and 9007199254740991"
        );
    }

    proptest! {
        #[test]
        fn text_and_sql_forms_return_the_token(number in 1..=FencingToken::MAX) {
            let token = FencingToken::new(number).unwrap();
            prop_assert_eq!(token.to_string(), number.to_string());
            prop_assert_eq!(token.to_string().parse::<FencingToken>(), Ok(token));
            prop_assert_eq!(FencingToken::try_from(token.as_i64()), Ok(token));
        }

        #[test]
        fn order_is_the_order_of_the_numbers(a in 1..=FencingToken::MAX, b in 1..=FencingToken::MAX) {
            let (left, right) = (FencingToken::new(a).unwrap(), FencingToken::new(b).unwrap());
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        }

        #[test]
        fn no_text_panics(text in ".*") {
            if let Ok(token) = text.parse::<FencingToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }
    }
}
