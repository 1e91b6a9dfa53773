//! Streams of effects on a real PostgreSQL, and on a real Redis where they leave it.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; a table of cases is read as one"
)]

#[allow(dead_code, reason = "the tests of the guard itself use the rest")]
#[path = "../postgres/db.rs"]
mod db;

mod broker;
mod consumer;
mod dead_letters;
mod inbox;
mod model;
mod outbox;
mod positions;
mod redis;
mod relay;
