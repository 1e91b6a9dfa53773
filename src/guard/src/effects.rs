//! Effects: guarded writes that are applied once, whatever is tried again (invariant I14).
//!
//! An effect is named by an [`IdempotencyKey`]. Its key, its answer and its business write are one
//! transaction of the store, so that a crash leaves all of them or none; whoever comes again with the key
//! gets the answer of the first. The fence decides *who* may write, the key decides *whether it was written*:
//! that is why a key never contains a token, and survives the takeover by another holder.
//!
//! Streams of effects are numbered instead, or known by the ids of their messages:
//!
//! - a *sequence* tells the next number of a producer from one that was applied and from a gap ([`position`]),
//!   over takeovers; an *offset* says how far a consumer has come, a *version* whether an entity was changed;
//! - the *inbox* knows the messages that a consumer has handled ([`Receipt`]);
//! - the *outbox* keeps messages with the effect that they tell of ([`Message`]), until a relay under a
//!   lease of its own has handed them to a [`Publisher`], at least once and in the order of each aggregate;
//! - a *dead letter* is a message that failed at every attempt ([`DeadLetter`]), with what is needed to try again.
//!
//! The example `queue_consumer` has all of them in one transaction.
//!
//! This module holds what does not depend on a store; `postgres::GuardedTx` has the operations.

mod attempt;
mod claim;
mod dead_letter;
mod fingerprint;
mod inbox;
mod key;
mod message;
mod name;
mod policy;
pub mod position;
mod publisher;
#[cfg(feature = "redis")]
mod redis_streams;

pub use attempt::{Attempt, Begun, Unfinished};
pub use claim::{Claim, KeyState, Known, claim, is_expired, keep_until};
pub use dead_letter::{DeadLetter, MAX_ERROR_CHARS, Undelivered, Verdict, error_chain, is_fenced};
pub use fingerprint::Fingerprint;
pub use inbox::{Origin, Receipt};
pub use key::{IdempotencyKey, KeyError};
pub use message::{
    AGGREGATE, Envelope, FENCE_RESOURCE, FENCE_TOKEN, IDEMPOTENCY_KEY, MSG_ID, Message,
    MessageError,
};
pub use name::{Name, NameError};
pub use policy::{KeyPolicy, Outcome, Rejections};
pub use position::{MAX_POSITION, SeqOutcome};
pub use publisher::{PublishError, Publisher};
#[cfg(feature = "redis")]
pub use redis_streams::RedisStreams;
