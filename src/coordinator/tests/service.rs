//! The gRPC service over a loopback port, on a store in memory that tests can take away.
#![allow(
    clippy::disallowed_methods,
    reason = "tests run clients beside the coordinator and wait for conditions in real time"
)]
#![allow(
    clippy::unwrap_used,
    reason = "what tests share fails them, as they do themselves"
)]

#[path = "service/access.rs"]
mod access;
#[path = "service/attach.rs"]
mod attach;
#[path = "service/audit.rs"]
mod audit;
#[path = "service/away.rs"]
mod away;
#[path = "service/bad_input.rs"]
mod bad_input;
#[path = "service/bad_rows.rs"]
mod bad_rows;
#[path = "service/crowd.rs"]
mod crowd;
#[path = "service/drain.rs"]
mod drain;
#[path = "service/grpc_web.rs"]
mod grpc_web;
#[path = "service/leases.rs"]
mod leases;
#[path = "service/metrics.rs"]
mod metrics;
#[path = "service/observability.rs"]
mod observability;
#[path = "service/operators.rs"]
mod operators;
#[path = "service/rest.rs"]
mod rest;
#[path = "service/store.rs"]
mod store;
#[path = "service/support.rs"]
mod support;
#[path = "service/surface.rs"]
mod surface;
#[path = "service/tls.rs"]
mod tls;
#[path = "service/waiting.rs"]
mod waiting;
#[path = "service/watching.rs"]
mod watching;
