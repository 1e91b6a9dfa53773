//! The `palisade` binary as people and scripts run it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; helpers of tests are not covered by the test exception"
)]

mod benching;
mod config;
mod demo;
mod doctoring;
#[cfg(target_os = "linux")]
mod groups;
mod guard_costs;
mod guarding;
mod holding;
mod leases;
mod looking;
mod operating;
mod program;
mod readme;
#[cfg(target_os = "linux")]
mod run_rounds;
#[cfg(target_os = "linux")]
mod run_terminal;
#[cfg(target_os = "linux")]
mod running;
mod secured;
mod serving;
mod shells;
mod snapshots;
mod terminal;
#[cfg(feature = "otlp")]
mod traces;
mod usage;
