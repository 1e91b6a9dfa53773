use std::collections::BTreeMap;
use std::fmt;

use palisade_token::{FencingToken, ResourceName};

use super::{IdempotencyKey, Name};

/// The header with the id of a message: the same each time that it is published.
pub const MSG_ID: &str = "msg-id";
/// The header with the token of the transaction that staged a message.
pub const FENCE_TOKEN: &str = "fence-token";
/// The header with the resource that this token is of.
pub const FENCE_RESOURCE: &str = "fence-resource";
/// The header with the idempotency key of the effect.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The header with the aggregate of a message.
pub const AGGREGATE: &str = "aggregate";

const RESERVED: [&str; 5] = [
    MSG_ID,
    FENCE_TOKEN,
    FENCE_RESOURCE,
    IDEMPOTENCY_KEY,
    AGGREGATE,
];

/// A message to stage in an outbox, or one that a consumer could not handle.
///
/// ```
/// use palisade_guard::effects::{IdempotencyKey, Message, Name};
///
/// let paid = Message::new(Name::new("payments")?, br#"{"order":7}"#.to_vec())?
///     .with_id(Name::new("order-7-paid")?)
///     .with_key(IdempotencyKey::new("tenant-7", "pay", "5f0c8d1e42aa7b90")?)
///     .in_order_of(Name::new("order-7")?)
///     .with_header("content-type", "application/json")?;
/// assert_eq!(paid.payload().len(), 11);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    pub(crate) topic: Name,
    pub(crate) payload: Vec<u8>,
    pub(crate) id: Option<Name>,
    pub(crate) aggregate: Option<Name>,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) headers: BTreeMap<String, String>,
}

/// Why something is not a [`Message`].
///
/// ```
/// use palisade_guard::effects::{Message, MessageError, Name};
///
/// let message = Message::new(Name::new("payments")?, "paid")?;
/// match message.with_header("fence-token", "42") {
///     Err(MessageError::HeaderName(name)) => assert_eq!(name, "fence-token"), // reserved
///     Err(MessageError::Payload { .. }) => println!("keep it elsewhere, and send a reference"),
///     Err(error) => println!("a bug in the caller: {error}"),
///     Ok(message) => println!("{message:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The payload is too large. Keep it elsewhere, and send a reference.
    #[error(
        "the payload has {given} bytes; at most {} are staged",
        Message::MAX_PAYLOAD
    )]
    Payload {
        /// Its size in bytes.
        given: usize,
    },
    /// There are too many headers.
    #[error("a message has at most {} headers", Message::MAX_HEADERS)]
    Headers,
    /// A header's name is not 1 to [`Message::MAX_HEADER_NAME`] bytes of `[a-z0-9-]`, or one that the outbox
    /// sets itself.
    #[error("{0:?} is not the name of a header")]
    HeaderName(String),
    /// A header's value is too long, or has control characters.
    #[error(
        "the value of header {name} has at most {} bytes and no control characters",
        Message::MAX_HEADER_VALUE
    )]
    HeaderValue {
        /// The header.
        name: String,
    },
}

impl Message {
    /// The largest payload, in bytes: a relay reads a batch of them into memory.
    pub const MAX_PAYLOAD: usize = 1 << 20;
    /// The most headers of one message.
    pub const MAX_HEADERS: usize = 32;
    /// The longest name of a header, in bytes.
    pub const MAX_HEADER_NAME: usize = 64;
    /// The longest value of a header, in bytes.
    pub const MAX_HEADER_VALUE: usize = 256;

    /// A message for a topic, without order, key, headers or an id of its own.
    ///
    /// # Errors
    /// [`MessageError::Payload`] beyond [`Message::MAX_PAYLOAD`].
    pub fn new(topic: Name, payload: impl Into<Vec<u8>>) -> Result<Self, MessageError> {
        let payload = payload.into();
        if payload.len() > Self::MAX_PAYLOAD {
            return Err(MessageError::Payload {
                given: payload.len(),
            });
        }
        Ok(Self {
            topic,
            payload,
            id: None,
            aggregate: None,
            key: None,
            headers: BTreeMap::new(),
        })
    }

    /// The same message with an id of its own instead of a random one: what consumers know a repetition by.
    #[must_use]
    pub fn with_id(mut self, id: Name) -> Self {
        self.id = Some(id);
        self
    }

    /// The same message, published in the order of an aggregate: after all messages of that aggregate that were
    /// committed before it, but for those that were given up (a dead letter that is replayed comes last). Transactions that stage for one aggregate of an outbox wait for each other.
    #[must_use]
    pub fn in_order_of(mut self, aggregate: Name) -> Self {
        self.aggregate = Some(aggregate);
        self
    }

