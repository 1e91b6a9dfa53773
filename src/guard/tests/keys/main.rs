//! Effects that are applied once, in PostgreSQL on a real server (I14).
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; a table of cases is read as one"
)]

mod attempt;
mod crash;
#[allow(dead_code, reason = "what the tests of the guard itself need, too")]
#[path = "../postgres/db.rs"]
mod db;
mod example;
mod ledger;
mod model;
mod once;
mod purge;
mod sql;
