//! The PostgreSQL guard on a real server: one server for this binary, one database for each test.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; a table of cases is read as one"
)]

mod audit;
mod commit;
mod db;
mod fence;
mod install;
mod interleavings;
mod names;
mod observed;
mod partitions;
mod pool;
mod psql;
mod queues;
#[path = "../shared/recording.rs"]
mod recording;
mod rows;
mod seal;
mod traps;
mod unguarded;
mod writers;