    /// The same message with the idempotency key of its effect.
    #[must_use]
    pub fn with_key(mut self, key: IdempotencyKey) -> Self {
        self.key = Some(key);
        self
    }

    /// The same message with a header. Headers are published and logged: nothing secret belongs there.
    ///
    /// # Errors
    /// [`MessageError`] for too many headers, a name that is not one or is reserved, and a value too long.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, MessageError> {
        let is_name = !name.is_empty()
            && name.len() <= Self::MAX_HEADER_NAME
            && name
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !RESERVED.contains(&name);
        if !is_name {
            let shown = name.chars().take(Self::MAX_HEADER_NAME).collect();
            return Err(MessageError::HeaderName(shown));
        }
        if value.len() > Self::MAX_HEADER_VALUE || value.contains(|c: char| c.is_ascii_control()) {
            return Err(MessageError::HeaderValue {
                name: name.to_owned(),
            });
        }
        self.headers.insert(name.to_owned(), value.to_owned());
        if self.headers.len() > Self::MAX_HEADERS {
            return Err(MessageError::Headers);
        }
        Ok(self)
    }

    /// What is sent.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// A staged message as a relay hands it to its publisher.
///
/// ```no_run
/// # use palisade_guard::effects::Envelope;
/// # fn request(message: &Envelope) -> http::Result<http::Request<Vec<u8>>> {
/// let mut request = http::Request::post(format!("https://broker.example/{}", message.topic));
/// for (name, value) in message.all_headers() {
///     request = request.header(name, value); // `msg-id`, `fence-token`, … and the stager's own
/// }
/// request.body(message.payload.clone())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Envelope {
    /// The id: the same each time that it is published.
    pub id: Name,
    /// Where it goes.
    pub topic: Name,
    /// Whose order it keeps.
    pub aggregate: Option<Name>,
    /// The idempotency key of its effect.
    pub key: Option<IdempotencyKey>,
    /// What was protected where it was staged.
    pub resource: ResourceName,
    /// The token of the transaction that staged it.
    pub token: FencingToken,
    /// What the stager gave besides.
    pub headers: BTreeMap<String, String>,
    /// What is sent.
    pub payload: Vec<u8>,
    /// How often publishing it has failed.
    pub attempts: u32,
}

impl Envelope {
    /// All headers to publish: those of the stager, and those by which a consumer knows repetitions
    /// ([`MSG_ID`]) and messages of a holder that was replaced ([`FENCE_RESOURCE`], [`FENCE_TOKEN`]).
    #[must_use]
    pub fn all_headers(&self) -> Vec<(&str, String)> {
        let mut all = vec![
            (MSG_ID, self.id.to_string()),
            (FENCE_TOKEN, self.token.to_string()),
            (FENCE_RESOURCE, self.resource.to_string()),
        ];
        all.extend(
            self.key
                .iter()
                .map(|key| (IDEMPOTENCY_KEY, key.to_string())),
        );
        all.extend(
            self.aggregate
                .iter()
                .map(|name| (AGGREGATE, name.to_string())),
        );
        let own = self.headers.iter();
        all.extend(own.map(|(name, value)| (name.as_str(), value.clone())));
        all
    }
}

/// Without payload and headers: they are not for logs.
impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("aggregate", &self.aggregate)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Envelope")
            .field("id", &self.id)
            .field("topic", &self.topic)
            .field("aggregate", &self.aggregate)
            .field("resource", &self.resource)
            .field("token", &self.token)
            .field("bytes", &self.payload.len())
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message::new(Name::new("t").unwrap(), b"x".to_vec()).unwrap()
    }

    #[test]
    fn bounds_are_kept() {
        let topic = Name::new("t").unwrap();
        assert!(Message::new(topic.clone(), vec![0; Message::MAX_PAYLOAD]).is_ok());
        let given = Message::MAX_PAYLOAD + 1;
        assert_eq!(
            Message::new(topic, vec![0; given]).unwrap_err(),
            MessageError::Payload { given }
        );
        let long = "v".repeat(257);
        assert!(message().with_header("a", &long[..256]).is_ok());
        assert!(message().with_header("a", &long).is_err());
        assert!(message().with_header("a", "b\0").is_err());
        let mut many = message();
        for number in 0..Message::MAX_HEADERS {
            many = many.with_header(&format!("h{number}"), "").unwrap();
        }
        assert_eq!(many.with_header("more", ""), Err(MessageError::Headers));
    }

    #[test]
    fn what_the_outbox_says_cannot_be_forged_by_a_header() {
        for name in RESERVED.into_iter().chain(["", "A", "a b"]) {
            let refused = MessageError::HeaderName(name.to_owned());
            assert_eq!(message().with_header(name, "1"), Err(refused));
        }
    }
}
