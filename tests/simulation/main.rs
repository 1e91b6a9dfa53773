//! The deterministic simulation: real coordinators and the real client library on a simulated network, with
//! simulated clocks and a store that fails. Everything follows from a seed.

#![allow(
    dead_code,
    reason = "what is written down is more than each check looks at"
)]
#![allow(
    clippy::unwrap_used,
    reason = "these are tests, though clippy does not know it of what they share"
)]
#![allow(
    clippy::print_stdout,
    reason = "seeds that fail, and figures, are for whoever runs them"
)]

mod configs;
mod history;
mod invariants;
mod linearizable;
mod planted;
mod seeds;
mod vault;
mod world;
