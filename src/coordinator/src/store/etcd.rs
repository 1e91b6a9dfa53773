//! The production store: etcd, through its KV, lease and watch services.
//!
//! No Lock or Election RPC is used: both grant to dead sessions. Ownership is decided by a transaction,
//! never by a read, a watch or a keepalive reply: each of them is stale in some version of etcd.

mod attach;
mod batch;
mod codec;
mod connect;
mod counted;
mod delay;
mod effort;
mod endpoint;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gather;
mod keepalive;
mod keys;
mod known;
mod leases;
mod link;
mod links;
mod listing;
mod liveness;
mod notice;
mod pace;
mod reads;
mod revoke;
mod sessions;
mod snapshot;
mod status;
mod step;
pub mod survey;
mod trust;
mod version;
mod view;
mod vitals;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use palisade_token::{FencingToken, ResourceName};

use self::keys::Keys;
use self::link::Context;
use self::links::Links;
use self::liveness::Liveness;
use self::pace::Pace;
use super::{Advance, Advanced, Alive, Events, Page, Pages, Standing, Status, Store, StoreError};
use crate::clock::{Clock, Moment};
use crate::config::EtcdAccess;
use crate::domain::{
    Acquire, Acquired, AskBack, AttachMark, Caller, Hold, Release, Released, RequestId, Revoke,
    Revoked, Session, SessionId,
};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// The time to live below which an election or a slow disk of etcd's ends healthy sessions.
const LEAST_TTL: Duration = Duration::from_secs(5);

/// Where etcd is and how it is used.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// URLs of the endpoints of one cluster, such as `http://127.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// What all keys begin with. Coordinators that share leases share it.
    pub prefix: String,
    /// How long one call to etcd may take before its connection is given up.
    pub call_limit: Duration,
    /// The shortest time to live to offer.
    pub least_ttl: Duration,
    /// Where its calls are counted.
    pub metrics: Metrics,
    /// Whether operations of many callers travel as one transaction (group commit). Off costs throughput and
    /// changes nothing else: for etcds where nested transactions are not wanted.
    pub is_batching: bool,
    /// How its endpoints are talked to.
    pub access: EtcdAccess,
}

impl EtcdOptions {
    /// The default prefix; it ends in the version of the keys' layout.
    pub const PREFIX: &str = "/palisade/v1";
    /// The default limit of a call: an election of etcd's takes one to three seconds.
    pub const CALL_LIMIT: Duration = Duration::from_secs(5);

    /// The defaults, with endpoints.
    #[must_use]
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            prefix: Self::PREFIX.to_owned(),
            call_limit: Self::CALL_LIMIT,
            least_ttl: LEAST_TTL,
            metrics: Metrics::default(),
            is_batching: true,
            access: EtcdAccess::default(),
        }
    }
}

/// Keeps sessions, leases and queues in etcd. Any number of coordinators may share one.
#[derive(Debug)]
pub struct EtcdStore {
    links: Arc<Links>,
    keys: Keys,
    liveness: Arc<Liveness>,
    pace: Pace,
    least_ttl: Duration,
    metrics: Metrics,
}

impl EtcdStore {
    /// A store on an etcd that need not be there yet: connections are made when they are needed. What runs
    /// beside them ends with `tasks`.
    #[must_use]
    pub fn new(
        options: EtcdOptions,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let keys = Keys::new(&options.prefix);
        let liveness = Arc::<Liveness>::default();
        let pace = Pace::new(Arc::clone(&clock));
        let metrics = options.metrics;
        metrics.expect_etcd();
        let context = Context {
            keys: keys.clone(),
            clock,
            entropy,
            call_limit: options.call_limit,
            metrics: metrics.clone(),
            is_batching: options.is_batching,
            tasks: tasks.clone(),
            liveness: Arc::clone(&liveness),
            access: Arc::new(options.access),
        };
        Arc::new(Self {
            links: Arc::new(Links::new(options.endpoints, context)),
            keys,
            liveness,
            pace,
            least_ttl: options.least_ttl,
            metrics,
        })
    }
}

#[async_trait]
impl Store for EtcdStore {
    async fn open_session(&self, session: Session) -> Result<Alive, StoreError> {
        self.do_open(session).await
    }

    async fn renew_session(&self, caller: &Caller) -> Result<Alive, StoreError> {
        self.do_renew(caller).await
    }

    async fn close_session(&self, caller: &Caller) -> Result<(), StoreError> {
        self.do_close(caller).await
    }

    async fn attach(&self, caller: &Caller) -> Result<Session, StoreError> {
        self.do_attach(caller).await
    }

    async fn raise(&self, caller: &Caller, to: AttachMark) -> Result<(), StoreError> {
        self.do_raise(caller, to).await
    }

    async fn holdings(&self, session: SessionId) -> Result<Vec<Acquired>, StoreError> {
        self.do_holdings(session).await
    }

    async fn time_left(&self, session: SessionId) -> Result<Duration, StoreError> {
        self.do_time_left(session).await
    }

    fn lives_until(&self, session: SessionId) -> Option<Moment> {
        self.liveness.until(self.keys.lease_id(session))
    }

    async fn acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        self.do_acquire(acquire).await
    }

    async fn standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Result<Option<Acquired>, StoreError> {
        self.do_standing(session, resource, request).await
    }

    async fn release(&self, release: &Release) -> Result<Released, StoreError> {
        self.do_release(release).await
    }

    async fn promote(&self, resource: &ResourceName) -> Result<Option<Hold>, StoreError> {
        self.do_promote(resource).await
    }

    async fn lease_and_queue(
        &self,
        resource: &ResourceName,
        queue_size: usize,
    ) -> Result<Standing, StoreError> {
        self.do_lease(resource, queue_size).await
    }

    async fn revoke(&self, revoke: &Revoke) -> Result<Revoked, StoreError> {
        self.do_revoke(revoke).await
    }

    async fn ask_back(&self, ask: &AskBack) -> Result<bool, StoreError> {
        self.do_ask_back(ask).await
    }

    async fn decline(
        &self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<(), StoreError> {
        self.do_decline(resource, token).await
    }

    async fn snapshot(&self, prefix: &str) -> Result<Pages, StoreError> {
        self.do_snapshot(prefix).await
    }

    async fn leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.do_leases(prefix, after, limit).await
    }

    async fn advance_as(&self, advance: Advance) -> Result<Advanced, StoreError> {
        let link = self.links.get().await?;
        link.advance(advance).await
    }

    async fn status(&self) -> Status {
        self.do_status().await
    }

    async fn watch(&self) -> Result<Events, StoreError> {
        self.do_watch().await
    }

    async fn leases_held(&self) -> Result<u64, StoreError> {
        self.do_leases_held().await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let link = self.links.get().await?;
        let (checked, confirmed) = tokio::join!(self.links.check(), link.confirm());
        checked?;
        confirmed?;
        link.generation().await.map(drop)
    }

    fn least_ttl(&self) -> Duration {
        self.least_ttl
    }
}

#[cfg(test)]
mod tests;
