//! Refuses writes that carry a stale fencing token, in the same transaction as the write.
#![warn(missing_docs)]

pub mod decide;
mod error;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod fence;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sealed;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use error::{Blocker, Class, GuardError};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use fence::Fence;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use sealed::Sealed;
