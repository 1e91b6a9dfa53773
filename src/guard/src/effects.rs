//! Effects: guarded writes that are applied once, whatever is tried again (invariant I14).
//!
//! An effect is named by an [`IdempotencyKey`]. Its key, its answer and its business write are one
//! transaction of the store, so that a crash leaves all of them or none; whoever comes again with the key
//! gets the answer of the first. The fence decides *who* may write, the key decides *whether it was written*:
//! that is why a key never contains a token, and survives the takeover by another holder.
//!
//! This module holds what does not depend on a store; `postgres::GuardedTx` has the operations.

mod attempt;
mod claim;
mod fingerprint;
mod key;
mod name;
mod policy;
pub mod position;

pub use attempt::{Attempt, Begun, Unfinished};
pub use claim::{Claim, KeyState, Known, claim, is_expired, keep_until};
pub use fingerprint::Fingerprint;
pub use key::{IdempotencyKey, KeyError};
pub use name::{Name, NameError};
pub use policy::{KeyPolicy, Outcome, Rejections};
pub use position::{MAX_POSITION, SeqOutcome};
