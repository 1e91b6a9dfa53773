use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use palisade_token::{FencingToken, ResourceName};

use super::{IdempotencyKey, Name};
use crate::{Class, GuardError};

/// The longest text of an error and its causes that is kept, in characters.
pub const MAX_ERROR_CHARS: usize = 2000;

/// Causes deeper than this are left out: a chain might be a circle.
const MAX_CAUSES: usize = 16;

/// Who gave a message up.
///
/// ```
/// use palisade_guard::effects::{Name, Undelivered};
///
/// fn how_to_replay(undelivered: &Undelivered) -> &'static str {
///     match undelivered {
///         Undelivered::Outbox(_) => "GuardedTx::replay_dead_letter stages it again",
///         Undelivered::Consumer(_) => "GuardedTx::take_dead_letter, and handle it",
///     }
/// }
/// let by = Undelivered::Outbox(Name::new("payments")?);
/// assert!(how_to_replay(&by).contains("stages it again"));
/// # Ok::<(), palisade_guard::effects::NameError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Undelivered {
    /// The relay of this outbox.
    Outbox(Name),
    /// This consumer.
    Consumer(Name),
}

/// What became of a message after a failed attempt.
///
/// ```no_run
/// # use palisade_guard::{GuardError, effects::{Message, Name, Verdict}, postgres::GuardedTx};
/// # async fn note(mut tx: GuardedTx, consumer: Name, message: Message, offset: u64,
/// #     error: std::io::Error) -> Result<(), GuardError> {
/// // The transaction that handled the message was rolled back; this is another.
/// match tx.failed(&consumer, &message, 5, &error).await? {
///     Verdict::Again => {} // the offset stays: it comes again
///     Verdict::Dead => tx.advance_offset(&consumer, offset, offset + 1).await?, // go past it
/// }
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It is to be tried again.
    Again,
    /// That was the last attempt: it is a dead letter.
    Dead,
}

/// A message that was given up, with everything that is needed to try it again.
///
/// ```no_run
/// # use palisade_guard::{GuardError, postgres::Guard};
/// # async fn list(pool: &sqlx::PgPool) -> Result<(), GuardError> {
/// for letter in Guard::new().dead_letters(pool, 0, 100).await? {
///     let last = letter.errors.last().map_or("", String::as_str);
///     println!("{} of {}: {} attempts, {last}", letter.message, letter.topic, letter.attempts);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its number in the store.
    pub id: i64,
    /// Who gave it up.
    pub undelivered: Undelivered,
    /// The id of the message.
    pub message: Name,
    /// Where it was to go, or came from.
    pub topic: Name,
    /// Whose order it kept.
    pub aggregate: Option<Name>,
    /// The original idempotency key.
    pub key: Option<IdempotencyKey>,
    /// What was protected where it was staged, or where it could not be handled.
    pub resource: ResourceName,
    /// The token there.
    pub token: FencingToken,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// What was to be sent or handled.
    pub payload: Vec<u8>,
    /// How often it was tried.
    pub attempts: u32,
    /// Each attempt's error with its causes: the first ones and the last ones, 16 at most.
    pub errors: Vec<String>,
    /// When it was first tried, by the store's clock.
    pub first_attempt: SystemTime,
    /// When it was last tried.
    pub last_attempt: SystemTime,
}

/// Without payload and headers: they are not for logs.
impl fmt::Debug for DeadLetter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DeadLetter")
            .field("id", &self.id)
            .field("undelivered", &self.undelivered)
            .field("message", &self.message)
            .field("topic", &self.topic)
            .field("attempts", &self.attempts)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// An error and its causes as one text of at most [`MAX_ERROR_CHARS`] characters, for a dead letter.
///
/// ```
/// use palisade_guard::effects::{PublishError, error_chain};
///
/// let cause = std::io::Error::other("connection\nreset");
/// let error = PublishError::Failed(Box::new(cause));
/// assert_eq!(error_chain(&error), "the message was not published: connection reset");
/// ```
#[must_use]
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for error in causes(error) {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&error.to_string());
    }
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(MAX_ERROR_CHARS).collect()
}

/// Says whether the error, or a cause of it, is the guard's final refusal of a grant. Then the holder is to
/// blame and not the message: step down, and leave the message to the next holder. It is no dead letter.
///
/// ```
/// use palisade_guard::GuardError;
/// use palisade_guard::effects::is_fenced;
///
/// let stale = GuardError::Stale {
///     resource: "orders".parse()?,
///     presented: "41".parse()?,
///     fence: "42".parse()?,
/// };
/// assert!(!is_fenced(&std::io::Error::other("handling failed")));
/// assert!(is_fenced(&stale)); // step down; the message is the next holder's
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn is_fenced(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|error| {
        error
            .downcast_ref::<GuardError>()
            .is_some_and(|error| error.class() == Class::Fatal)
    })
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source()).take(MAX_CAUSES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Failure {
        text: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn failure(text: &str, source: Option<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure {
            text: text.to_owned(),
            source,
        }
    }

    #[test]
    fn a_chain_is_bounded_and_clean() {
        let inner = failure("no\0 such\naccount", None);
        let outer = failure("posting failed", Some(Box::new(inner)));
        assert_eq!(error_chain(&outer), "posting failed: no  such account");
        let endless = failure(&"ä".repeat(5000), None);
        assert_eq!(error_chain(&endless).chars().count(), MAX_ERROR_CHARS);
        let deep = (0..100).fold(failure("deep", None), |inner, _| {
            failure("x", Some(Box::new(inner)))
        });
        assert!(error_chain(&deep).len() < 60);
    }

    #[test]
    fn a_refusal_is_found_below_other_errors() {
        let stale = GuardError::Stale {
            resource: ResourceName::new("r").unwrap(),
            presented: FencingToken::new(1).unwrap(),
            fence: FencingToken::new(2).unwrap(),
        };
        assert!(is_fenced(&failure("handling", Some(Box::new(stale)))));
        let bug = GuardError::Misuse("nothing");
        assert!(!is_fenced(&failure("handling", Some(Box::new(bug)))));
    }
}
