//! Where the news come from: what happens, how many wait, how the coordinators stand, and more of one resource.

use std::convert::Infallible;
use std::future;
use std::time::Duration;

use palisade_client::{
    Client, ClientError, CoordinatorStatus, StoreKind, Unavailable, WatchEvent, WatchOptions,
    WatchScope,
};
use palisade_token::ResourceName;
use tokio::sync::{mpsc, watch};

use super::news::{Ended, News, Row, Standing};
use super::text::shown;
use crate::clock;
use crate::failure::Failure;

/// How often the coordinator says that nothing happened: so soon it is known that it is back.
const QUIET: Duration = Duration::from_secs(2);
/// How often coordinators are asked how they stand.
const STATUS_PAUSE: Duration = Duration::from_secs(2);
/// After how long the waiters of the next page of leases are counted: events do not tell of waiters, and each
/// page costs the store as many counts as it has leases.
const COUNT_PAUSE: Duration = Duration::from_secs(2);
/// As many as a coordinator gives at once.
const PAGE_SIZE: u16 = 1_000;
/// How often the selected resource is looked at anew.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// The head of a queue that is asked for: more than there is room for.
const QUEUE: u16 = 20;

/// Asks, and passes on what it is told.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) client: Client,
    pub(super) prefix: String,
    pub(super) news: mpsc::Sender<News>,
    /// The resource that more is to be known of.
    pub(super) wanted: watch::Receiver<Option<ResourceName>>,
}

impl Feed {
    /// Goes on until the events fail for a reason that no new try cures.
    pub(super) async fn run(self) -> Failure {
        tokio::select! {
            error = self.events() => error.into(),
            never = self.counts() => match never {},
            never = self.statuses() => match never {},
            never = self.looks() => match never {},
        }
    }

    async fn events(&self) -> ClientError {
        let scope = WatchScope::Prefix(self.prefix.clone());
        let options = WatchOptions::default().bookmarks(QUIET);
        let mut watch = match self.client.watch_leases(scope, options) {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        loop {
            match watch.next().await {
                Ok(event) => self.tell(read(event)).await,
                Err(error) => return error,
            }
        }
    }

    async fn counts(&self) -> Infallible {
        let mut after: Option<String> = None;
        loop {
            let page = self
                .client
                .list_leases(&self.prefix, PAGE_SIZE, after.as_deref());
            // Where it fails, all begins anew: the last count is shown with its age.
            after = match page.await {
                Ok(page) => {
                    let counted = page.leases.into_iter().filter_map(|lease| {
                        let waiters = lease.waiters?;
                        Some((lease.grant.resource, lease.grant.token, waiters))
                    });
                    let (counts, is_last) = (counted.collect(), page.next.is_none());
                    self.tell(News::Counted { counts, is_last }).await;
                    page.next
                }
                Err(_) => None,
            };
            clock::pause(COUNT_PAUSE).await;
        }
    }

    async fn statuses(&self) -> Infallible {
        loop {
            let answers = self.client.statuses().await;
            let answers = answers.into_iter().map(|one| match one.status {
                Ok(status) => Ok(Box::new(Standing::from(status))),
                Err(error) => Err(why(error)),
            });
            self.tell(News::Status(answers.collect())).await;
            clock::pause(STATUS_PAUSE).await;
        }
    }

    async fn looks(&self) -> Infallible {
        let mut wanted = self.wanted.clone();
        loop {
            let resource = wanted.borrow_and_update().clone();
            let look = async {
                let Some(resource) = resource else {
                    return future::pending().await;
                };
                loop {
                    let found = self.client.get_lease(&resource, QUEUE).await;
                    let found = found.map(Box::new).map_err(why);
                    self.tell(News::Looked(resource.clone(), found)).await;
                    clock::pause(LOOK_PAUSE).await;
                }
            };
            tokio::select! {
                never = look => match never {},
                changed = wanted.changed() => {
                    if changed.is_err() {
                        return future::pending().await;
                    }
                }
            }
        }
    }

    async fn tell(&self, news: News) {
        if self.news.send(news).await.is_err() {
            // Nobody looks any more: this is about to be dropped.
            future::pending().await
        }
    }
}

fn read(event: WatchEvent) -> News {
    match event {
        WatchEvent::Stands { lease, .. } => News::Stands(Box::new(Row::from(*lease))),
        WatchEvent::SnapshotEnd { .. } => News::SnapshotEnd,
        WatchEvent::Granted {
            lease: Some(lease), ..
        } => News::Granted(Box::new(Row::from(*lease))),
        WatchEvent::Granted { resource, .. } => News::GrantedUnread(resource),
        WatchEvent::Ended {
            resource,
            end,
            token,
            label,
            reason,
            ..
        } => News::Ended(Ended {
            resource,
            token,
            label: shown(&label),
            end,
            reason: shown(&reason),
        }),
        WatchEvent::Resync { .. } => News::Snapshot,
        WatchEvent::Interrupted { cause, .. } => News::Away(short(cause).to_owned()),
        // A vacant resource: its end was told before. Others are not known here.
        _ => News::Quiet,
    }
}

/// Why something is not known, in few words.
fn why(error: ClientError) -> String {
    match error {
        ClientError::Unavailable { cause, .. } => short(cause).to_owned(),
        ClientError::Denied { .. } => "not allowed to the caller".to_owned(),
        other => shown(&Failure::from(other).to_string()),
    }
}

fn short(cause: Unavailable) -> &'static str {
    match cause {
        Unavailable::Unreachable => "cannot be reached",
        Unavailable::NoAnswer => "no answer",
        Unavailable::Store => "the coordinator's store is away",
        Unavailable::Draining => "the coordinator is draining",
        Unavailable::Limit => "the coordinator's limit of watchers is reached",
        Unavailable::HistoryRegressed | Unavailable::WrongCluster => {
            "the coordinator does not trust its store"
        }
        _ => "not served",
    }
}

impl From<CoordinatorStatus> for Standing {
    fn from(status: CoordinatorStatus) -> Self {
        let (usage, limits) = (status.usage, status.limits);
        let bound = |limit: u32| Some(limit).filter(|limit| *limit > 0);
        let store = match status.store {
            Some(StoreKind::Etcd) => "etcd",
            Some(StoreKind::Embedded) => "embedded store",
            Some(StoreKind::Memory) => "store in memory",
            _ => "store not known",
        };
        Self {
            version: shown(&status.version),
            is_ready: status.ready,
            is_draining: status.draining,
            reasons: status
                .not_ready_reasons
                .iter()
                .map(|why| shown(why))
                .collect(),
            store: store.to_owned(),
            generation: status
                .generation
                .map(|known| (known.base, known.since_revision)),
            revision: status.revision,
            uptime: status.uptime,
            usage: vec![
                ("streams", usage.streams, bound(limits.max_streams)),
                ("waiters", usage.waiters, bound(limits.max_waiters)),
                ("watchers", usage.watchers, bound(limits.max_watchers)),
                ("transactions", usage.transactions, None),
            ],
        }
    }
}
