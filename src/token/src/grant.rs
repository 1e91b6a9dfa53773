use std::fmt;
use std::str::FromStr;

use crate::{
    FencingToken, HolderId, ParseHolderError, ResourceName, ResourceNameError, TokenError,
};

/// What a client shows a guard: the right of one hold to one resource, from a coordinator's answer.
///
/// Its text, for an environment variable or a header, is `resource#token#holder`: the name, the decimal
/// number, and 32 hexadecimal digits. `#` occurs in none of them. A grant is not a credential: it says
/// which lease a write belongs to, not who may write.
///
/// ```
/// use palisade_token::Grant;
///
/// let grant: Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// assert_eq!(grant.token.get(), 42);
/// # Ok::<(), palisade_token::ParseGrantError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Grant {
    /// What is protected.
    pub resource: ResourceName,
    /// The token of this lease.
    pub token: FencingToken,
    /// The hold that the token was granted to.
    pub holder: HolderId,
}

/// Why a text is not a [`Grant`].
///
/// ```
/// use palisade_token::{Grant, ParseGrantError};
///
/// let refused = match "orders#0#000102030405060708090a0b0c0d0e0f".parse::<Grant>() {
///     Ok(grant) => format!("show {grant} to the guard"),
///     Err(ParseGrantError::Parts) => "that is no grant at all".to_owned(),
///     Err(error) => error.to_string(), // the part that is wrong says so itself
/// };
/// assert!(refused.starts_with("token is 0, which means unfenced"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseGrantError {
    /// Not three parts joined by `#`.
    #[error("a grant is resource#token#holder")]
    Parts,
    /// The first part is no resource name.
    #[error(transparent)]
    Resource(#[from] ResourceNameError),
    /// The second part is no token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The third part is no holder.
    #[error(transparent)]
    Holder(#[from] ParseHolderError),
}

impl fmt::Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}#{}#{}",
            self.resource, self.token, self.holder
        )
    }
}

impl FromStr for Grant {
    type Err = ParseGrantError;

    fn from_str(text: &str) -> Result<Self, ParseGrantError> {
        let mut parts = text.split('#');
        let (Some(resource), Some(token), Some(holder), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(ParseGrantError::Parts);
        };
        Ok(Self {
            resource: resource.parse()?,
            token: token.parse()?,
            holder: holder.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Grant, ParseGrantError};
    use crate::{FencingToken, HolderId, ResourceName};

    fn grant() -> Grant {
        Grant {
            resource: ResourceName::new("orders/eu").unwrap(),
            token: FencingToken::new(1_790_000_000_000_000).unwrap(),
            holder: HolderId::from_bytes(*b"0123456789abcdef"),
        }
    }

    #[test]
    fn the_text_form_is_pinned() {
        let text = "orders/eu#1790000000000000#30313233343536373839616263646566";
        assert_eq!(grant().to_string(), text);
        assert_eq!(text.parse::<Grant>(), Ok(grant()));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn the_json_form_is_pinned() {
        let json = r#"{"resource":"orders/eu","token":1790000000000000,"holder":"30313233343536373839616263646566"}"#;
        assert_eq!(serde_json::to_string(&grant()).unwrap(), json);
        assert_eq!(serde_json::from_str::<Grant>(json).unwrap(), grant());
        for bad in [
            json.replace("1790000000000000", "0"),
            json.replace("orders/eu", "../eu"),
        ] {
            assert!(serde_json::from_str::<Grant>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "a", "a#1", "a#1#00#00"] {
            assert_eq!(
                text.parse::<Grant>(),
                Err(ParseGrantError::Parts),
                "{text:?}"
            );
        }
        assert!(matches!(
            "a#0#00".parse::<Grant>(),
            Err(ParseGrantError::Token(_))
        ));
        assert!(matches!(
            "#1#00".parse::<Grant>(),
            Err(ParseGrantError::Resource(_))
        ));
        assert!(matches!(
            "a#1#00".parse::<Grant>(),
            Err(ParseGrantError::Holder(_))
        ));
    }

    proptest! {
        #[test]
        fn text_returns_the_grant(
            name in "[A-Za-z0-9._:-]{3,20}(/[A-Za-z0-9._:-]{3,20}){0,3}",
            number in 1..=FencingToken::MAX,
            holder in any::<[u8; 16]>(),
        ) {
            prop_assume!(ResourceName::new(&name).is_ok());
            let grant = Grant {
                resource: ResourceName::new(&name).unwrap(),
                token: FencingToken::new(number).unwrap(),
                holder: HolderId::from_bytes(holder),
            };
            prop_assert_eq!(grant.to_string().parse::<Grant>(), Ok(grant));
        }
    }
}
