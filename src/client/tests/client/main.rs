//! The client against a coordinator that follows a script, over real connections.

mod acquire;
mod clock;
mod deadline;
mod fake;
mod giving_back;
mod retries;
mod session;
