//! The store, as one coordinator reaches it: over a link that delays and loses, with calls that did happen and are
//! reported as failed, that arrive late, or not at all; and news that come late, or are missed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use palisade_coordinator::clock::{Clock, Moment};
use palisade_coordinator::domain::{
    Acquire, Acquired, AskBack, AttachMark, Batch, Caller, Event, Hold, Release, Released,
    RequestId, Revoke, Revoked, Session, SessionId,
};
use palisade_coordinator::store::{
    Advance, Advanced, Alive, Events, Failure, Page, Pages, Standing, Status, Store, StoreError,
    StoreKind,
};
use palisade_token::{FencingToken, ResourceName};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use super::etcd::Etcd;
use super::net::Net;
use super::time::{Gate, HostClock, Truth};
use crate::history::{Decision, Host, Recorder};

/// How often what fails, of 1000.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Odds {
    /// A write happens, and is reported as unknown.
    pub(crate) unheard: u64,
    /// A write happens much later, and is reported as unknown long before.
    pub(crate) late: u64,
    /// A write does not happen, and is reported as unknown.
    pub(crate) lost: u64,
    /// Nothing happens, and that is told.
    pub(crate) turned_away: u64,
    /// What is read is on its way so long that it is old.
    pub(crate) old_read: u64,
    /// News are so late.
    pub(crate) late_news: u64,
    /// News are missed; that there were some is told.
    pub(crate) missed_news: u64,
    /// The watch breaks.
    pub(crate) broken_watch: u64,
}

/// How late a copy may be, in milliseconds: over several times to live.
const LATE: (u64, u64) = (50, 25_000);
/// How late a read or news may be, in milliseconds.
const OLD: (u64, u64) = (20, 4_000);
/// When whoever waits for the store gives up, in milliseconds.
const PATIENCE: (u64, u64) = (300, 5_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Unheard,
    Late,
    Lost,
    TurnedAway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

/// What all coordinators' ways to the store have in common.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) truth: Truth,
    pub(crate) net: Arc<Net>,
    pub(crate) etcd: Arc<Etcd>,
    pub(crate) recorder: Recorder,
    pub(crate) odds: Mutex<Odds>,
    /// Once it is calm, what is late arrives at once.
    pub(crate) calm: CancellationToken,
}

/// One coordinator's way to the store.
pub(crate) struct Reach {
    ways: Arc<Ways>,
    host: Host,
    gate: Arc<Gate>,
    clock: Arc<HostClock>,
    wall_ahead: i64,
    dice: Mutex<Dice>,
    lives: Mutex<BTreeMap<SessionId, Moment>>,
}

impl fmt::Debug for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reach").finish_non_exhaustive()
    }
}

type Doing<T> = BoxFuture<'static, Result<T, StoreError>>;

fn unknown(why: &'static str) -> StoreError {
    StoreError::unknown(Failure::Unavailable, why)
}

fn not_applied() -> StoreError {
    StoreError::not_applied(Failure::Unavailable)
}

