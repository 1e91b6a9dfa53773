//! The PostgreSQL guard on a real server: one server for this binary, one database for each test.

mod commit;
mod db;
mod fence;
mod install;
mod interleavings;
mod pool;
mod seal;
mod unguarded;
mod writers;
