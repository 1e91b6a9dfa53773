//! Each planted bug is caught by the check of its invariant. A bug that is not caught within so many seeds means that
//! the check, or the world, does not look hard enough.

use std::sync::Arc;
use std::time::Duration;

use palisade_coordinator::store::Store;

use super::Planted;
use super::clocks::{Slow, Stopped};
use super::log::{GrantsWhatIsHeld, LosesTheLast, ServesTheLastFirst};
use super::store::{Flaw, Flawed};
use super::vault::{self, Careless};
use crate::history::Recorder;
use crate::invariants::violations;
use crate::vault::Vault;
use crate::world::{Config, Delays, Faults, StoreOdds, run};

/// Everything goes wrong now and then.
fn rough() -> Config {
    Config {
        name: "rough",
        coordinators: 2,
        clients: 5,
        operators: 1,
        resources: 2,
        ttl: Duration::from_secs(5),
        faulty: Duration::from_secs(60),
        healed: Duration::from_secs(20),
        drift_ppm: 200,
        walls_apart: Duration::from_millis(200),
        delays: Delays {
            usual: 5,
            slow_one_in: 50,
            slow: 800,
        },
        odds: StoreOdds {
            unheard: 10,
            late: 10,
            lost: 10,
            turned_away: 10,
            old_read: 20,
            late_news: 20,
            missed_news: 10,
            broken_watch: 2,
        },
        faults: Faults {
            every: 4_000,
            cuts: 4,
            islands: 3,
            resets: 3,
            crashes: 4,
            pauses: 4,
            suspends: 2,
            store_restarts: 2,
            restores: 2,
            disasters: 1,
            longest: 12_000,
        },
    }
}

/// Within how many seeds a bug is to be found.
const SEEDS: u64 = 12;

/// Runs histories with a bug until the check of its invariant finds it.
#[track_caller]
fn is_caught<P: Planted + 'static>(invariant: &str, config: &Config, bug: impl Fn() -> P) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let history = run(seed, config, Arc::new(bug()));
        for violation in violations(&history) {
            if violation.invariant.starts_with(invariant) {
                println!("seed {seed}: {violation}");
                return;
            }
            others.push(violation);
        }
    }
    panic!("{invariant} saw nothing in {SEEDS} seeds; others saw {others:#?}");
}

#[test]
fn a_log_that_grants_what_is_held() {
    is_caught("I1 ", &rough(), GrantsWhatIsHeld::default);
}

#[derive(Debug)]
struct BadVault(vault::Flaw);

impl Planted for BadVault {
    fn vault(&self, _vault: Arc<dyn Vault>, recorder: &Recorder) -> Arc<dyn Vault> {
        Careless::new(self.0, recorder)
    }
}

#[test]
fn a_guard_that_lets_every_write_in() {
    is_caught("I2 ", &rough(), || BadVault(vault::Flaw::LooksAway));
}

#[derive(Debug)]
struct StoppedWall;

impl Planted for StoppedWall {
    fn store_clock(
        &self,
        inner: Arc<dyn palisade_coordinator::clock::Clock>,
    ) -> Arc<dyn palisade_coordinator::clock::Clock> {
        let wall = inner.wall();
        Arc::new(Stopped { wall, inner })
    }
}

#[test]
fn a_generation_after_a_restore_that_no_clock_puts_ahead() {
    is_caught("I3 ", &rough(), || StoppedWall);
}

#[derive(Debug)]
struct BadStore(Flaw);

impl Planted for BadStore {
    fn store(&self, store: Arc<dyn Store>, _recorder: &Recorder) -> Arc<dyn Store> {
        Flawed::new(self.0, store)
    }
}

#[test]
fn a_delayed_copy_under_a_mark_that_nobody_compares() {
    is_caught("I4 ", &rough(), || BadStore(Flaw::IgnoresTheMark));
}

#[test]
fn orphans_that_nobody_looks_for() {
    is_caught("I5 ", &rough(), || BadStore(Flaw::ForgetsHoldings));
}

#[derive(Debug)]
struct SlowStore;

impl Planted for SlowStore {
    fn store_clock(
        &self,
        inner: Arc<dyn palisade_coordinator::clock::Clock>,
    ) -> Arc<dyn palisade_coordinator::clock::Clock> {
        let permille = 300;
        Arc::new(Slow { permille, inner })
    }
}

#[test]
fn sessions_that_end_far_too_late() {
    is_caught("I6 ", &rough(), || SlowStore);
}

#[test]
fn acknowledged_writes_that_a_crash_takes_with_it() {
    is_caught("I7 ", &rough(), LosesTheLast::default);
}

#[derive(Debug)]
struct SlowClient;

impl Planted for SlowClient {
    fn client_clock(
        &self,
        inner: Arc<dyn palisade_client::Clock>,
    ) -> Arc<dyn palisade_client::Clock> {
        let permille = 200;
        Arc::new(Slow { permille, inner })
    }
}

#[test]
fn a_client_whose_clock_is_slower_than_it_knows() {
    let mut often_cut = rough();
    often_cut.faults.every = 1_500;
    often_cut.faults.islands = 20;
    is_caught("I8 ", &often_cut, || SlowClient);
}

#[test]
fn a_store_that_grants_when_it_cannot_know() {
    is_caught("I9 ", &rough(), || BadStore(Flaw::FailsOpen));
}

#[test]
fn a_release_that_is_acknowledged_and_not_done() {
    is_caught("I10", &rough(), || BadStore(Flaw::OnlySaysReleased));
}

#[test]
fn a_queue_that_serves_the_last_first() {
    is_caught("I11", &rough(), ServesTheLastFirst::default);
}

#[test]
fn a_refusal_that_makes_the_next_one_fail() {
    is_caught("I12", &rough(), || BadStore(Flaw::RefusesTheNext));
}

#[test]
fn a_session_that_is_never_closed() {
    is_caught("I13", &rough(), || BadStore(Flaw::NeverCloses));
}

#[test]
fn keys_of_effects_that_a_takeover_forgets() {
    is_caught("I14", &rough(), || BadVault(vault::Flaw::ForgetsKeys));
}