impl Reach {
    pub(crate) fn new(
        ways: &Arc<Ways>,
        (host, gate): (Host, &Arc<Gate>),
        (clock, wall_ahead): (&Arc<HostClock>, i64),
        dice: Dice,
    ) -> Arc<Self> {
        Arc::new(Self {
            ways: Arc::clone(ways),
            host,
            gate: Arc::clone(gate),
            clock: Arc::clone(clock),
            wall_ahead,
            dice: Mutex::new(dice),
            lives: Mutex::default(),
        })
    }

    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap()
    }

    fn odds(&self) -> Odds {
        *self.ways.odds.lock().unwrap()
    }

    fn fate(&self, kind: Kind) -> Fate {
        let odds = self.odds();
        let mut dice = self.dice();
        let mut rest = dice.below(1000);
        let fates = [
            (odds.turned_away, Fate::TurnedAway),
            (odds.unheard, Fate::Unheard),
            (odds.late, Fate::Late),
            (odds.lost, Fate::Lost),
        ];
        for (share, fate) in fates {
            if rest < share {
                return match kind {
                    Kind::Write => fate,
                    Kind::Read => Fate::TurnedAway,
                };
            }
            rest -= share;
        }
        Fate::Done
    }

    /// Does something in the store, and tells of it, or not.
    async fn call<T, F>(&self, kind: Kind, doing: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<dyn Store>) -> Doing<T> + Send + 'static,
    {
        self.gate.pass().await;
        let fate = self.fate(kind);
        let patience = self.dice().millis(PATIENCE.0, PATIENCE.1);
        let odds = self.odds();
        let is_old = kind == Kind::Read && self.dice().permille(odds.old_read);
        let late = match (fate, is_old) {
            (Fate::Late, _) => self.dice().millis(LATE.0, LATE.1),
            (_, true) => self.dice().millis(OLD.0, OLD.1),
            _ => Duration::ZERO,
        };
        if fate == Fate::TurnedAway {
            self.ways.truth.sleep(Duration::from_millis(1)).await;
            self.gate.pass().await;
            return Err(not_applied());
        }
        let reached = self.ways.etcd.reached();
        let Some((store, start)) = reached.filter(|_| fate != Fate::Lost) else {
            self.ways.truth.sleep(patience).await;
            self.gate.pass().await;
            return Err(self.nothing_said(kind));
        };
        let (mut tell, told) = oneshot::channel();
        let (ways, host, wall_ahead) = (Arc::clone(&self.ways), self.host, self.wall_ahead);
        let work = async move {
            if fate == Fate::Late {
                ways.late(late).await;
            }
            ways.net.travel(host, Host::Store).await;
            if !ways.etcd.still_runs(start) {
                return;
            }
            ways.etcd.use_wall(wall_ahead);
            let done = doing(store).await;
            if is_old {
                ways.late(late).await;
            }
            ways.net.travel(Host::Store, host).await;
            if fate == Fate::Done && ways.etcd.still_runs(start) {
                drop(tell.send(done));
            } else {
                // Nothing is said until nobody listens any more.
                tell.closed().await;
            }
        };
        drop(self.ways.truth.spawn(work));
        let patience = match fate {
            Fate::Done if is_old => patience + late,
            Fate::Done => Duration::from_millis(PATIENCE.1),
            _ => patience,
        };
        let answer = self.ways.answer(told, patience).await;
        self.gate.pass().await;
        answer.unwrap_or_else(|| Err(self.nothing_said(kind)))
    }

    fn nothing_said(&self, kind: Kind) -> StoreError {
        match kind {
            Kind::Read => not_applied(),
            Kind::Write => unknown("no answer, on purpose"),
        }
    }

    /// A session lives so long, counted from when the call was sent.
    fn lives(&self, sent: Moment, alive: &Alive) {
        let mut lives = self.lives.lock().unwrap();
        lives.insert(alive.session, sent.after(alive.ttl));
    }
}

impl Ways {
    /// Something is on its way for so long, but no longer than until all is calm.
    async fn late(&self, late: Duration) {
        tokio::select! {
            biased;
            () = self.calm.cancelled() => {}
            () = self.truth.sleep(late) => {}
        }
    }

    async fn answer<T>(&self, told: oneshot::Receiver<T>, patience: Duration) -> Option<T> {
        tokio::select! {
            biased;
            told = told => told.ok(),
            () = self.truth.sleep(patience) => None,
        }
    }

    fn renewed(&self, session: SessionId) {
        let renewed = Decision::Renewed { session };
        let revision = palisade_coordinator::domain::Revision::default();
        self.recorder
            .log(self.etcd.restores(), revision, vec![renewed]);
    }
}

#[async_trait]
impl Store for Reach {
    async fn open_session(&self, session: Session) -> Result<Alive, StoreError> {
        let (sent, ways) = (Clock::now(&*self.clock), Arc::clone(&self.ways));
        let alive = self.call(Kind::Write, move |store| {
            Box::pin(async move {
                let alive = store.open_session(session).await?;
                ways.renewed(alive.session);
                Ok(alive)
            })
        });
        let alive = alive.await?;
        self.lives(sent, &alive);
        Ok(alive)
    }

    async fn renew_session(&self, caller: &Caller) -> Result<Alive, StoreError> {
        let (sent, ways) = (Clock::now(&*self.clock), Arc::clone(&self.ways));
        let caller = caller.clone();
        let alive = self.call(Kind::Write, move |store| {
            Box::pin(async move {
                let alive = store.renew_session(&caller).await?;
                ways.renewed(alive.session);
                Ok(alive)
            })
        });
        let alive = alive.await?;
        self.lives(sent, &alive);
        Ok(alive)
    }

