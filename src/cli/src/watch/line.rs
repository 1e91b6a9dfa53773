//! An event as a line.

use palisade_client::{LeaseInfo, WatchEvent};
use palisade_token::{FencingToken, ResourceName};
use serde::Serialize;

use super::ending;
use crate::clock;
use crate::failure::Failure;
use crate::leases::LeaseJson;
use crate::output;
use crate::table::plain;
use crate::units::show_unix_ms;

/// An event in JSON: what kind, when, and as much of the lease as was told.
#[derive(Debug, Serialize)]
struct EventJson<'a> {
    event: &'static str,
    revision: i64,
    /// By this machine's clock, when the news arrived.
    heard_unix_ms: i64,
    #[serde(flatten)]
    lease: Option<LeaseJson<'a>>,
    #[serde(flatten)]
    bare: Option<BareJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// A lease of which little is known.
#[derive(Debug, Serialize)]
struct BareJson<'a> {
    resource: &'a ResourceName,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<FencingToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
}

/// What kind it is, in a word; none for what is not told.
fn name(event: &WatchEvent) -> Option<&'static str> {
    match event {
        WatchEvent::Stands { .. } => Some("held"),
        WatchEvent::SnapshotEnd { .. } => Some("snapshot_end"),
        WatchEvent::Granted { .. } => Some("granted"),
        WatchEvent::Ended { end, .. } => Some(ending(*end)),
        WatchEvent::Vacant { .. } => Some("vacant"),
        WatchEvent::Resync { .. } => Some("resync"),
        _ => None,
    }
}

/// The label and the reason that an end tells.
fn told_of_end(event: &WatchEvent) -> (&str, &str) {
    match event {
        WatchEvent::Ended { label, reason, .. } => (label, reason),
        _ => ("", ""),
    }
}

/// One line of JSON; none for what is not told.
pub(super) fn json(event: &WatchEvent) -> Result<Option<String>, Failure> {
    let Some(name) = name(event) else {
        return Ok(None);
    };
    let (label, reason) = told_of_end(event);
    let lease = event.lease();
    let bare = match (lease, event.resource()) {
        (None, Some(resource)) => Some(BareJson {
            resource,
            token: event.token(),
            label: Some(label).filter(|label| !label.is_empty()),
        }),
        _ => None,
    };
    let json = EventJson {
        event: name,
        revision: event.revision(),
        heard_unix_ms: clock::unix_ms(),
        lease: lease.map(LeaseJson::from),
        bare,
        reason: Some(reason).filter(|reason| !reason.is_empty()),
    };
    output::json_line(&json).map(Some)
}

/// A line for people; none for what is not about a resource.
pub(super) fn text(event: &WatchEvent) -> Option<String> {
    let (name, resource) = (name(event)?, event.resource()?);
    // Lines that scroll by are read later, too: never relative.
    let heard = show_unix_ms(clock::unix_ms());
    let mut line = format!("{heard}  {name:<8}  {resource}");
    if let Some(token) = event.token() {
        line.push_str(&format!("  token {token}"));
    }
    let (of_end, reason) = told_of_end(event);
    let label = event.lease().map_or(of_end, |lease| &lease.label);
    if !label.is_empty() {
        line.push_str(&format!("  label {}", plain(label)));
    }
    if let Some(since) = since(event) {
        line.push_str(&format!("  since {}", show_unix_ms(since)));
    }
    if !reason.is_empty() {
        line.push_str(&format!("  reason {}", plain(reason)));
    }
    Some(line)
}

/// Since when a lease stands, where a snapshot tells of it.
fn since(event: &WatchEvent) -> Option<i64> {
    let WatchEvent::Stands { lease, .. } = event else {
        return None;
    };
    let granted = |lease: &LeaseInfo| lease.granted_unix_ms;
    Some(granted(lease)).filter(|known| *known > 0)
}
