//! True time, the clocks that hosts have, and the doors that shut while a host stands still.
#![allow(
    clippy::disallowed_methods,
    reason = "this is where time and tasks of the simulation come from"
)]

use std::future::{Future, pending};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use palisade_coordinator::domain::WallClock;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dice::Dice;
use crate::history::{At, Recorder};

/// What all wall clocks are about: some time after the build.
const EPOCH: u64 = WallClock::BUILT.0 + 30 * WallClock::DAY_MICROS;

/// The longest that timers come late after a suspend: what they sleep at a time.
const SLICE_MILLIS: u64 = 250;

/// True time. No host sees it.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    origin: Instant,
    recorder: Recorder,
}

impl Truth {
    /// It begins now.
    pub(crate) fn new(recorder: Recorder) -> Self {
        let origin = Instant::now();
        Self { origin, recorder }
    }

    /// Now; what is recorded from here on is recorded as of now.
    pub(crate) fn now(&self) -> At {
        let now = At(u64::try_from(self.origin.elapsed().as_micros()).unwrap());
        self.recorder.set_now(now);
        now
    }

    /// The moment as timers have it.
    pub(crate) fn instant(&self, at: At) -> Instant {
        self.origin + Duration::from_micros(at.0)
    }

    /// Waits until then.
    pub(crate) async fn until(&self, at: At) {
        if self.now() < at {
            tokio::time::sleep_until(self.instant(at)).await;
            self.now();
        }
    }

    /// Waits.
    pub(crate) async fn sleep(&self, wait: Duration) {
        self.until(self.now().after(wait)).await;
    }

    /// Starts something that no host's fate touches.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        tokio::spawn(work)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Shut,
    /// For good.
    Gone,
}

/// Tells that something is otherwise than before, to all who wait for it in the order in which they came. (Those of
/// `tokio::sync::watch` are woken in an order that no seed decides.)
#[derive(Debug, Default)]
pub(crate) struct Bell(Notify);

impl Bell {
    pub(crate) fn tell(&self) {
        self.0.notify_waiters();
    }

    /// Waits until this is so; it can only become so when it is told.
    pub(crate) async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let told = self.0.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if is_so() {
                return;
            }
            told.await;
        }
    }
}

/// What a process comes and goes through: while it stands still nothing gets in or out, and once it is gone
/// nothing ever does.
#[derive(Debug)]
pub(crate) struct Gate {
    door: Mutex<Door>,
    turned: Bell,
    /// Timers do not fire before: they come late after a suspend.
    timers_from: AtomicU64,
}

impl Gate {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            door: Mutex::new(Door::Open),
            turned: Bell::default(),
            timers_from: AtomicU64::new(0),
        })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.door() == Door::Open
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.door() == Door::Gone
    }

    fn is_shut(&self) -> bool {
        self.door() == Door::Shut
    }

    fn door(&self) -> Door {
        *self.door.lock().unwrap()
    }

    fn turn(&self, to: Door) {
        {
            let mut door = self.door.lock().unwrap();
            if *door == Door::Gone || *door == to {
                return;
            }
            *door = to;
        }
        self.turned.tell();
    }

    pub(crate) fn shut(&self) {
        self.turn(Door::Shut);
    }

    pub(crate) fn reopen(&self) {
        self.turn(Door::Open);
    }

    /// After a suspend: timers that were due meanwhile come a little later.
    pub(crate) fn wake(&self, now: At, dice: &mut Dice) {
        let late = now.after(dice.millis(0, SLICE_MILLIS));
        self.timers_from.store(late.0, Ordering::Relaxed);
        self.reopen();
    }

    pub(crate) fn ruin(&self) {
        self.turn(Door::Gone);
    }

    /// Waits until the process goes on; for ever once it is gone.
    pub(crate) async fn pass(&self) {
        if self.is_open() {
            return;
        }
        self.turned.until(|| !self.is_shut()).await;
        if self.is_gone() {
            pending().await
        }
    }
}

