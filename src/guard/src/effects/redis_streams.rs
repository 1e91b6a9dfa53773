use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, RedisError, Script};
use palisade_token::{FencingToken, Grant};

use super::{Envelope, PublishError, Publisher};

/// The field of a stream's entry that holds the payload. The other fields are the headers
/// ([`Envelope::all_headers`]).
const PAYLOAD: &str = "payload";

const SCRIPT: &str = include_str!("../../sql/redis/publish.lua");

/// Publishes to Redis Streams (Redis 6.2 and later): the topic is the key of the stream.
///
/// One script compares and adds in one step: an id that is among the last [`RedisStreams::REMEMBERED`] of the
/// stream is not added again, and a relay whose token is lower than one that the stream has seen of
/// its resource is refused ([`PublishError::Fenced`]). So as long as Redis keeps what it acknowledged, a
/// message is in the stream once, and a relay that was replaced adds nothing after its successor's first message.
///
/// *Grade: efficiency.* Redis loses acknowledged writes in a failover, and with a restart unless
/// `appendfsync always`; it then forgets messages, ids and tokens alike. Consumers that must not handle a
/// message twice keep an inbox. Without a bound (`with_max_entries`) streams grow until somebody trims them.
///
/// The tokens and ids of a stream `t` are in the keys `{t}:palisade:fence` and `{t}:palisade:ids`, in the same
/// slot of a cluster; topics with braces are refused. They must not be evicted: use a `noeviction` policy.
///
/// ```
/// use palisade_guard::effects::RedisStreams;
///
/// let client = redis::Client::open("redis://:secret@127.0.0.1:6379/")?;
/// let publisher = RedisStreams::new(client).with_max_entries(1_000_000);
/// assert!(!format!("{publisher:?}").contains("secret"));
/// // `Relay::new(guard, sealed, outbox, publisher)` connects at its first message.
/// # Ok::<(), redis::RedisError>(())
/// ```
pub struct RedisStreams {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
    script: Script,
    max_entries: u64,
}

impl RedisStreams {
    /// How many ids of each stream are remembered: ten times the largest batch of a relay, which is what
    /// may be repeated after a crash.
    pub const REMEMBERED: u32 = 10_000;

    /// How long each step of one message may take: connecting and the answer, and twice more where the server
    /// does not know the script yet. Leave four of them in the relay's lease check.
    pub const TIMEOUT: Duration = Duration::from_secs(1);

    /// A publisher for this server. It connects at the first message, and again after an error.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            connection: Mutex::new(None),
            script: Script::new(SCRIPT),
            max_entries: 0,
        }
    }

    /// The same publisher for streams of at most about so many entries: Redis drops the oldest ones, read or not.
    #[must_use]
    pub const fn with_max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }

    async fn connection(&self) -> Result<MultiplexedConnection, RedisError> {
        let known = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some(connection) = known {
            return Ok(connection);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Self::TIMEOUT))
            .set_response_timeout(Some(Self::TIMEOUT));
        let made = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        *self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        Ok(made)
    }

    async fn add(&self, message: &Envelope, relay: &Grant) -> Result<(String, String), RedisError> {
        let topic = message.topic.as_str();
        let mut call = self.script.prepare_invoke();
        call.key(topic)
            .key(format!("{{{topic}}}:palisade:fence"))
            .key(format!("{{{topic}}}:palisade:ids"))
            .arg(relay.resource.as_str())
            .arg(relay.token.get())
            .arg(relay.holder.to_string())
            .arg(message.id.as_str())
            .arg(Self::REMEMBERED)
            .arg(self.max_entries);
        for (name, value) in message.all_headers() {
            call.arg(name).arg(value);
        }
        call.arg(PAYLOAD).arg(message.payload.as_slice());
        let mut connection = self.connection().await?;
        call.invoke_async(&mut connection).await
    }
}

impl Publisher for RedisStreams {
    async fn publish(&self, message: &Envelope, relay: &Grant) -> Result<(), PublishError> {
        if message.topic.as_str().contains(['{', '}']) {
            let why = "the name of a stream has no braces: they choose the slot in a cluster";
            return Err(PublishError::Refused(Box::from(why)));
        }
        let (outcome, fence) = self.add(message, relay).await.map_err(|error| {
            // The topic is some other kind of key. All else is the server's trouble and not the message's.
            if error.code() == Some("WRONGTYPE") {
                return PublishError::Failed(Box::new(error));
            }
            *self
                .connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = None;
            PublishError::Unavailable(Box::new(error))
        })?;
        match outcome.as_str() {
            "added" | "seen" => Ok(()),
            // Stale, or a collision.
            _ => match fence.parse::<FencingToken>() {
                Ok(fence) => Err(PublishError::Fenced { fence }),
                Err(error) => Err(PublishError::Unavailable(Box::new(error))),
            },
        }
    }
}

impl fmt::Debug for RedisStreams {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client's own Debug would show the password of its URL.
        formatter
            .debug_struct("RedisStreams")
            .field("max_entries", &self.max_entries)
            .finish_non_exhaustive()
    }
}
