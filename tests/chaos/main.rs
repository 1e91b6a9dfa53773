//! Faults on real servers: etcd, coordinators, PostgreSQL and what lies between them are broken under load, and what clients
//! were told is compared with what was kept. FAULTS.md says which fault is tried where.
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an unforeseen error has failed"
)]

mod common;
mod faults;
mod lock_set;
mod report;
mod tables;

/// The soak's rule, which is tried here; the soak itself is a program.
#[path = "soak_run/judge.rs"]
mod soak_judge;
