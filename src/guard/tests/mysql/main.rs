//! The guard on a real MariaDB, by many sessions.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; a table of cases is read as one"
)]

mod commit;
mod db;
mod fence;
mod install;
mod interleavings;
mod pool;
mod unguarded;
