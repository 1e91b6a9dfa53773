//! What happens in the store, for all here who want to know: the one follower of its events.
//!
//! News are hints. Whoever acts on them asks the store, and whoever passes them on says so.

mod mailbox;
mod memory;
mod ring;
mod state;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use palisade_token::ResourceName;
use tracing::{debug, warn};

use self::mailbox::Mailbox;
use self::state::State;
use super::backoff::backoff;
use super::waiters::Waiters;
use crate::clock::Clock;
use crate::domain::{Batch, Ended, Granted, Hold, LeaseEnd, Notice, Previous, Revision, SessionId};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::tasks::Tasks;

/// News that wait for one session's stream: what it holds ends once each, and the notices.
const SESSION_BOUND: usize = 256;

/// The news of one coordinator. A clone tells the same.
#[derive(Debug, Clone)]
pub(crate) struct News {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    metrics: Metrics,
    waiters: Waiters,
    state: Mutex<State>,
    /// Woken whenever the store is being followed anew.
    followed: tokio::sync::Notify,
}

/// What a session's stream is told.
#[derive(Debug, Clone)]
pub(crate) enum SessionNews {
    /// A lease of a resource that the session held has ended: its own, if that was granted before the
    /// revision of the end.
    Ended {
        /// The end.
        ended: Ended,
        /// Who got the resource in the same transaction.
        successor: Option<Arc<Granted>>,
    },
    /// A lease is wanted back.
    Asked(Notice),
    /// Something may have been missed: ask the store what the session holds.
    Missed,
}

/// What a watcher watches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One resource.
    Resource(ResourceName),
    /// All whose names begin with this.
    Beginning(String),
}

impl Subject {
    pub(super) fn has(&self, resource: &ResourceName) -> bool {
        match self {
            Self::Resource(name) => name == resource,
            Self::Beginning(text) => resource.as_str().starts_with(text),
        }
    }
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub(crate) enum WatchNews {
    /// All of one revision, of which something is about what is watched.
    Batch(Batch),
    /// Something may have been missed.
    Resync,
}

/// News for one session's stream, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct SessionSubscription {
    shared: Arc<Shared>,
    session: SessionId,
    mailbox: Arc<Mailbox<SessionNews>>,
}

impl SessionSubscription {
    /// The next news. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&self) -> SessionNews {
        self.mailbox.next().await.unwrap_or(SessionNews::Missed)
    }

    /// The session holds this: its end is told, also where the grant was not seen here.
    pub(crate) fn follow(&self, resource: &ResourceName) {
        self.shared.state().follow(self.session, resource);
    }

    /// How many grants to the session have been shown since somebody listens; `None` while some may be missed.
    pub(crate) fn grants(&self) -> Option<u64> {
        self.shared.state().grants(self.session)
    }
}

impl Drop for SessionSubscription {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.leave_session(self.session, &self.mailbox);
    }
}

/// News for one watcher, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct WatchSubscription {
    shared: Arc<Shared>,
    subject: Subject,
    mailbox: Arc<Mailbox<WatchNews>>,
}

impl WatchSubscription {
    /// The next news; `None` once so much waited that it was thrown away.
    pub(crate) async fn next(&self) -> Option<WatchNews> {
        self.mailbox.next().await
    }

    /// The revision up to which everything was told, if nothing waits to be told.
    pub(crate) fn quiet_at(&self) -> Option<Revision> {
        let state = self.shared.state();
        let is_quiet = state.is_followed() && self.mailbox.is_empty();
        is_quiet.then(|| state.last())
    }
}

impl Drop for WatchSubscription {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.leave_watch(&self.subject, &self.mailbox);
    }
}

impl News {
    /// Starts to follow the store.
    pub(crate) fn start(
        (store, clock): (&Arc<dyn Store>, &Arc<dyn Clock>),
        (entropy, metrics): (&Arc<dyn Entropy>, &Metrics),
        tasks: &Tasks,
        waiters: Waiters,
    ) -> Self {
        let shared = Arc::new(Shared {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            entropy: Arc::clone(entropy),
            metrics: metrics.clone(),
            waiters,
            state: Mutex::new(State::new()),
            followed: tokio::sync::Notify::new(),
        });
        tasks.spawn("news", Shared::follow(Arc::clone(&shared)));
        Self { shared }
    }

