//! The connection in use, and the way to the next one.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use tracing::{debug, error, info, warn};

use super::link::{Context, Link};
use crate::clock::{Clock, Moment, within};
use crate::domain::{Generation, Revision};
use crate::store::{Failure, StoreError};

/// The pause after the first round in which no endpoint could be used: callers fail at once meanwhile.
/// It doubles with each further round.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: how much later than etcd the coordinator is back at the most.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long the other endpoints get to show their cluster when a connection is opened. One that is away
/// is looked at when its turn comes.
const COMPARE_LIMIT: Duration = Duration::from_millis(500);

/// All endpoints of one cluster, and the link to one of them.
#[derive(Debug)]
pub(super) struct Links {
    endpoints: Vec<String>,
    context: Context,
    current: Mutex<Option<Arc<Link>>>,
    opening: tokio::sync::Mutex<Turn>,
    /// The cluster that this process has begun with: another one is never granted from.
    cluster: OnceLock<u64>,
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
        if let Some(link) = self.usable() {
            link.give_up();
        }
    }
}

impl Links {
    pub(super) fn new(endpoints: Vec<String>, context: Context) -> Self {
        Self {
            endpoints,
            context,
            current: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            cluster: OnceLock::new(),
        }
    }

    /// The endpoints' URLs.
    pub(super) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.context.clock
    }

    /// The cluster that this process has begun with.
    pub(super) fn cluster(&self) -> Option<u64> {
        self.cluster.get().copied()
    }

    /// The generation that is trusted now, if any, and the highest revision seen over the present connection.
    pub(super) fn seen(&self) -> (Option<Generation>, Revision) {
        self.usable().map(|link| link.seen()).unwrap_or_default()
    }

    fn usable(&self) -> Option<Arc<Link>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current
            .as_ref()
            .filter(|link| !link.broken().is_cancelled())
            .map(Arc::clone)
    }

    fn replace(&self, link: &Arc<Link>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(Arc::clone(link));
    }

    /// The link in use; opens one where there is none.
    pub(super) async fn get(&self) -> Result<Arc<Link>, StoreError> {
        if let Some(link) = self.usable() {
            return Ok(link);
        }
        let mut turn = self.opening.lock().await;
        if let Some(link) = self.usable() {
            return Ok(link);
        }
        if self.context.clock.now() < turn.not_before {
            return Err(StoreError::not_applied(Failure::Unavailable));
        }
        let opened = self.open_any(&mut turn).await;
        turn.failures = match &opened {
            Ok(_) => 0,
            Err(_) => turn.failures.saturating_add(1),
        };
        turn.not_before = self.context.clock.now().after(turn.pause());
        drop(turn);
        opened
    }

    async fn open_any(&self, turn: &mut Turn) -> Result<Arc<Link>, StoreError> {
        let mut last = StoreError::not_applied(Failure::Unavailable);
        for _ in 0..self.endpoints.len() {
            let at = turn.next % self.endpoints.len();
            turn.next = turn.next.wrapping_add(1);
            match self.open(at).await {
                Ok(link) => {
                    info!(endpoint = %self.endpoints[at], "connected to etcd");
                    let link = Arc::new(link);
                    link.start();
                    self.replace(&link);
                    return Ok(link);
                }
                Err(error) => {
                    let endpoint = &self.endpoints[at];
                    // Ever more seldom while etcd stays away.
                    if turn.failures.count_ones() <= 1 {
                        warn!(%endpoint, %error, source = ?error, turn.failures, "etcd endpoint not usable");
                    } else {
                        debug!(%endpoint, %error, source = ?error, turn.failures, "etcd endpoint not usable");
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }

    async fn open(&self, at: usize) -> Result<Link, StoreError> {
        // Rare and large: not part of what every caller carries along.
        let link = Box::pin(Link::open(&self.endpoints[at], self.context.clone())).await?;
        let cluster = *self.cluster.get_or_init(|| link.cluster());
        let others = self
            .endpoints
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != at);
        let clusters = join_all(others.map(|(_, url)| self.cluster_of(url))).await;
        let strange = clusters
            .into_iter()
            .flatten()
            .find(|other| *other != cluster);
        if link.cluster() != cluster || strange.is_some() {
            error!(
                began_with = format!("{cluster:x}"),
                endpoint = format!("{:x}", link.cluster()),
                other = ?strange.map(|other| format!("{other:x}")),
                "etcd endpoints belong to different clusters, or the cluster was exchanged: nothing is \
                 granted; point every endpoint at one cluster and restart the coordinators"
            );
            return Err(StoreError::not_applied(Failure::WrongCluster));
        }
        Ok(link)
    }

    /// The cluster of an endpoint, if it answers soon.
    async fn cluster_of(&self, url: &str) -> Option<u64> {
        let opened = Box::pin(Link::open(url, self.context.clone()));
        within(&self.context.clock, COMPARE_LIMIT, opened)
            .await
            .ok()?
            .ok()
            .map(|link| link.cluster())
    }
}