/// How a machine's clocks run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Skew {
    /// What the monotonic clock shows at the beginning, in microseconds.
    pub(crate) origin: u64,
    /// By how many millionths it runs too fast.
    pub(crate) fast_ppm: i64,
    /// By how much its wall clock is ahead, in microseconds.
    pub(crate) wall_ahead: i64,
}

impl Skew {
    pub(crate) fn none() -> Self {
        Self {
            origin: 0,
            fast_ppm: 0,
            wall_ahead: 0,
        }
    }

    fn shown(self, at: At) -> u64 {
        let drift = i128::from(at.0) * i128::from(self.fast_ppm) / 1_000_000;
        let shown = i128::from(self.origin) + i128::from(at.0) + drift;
        u64::try_from(shown).unwrap()
    }

    /// The first moment at which it shows as much.
    fn when(self, shown: u64) -> At {
        let wanted = i128::from(shown.saturating_sub(self.origin));
        let guess = wanted * 1_000_000 / (1_000_000 + i128::from(self.fast_ppm));
        let mut at = At(u64::try_from(guess)
            .unwrap_or(u64::MAX / 4)
            .min(u64::MAX / 4));
        while self.shown(at) < shown && at.0 < u64::MAX / 4 {
            at.0 += 1;
        }
        at
    }
}

/// The clocks of one machine, as one of its processes has them.
#[derive(Debug)]
pub(crate) struct HostClock {
    truth: Truth,
    gate: Arc<Gate>,
    skew: Skew,
    /// Whose wall clock is looked at, where that changes.
    wall_ahead: AtomicI64,
    /// Keeps what `now` showed: a clock never goes back.
    last: Mutex<u64>,
}

impl HostClock {
    pub(crate) fn new(truth: &Truth, gate: &Arc<Gate>, skew: Skew) -> Arc<Self> {
        Arc::new(Self {
            truth: truth.clone(),
            gate: Arc::clone(gate),
            skew,
            wall_ahead: AtomicI64::new(skew.wall_ahead),
            last: Mutex::new(0),
        })
    }

    /// Looks at another wall clock from now on.
    pub(crate) fn set_wall_ahead(&self, ahead: i64) {
        self.wall_ahead.store(ahead, Ordering::Relaxed);
    }

    fn shows(&self) -> Duration {
        let mut last = self.last.lock().unwrap();
        *last = self.skew.shown(self.truth.now()).max(*last);
        Duration::from_micros(*last)
    }

    async fn pause(truth: Truth, gate: Arc<Gate>, skew: Skew, due: u64) {
        truth.until(skew.when(due)).await;
        loop {
            gate.pass().await;
            let late = At(gate.timers_from.load(Ordering::Relaxed));
            if truth.now() >= late {
                return;
            }
            truth.until(late).await;
        }
    }

    fn due(&self, wait: Duration) -> u64 {
        let wait = u64::try_from(wait.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX / 4);
        self.skew.shown(self.truth.now()).saturating_add(wait)
    }
}

#[async_trait]
impl palisade_coordinator::clock::Clock for HostClock {
    fn now(&self) -> palisade_coordinator::clock::Moment {
        palisade_coordinator::clock::Moment(self.shows())
    }

    fn wall(&self) -> WallClock {
        let ahead = self.wall_ahead.load(Ordering::Relaxed);
        WallClock((EPOCH + self.truth.now().0).saturating_add_signed(ahead))
    }

    async fn sleep(&self, while_: Duration) {
        let gate = Arc::clone(&self.gate);
        Self::pause(self.truth.clone(), gate, self.skew, self.due(while_)).await;
    }
}

impl palisade_client::Clock for HostClock {
    fn now(&self) -> palisade_client::Moment {
        palisade_client::Moment(self.shows())
    }

    fn sleep(&self, while_: Duration) -> BoxFuture<'static, ()> {
        let gate = Arc::clone(&self.gate);
        let due = self.due(while_);
        Box::pin(Self::pause(self.truth.clone(), gate, self.skew, due))
    }
}
