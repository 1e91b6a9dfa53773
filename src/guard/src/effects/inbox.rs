use palisade_token::{FencingToken, ResourceName};

/// What a received message is to its consumer.
///
/// ```no_run
/// # use palisade_guard::{GuardError, effects::{Name, Receipt}, postgres::GuardedTx};
/// # async fn receive(mut tx: GuardedTx, consumer: Name, id: Name) -> Result<(), GuardError> {
/// match tx.inbox(&consumer, &id, None).await? {
///     Receipt::New => {
///         let handle = sqlx::query("UPDATE totals SET paid = paid + 1");
///         handle.execute(&mut *tx).await?;
///     }
///     Receipt::Seen | Receipt::Late => {} // acknowledge it, and do nothing
/// }
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Receipt {
    /// New: handle it in this transaction.
    New,
    /// Handled before: skip it.
    Seen,
    /// It comes from a holder that was replaced, and the consumer has seen its successor: skip it.
    Late,
}

/// Under which grant a message was made, as its headers say it ([`FENCE_RESOURCE`](super::FENCE_RESOURCE),
/// [`FENCE_TOKEN`](super::FENCE_TOKEN)).
///
/// ```
/// use std::collections::BTreeMap;
/// use palisade_guard::effects::{FENCE_RESOURCE, FENCE_TOKEN, Origin};
///
/// let headers = BTreeMap::from([(FENCE_RESOURCE, "orders"), (FENCE_TOKEN, "42")]);
/// let origin = Origin {
///     resource: headers[FENCE_RESOURCE].parse()?,
///     token: headers[FENCE_TOKEN].parse()?,
/// };
/// assert_eq!(origin.token.get(), 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What was protected where it was made.
    pub resource: ResourceName,
    /// The token of its maker.
    pub token: FencingToken,
}
