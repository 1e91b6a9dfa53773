//! A store that tests can take away, hang, and keep the news of.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use palisade_coordinator::clock::Moment;
use palisade_coordinator::domain::{
    Acquire, Acquired, AskBack, AttachMark, Batch, Caller, Event, Hold, Release, Released,
    RequestId, Revoke, Revoked, Session, SessionId,
};
use palisade_coordinator::store::memory::MemoryStore;
use palisade_coordinator::store::{
    Advance, Advanced, Alive, Events, Failure, Page, Pages, Standing, Status, Store, StoreError,
};
use palisade_token::{FencingToken, ResourceName};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the store in memory.
    Up,
    /// Fails at once; nothing happens.
    Away,
    /// Does not answer until the mode changes.
    Hangs,
    /// Releases happen, and are reported as failed.
    LosesReleases,
    /// Acquires happen, and are reported as failed.
    LosesAcquires,
    /// Acquires and raises happen, and are reported as failed.
    LosesAcquiresAndRaises,
    /// It makes no generation, for want of space.
    IsFull,
}

/// What a stream wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    Acquire,
    Release,
    Raise,
}

#[derive(Debug)]
pub(crate) struct Switch {
    pub(crate) memory: Arc<MemoryStore>,
    /// What is asked: the store in memory, or one around it.
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) mode: watch::Sender<Mode>,
    /// Acquires of this resource do not arrive until it changes.
    pub(crate) stuck: watch::Sender<Option<String>>,
    /// What came in of streams, and under which sub-number of their marks.
    pub(crate) journal: Mutex<Vec<(Write, u64)>>,
    /// Watches that fail before the first one that works.
    pub(crate) broken_watches: AtomicUsize,
    /// Whether events are kept from watchers.
    pub(crate) is_silent: bool,
    /// Acquires that came in.
    pub(crate) acquires: AtomicUsize,
    /// How often a vacant resource was to be given to who waits first.
    pub(crate) promotions: AtomicUsize,
    /// How often somebody asked what a session has.
    pub(crate) holdings: AtomicUsize,
    /// How often a holder said that it will not release.
    pub(crate) declines: AtomicUsize,
    /// How often somebody asked how a request stands.
    pub(crate) looks: AtomicUsize,
    /// How often somebody asked who waits for a resource.
    pub(crate) queues_read: AtomicUsize,
    /// Whether who asks that gets no answer.
    pub(crate) hides_queues: AtomicBool,
}

impl Switch {
    pub(crate) fn new(memory: Arc<MemoryStore>) -> Self {
        Self {
            inner: Arc::<MemoryStore>::clone(&memory),
            memory,
            mode: watch::Sender::new(Mode::Up),
            stuck: watch::Sender::new(None),
            journal: Mutex::default(),
            broken_watches: AtomicUsize::new(0),
            is_silent: false,
            acquires: AtomicUsize::new(0),
            promotions: AtomicUsize::new(0),
            holdings: AtomicUsize::new(0),
            declines: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            queues_read: AtomicUsize::new(0),
            hides_queues: AtomicBool::new(false),
        }
    }

    fn write(&self, write: Write, mark: Option<AttachMark>) {
        if let Some(mark) = mark {
            self.journal.lock().unwrap().push((write, mark.sub));
        }
    }

    async fn pass(&self) -> Result<(), StoreError> {
        let mut mode = self.mode.subscribe();
        let mode = *mode.wait_for(|mode| *mode != Mode::Hangs).await.unwrap();
        match mode {
            Mode::Away => Err(StoreError::not_applied(Failure::Unavailable)),
            Mode::Up
            | Mode::Hangs
            | Mode::LosesReleases
            | Mode::LosesAcquires
            | Mode::LosesAcquiresAndRaises
            | Mode::IsFull => Ok(()),
        }
    }
}

#[async_trait]
impl Store for Switch {
    async fn open_session(&self, session: Session) -> Result<Alive, StoreError> {
        self.pass().await?;
        self.inner.open_session(session).await
    }

    async fn renew_session(&self, caller: &Caller) -> Result<Alive, StoreError> {
        self.pass().await?;
        self.inner.renew_session(caller).await
    }

    async fn close_session(&self, caller: &Caller) -> Result<(), StoreError> {
        self.pass().await?;
        self.inner.close_session(caller).await
    }

    async fn attach(&self, caller: &Caller) -> Result<Session, StoreError> {
        self.pass().await?;
        self.inner.attach(caller).await
    }

