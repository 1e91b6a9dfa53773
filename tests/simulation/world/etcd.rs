//! What keeps the coordinators' state: one store that all of them reach, that can be away, start again, and be put
//! back to an older point.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use palisade_coordinator::clock::Clock;
use palisade_coordinator::domain::{Change, Ledger, Revision};
use palisade_coordinator::entropy::Entropy;
use palisade_coordinator::store::Store;
use palisade_coordinator::store::memory::{Keep, MemoryStore};
use palisade_coordinator::tasks::Tasks;

use super::dice::{Chance, Dice};
use super::time::{Bell, Gate, HostClock, Skew, Truth};
use crate::history::{Decision, Fault, Host, Kept, Recorder, What};
use crate::planted::Planted;

/// Writes the log into the history.
#[derive(Debug)]
struct Scribe {
    planted: Arc<dyn Planted>,
    recorder: Recorder,
    restores: u32,
    /// It stops writing once another has taken its place.
    lives: Arc<AtomicBool>,
}

impl Keep for Scribe {
    fn keep(&mut self, before: &Ledger, revision: Revision, changes: &[Change]) -> Vec<Change> {
        if !self.lives.load(Ordering::Relaxed) {
            return changes.to_vec();
        }
        let kept = self.planted.kept(before, changes.to_vec());
        // Several sessions may have ended in one transaction: a lease that one of them inherited ends with it.
        let mut state = None;
        for change in &kept {
            let change = std::slice::from_ref(change);
            let decided = Decision::of(state.as_ref().unwrap_or(before), change);
            self.recorder.log(self.restores, revision, decided);
            if kept.len() > 1 {
                let state = state.get_or_insert_with(|| before.clone());
                drop(state.apply(revision, change));
            }
        }
        kept
    }
}

struct Running {
    store: Arc<MemoryStore>,
    tasks: Tasks,
    lives: Arc<AtomicBool>,
}

struct State {
    running: Option<Running>,
    restores: u32,
    /// How often it was started: what was sent to an earlier one reaches no later one.
    starts: u64,
}

/// The store, as a machine.
pub(crate) struct Etcd {
    truth: Truth,
    recorder: Recorder,
    planted: Arc<dyn Planted>,
    clock: Arc<HostClock>,
    lives_by: Arc<dyn Clock>,
    chance: Arc<Chance>,
    /// By how much the fastest wall clock is ahead. A restore makes its generation by it: clocks must not run backwards
    /// across one by more than it took (I3).
    fastest: i64,
    state: Mutex<State>,
    started: Bell,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Etcd").finish_non_exhaustive()
    }
}

impl Etcd {
    /// An empty one. The first generation is made by a wall clock that is so far ahead.
    pub(crate) async fn start(
        truth: &Truth,
        recorder: &Recorder,
        planted: &Arc<dyn Planted>,
        (dice, wall_ahead): (Dice, i64),
    ) -> Arc<Self> {
        let skew = Skew {
            wall_ahead,
            ..Skew::none()
        };
        let clock = HostClock::new(truth, &Gate::new(), skew);
        let lives_by = planted.store_clock(Arc::<HostClock>::clone(&clock));
        let etcd = Arc::new(Self {
            truth: truth.clone(),
            recorder: recorder.clone(),
            planted: Arc::clone(planted),
            clock,
            lives_by,
            chance: Arc::new(Chance::new(dice)),
            fastest: wall_ahead,
            state: Mutex::new(State {
                running: None,
                restores: 0,
                starts: 0,
            }),
            started: Bell::default(),
        });
        etcd.start_on(Ledger::default()).await;
        etcd
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn start_on(&self, ledger: Ledger) {
        let (tasks, lives) = (Tasks::default(), Arc::new(AtomicBool::new(true)));
        let scribe = Scribe {
            planted: Arc::clone(&self.planted),
            recorder: self.recorder.clone(),
            restores: self.state().restores,
            lives: Arc::clone(&lives),
        };
        let chance: Arc<dyn Entropy> = Arc::<Chance>::clone(&self.chance);
        let world = (Arc::clone(&self.lives_by), chance);
        let started = MemoryStore::start_on(ledger, Box::new(scribe), world, &tasks).await;
        let store = started.expect("nothing keeps a store in memory from starting");
        let mut state = self.state();
        state.starts += 1;
        state.running = Some(Running {
            store,
            tasks,
            lives,
        });
        drop(state);
        self.started.tell();
    }

    /// The store, if it runs, and which one it is.
    pub(crate) fn reached(&self) -> Option<(Arc<dyn Store>, u64)> {
        let state = self.state();
        let running = state.running.as_ref()?;
        let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(&running.store);
        Some((store, state.starts))
    }

    /// Whether this one still runs.
    pub(crate) fn still_runs(&self, start: u64) -> bool {
        let state = self.state();
        state.running.is_some() && state.starts == start
    }

    /// Ends once this one runs no more.
    pub(crate) async fn gone(&self, start: u64) {
        self.started.until(|| !self.still_runs(start)).await;
    }

    /// How often it was restored, for the history.
    pub(crate) fn restores(&self) -> u32 {
        self.state().restores
    }

    /// What is kept now.
    pub(crate) async fn kept(&self) -> Option<Ledger> {
        let store = {
            let state = self.state();
            Arc::clone(&state.running.as_ref()?.store)
        };
        Some(store.kept().await)
    }

    /// Whose wall clock the next generation is made by.
    pub(crate) fn use_wall(&self, ahead: i64) {
        self.clock.set_wall_ahead(ahead);
    }

    /// Ends it; answers what it kept.
    async fn stop(&self) -> Option<Ledger> {
        let kept = self.kept().await?;
        let running = self.state().running.take()?;
        running.lives.store(false, Ordering::Relaxed);
        let clock: Arc<dyn Clock> = Arc::<HostClock>::clone(&self.clock);
        running.tasks.stop(&clock, Duration::ZERO).await;
        self.started.tell();
        Some(kept)
    }

    /// It ends, and starts again after a while on what it has kept: sessions have their full time to live.
    pub(crate) async fn restart(&self, away: Duration) {
        let Some(kept) = self.stop().await else {
            return;
        };
        self.recorder.note(What::Fault(Fault::Crash(Host::Store)));
        self.truth.sleep(away).await;
        let kept = self.planted.after_crash(kept);
        self.recorder.note(What::Fault(Fault::Restart(Host::Store)));
        self.recorder.log(
            self.restores(),
            kept.revision(),
            vec![Decision::Restarted(Kept::of(&kept))],
        );
        self.start_on(kept).await;
    }

    /// It ends, and starts after a while as it was at an older point.
    pub(crate) async fn restore(&self, older: Ledger, away: Duration) {
        let Some(now) = self.stop().await else { return };
        self.truth.sleep(away).await;
        let older = self.planted.after_restore(&now, older);
        let restores = {
            let mut state = self.state();
            state.restores += 1;
            state.restores
        };
        let restored = Decision::Restored(Kept::of(&older));
        self.recorder
            .log(restores, older.revision(), vec![restored]);
        self.use_wall(self.fastest);
        self.start_on(older).await;
    }
}
