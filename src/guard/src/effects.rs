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
//!
//! # In one transaction, or in two
//!
//! - What the store does itself is one transaction: `GuardedTx::once`.
//! - What the world outside does (a charge, an e-mail) cannot be in it, and cannot be fenced. It is an
//!   [`Attempt`]: `Guard::begin_attempt` commits that the call is about to be made, then comes the call, with
//!   the same [external key](IdempotencyKey::external) at every attempt, then `GuardedTx::complete` writes what
//!   follows from it, with the answer. An attempt that was never finished is begun again by the next holder of
//!   *its own* resource as soon as that has sealed, or by the same holder when the attempt's lifetime is over.
//!   No other resource's fence, and no time alone, ever takes it over.
//!
//! Within the answer's lifetime ([`KeyPolicy`]) an effect is applied once. After it, a key is new again once it
//! was purged, unless it is a UUID of version 7, which is refused as expired (when its maker's clock was not more
//! than [`KeyPolicy::MOST_AHEAD`] ahead). So let keys be such UUIDs, and the
//! lifetime be longer than anybody retries.
//!
//! # From any language
//!
//! PostgreSQL's part is in functions of the schema `palisade`, that `palisade.grant_writer` lets a role use:
//!
//! ```sql
//! BEGIN;
//! SELECT palisade.enter('orders', 42, '000102030405060708090a0b0c0d0e0f');
//! SELECT * FROM palisade.once_begin('orders', 'tenant-7', 'pay', 'key', '\x01…'); -- claimed, replayed, …
//! UPDATE orders SET paid = true WHERE id = 7;              -- only if claimed
//! SELECT palisade.once_finish('tenant-7', 'pay', 'key', '{"receipt": 1}');
//! COMMIT;                                                  -- refused if a claim was not finished
//! ```
//!
//! `attempt_begin(resource, tenant, operation, key, fingerprint)` gives the number of the attempt;
//! `attempt_open(resource, tenant, operation, key, attempt)` and `attempt_finish(…, attempt, answer)` are the
//! second transaction; `unfinished(resource)` lists what was never finished; `purge_effects(most)` deletes
//! answers that have expired. All but the last two need the resource entered, and admitted.

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