    async fn raise(&self, caller: &Caller, to: AttachMark) -> Result<(), StoreError> {
        self.pass().await?;
        self.write(Write::Raise, Some(to));
        let raised = self.inner.raise(caller, to).await;
        if *self.mode.borrow() == Mode::LosesAcquiresAndRaises {
            return Err(StoreError::unknown(Failure::Unavailable, "secret words"));
        }
        raised
    }

    async fn holdings(&self, session: SessionId) -> Result<Vec<Acquired>, StoreError> {
        self.holdings.fetch_add(1, Ordering::Relaxed);
        self.pass().await?;
        self.inner.holdings(session).await
    }

    async fn time_left(&self, session: SessionId) -> Result<Duration, StoreError> {
        self.pass().await?;
        self.inner.time_left(session).await
    }

    fn lives_until(&self, session: SessionId) -> Option<Moment> {
        self.inner.lives_until(session)
    }

    async fn acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        self.acquires.fetch_add(1, Ordering::Relaxed);
        self.pass().await?;
        let mut stuck = self.stuck.subscribe();
        let is_free = |stuck: &Option<String>| stuck.as_deref() != Some(acquire.resource.as_str());
        stuck.wait_for(is_free).await.unwrap();
        self.write(Write::Acquire, acquire.caller.mark);
        let acquired = self.inner.acquire(acquire).await;
        let mode = *self.mode.borrow();
        if matches!(mode, Mode::LosesAcquires | Mode::LosesAcquiresAndRaises) {
            return Err(StoreError::unknown(Failure::Unavailable, "secret words"));
        }
        acquired
    }

    async fn standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Result<Option<Acquired>, StoreError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        self.pass().await?;
        self.inner.standing(session, resource, request).await
    }

    async fn release(&self, release: &Release) -> Result<Released, StoreError> {
        self.pass().await?;
        self.write(Write::Release, release.caller.mark);
        let released = self.inner.release(release).await;
        if *self.mode.borrow() == Mode::LosesReleases {
            return Err(StoreError::unknown(Failure::Unavailable, "secret words"));
        }
        released
    }

    async fn promote(&self, resource: &ResourceName) -> Result<Option<Hold>, StoreError> {
        self.promotions.fetch_add(1, Ordering::Relaxed);
        self.pass().await?;
        self.inner.promote(resource).await
    }

    async fn lease_and_queue(
        &self,
        resource: &ResourceName,
        queue_size: usize,
    ) -> Result<Standing, StoreError> {
        self.pass().await?;
        if queue_size > 0 {
            self.queues_read.fetch_add(1, Ordering::Relaxed);
            if self.hides_queues.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        }
        self.inner.lease_and_queue(resource, queue_size).await
    }

    async fn revoke(&self, revoke: &Revoke) -> Result<Revoked, StoreError> {
        self.pass().await?;
        self.inner.revoke(revoke).await
    }

    async fn ask_back(&self, ask: &AskBack) -> Result<bool, StoreError> {
        self.pass().await?;
        self.inner.ask_back(ask).await
    }

    async fn decline(
        &self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<(), StoreError> {
        self.declines.fetch_add(1, Ordering::Relaxed);
        self.pass().await?;
        self.inner.decline(resource, token).await
    }

    async fn snapshot(&self, prefix: &str) -> Result<Pages, StoreError> {
        self.pass().await?;
        self.inner.snapshot(prefix).await
    }

    async fn leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.pass().await?;
        self.inner.leases(prefix, after, limit).await
    }

    async fn advance_as(&self, advance: Advance) -> Result<Advanced, StoreError> {
        self.pass().await?;
        if *self.mode.borrow() == Mode::IsFull {
            return Err(StoreError::unknown(Failure::NoSpace, "full"));
        }
        self.inner.advance_as(advance).await
    }

    async fn status(&self) -> Status {
        self.inner.status().await
    }

    async fn watch(&self) -> Result<Events, StoreError> {
        if self.is_silent {
            let first: Batch = Arc::new([Event::Resync]);
            let first = stream::iter([Ok(first)]);
            return Ok(first.chain(stream::pending()).boxed());
        }
        let broken =
            self.broken_watches
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                });
        if broken.is_ok() {
            return Err(StoreError::not_applied(Failure::Unavailable));
        }
        self.inner.watch().await
    }

    async fn leases_held(&self) -> Result<u64, StoreError> {
        self.pass().await?;
        self.memory.leases_held().await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.pass().await?;
        self.inner.ready().await
    }

    fn least_ttl(&self) -> Duration {
        Duration::from_secs(5)
    }
}
