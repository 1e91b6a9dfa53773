//! The `palisade` binary as people and scripts run it.

mod demo;
mod leases;
mod program;
mod serving;
mod usage;
