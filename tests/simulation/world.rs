//! The world: coordinators, clients, a store and a guard, each with a clock of its own, on a network that fails.
//!
//! Everything runs on one thread, and time is what its timers make of it: a run takes as long as its events. Whatever a
//! process does with the world goes through a door of its own ([`time::Gate`]): while that is shut the process stands still.

mod coordinator;
pub(crate) mod dice;
mod etcd;
mod faults;
mod net;
mod reach;
mod time;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_coordinator::clock::Clock;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::coordinator::Coordinator;
use self::dice::Dice;
use self::etcd::Etcd;
use self::faults::Nemesis;
use self::net::Net;
use self::reach::{Odds, Ways};
use self::time::{Gate, HostClock, Skew, Truth};
use self::worker::{Surroundings, Worker};
use crate::history::{Census, History, Host, Phase, Recorder, Setting, What};
use crate::planted::Planted;
use crate::vault::Fenced;

pub(crate) use self::faults::Faults;
pub(crate) use self::net::Delays;
pub(crate) use self::reach::Odds as StoreOdds;

/// What is simulated.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// As the command that replays a history names it.
    pub(crate) name: &'static str,
    pub(crate) coordinators: u16,
    pub(crate) clients: u16,
    pub(crate) operators: u16,
    pub(crate) resources: u16,
    pub(crate) ttl: Duration,
    /// How long faults go on.
    pub(crate) faulty: Duration,
    /// How long everybody works on after that.
    pub(crate) healed: Duration,
    /// How much clocks drift apart at most, in millionths.
    pub(crate) drift_ppm: i64,
    /// How far wall clocks are apart at most.
    pub(crate) walls_apart: Duration,
    pub(crate) delays: Delays,
    pub(crate) odds: Odds,
    pub(crate) faults: Faults,
}

/// The longest wait that is asked for.
const LONGEST_WAIT: Duration = Duration::from_secs(12);
/// Within which time everybody who asks gets an answer once nothing fails any more: the wait, and the calls around it.
const ANSWER: Duration = Duration::from_secs(45);
/// The library tries a renewal at a third of the time to live, with jitter, and once more.
const RENEWALS_PER_TTL: u32 = 3;
/// Delays without faults.
const CALM: Delays = Delays {
    usual: 2,
    slow_one_in: 0,
    slow: 0,
};

/// A process of a client that may be alive.
struct Process {
    gate: Arc<Gate>,
    running: JoinHandle<()>,
    is_operator: bool,
}

/// All that there is.
pub(crate) struct World {
    config: Config,
    dice: Mutex<Dice>,
    truth: Truth,
    ways: Arc<Ways>,
    surroundings: Surroundings,
    planted: Arc<dyn Planted>,
    coordinators: Mutex<BTreeMap<u16, Coordinator>>,
    processes: Mutex<BTreeMap<u16, Process>>,
    next_client: Mutex<u16>,
    skews: Vec<Skew>,
}

/// Runs a history. Equal arguments give equal histories.
pub(crate) fn run(seed: u64, config: &Config, planted: Arc<dyn Planted>) -> History {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can always be made");
    let recorder = Recorder::default();
    runtime.block_on(async {
        let world = World::new(seed, config, planted, &recorder).await;
        world.play(seed).await;
    });
    drop(runtime);
    recorder.history(setting(seed, config))
}

fn setting(seed: u64, config: &Config) -> Setting {
    Setting {
        seed,
        configuration: config.name,
        ttl: config.ttl,
        renewal: config.ttl * 2 / RENEWALS_PER_TTL,
        answer: ANSWER,
        ..Setting::default()
    }
}

impl World {
    async fn new(
        seed: u64,
        config: &Config,
        planted: Arc<dyn Planted>,
        recorder: &Recorder,
    ) -> Arc<Self> {
        let mut dice = Dice::of(seed, config.name);
        let truth = Truth::new(recorder.clone());
        let net = Net::new(&truth, Dice::of(seed, "net"), config.delays);
        let skews: Vec<Skew> = (0..config.coordinators)
            .map(|_| skew(config, &mut dice))
            .collect();
        // A restored store's generation is made by no slower a clock than those before.
        let ahead = skews.iter().map(|skew| skew.wall_ahead).max();
        let ahead = ahead.unwrap_or_default();
        let etcd = Etcd::start(&truth, recorder, &planted, (Dice::of(seed, "etcd"), ahead)).await;
        let ways = Arc::new(Ways {
            truth: truth.clone(),
            net: Arc::clone(&net),
            etcd,
            recorder: recorder.clone(),
            odds: Mutex::new(config.odds),
            calm: CancellationToken::new(),
        });
        let guard_clock: Arc<dyn Clock> = HostClock::new(&truth, &Gate::new(), Skew::none());
        let vault = planted.vault(Fenced::new(guard_clock, recorder.clone()), recorder);
        let resources = (0..config.resources).map(|number| {
            let name = format!("r{number}");
            name.parse().expect("a name")
        });
        let surroundings = Surroundings {
            truth: truth.clone(),
            net,
            recorder: recorder.clone(),
            vault,
            planted: Arc::clone(&planted),
            coordinators: config.coordinators,
            resources: resources.collect(),
            ttl: config.ttl,
            longest_wait: LONGEST_WAIT,
            quiet: CancellationToken::new(),
        };
        Arc::new(Self {
            config: config.clone(),
            dice: Mutex::new(dice),
            truth,
            ways,
            surroundings,
            planted,
            coordinators: Mutex::default(),
            processes: Mutex::default(),
            next_client: Mutex::new(0),
            skews,
        })
    }

