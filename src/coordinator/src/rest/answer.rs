//! From the messages of the gRPC interface to JSON. Names are theirs; numbers are numbers, for tokens and
//! revisions fit 2^53; enums are their last words; metadata is base64; holder and nonce are hexadecimal.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use palisade_api::v1::{
    CheckTokenResponse, GetLeaseResponse, LeaseEvent, LeaseEventType, ListLeasesResponse,
    OpenSessionResponse, RenewSessionResponse, TokenState, Waiter,
};
use palisade_api::{
    AcquireResponse, Generation, Lease, LeaseEnd, PreviousEnd, ReleaseOutcome, ReleaseResponse,
};
use serde_json::{Value, json};

/// The word of an enum's value: one that is not known is none of ours, and reads as never sent.
macro_rules! word {
    ($of:ty, $prefix:literal, $number:expr) => {{
        let name = <$of>::try_from($number).unwrap_or_default().as_str_name();
        name.strip_prefix($prefix).unwrap_or(name)
    }};
}

pub(super) fn opened(response: &OpenSessionResponse) -> Value {
    json!({
        "session_id": response.session_id,
        "ttl_ms": response.ttl_ms,
        "ttl_left_ms": response.ttl_left_ms,
    })
}

pub(super) fn renewed(response: &RenewSessionResponse) -> Value {
    json!({ "ttl_ms": response.ttl_ms, "ttl_left_ms": response.ttl_left_ms })
}

pub(super) fn acquired(response: &AcquireResponse) -> Value {
    json!({
        "lease": response.lease.as_ref().map(lease),
        "session_id": response.session_id,
        "ttl_left_ms": response.ttl_left_ms,
        "previous": response.previous.as_ref().map(previous),
    })
}

pub(super) fn released(response: &ReleaseResponse) -> Value {
    json!({
        "outcome": word!(ReleaseOutcome, "RELEASE_OUTCOME_", response.outcome),
        "end": end(response.end),
        "queue_place_given_back": response.queue_place_given_back,
        "revision": response.revision,
    })
}

pub(super) fn standing(response: &GetLeaseResponse) -> Value {
    json!({
        "lease": response.lease.as_ref().map(lease),
        "waiters": response.waiters,
        "revision": response.revision,
        "queue": response.queue.iter().map(waiter).collect::<Vec<_>>(),
        "previous": response.previous.as_ref().map(previous),
        "lock_delay_left_ms": response.lock_delay_left_ms,
    })
}

pub(super) fn page(response: &ListLeasesResponse) -> Value {
    json!({
        "leases": response.leases.iter().map(lease).collect::<Vec<_>>(),
        "next_page_token": response.next_page_token,
        "revision": response.revision,
    })
}

pub(super) fn checked(response: &CheckTokenResponse) -> Value {
    json!({
        "state": word!(TokenState, "TOKEN_STATE_", response.state),
        "current_token": response.current_token,
        "revision": response.revision,
    })
}

/// The word for what happened: the name of an event.
pub(super) fn event_type(event: &LeaseEvent) -> &'static str {
    word!(LeaseEventType, "LEASE_EVENT_TYPE_", event.r#type)
}

pub(super) fn event(event: &LeaseEvent) -> Value {
    json!({
        "type": event_type(event),
        "revision": event.revision,
        "resource": event.resource,
        "lease": event.lease.as_ref().map(lease),
        "reason": event.reason,
    })
}

fn lease(lease: &Lease) -> Value {
    json!({
        "resource": lease.resource,
        "token": lease.token,
        "holder": hex::encode(&lease.holder),
        "session_id": lease.session_id,
        "request_id": lease.request_id,
        "label": lease.label,
        "metadata": BASE64_STANDARD.encode(&lease.metadata),
        "granted_revision": lease.granted_revision,
        "generation": lease.generation.as_ref().map(generation),
        "lock_delay_ms": lease.lock_delay_ms,
        "ttl_ms": lease.ttl_ms,
        "granted_unix_ms": lease.granted_unix_ms,
        "waiters": lease.waiters,
    })
}

fn generation(generation: &Generation) -> Value {
    json!({
        "nonce": hex::encode(&generation.nonce),
        "base": generation.base,
        "since_revision": generation.since_revision,
    })
}

fn previous(previous: &PreviousEnd) -> Value {
    json!({
        "end": end(previous.end),
        "token": previous.token,
        "reason": previous.reason,
        "label": previous.label,
    })
}

fn end(number: i32) -> &'static str {
    word!(LeaseEnd, "LEASE_END_", number)
}

fn waiter(waiter: &Waiter) -> Value {
    json!({
        "session_id": waiter.session_id,
        "request_id": waiter.request_id,
        "label": waiter.label,
        "enqueued_revision": waiter.enqueued_revision,
    })
}
