use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;

use super::{Journal, LEAST_TTL, Local, SWEEP_BATCH, SWEEP_RETRY, Shell, WATCH_BACKLOG};
use crate::clock::{Clock, Moment};
use crate::domain::{
    Acquired, Change, Event, Hold, HoldName, Ledger, Refusal, RequestId, Revision, WallClock,
};
use crate::entropy::SystemEntropy;
use crate::store::conformance::Client;
use crate::store::{Events, Failure, Outcome, Store, StoreError, StoreKind};
use crate::tasks::Tasks;
use palisade_token::ResourceName;

/// A clock that stands still until it is told how much time passes.
#[derive(Debug)]
pub(in crate::store) struct StillClock {
    passed: watch::Sender<Duration>,
}

impl StillClock {
    pub(in crate::store) fn shared() -> Arc<Self> {
        Arc::new(Self {
            passed: watch::Sender::new(Duration::ZERO),
        })
    }

    fn pass(&self, while_: Duration) {
        self.passed.send_modify(|passed| *passed += while_);
    }
}

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Moment {
        Moment(*self.passed.borrow())
    }

    fn wall(&self) -> WallClock {
        let passed = u64::try_from(self.passed.borrow().as_micros()).unwrap();
        WallClock(WallClock::BUILT.0 + WallClock::DAY_MICROS + passed)
    }

    async fn sleep(&self, while_: Duration) {
        let end = self.now().after(while_);
        let mut passed = self.passed.subscribe();
        let over = passed.wait_for(|passed| Moment(*passed) >= end).await;
        drop(over);
    }
}

/// What the disk does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mood {
    #[default]
    Well,
    /// Writes fail, and did not happen.
    Full,
    /// Writes happen, and are reported as unknown.
    Mute,
    /// Writes happen, and are never reported.
    Stuck,
    /// Nothing can be read or written.
    Away,
}

/// A disk that fails as it is told.
#[derive(Debug, Clone, Default)]
struct Disk {
    durable: Arc<StdMutex<Ledger>>,
    mood: Arc<StdMutex<Mood>>,
    writes: Arc<AtomicUsize>,
}

impl Disk {
    fn turn(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    fn durable(&self) -> Ledger {
        self.durable.lock().unwrap().clone()
    }
}

#[async_trait]
impl Journal for Disk {
    async fn write(&mut self, revision: Revision, changes: &[Change]) -> Result<(), StoreError> {
        let mood = self.mood();
        match mood {
            Mood::Full => return Err(StoreError::not_applied(Failure::NoSpace)),
            Mood::Away => return Err(StoreError::not_applied(Failure::Unavailable)),
            Mood::Well | Mood::Mute | Mood::Stuck => {}
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.durable.lock().unwrap().apply(revision, changes);
        match mood {
            Mood::Mute => Err(StoreError::unknown(Failure::Unavailable, "mute")),
            Mood::Stuck => std::future::pending().await,
            Mood::Well | Mood::Full | Mood::Away => Ok(()),
        }
    }

    async fn load(&mut self) -> Result<Ledger, StoreError> {
        match self.mood() {
            Mood::Away => Err(StoreError::not_applied(Failure::Unavailable)),
            Mood::Well | Mood::Full | Mood::Mute | Mood::Stuck => Ok(self.durable()),
        }
    }

    async fn probe(&mut self) -> Result<Revision, StoreError> {
        self.load().await.map(|ledger| ledger.revision())
    }
}

#[derive(Debug)]
struct TestStore(Local<Disk>);

impl Shell for TestStore {
    type Journal = Disk;

    fn kind(&self) -> StoreKind {
        StoreKind::Memory
    }

    fn local(&self) -> &Local<Disk> {
        &self.0
    }
}

struct World {
    clock: Arc<StillClock>,
    disk: Disk,
    store: Arc<dyn Store>,
    tasks: Tasks,
}

impl World {
    async fn new() -> Self {
        Self::on(Disk::default()).await
    }

    async fn on(disk: Disk) -> Self {
        let clock = StillClock::shared();
        let tasks = Tasks::default();
        let time = Arc::<StillClock>::clone(&clock);
        let local = Local::start(disk.clone(), time, SystemEntropy::shared(), &tasks).await;
        Self {
            clock,
            disk,
            store: Arc::new(TestStore(local.unwrap())),
            tasks,
        }
    }

    async fn client(&self, name: &str, ttl: Duration) -> Client {
        Client::open(&self.store, name, ttl).await
    }

