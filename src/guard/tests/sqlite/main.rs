//! The SQLite guard on real files, by several connections.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; a table of cases is read as one"
)]

mod commit;
mod db;
mod fence;
mod install;
mod observed;
#[path = "../shared/recording.rs"]
mod recording;
mod traced;
mod unguarded;
