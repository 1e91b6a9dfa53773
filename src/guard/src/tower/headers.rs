use std::fmt;

use http::{HeaderMap, HeaderValue};
use palisade_token::{FencingToken, Grant};

use super::{HOLDER, IDEMPOTENCY_KEY, MAX_GRANTS, Protocol, RESOURCE, TOKEN};
use crate::effects::{IdempotencyKey, KeyError};

/// What a request has carried: its grants, in the order of the headers, and its idempotency key.
///
/// [`GrantLayer`](super::GrantLayer) leaves it in the request's extensions.
///
/// ```
/// use http::HeaderMap;
/// use palisade_guard::tower::{Carried, CarryLayer, IDEMPOTENCY_KEY};
///
/// let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// let mut headers = HeaderMap::new();
/// CarryLayer::new(&[grant.clone()])?.write(&mut headers);
/// headers.insert(IDEMPOTENCY_KEY, "\"5f0c8d1e42aa7b90\"".parse()?);
/// let carried = Carried::read(&headers)?; // behind a `GrantLayer`: in the request's extensions
/// assert_eq!(carried.grants(), [grant]);
/// let key = carried.key("tenant-7", "charge")?.ok_or("no key")?;
/// assert_eq!(key.key(), "5f0c8d1e42aa7b90");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carried {
    pub(super) grants: Vec<Grant>,
    key: Option<String>,
    protocol: Protocol,
}

impl Carried {
    /// Reads the headers. None at all is no error here; half a grant is.
    ///
    /// # Errors
    /// A [`HeaderError`] that names the header, its bound, and what was given.
    pub fn read(headers: &HeaderMap) -> Result<Self, HeaderError> {
        Ok(Self {
            grants: grants(headers)?,
            key: key(headers)?,
            protocol: Protocol::of(headers),
        })
    }

    /// The grants: at most [`MAX_GRANTS`], each resource once. Nothing is known of them but their form.
    #[must_use]
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The text of the idempotency key, if there was one: 1 to 255 visible ASCII characters.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The idempotency key in the scope of whoever asks for what.
    ///
    /// # Errors
    /// [`KeyError`] if the tenant or the operation cannot be one.
    pub fn key(&self, tenant: &str, operation: &str) -> Result<Option<IdempotencyKey>, KeyError> {
        self.key
            .as_deref()
            .map(|key| IdempotencyKey::new(tenant, operation, key))
            .transpose()
    }

    /// How the request is to be answered.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.protocol
    }
}

/// A header that is missing, or cannot be what it should be.
///
/// ```
/// use http::HeaderMap;
/// use palisade_guard::tower::{Carried, Fault, Protocol, TOKEN};
///
/// let mut headers = HeaderMap::new();
/// headers.insert(TOKEN, "42".parse()?); // half a grant
/// let error = Carried::read(&headers).expect_err("there is no resource");
/// assert_eq!((error.field, &error.given), ("x-fence-resource", &None));
/// let response = Fault::from(error).response(Protocol::Http);
/// assert_eq!(response.status(), 428);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeaderError {
    /// The header.
    pub field: &'static str,
    /// What it has to be.
    pub bound: String,
    /// What it was, shortened and escaped; `None` if it was missing.
    pub given: Option<String>,
}

impl HeaderError {
    /// The most that is told of what was given, in characters.
    pub const MAX_GIVEN: usize = 64;

    pub(super) fn new(field: &'static str, bound: impl fmt::Display, given: &[u8]) -> Self {
        Self {
            field,
            bound: bound.to_string(),
            given: Some(shown(given)),
        }
    }

    pub(super) fn missing(field: &'static str, bound: impl fmt::Display) -> Self {
        Self {
            field,
            bound: bound.to_string(),
            given: None,
        }
    }
}

impl fmt::Display for HeaderError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            bound,
            given,
        } = self;
        match given {
            Some(given) => write!(formatter, "{field} is {given:?}; {bound}"),
            None => write!(formatter, "{field} is missing; {bound}"),
        }
    }
}

