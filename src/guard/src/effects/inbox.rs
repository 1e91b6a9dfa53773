use palisade_token::{FencingToken, ResourceName};

/// What a received message is to its consumer.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// What was protected where it was made.
    pub resource: ResourceName,
    /// The token of its maker.
    pub token: FencingToken,
}
