//! What the view is told, in its own types.

use std::time::Duration;

use palisade_client::{LeaseEnd, LeaseInfo, Occupancy};
use palisade_token::{FencingToken, Grant, ResourceName};

use super::text::shown;

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// What is known may be wrong: all that stands follows.
    Snapshot,
    /// Part of what follows.
    Stands(Box<Row>),
    /// That was all.
    SnapshotEnd,
    /// A lease was granted.
    Granted(Box<Row>),
    /// A lease was granted, and the coordinator cannot read what its store keeps of it.
    GrantedUnread(ResourceName),
    /// A lease ended.
    Ended(Ended),
    /// Nothing happened, and the events still come.
    Quiet,
    /// The events broke off, and why. They are asked for again.
    Away(String),
    /// How many wait for these leases, and whether these were the last of a round over all.
    Counted {
        counts: Vec<(ResourceName, FencingToken, u32)>,
        is_last: bool,
    },
    /// How each coordinator stands, in the order of their addresses, or why that is not known.
    Status(Vec<Result<Box<Standing>, String>>),
    /// What the coordinator tells of one resource.
    Looked(ResourceName, Result<Box<Occupancy>, String>),
}

/// A lease that stands. Its texts are safe to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) grant: Grant,
    pub(super) label: String,
    pub(super) session: String,
    pub(super) request: String,
    /// 0 if not known.
    pub(super) ttl: Duration,
    pub(super) lock_delay: Duration,
    /// By the granting coordinator's clock; 0 if not known.
    pub(super) granted_unix_ms: i64,
    pub(super) granted_revision: i64,
    /// Where they were counted.
    pub(super) waiters: Option<u32>,
    /// How the lease before it ended, where that was seen.
    pub(super) before: Option<Before>,
    /// What a filter looks into: resource, label, session and token, in lower case.
    pub(super) searched: String,
}

/// The end of the lease before, and when it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) ended: Ended,
    pub(super) seen_at: Duration,
}

/// How a lease ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) resource: ResourceName,
    pub(super) token: Option<FencingToken>,
    pub(super) label: String,
    pub(super) end: LeaseEnd,
    pub(super) reason: String,
}

/// How a coordinator stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Standing {
    pub(super) version: String,
    pub(super) is_ready: bool,
    pub(super) is_draining: bool,
    pub(super) reasons: Vec<String>,
    pub(super) store: String,
    /// The base and the revision that it counts from.
    pub(super) generation: Option<(i64, i64)>,
    pub(super) revision: i64,
    pub(super) uptime: Duration,
    /// What is used, how much of it, and of how much.
    pub(super) usage: Vec<(&'static str, u32, Option<u32>)>,
}

impl Standing {
    /// In one word or two.
    pub(super) fn state(&self) -> String {
        match (self.is_ready, self.is_draining) {
            (true, _) => "ready".to_owned(),
            (false, true) => "draining".to_owned(),
            (false, false) if self.reasons.is_empty() => "not ready".to_owned(),
            (false, false) => format!("not ready ({})", self.reasons.join(", ")),
        }
    }
}

impl Row {
    pub(super) fn resource(&self) -> &ResourceName {
        &self.grant.resource
    }
}

impl From<LeaseInfo> for Row {
    fn from(lease: LeaseInfo) -> Self {
        let (label, session) = (shown(&lease.label), shown(&lease.session_id));
        let searched = format!("{} {label} {session}", lease.grant.resource).to_lowercase();
        Self {
            searched: format!("{searched} {}", lease.grant.token),
            label,
            session,
            request: shown(&lease.request_id),
            ttl: lease.ttl,
            lock_delay: lease.lock_delay,
            granted_unix_ms: lease.granted_unix_ms,
            granted_revision: lease.granted_revision,
            waiters: lease.waiters,
            before: None,
            grant: lease.grant,
        }
    }
}