impl std::error::Error for HeaderError {}

fn shown(given: &[u8]) -> String {
    let shown: String = given.escape_ascii().map(char::from).collect();
    shown.chars().take(HeaderError::MAX_GIVEN).collect()
}

/// The values of a header that is repeated, or a list with commas, or both.
fn list<'a>(headers: &'a HeaderMap, field: &'static str) -> Result<Vec<&'a str>, HeaderError> {
    let mut values = Vec::new();
    for value in headers.get_all(field) {
        let text = value
            .to_str()
            .map_err(|_| HeaderError::new(field, "it is visible ASCII", value.as_bytes()))?;
        for part in text.split(',') {
            if values.len() == MAX_GRANTS {
                let bound = format!("a request carries at most {MAX_GRANTS} grants");
                return Err(HeaderError::new(field, bound, part.as_bytes()));
            }
            values.push(part.trim_matches([' ', '\t']));
        }
    }
    Ok(values)
}

fn grants(headers: &HeaderMap) -> Result<Vec<Grant>, HeaderError> {
    let resources = list(headers, RESOURCE)?;
    let tokens = list(headers, TOKEN)?;
    let holders = list(headers, HOLDER)?;
    let most = resources.len().max(tokens.len()).max(holders.len());
    for (field, values) in [(RESOURCE, &resources), (TOKEN, &tokens), (HOLDER, &holders)] {
        if values.len() == most {
            continue;
        }
        let bound = format!("each of {most} grants has a resource, a token and a holder");
        return Err(match values.last() {
            None => HeaderError::missing(field, bound),
            Some(last) => HeaderError::new(field, bound, last.as_bytes()),
        });
    }
    let mut grants: Vec<Grant> = Vec::with_capacity(most);
    for ((resource, token), holder) in resources.into_iter().zip(tokens).zip(holders) {
        let grant = Grant {
            resource: resource
                .parse()
                .map_err(|error| HeaderError::new(RESOURCE, error, resource.as_bytes()))?,
            token: token.parse().map_err(|_| {
                let bound = format!(
                    "a token is a decimal number from 1 to {}",
                    FencingToken::MAX
                );
                HeaderError::new(TOKEN, bound, token.as_bytes())
            })?,
            holder: holder
                .parse()
                .map_err(|error| HeaderError::new(HOLDER, error, holder.as_bytes()))?,
        };
        if grants.iter().any(|other| other.resource == grant.resource) {
            let bound = "a request carries one grant for a resource";
            return Err(HeaderError::new(RESOURCE, bound, resource.as_bytes()));
        }
        grants.push(grant);
    }
    Ok(grants)
}

fn key(headers: &HeaderMap) -> Result<Option<String>, HeaderError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if let Some(second) = values.next() {
        let bound = "a request carries one idempotency key";
        return Err(HeaderError::new(IDEMPOTENCY_KEY, bound, second.as_bytes()));
    }
    let key = unquoted(value).filter(|key| {
        (1..=IdempotencyKey::MAX_KEY_BYTES).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_graphic())
    });
    match key {
        Some(key) => Ok(Some(key)),
        None => {
            let most = IdempotencyKey::MAX_KEY_BYTES;
            let bound = format!("a key has 1 to {most} visible ASCII characters");
            Err(HeaderError::new(IDEMPOTENCY_KEY, bound, value.as_bytes()))
        }
    }
}

/// A bare key, or the string of RFC 8941 that the IETF's draft has.
fn unquoted(value: &HeaderValue) -> Option<String> {
    let text = value.to_str().ok()?;
    let Some(quoted) = text.strip_prefix('"') else {
        return Some(text.to_owned());
    };
    let mut key = String::new();
    let mut letters = quoted.chars();
    loop {
        match letters.next()? {
            '"' => return letters.next().is_none().then_some(key),
            '\\' => key.push(letters.next().filter(|next| matches!(next, '"' | '\\'))?),
            letter => key.push(letter),
        }
    }
}