    async fn is_vacant(&self, name: &str) -> bool {
        let resource = ResourceName::new(name).unwrap();
        self.store.lease(&resource).await.unwrap().hold.is_none()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

fn failed<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (Failure, Outcome) {
    match result {
        Err(StoreError::Failed {
            failure, outcome, ..
        }) => (failure, outcome),
        other => panic!("it must fail, and yet: {other:?}"),
    }
}

/// Nothing here yields to the expiry task: the deadline alone decides.
#[tokio::test]
async fn a_session_is_over_at_its_deadline() {
    let world = World::new().await;
    let client = world.client("client", LEAST_TTL).await;
    client.take("r", "1").await;
    world.clock.pass(LEAST_TTL - Duration::from_nanos(1));
    assert_eq!(client.renew().await.unwrap().ttl, LEAST_TTL);
    world.clock.pass(LEAST_TTL);
    let over = client.renew().now_or_never().unwrap();
    assert!(matches!(
        over,
        Err(StoreError::Refused(Refusal::SessionEnded { .. }))
    ));
    assert!(world.is_vacant("r").await);
}

#[tokio::test]
async fn a_renewal_writes_nothing() {
    let world = World::new().await;
    let client = world.client("client", LEAST_TTL).await;
    let writes = world.disk.writes.load(Ordering::Relaxed);
    for _ in 0..10 {
        client.renew().await.unwrap();
    }
    assert_eq!(world.disk.writes.load(Ordering::Relaxed), writes);
}

fn granted(batch: &[Event]) -> Option<&Hold> {
    batch.iter().find_map(|event| match event {
        Event::Granted(granted) => granted.hold(),
        _ => None,
    })
}

/// A watch that has begun.
async fn watching(world: &World) -> Events {
    let mut events = world.store.watch().await.unwrap();
    assert_eq!(*events.next().await.unwrap().unwrap(), [Event::Resync]);
    let from = events.next().await.unwrap().unwrap();
    assert!(matches!(*from, [Event::Bookmark(_)]), "{from:?}");
    events
}

/// I6: nobody asks for anything, and yet the dead are ended and their heirs served.
#[tokio::test]
async fn the_expiry_task_needs_no_callers() {
    let world = World::new().await;
    let dead = world.client("dead", LEAST_TTL).await;
    dead.take("r", "1").await;
    let heir = world.client("heir", MINUTE).await;
    heir.queue("r", "1").await;
    let mut events = watching(&world).await;
    world.clock.pass(LEAST_TTL);
    loop {
        let batch = events.next().await.unwrap().unwrap();
        if let Some(hold) = granted(&batch) {
            assert_eq!(hold.claim.session, heir.caller.session);
            return;
        }
    }
}

/// More sessions than one transaction ends, all at one moment.
#[tokio::test]
async fn many_sessions_end_at_once() {
    let world = World::new().await;
    let count = 2 * SWEEP_BATCH + 7;
    for number in 0..count {
        let client = world.client(&format!("c{number}"), LEAST_TTL).await;
        client.take(&format!("r/{number}"), "1").await;
    }
    world.clock.pass(LEAST_TTL);
    // Whoever comes ends one batch; none of them waits for all.
    for left in [count - SWEEP_BATCH, count - 2 * SWEEP_BATCH, 0] {
        let page = world.store.leases("", None, count).await.unwrap();
        assert!(page.leases.len() <= left, "{} of {left}", page.leases.len());
    }
    assert_eq!(world.disk.durable().sessions().count(), 0);
}

#[tokio::test]
async fn what_was_not_written_did_not_happen() {
    let world = World::new().await;
    let client = world.client("client", MINUTE).await;
    world.disk.turn(Mood::Full);
    let (failure, outcome) = failed(client.try_acquire("r", "1").await);
    assert!(matches!(failure, Failure::NoSpace));
    assert_eq!(outcome, Outcome::NotApplied);
    assert!(world.is_vacant("r").await);
    client.renew().await.unwrap();
    world.disk.turn(Mood::Well);
    client.take("r", "1").await;
}

/// Did happen, reported as failed: asked again, the store knows (I4).
#[tokio::test]
async fn what_was_written_is_found_again() {
    let world = World::new().await;
    let client = world.client("client", MINUTE).await;
    let mut events = watching(&world).await;
    world.disk.turn(Mood::Mute);
    let (_, outcome) = failed(client.try_acquire("r", "1").await);
    assert_eq!(outcome, Outcome::Unknown);
    world.disk.turn(Mood::Well);
    let written = world.disk.durable();
    let hold = client.at(2).retrying().take("r", "1").await;
    let resource = &hold.claim.resource;
    assert_eq!(written.lease(resource).0, Some(&hold));
    // The watch missed the grant, and says so.
    assert_eq!(*events.next().await.unwrap().unwrap(), [Event::Resync]);
}

/// A caller that gives up half-way leaves no gap between what is written and what is known.
#[tokio::test]
async fn what_was_given_up_is_found_again() {
    let world = World::new().await;
    let client = world.client("client", MINUTE).await;
    world.disk.turn(Mood::Stuck);
    assert!(client.try_acquire("r", "1").now_or_never().is_none());
    world.disk.turn(Mood::Well);
    let other = world.client("other", MINUTE).await;
    assert!(matches!(
        other.try_acquire("r", "1").await,
        Err(StoreError::Refused(Refusal::LeaseHeld { .. }))
    ));
    client.at(2).retrying().take("r", "1").await;
}

/// I9: while what is durable cannot be read, nothing is answered.
#[tokio::test]
async fn nothing_is_answered_in_doubt() {
    let world = World::new().await;
    let client = world.client("client", MINUTE).await;
    let hold = client.take("r", "1").await;
    world.disk.turn(Mood::Away);
    failed(client.try_acquire("s", "2").await);
    for result in [
        client.try_acquire("r", "1").await.map(drop),
        client.renew().await.map(drop),
        world.store.ready().await,
        world.store.leases("", None, 1).await.map(drop),
    ] {
        let (failure, outcome) = failed(result);
        assert!(matches!(failure, Failure::Unavailable));
        assert_eq!(outcome, Outcome::NotApplied);
    }
    world.disk.turn(Mood::Well);
    world.store.ready().await.unwrap();
    assert_eq!(client.take("r", "1").await, hold);
}

/// I12: the end of one session that cannot be written is nobody else's business, and prolongs no life.
#[tokio::test]
async fn a_session_that_cannot_be_ended_harms_nobody() {
    let world = World::new().await;
    let dead = world.client("dead", LEAST_TTL).await;
    dead.take("r", "1").await;
    let other = world.client("other", MINUTE).await;
    let hold = other.take("s", "1").await;
    world.disk.turn(Mood::Full);
    world.clock.pass(LEAST_TTL);
    other.renew().await.unwrap();
    assert_eq!(other.take("s", "1").await, hold);
    for result in [
        dead.renew().await.map(drop),
        dead.acquire("r", "1").await.map(drop),
    ] {
        assert!(matches!(
            result,
            Err(StoreError::Refused(Refusal::SessionEnded { .. }))
        ));
    }
    failed(
        world
            .store
            .open_session(Client::session("dead", MINUTE))
            .await,
    );
    world.disk.turn(Mood::Well);
    world.clock.pass(SWEEP_RETRY);
    assert!(world.is_vacant("r").await);
    other.take("r", "2").await;
}

/// I3: a file that was put back under a running store is noticed, and yields larger tokens.
#[tokio::test]
async fn a_history_that_went_backwards_makes_a_generation() {
    let world = World::new().await;
    let client = world.client("client", MINUTE).await;
    let old = world.disk.durable();
    let mut last = client.take("r", "1").await;
    for id in ["2", "3"] {
        client.give_back(&last).await;
        last = client.take("r", id).await;
    }
    *world.disk.durable.lock().unwrap() = old;
    let (failure, _) = failed(world.store.ready().await);
    assert!(matches!(failure, Failure::HistoryRegressed));
    // The clock stands still, as on a machine that was restored together with its disk.
    world.clock.pass(Duration::from_micros(100));
    let hold = client.at(2).take("r", "4").await;
    assert_ne!(hold.generation, last.generation);
    assert!(hold.token() > last.token());
}

/// What a restart finds has its full time to live, and no longer.
#[tokio::test]
async fn sessions_live_on_after_a_restart() {
    let world = World::new().await;
    let client = world.client("client", 2 * LEAST_TTL).await;
    client.take("r", "1").await;
    world.clock.pass(LEAST_TTL);
    let world = World::on(world.disk.clone()).await;
    let client = client.through(&world.store);
    let session = client.caller.session;
    let left = world.store.time_left(session).await.unwrap();
    assert_eq!(left, 2 * LEAST_TTL);
    world.clock.pass(2 * LEAST_TTL);
    assert!(world.is_vacant("r").await);
}

/// I12, I13: a watcher that does not read costs a bounded memory, and knows what it missed.
#[tokio::test]
async fn a_slow_watcher_is_told_to_look_again() {
    let world = World::new().await;
    let client = world.client("client", MINUTE).await;
    let mut events = watching(&world).await;
    for number in 0..WATCH_BACKLOG {
        let hold = client.take("r", &number.to_string()).await;
        client.give_back(&hold).await;
    }
    assert_eq!(*events.next().await.unwrap().unwrap(), [Event::Resync]);
    let next = events.next().await.unwrap().unwrap();
    assert_ne!(*next, [Event::Resync]);
}

/// The task that ends sessions does not keep a store alive that nobody has any more.
#[tokio::test]
async fn a_store_that_is_dropped_leaves_no_task() {
    let world = World::new().await;
    world.client("client", MINUTE).await;
    let durable = Arc::downgrade(&world.disk.durable);
    let World {
        tasks, store, disk, ..
    } = world;
    drop((store, disk));
    // It is woken by the drop, though its clock stands still.
    while durable.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
    drop(tasks);
}

/// A place is left by a release that is repeated after an unknown outcome.
#[tokio::test]
async fn a_release_of_unknown_outcome_can_be_repeated() {
    let world = World::new().await;
    let holder = world.client("holder", MINUTE).await;
    let waiter = world.client("waiter", MINUTE).await;
    let hold = holder.take("r", "1").await;
    waiter.queue("r", "1").await;
    world.disk.turn(Mood::Mute);
    let name = HoldName::Request(RequestId::new("1").unwrap());
    failed(holder.release("r", name.clone()).await);
    world.disk.turn(Mood::Well);
    let again = holder.at(2).retrying().release("r", name).await;
    assert!(matches!(again, Ok(crate::domain::Released::NotHeld(None))));
    match waiter.standing("r", "1").await {
        Some(Acquired::Held(next)) => assert!(next.token() > hold.token()),
        other => panic!("{other:?}"),
    }
}
