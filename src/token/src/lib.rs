//! The words that a Palisade coordinator, its clients and the guards in storage code share.
//!
//! A coordinator grants a lease of a *resource* ([`ResourceName`]) together with a *fencing token*
//! ([`FencingToken`]): a number that is strictly greater for every later lease of that resource, for
//! ever (invariant I3). Both, with the id of the one hold that they belong to ([`HolderId`]), make a
//! [`Grant`]: what a client shows a guard, and what the guard compares with the fence it has sealed.
//!
//! ```
//! use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
//!
//! let grant = Grant {
//!     resource: ResourceName::new("orders/eu")?,
//!     token: FencingToken::new(1_790_000_000_000_000)?,
//!     holder: HolderId::from_bytes([7; 16]),
//! };
//! let text = grant.to_string();
//! assert_eq!(text.parse::<Grant>()?, grant);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Idea and reasons: Martin Kleppmann, *How to do distributed locking* (2016).
#![warn(missing_docs)]

#[cfg(any(test, fuzzing))]
#[allow(
    missing_docs,
    missing_debug_implementations,
    reason = "for fuzzing only"
)]
pub mod fuzz;
mod grant;
mod holder;
mod resource;
mod token;

pub use grant::{Grant, ParseGrantError};
pub use holder::{HolderId, ParseHolderError};
pub use resource::{ResourceName, ResourceNameError};
pub use token::{FencingToken, TokenError};
