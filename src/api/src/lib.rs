//! The gRPC interface `palisade.v1`, generated from `proto/palisade/v1`.
//!
//! The `.proto` files are the reference: their comments state units, bounds, errors and invariants, and
//! appear here as documentation. [`v1`] holds the messages, the clients
//! ([`v1::lease_service_client`], [`v1::admin_service_client`]) and the server traits
//! ([`v1::lease_service_server`], [`v1::admin_service_server`]); the messages and enums that both sides
//! use most are re-exported at the top.
//!
//! Messages that carry a session's secret or a lease's metadata show only its length when printed
//! with `{:?}`.
//!
//! ```
//! use palisade_api::{ErrorReason, SessionRef};
//!
//! let session = SessionRef { session_id: "0123456789abcdef".into(), secret: vec![7; 16], epoch: 1 };
//! assert!(!format!("{session:?}").contains('7'.to_string().repeat(2).as_str()));
//! assert_eq!(ErrorReason::LeaseHeld.reason(), "LEASE_HELD");
//! ```

mod codec;
mod reason;
mod redact;

/// Messages, clients and server traits of the package `palisade.v1`.
#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::as_conversions,
    clippy::clone_on_ref_ptr,
    clippy::doc_markdown,
    clippy::missing_errors_doc,
    clippy::or_fun_call,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::wildcard_imports,
    missing_debug_implementations,
    unused_qualifications,
    reason = "generated: the generators decide its style"
)]
pub mod v1 {
    tonic::include_proto!("palisade.v1");
}

/// What the messages are encoded with: its [`Message`](prost::Message) is a part of theirs.
pub use prost;

pub use v1::{
    AcquireRequest, AcquireResponse, AttachRequest, AttachResponse, ErrorReason, Generation, Lease,
    LeaseEnd, PreviousEnd, Refusal, ReleaseOutcome, ReleaseRequest, ReleaseResponse,
    SessionOpening, SessionRef,
};

/// The domain of every `google.rpc.ErrorInfo` that a coordinator sends.
pub const ERROR_DOMAIN: &str = "palisade";

/// The encoded `google.protobuf.FileDescriptorSet` of the package, comments included: what a reflection
/// service is given.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/palisade.v1.bin"));
