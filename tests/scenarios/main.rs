//! The whole path on real servers: coordinators on etcd, guards in PostgreSQL, clients as processes.
#![allow(
    clippy::unwrap_used,
    reason = "a scenario that meets an unforeseen error has failed"
)]

mod abandoned;
mod coordinators;
mod curl;
mod durability;
mod languages;
mod leadership;
mod operators;
mod outage;
mod python_package;
mod queue;
mod restore;
mod resurrected;
mod rolling;
mod setup;
mod shards;
mod streams;
mod watching;
