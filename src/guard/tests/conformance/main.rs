//! The conformance suite on every store, and on each store with its check taken out: there it must fail.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod broken;
mod mariadb;
mod memory;
mod object_store;
mod postgres;
mod redis;
mod sql;
mod sqlite;
