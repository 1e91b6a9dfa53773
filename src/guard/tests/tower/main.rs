//! The layer for services: grants in headers, refusals as responses.
#![allow(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "a helper of a test fails like the test; a table of cases is read as one"
)]

mod faults;
mod grants;
mod noise;
mod service;
