//! What a coordinator tells about leases, in checked types.

use std::time::Duration;

use palisade_api::v1::{self, GetLeaseResponse, ListLeasesResponse};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

use crate::error::ClientError;
use crate::error::status::Failure;

/// A lease, as a coordinator tells of it.
///
/// ```
/// use palisade_client::LeaseInfo;
///
/// fn line(lease: &LeaseInfo) -> String {
///     let waiters = lease.waiters.map_or_else(|| "?".to_owned(), |waiters| waiters.to_string());
///     let grant = &lease.grant;
///     format!("{} {} {} +{waiters}", grant.resource, grant.token, lease.label)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseInfo {
    /// Resource, token and holder. It is not this process's to write with, unless it is its own.
    pub grant: Grant,
    /// The session that holds it.
    pub session_id: String,
    /// The request that was granted.
    pub request_id: String,
    /// The session's label, for people.
    pub label: String,
    /// What the holder attached.
    pub metadata: Metadata,
    /// The store's revision of the grant.
    pub granted_revision: i64,
    /// The coordinator's clock at the grant, in milliseconds since 1970 UTC; for people. 0 if not known.
    pub granted_unix_ms: i64,
    /// For how long nobody gets the resource after an unclean end of this lease.
    pub lock_delay: Duration,
    /// The TTL granted to the holder's session.
    pub ttl: Duration,
    /// How many requests wait behind it, where they were counted.
    pub waiters: Option<u32>,
    /// The generation that it was granted under, where that is told.
    pub generation: Option<Generation>,
}

/// How revisions of the store's present history become tokens:
/// token = base + (revision − `since_revision`).
///
/// ```
/// use palisade_client::Generation;
///
/// fn token_at(generation: &Generation, revision: i64) -> i64 {
///     generation.base + (revision - generation.since_revision)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Generation {
    /// What tells generations apart: 32 hexadecimal digits.
    pub nonce: String,
    /// The token that `since_revision` itself would give.
    pub base: i64,
    /// The revision from which it counts.
    pub since_revision: i64,
}

impl From<v1::Generation> for Generation {
    fn from(generation: v1::Generation) -> Self {
        Self {
            nonce: hex::encode(generation.nonce),
            base: generation.base,
            since_revision: generation.since_revision,
        }
    }
}

/// Opaque bytes that a holder attached to a lease, at most 4 KiB. `{:?}` shows their number only.
///
/// ```
/// use palisade_client::Metadata;
///
/// let metadata = Metadata::from("pid 4711");
/// assert_eq!(metadata.0, b"pid 4711");
/// assert_eq!(format!("{metadata:?}"), "Metadata(8 bytes)");
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Metadata(pub Vec<u8>);

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metadata({} bytes)", self.0.len())
    }
}

impl<T: Into<Vec<u8>>> From<T> for Metadata {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

/// Who holds a resource.
///
/// ```
/// use palisade_client::Occupancy;
///
/// fn line(seen: &Occupancy) -> String {
///     match &seen.lease {
///         Some(lease) => format!("held by {}, {} wait", lease.label, seen.waiters),
///         None if seen.lock_delay_left.is_zero() => "vacant".to_owned(),
///         None => format!("nobody gets it for {:?}", seen.lock_delay_left),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupancy {
    /// The lease; none if the resource is vacant.
    pub lease: Option<LeaseInfo>,
    /// How many requests wait.
    pub waiters: u32,
    /// The first of them, in the order in which they will be served.
    pub queue: Vec<WaiterInfo>,
    /// How the lease before ended, where the resource is vacant and it is known.
    pub previous: Option<PreviousLease>,
    /// What is left of a lock-delay during which nobody gets the resource.
    pub lock_delay_left: Duration,
    /// The store's revision at which this is true.
    pub revision: i64,
}

/// A request that waits.
///
/// ```
/// use palisade_client::{Occupancy, WaiterInfo};
///
/// fn next_in_line(seen: &Occupancy) -> Option<&str> {
///     seen.queue.first().map(|waiter: &WaiterInfo| waiter.label.as_str())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaiterInfo {
    /// The session that waits.
    pub session_id: String,
    /// The request that waits.
    pub request_id: String,
    /// The session's label, for people.
    pub label: String,
    /// The store's revision at which it was queued.
    pub enqueued_revision: i64,
}

/// How a lease ended.
///
/// ```
/// use palisade_client::LeaseEnd;
///
/// fn holder_may_not_know(end: LeaseEnd) -> bool {
///     match end {
///         LeaseEnd::Released => false, // it was given back
///         _ => true,                   // only a seal stops it
///     }
/// }
/// assert!(holder_may_not_know(LeaseEnd::Expired));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LeaseEnd {
    /// It was released, or given back, or its session was closed.
    Released,
    /// Its session's TTL ran out: its holder may still believe that it holds.
    Expired,
    /// An operator revoked it: its holder may still believe that it holds.
    Revoked,
    /// The coordinator that was asked did not see how.
    Unknown,
}