    async fn close_session(&self, caller: &Caller) -> Result<(), StoreError> {
        let caller = caller.clone();
        self.lives.lock().unwrap().remove(&caller.session);
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.close_session(&caller).await })
        })
        .await
    }

    async fn attach(&self, caller: &Caller) -> Result<Session, StoreError> {
        let caller = caller.clone();
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.attach(&caller).await })
        })
        .await
    }

    async fn raise(&self, caller: &Caller, to: AttachMark) -> Result<(), StoreError> {
        let caller = caller.clone();
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.raise(&caller, to).await })
        })
        .await
    }

    async fn holdings(&self, session: SessionId) -> Result<Vec<Acquired>, StoreError> {
        self.call(Kind::Read, move |store| {
            Box::pin(async move { store.holdings(session).await })
        })
        .await
    }

    async fn time_left(&self, session: SessionId) -> Result<Duration, StoreError> {
        self.call(Kind::Read, move |store| {
            Box::pin(async move { store.time_left(session).await })
        })
        .await
    }

    fn lives_until(&self, session: SessionId) -> Option<Moment> {
        self.lives.lock().unwrap().get(&session).copied()
    }

    async fn acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        let acquire = acquire.clone();
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.acquire(&acquire).await })
        })
        .await
    }

    async fn standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Result<Option<Acquired>, StoreError> {
        let (resource, request) = (resource.clone(), request.clone());
        self.call(Kind::Read, move |store| {
            Box::pin(async move { store.standing(session, &resource, &request).await })
        })
        .await
    }

    async fn release(&self, release: &Release) -> Result<Released, StoreError> {
        let release = release.clone();
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.release(&release).await })
        })
        .await
    }

    async fn promote(&self, resource: &ResourceName) -> Result<Option<Hold>, StoreError> {
        let resource = resource.clone();
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.promote(&resource).await })
        })
        .await
    }

    async fn lease_and_queue(
        &self,
        resource: &ResourceName,
        queue_size: usize,
    ) -> Result<Standing, StoreError> {
        let resource = resource.clone();
        self.call(Kind::Read, move |store| {
            Box::pin(async move { store.lease_and_queue(&resource, queue_size).await })
        })
        .await
    }

    async fn revoke(&self, revoke: &Revoke) -> Result<Revoked, StoreError> {
        let revoke = revoke.clone();
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.revoke(&revoke).await })
        })
        .await
    }

    async fn ask_back(&self, ask: &AskBack) -> Result<bool, StoreError> {
        let ask = ask.clone();
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.ask_back(&ask).await })
        })
        .await
    }

    async fn decline(
        &self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<(), StoreError> {
        let resource = resource.clone();
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.decline(&resource, token).await })
        })
        .await
    }

    async fn snapshot(&self, prefix: &str) -> Result<Pages, StoreError> {
        let prefix = prefix.to_owned();
        self.call(Kind::Read, move |store| {
            Box::pin(async move { store.snapshot(&prefix).await })
        })
        .await
    }

    async fn leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.call(Kind::Read, move |store| {
            Box::pin(async move { store.leases(&prefix, after.as_ref(), limit).await })
        })
        .await
    }

    async fn leases_held(&self) -> Result<u64, StoreError> {
        self.call(Kind::Read, move |store| {
            Box::pin(async move { store.leases_held().await })
        })
        .await
    }

    async fn advance_as(&self, advance: Advance) -> Result<Advanced, StoreError> {
        self.call(Kind::Write, move |store| {
            Box::pin(async move { store.advance_as(advance).await })
        })
        .await
    }

    async fn status(&self) -> Status {
        Status {
            kind: StoreKind::Memory,
            cluster: None,
            endpoints: Vec::new(),
            generation: None,
            revision: Default::default(),
            in_flight: 0,
        }
    }

    async fn watch(&self) -> Result<Events, StoreError> {
        let start = self.ways.etcd.reached().map(|(_, start)| start);
        let inner = self.call(Kind::Read, move |store| {
            Box::pin(async move { store.watch().await })
        });
        let (inner, Some(start)) = (inner.await?, start) else {
            return Err(not_applied());
        };
        let (tell, told) = mpsc::unbounded_channel();
        let forwarding = Forwarding {
            ways: Arc::clone(&self.ways),
            host: self.host,
            gate: Arc::clone(&self.gate),
            dice: Dice::new(self.dice().roll()),
            tell,
        };
        drop(self.ways.truth.spawn(forwarding.run(inner, start)));
        Ok(UnboundedReceiverStream::new(told).boxed())
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.call(Kind::Read, move |store| {
            Box::pin(async move { store.ready().await })
        })
        .await
    }

    fn least_ttl(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// News on their way to one coordinator.
struct Forwarding {
    ways: Arc<Ways>,
    host: Host,
    gate: Arc<Gate>,
    dice: Dice,
    tell: mpsc::UnboundedSender<Result<Batch, StoreError>>,
}

impl Forwarding {
    async fn run(mut self, mut inner: Events, start: u64) {
        let ways = Arc::clone(&self.ways);
        loop {
            let batch = tokio::select! {
                biased;
                () = ways.etcd.gone(start) => None,
                batch = inner.next() => batch,
            };
            let odds = *ways.odds.lock().unwrap();
            if self.gate.is_gone() || self.tell.is_closed() {
                return;
            }
            let Some(Ok(batch)) = batch else { break };
            if self.dice.permille(odds.broken_watch) {
                break;
            }
            if self.dice.permille(odds.late_news) {
                let late = self.dice.millis(OLD.0, OLD.1);
                ways.late(late).await;
            }
            let batch = if self.dice.permille(odds.missed_news) {
                Arc::new([Event::Resync])
            } else {
                batch
            };
            ways.net.travel(Host::Store, self.host).await;
            self.gate.pass().await;
            if self.tell.send(Ok(batch)).is_err() {
                return;
            }
        }
        drop(self.tell.send(Err(not_applied())));
    }
}
