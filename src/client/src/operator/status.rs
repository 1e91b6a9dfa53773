//! How coordinators stand.

use std::time::Duration;

use palisade_api::v1;

use crate::error::ClientError;
use crate::info::Generation;

/// How one endpoint answered. See [`Client::statuses`](crate::Client::statuses).
///
/// ```
/// fn line(one: &palisade_client::EndpointStatus) -> String {
///     match &one.status {
///         Ok(status) if status.ready => format!("{} is ready", one.endpoint),
///         Ok(status) => format!("{}: {}", one.endpoint, status.not_ready_reasons.join(", ")),
///         Err(error) => format!("{}: {error}", one.endpoint),
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct EndpointStatus {
    /// The address, as the client was given it.
    pub endpoint: String,
    /// How it stands, or why that is not known.
    pub status: Result<CoordinatorStatus, ClientError>,
}

/// How a coordinator stands. See [`Client::status`](crate::Client::status).
///
/// ```
/// use palisade_client::CoordinatorStatus;
///
/// /// Whether two coordinators grant from one history.
/// fn agree(one: &CoordinatorStatus, other: &CoordinatorStatus) -> bool {
///     one.generation.is_some() && one.generation == other.generation
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoordinatorStatus {
    /// The process: 32 hexadecimal digits, new with each start.
    pub instance_id: String,
    /// The coordinator's version.
    pub version: String,
    /// It would grant now.
    pub ready: bool,
    /// Why it is not ready, such as `STORE_UNAVAILABLE`; empty if it is.
    pub not_ready_reasons: Vec<String>,
    /// It is draining.
    pub draining: bool,
    /// What keeps the state; none where this version does not know it.
    pub store: Option<StoreKind>,
    /// The id of the store's cluster, in hexadecimal; empty if not known or there is none.
    pub cluster_id: String,
    /// The store's endpoints; none for a store of the coordinator's own.
    pub store_endpoints: Vec<StoreEndpoint>,
    /// The generation that it trusts; none if there is none.
    pub generation: Option<Generation>,
    /// The highest revision of the store that it has seen under that generation.
    pub revision: i64,
    /// How long the process has run.
    pub uptime: Duration,
    /// What it serves at the moment.
    pub usage: CoordinatorUsage,
    /// The bounds that it is configured with.
    pub limits: CoordinatorLimits,
}

/// What keeps a coordinator's state.
///
/// ```
/// use palisade_client::StoreKind;
///
/// fn outlives_the_process(store: Option<StoreKind>) -> bool {
///     matches!(store, Some(StoreKind::Etcd | StoreKind::Embedded))
/// }
/// assert!(!outlives_the_process(Some(StoreKind::Memory)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreKind {
    /// An etcd cluster.
    Etcd,
    /// A file of the coordinator's own.
    Embedded,
    /// Memory: gone with the process. For tests.
    Memory,
}

/// One endpoint of a coordinator's store.
///
/// ```
/// use palisade_client::{CoordinatorStatus, StoreEndpoint};
///
/// fn away(status: &CoordinatorStatus) -> Vec<&str> {
///     let away = status.store_endpoints.iter().filter(|endpoint| !endpoint.healthy);
///     away.map(|endpoint: &StoreEndpoint| endpoint.address.as_str()).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreEndpoint {
    /// Its address, without credentials.
    pub address: String,
    /// It answers, and is used.
    pub healthy: bool,
    /// The id of its cluster, in hexadecimal; empty if it has not answered yet.
    pub cluster_id: String,
    /// The version that it tells of itself; empty if it has not answered yet.
    pub version: String,
}

/// What a coordinator serves at the moment.
///
/// ```
/// use palisade_client::CoordinatorUsage;
///
/// fn is_left(usage: &CoordinatorUsage) -> bool {
///     usage.streams == 0 && usage.watchers == 0
/// }
/// assert!(is_left(&CoordinatorUsage::default()));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CoordinatorUsage {
    /// Sessions attached by streams.
    pub streams: u32,
    /// Requests that wait there.
    pub waiters: u32,
    /// Watches of leases.
    pub watchers: u32,
    /// Transactions sent to the store and not answered yet.
    pub transactions: u32,
}

/// The bounds that a coordinator is configured with.
///
/// ```
/// use palisade_client::{CoordinatorStatus, SessionOptions};
///
/// fn longest_session(status: &CoordinatorStatus) -> SessionOptions {
///     SessionOptions::default().ttl(status.limits.max_ttl)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CoordinatorLimits {
    /// The TTL given where none is asked for.
    pub default_ttl: Duration,
    /// The least TTL.
    pub min_ttl: Duration,
    /// The largest TTL.
    pub max_ttl: Duration,
    /// The longest wait of an acquire.
    pub max_wait: Duration,
    /// The longest lock-delay.
    pub max_lock_delay: Duration,
    /// The largest metadata of a lease, in bytes.
    pub max_metadata_bytes: u32,
    /// The most requests that one session may have open.
    pub max_open_requests: u32,
    /// The most sessions attached by streams.
    pub max_streams: u32,
    /// The most waiting requests.
    pub max_waiters: u32,
    /// The most watches.
    pub max_watchers: u32,
}

impl From<v1::GetStatusResponse> for CoordinatorStatus {
    fn from(answer: v1::GetStatusResponse) -> Self {
        let store = match answer.store() {
            v1::StoreKind::Etcd => Some(StoreKind::Etcd),
            v1::StoreKind::Embedded => Some(StoreKind::Embedded),
            v1::StoreKind::Memory => Some(StoreKind::Memory),
            v1::StoreKind::Unspecified => None,
        };
        let endpoints = answer.endpoints.into_iter().map(StoreEndpoint::from);
        Self {
            instance_id: answer.instance_id,
            version: answer.version,
            ready: answer.ready,
            not_ready_reasons: answer.not_ready_reasons,
            draining: answer.draining,
            store,
            cluster_id: answer.cluster_id,
            store_endpoints: endpoints.collect(),
            generation: answer.generation.map(Generation::from),
            revision: answer.revision,
            uptime: Duration::from_millis(answer.uptime_ms),
            usage: answer.usage.map(CoordinatorUsage::from).unwrap_or_default(),
            limits: answer
                .limits
                .map(CoordinatorLimits::from)
                .unwrap_or_default(),
        }
    }
}

impl From<v1::StoreEndpoint> for StoreEndpoint {
    fn from(endpoint: v1::StoreEndpoint) -> Self {
        Self {
            address: endpoint.address,
            healthy: endpoint.healthy,
            cluster_id: endpoint.cluster_id,
            version: endpoint.version,
        }
    }
}

impl From<v1::Usage> for CoordinatorUsage {
    fn from(usage: v1::Usage) -> Self {
        Self {
            streams: usage.streams,
            waiters: usage.waiters,
            watchers: usage.watchers,
            transactions: usage.transactions,
        }
    }
}

impl From<v1::Limits> for CoordinatorLimits {
    fn from(limits: v1::Limits) -> Self {
        Self {
            default_ttl: Duration::from_millis(limits.default_ttl_ms),
            min_ttl: Duration::from_millis(limits.min_ttl_ms),
            max_ttl: Duration::from_millis(limits.max_ttl_ms),
            max_wait: Duration::from_millis(limits.max_wait_ms),
            max_lock_delay: Duration::from_millis(limits.max_lock_delay_ms),
            max_metadata_bytes: limits.max_metadata_bytes,
            max_open_requests: limits.max_open_requests,
            max_streams: limits.max_streams,
            max_waiters: limits.max_waiters,
            max_watchers: limits.max_watchers,
        }
    }
}