impl From<v1::LeaseEnd> for LeaseEnd {
    fn from(end: v1::LeaseEnd) -> Self {
        match end {
            v1::LeaseEnd::Released => Self::Released,
            v1::LeaseEnd::Expired => Self::Expired,
            v1::LeaseEnd::Revoked => Self::Revoked,
            v1::LeaseEnd::Unspecified | v1::LeaseEnd::Unknown => Self::Unknown,
        }
    }
}

/// How the lease before this one ended. However it did: seal before the first read.
///
/// ```no_run
/// # fn example(lease: palisade_client::Lease) {
/// use palisade_client::{LeaseEnd, PreviousLease};
///
/// match lease.previous() {
///     Some(PreviousLease { end: LeaseEnd::Revoked, reason, .. }) => println!("revoked: {reason}"),
///     Some(previous) => println!("{:?} with token {:?}", previous.end, previous.token),
///     None => println!("the first one, as far as is known"),
/// }
/// // Whatever it says: seal before the first read.
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PreviousLease {
    /// How it ended.
    pub end: LeaseEnd,
    /// Its token, where that is known.
    pub token: Option<FencingToken>,
    /// The operator's reason where it was revoked; else empty.
    pub reason: String,
    /// The label of its session, for people; empty if not known.
    pub label: String,
}

impl From<v1::PreviousEnd> for PreviousLease {
    fn from(previous: v1::PreviousEnd) -> Self {
        Self {
            end: previous.end().into(),
            token: FencingToken::try_from(previous.token).ok(),
            reason: previous.reason,
            label: previous.label,
        }
    }
}

/// A page of leases. See [`Client::list_leases`](crate::Client::list_leases).
///
/// ```no_run
/// # async fn example(client: palisade_client::Client)
/// # -> Result<(), palisade_client::ClientError> {
/// use palisade_client::LeasePage;
///
/// let page: LeasePage = client.list_leases("orders/", 100, None).await?;
/// println!("{} leases at revision {}", page.leases.len(), page.revision);
/// let is_last = page.next.is_none();
/// # let _ = is_last;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeasePage {
    /// The leases, by resource name; there may be none on a page that is not the last.
    pub leases: Vec<LeaseInfo>,
    /// What to ask the next page with; none on the last.
    pub next: Option<String>,
    /// The store's revision at which this page is true.
    pub revision: i64,
}

impl TryFrom<v1::Lease> for LeaseInfo {
    type Error = ClientError;

    fn try_from(lease: v1::Lease) -> Result<Self, ClientError> {
        let grant = grant_of(&lease).map_err(|failure| failure.error)?;
        Ok(Self {
            grant,
            session_id: lease.session_id,
            request_id: lease.request_id,
            label: lease.label,
            metadata: Metadata(lease.metadata),
            granted_revision: lease.granted_revision,
            granted_unix_ms: lease.granted_unix_ms,
            lock_delay: Duration::from_millis(lease.lock_delay_ms),
            ttl: Duration::from_millis(lease.ttl_ms),
            waiters: lease.waiters,
            generation: lease.generation.map(Generation::from),
        })
    }
}

pub(crate) fn grant_of(lease: &v1::Lease) -> Result<Grant, Failure> {
    let holder: [u8; 16] = lease
        .holder
        .as_slice()
        .try_into()
        .map_err(Failure::unexpected)?;
    Ok(Grant {
        resource: ResourceName::new(&lease.resource).map_err(Failure::unexpected)?,
        token: FencingToken::try_from(lease.token).map_err(Failure::unexpected)?,
        holder: HolderId::from_bytes(holder),
    })
}

impl TryFrom<GetLeaseResponse> for Occupancy {
    type Error = ClientError;

    fn try_from(answer: GetLeaseResponse) -> Result<Self, ClientError> {
        Ok(Self {
            lease: answer.lease.map(LeaseInfo::try_from).transpose()?,
            waiters: answer.waiters,
            queue: answer.queue.into_iter().map(WaiterInfo::from).collect(),
            previous: answer.previous.map(PreviousLease::from),
            lock_delay_left: Duration::from_millis(answer.lock_delay_left_ms),
            revision: answer.revision,
        })
    }
}

impl From<v1::Waiter> for WaiterInfo {
    fn from(waiter: v1::Waiter) -> Self {
        Self {
            session_id: waiter.session_id,
            request_id: waiter.request_id,
            label: waiter.label,
            enqueued_revision: waiter.enqueued_revision,
        }
    }
}

impl TryFrom<ListLeasesResponse> for LeasePage {
    type Error = ClientError;

    fn try_from(answer: ListLeasesResponse) -> Result<Self, ClientError> {
        let next = answer.next_page_token;
        Ok(Self {
            leases: answer
                .leases
                .into_iter()
                .map(LeaseInfo::try_from)
                .collect::<Result<_, _>>()?,
            next: (!next.is_empty()).then_some(next),
            revision: answer.revision,
        })
    }
}
