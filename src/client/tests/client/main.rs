//! The client against a coordinator that follows a script, over real connections.
#![allow(
    clippy::unwrap_used,
    reason = "tests, of which clippy knows only the functions"
)]

mod acquire;
mod attach;
mod clock;
mod deadline;
mod fake;
mod giving_back;
mod leadership;
mod operators;
mod retries;
mod session;
mod shards;
mod watch;