    fn fork(&self) -> Dice {
        Dice::new(self.dice.lock().unwrap().roll())
    }

    fn note(&self, what: What) {
        self.truth.now();
        self.ways.recorder.note(what);
    }

    fn start_coordinator(&self, number: u16) {
        let skew = self.skews[usize::from(number)];
        let started = Coordinator::start(&self.ways, &self.planted, (number, skew), self.fork());
        let before = self.coordinators.lock().unwrap().insert(number, started);
        assert!(before.is_none(), "one process of a coordinator at a time");
    }

    fn start_process(&self, is_operator: bool) -> u16 {
        let number = {
            let mut next = self.next_client.lock().unwrap();
            *next += 1;
            *next - 1
        };
        let mut dice = self.fork();
        let (gate, skew) = (Gate::new(), skew(&self.config, &mut dice));
        let world = self.surroundings.clone();
        let worker = Worker::new(world, (number, &gate, skew), is_operator, dice);
        let process = Process {
            gate,
            running: self.truth.spawn(worker.live()),
            is_operator,
        };
        self.processes.lock().unwrap().insert(number, process);
        number
    }

    async fn play(self: Arc<Self>, seed: u64) {
        for number in 0..self.config.coordinators {
            self.start_coordinator(number);
        }
        for _client in 0..self.config.clients {
            self.start_process(false);
        }
        for _operator in 0..self.config.operators {
            self.start_process(true);
        }
        let nemesis = Nemesis::new(Arc::clone(&self), Dice::of(seed, "faults"));
        nemesis.rage().await;
        *self.ways.odds.lock().unwrap() = Odds::default();
        self.ways.net.set_delays(CALM);
        self.ways.calm.cancel();
        self.truth.sleep(Duration::from_millis(20)).await;
        self.note(What::Phase(Phase::FaultsEnd));
        self.truth.sleep(self.config.healed).await;
        self.surroundings.quiet.cancel();
        let end = self.truth.now().after(ANSWER * 2);
        while self.truth.now() < end && self.some_work() {
            self.truth.sleep(Duration::from_millis(100)).await;
        }
        self.join().await;
        self.truth.sleep(self.config.ttl * 2).await;
        self.note(What::Phase(Phase::Quiet));
        let census = self.census().await;
        self.note(What::Census(census));
    }

    fn some_work(&self) -> bool {
        let processes = self.processes.lock().unwrap();
        processes
            .values()
            .any(|process| !process.running.is_finished())
    }

    /// Whoever has not ended now is left alone: what they were not told is in the history.
    async fn join(&self) {
        let processes = std::mem::take(&mut *self.processes.lock().unwrap());
        for (_, process) in processes {
            if process.running.is_finished()
                && let Err(error) = process.running.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    async fn census(&self) -> Census {
        let kept = self.ways.etcd.kept().await.unwrap_or_default();
        let left = crate::history::Kept::of(&kept);
        let coordinators = self.coordinators.lock().unwrap();
        Census {
            sessions: u64::try_from(left.sessions.len()).unwrap(),
            leases: left
                .holds
                .into_iter()
                .map(|hold| (hold.resource, hold.token))
                .collect(),
            places: u64::try_from(left.places.len()).unwrap(),
            streams: coordinators.values().map(Coordinator::streams).sum(),
            ..Census::default()
        }
    }

    fn client_hosts(&self) -> Vec<Host> {
        let processes = self.processes.lock().unwrap();
        processes
            .keys()
            .map(|number| Host::Client(*number))
            .collect()
    }
}

/// How the clocks of one machine run.
fn skew(config: &Config, dice: &mut Dice) -> Skew {
    let spread = u64::try_from(config.drift_ppm).unwrap();
    let fast_ppm = i64::try_from(dice.between(0, 2 * spread)).unwrap() - config.drift_ppm;
    let apart = u64::try_from(config.walls_apart.as_micros()).unwrap();
    Skew {
        origin: dice.below(1 << 40),
        fast_ppm,
        wall_ahead: i64::try_from(dice.between(0, apart)).unwrap(),
    }
}
