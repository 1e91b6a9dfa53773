//! Leases in JSON: what every command that shows some has in common.

use palisade_client::{LeaseEnd, LeaseInfo, Occupancy, PreviousLease, WaiterInfo};
use palisade_token::{FencingToken, HolderId, ResourceName};
use serde::Serialize;

/// A lease in JSON. What the coordinator did not tell is left out.
#[derive(Debug, Serialize)]
pub(crate) struct LeaseJson<'a> {
    resource: &'a ResourceName,
    token: FencingToken,
    holder: HolderId,
    grant: String,
    session: &'a str,
    request: &'a str,
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_delay_ms: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_unix_ms: Option<i64>,
    granted_revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiters: Option<u32>,
}

impl<'a> From<&'a LeaseInfo> for LeaseJson<'a> {
    fn from(lease: &'a LeaseInfo) -> Self {
        let bytes = &lease.metadata.0;
        let text = std::str::from_utf8(bytes).ok();
        Self {
            resource: &lease.grant.resource,
            token: lease.grant.token,
            holder: lease.grant.holder,
            grant: lease.grant.to_string(),
            session: &lease.session_id,
            request: &lease.request_id,
            label: &lease.label,
            metadata: text.filter(|text| !text.is_empty()),
            metadata_hex: text.is_none().then(|| hex::encode(bytes)),
            ttl_ms: Some(lease.ttl.as_millis()).filter(|known| *known > 0),
            lock_delay_ms: Some(lease.lock_delay.as_millis()).filter(|asked| *asked > 0),
            granted_unix_ms: Some(lease.granted_unix_ms).filter(|known| *known > 0),
            granted_revision: lease.granted_revision,
            waiters: lease.waiters,
        }
    }
}

/// What is known of one resource, in JSON.
#[derive(Debug, Serialize)]
pub(super) struct OccupancyJson<'a> {
    resource: &'a ResourceName,
    held: bool,
    lease: Option<LeaseJson<'a>>,
    waiters: u32,
    /// The head of it, as much as was asked for.
    queue: Vec<WaiterJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<PreviousJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_delay_left_ms: Option<u128>,
    revision: i64,
}

impl<'a> OccupancyJson<'a> {
    pub(super) fn of(resource: &'a ResourceName, found: &'a Occupancy) -> Self {
        Self {
            resource,
            held: found.lease.is_some(),
            lease: found.lease.as_ref().map(LeaseJson::from),
            waiters: found.waiters,
            queue: (1..).zip(&found.queue).map(WaiterJson::from).collect(),
            previous: told(found).map(PreviousJson::from),
            lock_delay_left_ms: Some(found.lock_delay_left.as_millis()).filter(|left| *left > 0),
            revision: found.revision,
        }
    }
}

#[derive(Debug, Serialize)]
struct WaiterJson<'a> {
    /// 1 is served next.
    place: u32,
    session: &'a str,
    request: &'a str,
    label: &'a str,
    enqueued_revision: i64,
}

impl<'a> From<(u32, &'a WaiterInfo)> for WaiterJson<'a> {
    fn from((place, waiter): (u32, &'a WaiterInfo)) -> Self {
        Self {
            place,
            session: &waiter.session_id,
            request: &waiter.request_id,
            label: &waiter.label,
            enqueued_revision: waiter.enqueued_revision,
        }
    }
}

#[derive(Debug, Serialize)]
struct PreviousJson<'a> {
    end: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<FencingToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> From<&'a PreviousLease> for PreviousJson<'a> {
    fn from(previous: &'a PreviousLease) -> Self {
        Self {
            end: end_name(previous.end),
            token: previous.token,
            label: Some(&*previous.label).filter(|label| !label.is_empty()),
            reason: Some(&*previous.reason).filter(|reason| !reason.is_empty()),
        }
    }
}

/// How the lease before ended; none where the coordinator knows nothing of it.
pub(super) fn told(found: &Occupancy) -> Option<&PreviousLease> {
    let previous = found.previous.as_ref()?;
    let is_known =
        previous.end != LeaseEnd::Unknown || previous.token.is_some() || !previous.label.is_empty();
    is_known.then_some(previous)
}

/// How a lease ended, in one word.
pub(crate) fn end_name(end: LeaseEnd) -> &'static str {
    match end {
        LeaseEnd::Released => "released",
        LeaseEnd::Expired => "expired",
        LeaseEnd::Revoked => "revoked",
        _ => "unknown",
    }
}
