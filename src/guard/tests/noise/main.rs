//! Ten thousand random names, tokens, holders, keys and settings: errors, never a panic, and never an admitted
//! write. `PALISADE_TEST_SEED` replays a run; each says which seed it has.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; one case is read as a whole"
)]

mod mysql;
mod postgres;
mod pure;
mod random;
mod redis;
mod sqlite;

use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

/// What is sealed in every store here, and what nothing random may pass for.
fn sealed() -> Grant {
    Grant {
        resource: ResourceName::new("orders").unwrap(),
        token: FencingToken::new(42).unwrap(),
        holder: HolderId::from_bytes([0x0f; 16]),
    }
}
