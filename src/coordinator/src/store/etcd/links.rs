//! The connection in use, and the way to the next one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use tokio::sync::OwnedMutexGuard;
use tokio::sync::oneshot;
use tracing::{error, info};

use super::endpoint::Endpoint;
use super::link::{Context, Link};
use super::vitals::Vitals;
use crate::clock::Moment;
use crate::domain::{Generation, Revision};
use crate::store::{self, Failure, StoreError};

/// The pause after the first round in which no endpoint could be used: callers fail at once meanwhile.
/// It doubles with each further round.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: how much later than etcd the coordinator is back at the most.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long an endpoint may take to be connected to before another one is tried besides. A local one takes
/// milliseconds, and an election that is under way keeps them all waiting.
const STAGGER: Duration = Duration::from_secs(1);

/// All endpoints of one cluster, and the link to one of them.
#[derive(Debug)]
pub(super) struct Links {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    endpoints: Vec<Endpoint>,
    context: Context,
    current: Mutex<Option<Current>>,
    opening: Arc<tokio::sync::Mutex<Turn>>,
    /// The cluster that this process has begun with: another one is never granted from.
    cluster: OnceLock<u64>,
}

/// The link in use. It is stayed with for as long as it serves.
#[derive(Debug, Clone)]
struct Current {
    link: Arc<Link>,
    endpoint: usize,
}

/// Whose turn it is when a link is opened.
#[derive(Debug, Default)]
struct Turn {
    next: usize,
    /// Rounds in a row in which no endpoint could be used.
    failures: u32,
    not_before: Moment,
}

impl Turn {
    fn pause(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_PAUSE
                .saturating_mul(1 << doublings.min(8))
                .min(LONGEST_PAUSE),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(link) = self.shared.usable() {
            link.give_up();
        }
    }
}

impl Links {
    pub(super) fn new(endpoints: Vec<String>, context: Context) -> Self {
        let endpoints = endpoints.into_iter().map(Endpoint::new).collect();
        Self {
            shared: Arc::new(Shared {
                endpoints,
                context,
                current: Mutex::default(),
                opening: Arc::default(),
                cluster: OnceLock::new(),
            }),
        }
    }

    /// The cluster that this process has begun with.
    pub(super) fn cluster(&self) -> Option<u64> {
        self.shared.cluster.get().copied()
    }

    /// The generation that is trusted now, if any, and the highest revision seen over the present connection.
    pub(super) fn seen(&self) -> (Option<Generation>, Revision) {
        let link = self.shared.usable();
        link.map(|link| link.seen()).unwrap_or_default()
    }

    /// How many calls are under way over the present connection.
    pub(super) fn in_flight(&self) -> u64 {
        self.shared.usable().map_or(0, |link| link.in_flight())
    }

    /// The link in use; opens one where there is none. What is opened serves the next caller where this one
    /// has gone away.
    pub(super) async fn get(&self) -> Result<Arc<Link>, StoreError> {
        let shared = &self.shared;
        match shared.usable() {
            Some(link) => Ok(link),
            None => Box::pin(self.open()).await,
        }
    }

    async fn open(&self) -> Result<Arc<Link>, StoreError> {
        let shared = &self.shared;
        let turn = Arc::clone(&shared.opening).lock_owned().await;
        if let Some(link) = shared.usable() {
            return Ok(link);
        }
        if shared.context.clock.now() < turn.not_before {
            return Err(StoreError::not_applied(Failure::Unavailable));
        }
        let (told, opened) = oneshot::channel();
        let opening = Arc::clone(shared).open_next(turn, told);
        shared.context.tasks.spawn("etcd: connect", opening);
        let stopped = |_| StoreError::not_applied(Failure::Unavailable);
        opened.await.map_err(stopped)?
    }

    /// The endpoint that is used now.
    #[cfg(test)]
    pub(super) fn url_in_use(&self) -> Option<String> {
        let endpoint = self.shared.current()?.endpoint;
        Some(self.shared.endpoints[endpoint].url().to_owned())
    }

    /// The endpoints as they were last seen.
    pub(super) fn endpoints(&self) -> Vec<store::Endpoint> {
        self.shared.endpoints.iter().map(Endpoint::shown).collect()
    }

    /// Looks at all endpoints that are not left alone just now.
    pub(super) async fn look(&self) -> Vec<Vitals> {
        let Shared {
            endpoints, context, ..
        } = &*self.shared;
        let looks = endpoints.iter().map(|endpoint| endpoint.look(context));
        join_all(looks).await.into_iter().flatten().collect()
    }

    /// Looks at all endpoints: none may be of another cluster, and there must be space. Those that are away
    /// or silent are none of this: the link in use is what serves.
    pub(super) async fn check(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let seen = self.look().await;
        shared.compare_clusters()?;
        let is_full = seen.iter().any(|vitals| vitals.alarms.is_full);
        if let (Some(link), false) = (shared.usable(), seen.is_empty()) {
            link.set_full(is_full);
        }
        if seen.iter().any(|vitals| vitals.alarms.is_corrupt) {
            let damage = Failure::Damaged("etcd has raised its CORRUPT alarm");
            return Err(StoreError::not_applied(damage));
        }
        match is_full {
            true => Err(StoreError::not_applied(Failure::NoSpace)),
            false => Ok(()),
        }
    }
}

