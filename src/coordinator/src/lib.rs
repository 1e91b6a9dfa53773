//! The coordinator: grants leases with fencing tokens over gRPC, backed by etcd or by a local file.
//!
//! | module | what is in it |
//! |---|---|
//! | [`access`] | who calls, and what each may do |
//! | [`domain`] | who gets what, as pure code |
//! | [`store`] | the seam to what remembers, and the three that do: etcd, a file, memory |
//! | [`service`] | the gRPC face: parse, ask the store, answer |
//! | `rest` | the same calls as JSON over HTTP |
//! | [`config`], [`serve`] | what it is told to do, and doing it |
//! | [`metrics`], [`audit`], [`traces`] | what is counted and timed; what is written down for later; what a tracing system is told |
//! | [`clock`], [`entropy`], [`tasks`] | the injected world |

pub mod access;
pub mod audit;
pub mod clock;
pub mod config;
pub mod domain;
pub mod entropy;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod health;
mod http;
pub mod metrics;
mod rest;
pub mod serve;
pub mod service;
pub mod store;
pub mod tasks;
pub mod traces;