    /// News of what a session holds, from now on; of the notices to it that stand, at once.
    pub(crate) fn subscribe_session(&self, session: SessionId) -> SessionSubscription {
        let mailbox = Arc::new(Mailbox::new(SESSION_BOUND, Vec::new()));
        self.shared.state().join_session(session, &mailbox);
        SessionSubscription {
            shared: Arc::clone(&self.shared),
            session,
            mailbox,
        }
    }

    /// All that happens to a subject after a revision; `None` where that is not known here any more. So many
    /// events may wait to be read.
    pub(crate) fn subscribe(
        &self,
        subject: Subject,
        after: Revision,
        bound: usize,
    ) -> Option<WatchSubscription> {
        let mailbox = self.shared.state().join_watch(&subject, after, bound)?;
        Some(WatchSubscription {
            shared: Arc::clone(&self.shared),
            subject,
            mailbox,
        })
    }

    /// All that happens to a resource from now on, for whoever looks at the store besides.
    pub(crate) fn subscribe_from_now(
        &self,
        resource: &ResourceName,
        bound: usize,
    ) -> WatchSubscription {
        let subject = Subject::Resource(resource.clone());
        let mailbox = self.shared.state().join_from_now(&subject, bound);
        WatchSubscription {
            shared: Arc::clone(&self.shared),
            subject,
            mailbox,
        }
    }

    /// Waits until the store is followed.
    pub(crate) async fn followed(&self) {
        loop {
            let woken = self.shared.followed.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.shared.state().is_followed() {
                return;
            }
            woken.await;
        }
    }

    /// The last revision that was shown.
    pub(crate) fn last(&self) -> Revision {
        self.shared.state().last()
    }

    /// How the last lease of a resource ended, if it is vacant as far as is known here.
    pub(crate) fn previous(&self, resource: &ResourceName) -> Option<Previous> {
        self.shared.state().memory.previous(resource)
    }

    /// The last end of a lease of a resource that was seen here.
    pub(crate) fn last_end(&self, resource: &ResourceName) -> Option<Ended> {
        self.shared.state().memory.ended(resource)
    }

    /// This coordinator has granted a lease: news of it may come later.
    pub(crate) fn note_grant(&self, hold: &Hold) {
        let granted = Arc::new(Granted::known(hold.clone()));
        self.shared.state().memory.note_grant(&granted);
    }

    /// This coordinator has ended a lease: news of it may come later.
    pub(crate) fn note_end(&self, hold: &Hold, end: LeaseEnd, revision: Revision, reason: &str) {
        let ended = Ended {
            resource: hold.claim.resource.clone(),
            revision,
            end: Some(end),
            reason: reason.to_owned(),
            actor: String::new(),
            lease: Some(Arc::new(Granted::known(hold.clone()))),
            told: None,
        };
        self.shared.state().memory.note_end(&ended);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(shared: Arc<Self>) {
        let mut failures = 0;
        loop {
            if let Err(error) = shared.follow_once(&mut failures).await {
                let cause: &dyn Error = &error;
                // Ever more seldom while the store stays away.
                if failures.count_ones() <= 1 {
                    warn!(error = cause, failures, "news from the store broke off");
                } else {
                    debug!(error = cause, failures, "news from the store broke off");
                }
            }
            shared.state().lost();
            failures = failures.saturating_add(1);
            shared
                .clock
                .sleep(backoff(&*shared.entropy, failures))
                .await;
        }
    }

    async fn follow_once(&self, failures: &mut u32) -> Result<(), StoreError> {
        let mut batches = self.store.watch().await?;
        if *failures > 0 {
            self.metrics.watch_resumed();
        }
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            // Who waits for the answer of the transaction that this is news of goes first.
            tokio::task::yield_now().await;
            // Those who wait come first: they are who the others are told of.
            self.waiters.hear(&batch);
            let was_followed = self.state().hear(batch);
            if !was_followed {
                self.followed.notify_waiters();
            }
            *failures = 0;
        }
        Ok(())
    }
}