impl Shared {
    fn current(&self) -> Option<Current> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone()
    }

    fn usable(&self) -> Option<Arc<Link>> {
        let current = self.current()?;
        (!current.link.broken().is_cancelled()).then_some(current.link)
    }

    fn replace(&self, next: Option<Current>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = next;
    }

    async fn open_next(
        self: Arc<Self>,
        mut turn: OwnedMutexGuard<Turn>,
        told: oneshot::Sender<Result<Arc<Link>, StoreError>>,
    ) {
        if let Some(broken) = self.current() {
            self.endpoints[broken.endpoint].failed(self.context.clock.now());
            self.replace(None);
        }
        let opened = self.open_any(turn.next).await;
        turn.failures = match &opened {
            Ok(_) => 0,
            Err(_) => turn.failures.saturating_add(1),
        };
        turn.next = turn.next.wrapping_add(1);
        turn.not_before = self.context.clock.now().after(turn.pause());
        drop(turn);
        // Whoever has gone away meanwhile needs no answer.
        drop(told.send(opened));
    }

    /// The endpoints to try, in this order: those that are not left alone, or else all, for then none is
    /// better; the leader first, since it need not pass renewals on.
    fn candidates(&self, from: usize) -> Vec<usize> {
        let now = self.context.clock.now();
        let count = self.endpoints.len();
        let all = (0..count).map(|offset| from.wrapping_add(offset) % count);
        let (mut near, mut far): (Vec<_>, Vec<_>) =
            all.partition(|at| self.endpoints[*at].not_before() <= now);
        near.sort_by_key(|at| !self.endpoints[*at].leads());
        far.sort_by_key(|at| self.endpoints[*at].not_before());
        match near.is_empty() {
            true => far,
            false => near,
        }
    }

    /// Connects to one endpoint after another, and does not wait for a silent one before it tries the next.
    async fn open_any(&self, from: usize) -> Result<Arc<Link>, StoreError> {
        let mut waiting = self.candidates(from).into_iter();
        let mut tried = Vec::new();
        let mut attempts = FuturesUnordered::new();
        let mut last = StoreError::not_applied(Failure::Unavailable);
        loop {
            if let Some(at) = waiting.next() {
                tried.push(at);
                attempts.push(Box::pin(async move {
                    (at, self.endpoints[at].open(&self.context).await)
                }));
            } else if attempts.is_empty() {
                return Err(last);
            }
            let is_more = waiting.len() > 0;
            let opened = tokio::select! {
                opened = attempts.next() => opened,
                () = self.context.clock.sleep(STAGGER), if is_more => None,
            };
            match opened {
                Some((endpoint, Ok(link))) => {
                    drop(attempts);
                    return self.admit(endpoint, link, &tried).await;
                }
                Some((at, Err(error))) => {
                    tried.retain(|tried| *tried != at);
                    last = error;
                }
                None => {}
            }
        }
    }

    /// Takes a link into use, if all endpoints show the cluster that it is of.
    async fn admit(
        &self,
        endpoint: usize,
        link: Link,
        tried: &[usize],
    ) -> Result<Arc<Link>, StoreError> {
        let now = self.context.clock.now();
        for slower in tried.iter().filter(|tried| **tried != endpoint) {
            self.endpoints[*slower].failed(now);
        }
        let begun_with = *self.cluster.get_or_init(|| link.cluster());
        let others = self.endpoints.iter().enumerate();
        let looks = others
            .filter(|(at, _)| *at != endpoint)
            .map(|(_, other)| other.look(&self.context));
        join_all(looks).await;
        self.compare_clusters()?;
        if link.cluster() != begun_with {
            return Err(StoreError::not_applied(Failure::WrongCluster));
        }
        info!(
            endpoint = self.endpoints[endpoint].url(),
            "connected to etcd"
        );
        let link = Arc::new(link);
        link.start();
        let current = Current {
            link: Arc::clone(&link),
            endpoint,
        };
        self.replace(Some(current));
        Ok(link)
    }

    /// Gives the link up where any endpoint has last shown another cluster than the first that was used.
    fn compare_clusters(&self) -> Result<(), StoreError> {
        let Some(begun_with) = self.cluster.get() else {
            return Ok(());
        };
        let shown = self.endpoints.iter();
        let strange = shown
            .filter_map(|endpoint| Some((endpoint, endpoint.cluster()?)))
            .find(|(_, cluster)| cluster != begun_with);
        let Some((endpoint, cluster)) = strange else {
            return Ok(());
        };
        error!(
            began_with = format!("{begun_with:x}"),
            endpoint = endpoint.url(),
            shows = format!("{cluster:x}"),
            "etcd endpoints belong to different clusters, or the cluster was exchanged: nothing is granted; \
             point every endpoint at one cluster and restart the coordinators"
        );
        if let Some(link) = self.usable() {
            link.give_up();
        }
        Err(StoreError::not_applied(Failure::WrongCluster))
    }
}
