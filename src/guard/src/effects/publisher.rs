use std::error::Error;

use palisade_token::{FencingToken, Grant};

use super::Envelope;

type Source = Box<dyn Error + Send + Sync>;

/// Where a relay publishes to: a broker, a queue, an HTTP endpoint.
///
/// A relay publishes at least once: a message may come again after a crash or an answer that was lost, with the
/// same id and headers. A publisher that can compare and write in one step refuses a relay whose token
/// is lower than one that it has seen; the others leave that to the consumers' inbox.
///
/// ```
/// use std::sync::mpsc::SyncSender;
/// use palisade_guard::effects::{Envelope, PublishError, Publisher};
/// use palisade_token::Grant;
///
/// struct Queue(SyncSender<Envelope>);
///
/// impl Publisher for Queue {
///     async fn publish(&self, message: &Envelope, _: &Grant) -> Result<(), PublishError> {
///         let sent = self.0.try_send(message.clone());
///         sent.map_err(|error| PublishError::Unavailable(error.to_string().into()))
///     }
/// }
/// ```
pub trait Publisher: Send + Sync {
    /// Publishes one message, and returns when the broker has it for certain. `relay` is the grant under
    /// which the relay runs; `message` says under which it was staged.
    ///
    /// It has a time limit of its own, shorter than what the relay's lease check leaves for it.
    fn publish(
        &self,
        message: &Envelope,
        relay: &Grant,
    ) -> impl Future<Output = Result<(), PublishError>> + Send;
}

/// Why a message was not published, as far as is known. The difference decides what becomes of it.
///
/// ```
/// use palisade_guard::effects::PublishError;
///
/// fn of_status(status: u16, body: String) -> Result<(), PublishError> {
///     match status {
///         200..300 => Ok(()),
///         413 | 422 => Err(PublishError::Refused(body.into())), // never goes through
///         408 | 429 | 500.. => Err(PublishError::Unavailable(body.into())),
///         _ => Err(PublishError::Failed(body.into())),
///     }
/// }
/// let refused = of_status(422, "no such field".to_owned());
/// assert!(matches!(refused, Err(PublishError::Refused(_))));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The broker has seen a later holder of the relay's resource, or another one with the same token. The
    /// relay stops; the message stays.
    #[error("the broker has seen another relay, with token {fence}")]
    Fenced {
        /// The token of that relay.
        fence: FencingToken,
    },
    /// The broker was not reached, or does not work. It may have the message. The relay pauses, and no
    /// message is to blame: an outage buries nothing, however long it lasts.
    #[error("the broker is not available")]
    Unavailable(#[source] Source),
    /// This message failed, and may go through at a later try. Counts as one of its attempts.
    #[error("the message was not published")]
    Failed(#[source] Source),
    /// This message will never go through: it becomes a dead letter at once.
    #[error("the message cannot be published")]
    Refused(#[source] Source),
}
