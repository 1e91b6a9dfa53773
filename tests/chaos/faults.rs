//! The rows of the fault matrix (FAULTS.md).

mod check;
mod coordinators;
mod copies;
mod credentials;
mod engine;
mod guards;
mod history;
mod links;
mod load;
mod log;
mod members;
mod overload;
mod sessions;
mod space;
mod stage;
mod table;
mod upkeep;
