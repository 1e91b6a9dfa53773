//! What goes wrong with hosts and links, and when; afterwards all is healed.

use std::sync::Arc;
use std::time::Duration;

use palisade_coordinator::domain::Ledger;

use super::World;
use super::dice::Dice;
use super::time::Gate;
use crate::history::{Fault, Host, What};

/// How often what goes wrong, by weight, and how long it lasts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults {
    /// The time from one fault to the next, in milliseconds, at most.
    pub(crate) every: u64,
    /// A link is cut, in one direction or in both.
    pub(crate) cuts: u64,
    /// A host is cut off from all others.
    pub(crate) islands: u64,
    /// Connections are reset.
    pub(crate) resets: u64,
    /// A process ends at once, and is started again later.
    pub(crate) crashes: u64,
    /// A process stands still.
    pub(crate) pauses: u64,
    /// A machine stands still.
    pub(crate) suspends: u64,
    /// The store is started again.
    pub(crate) store_restarts: u64,
    /// The store is put back to an older point.
    pub(crate) restores: u64,
    /// Many processes of clients end at once.
    pub(crate) disasters: u64,
    /// A fault lasts so long at most, in milliseconds.
    pub(crate) longest: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Cut,
    Island,
    Reset,
    Crash,
    Pause,
    Suspend,
    StoreRestart,
    Restore,
    Disaster,
}

/// What makes things go wrong.
pub(crate) struct Nemesis {
    world: Arc<World>,
    dice: Dice,
    /// What the store kept some time ago.
    backup: Option<Ledger>,
    running: Vec<tokio::task::JoinHandle<()>>,
}

impl Nemesis {
    pub(crate) fn new(world: Arc<World>, dice: Dice) -> Self {
        Self {
            world,
            dice,
            backup: None,
            running: Vec::new(),
        }
    }

    /// For as long as the configuration says; then all is as it should be.
    pub(crate) async fn rage(mut self) {
        let world = Arc::clone(&self.world);
        let end = world.truth.now().after(world.config.faulty);
        let every = world.config.faults.every;
        while every > 0 && world.truth.now() < end {
            let pause = self.dice.millis(1, every);
            world
                .truth
                .until(world.truth.now().after(pause).min(end))
                .await;
            if world.truth.now() < end {
                self.one(world.truth.now().until(end)).await;
            }
        }
        world.truth.until(end).await;
        for undoing in self.running {
            undoing.await.expect("undoing a fault does not panic");
        }
    }

    fn kind(&mut self) -> Option<Kind> {
        let faults = &self.world.config.faults;
        let kinds = [
            (faults.cuts, Kind::Cut),
            (faults.islands, Kind::Island),
            (faults.resets, Kind::Reset),
            (faults.crashes, Kind::Crash),
            (faults.pauses, Kind::Pause),
            (faults.suspends, Kind::Suspend),
            (faults.store_restarts, Kind::StoreRestart),
            (faults.restores, Kind::Restore),
            (faults.disasters, Kind::Disaster),
        ];
        let all: u64 = kinds.iter().map(|(weight, _)| weight).sum();
        let mut rest = self.dice.below(all);
        kinds.into_iter().find_map(|(weight, kind)| {
            let is_it = rest < weight;
            rest = rest.saturating_sub(weight);
            is_it.then_some(kind)
        })
    }

    /// How long a fault lasts: mostly short, and never beyond the end.
    fn lasts(&mut self, left: Duration) -> Duration {
        let longest = self.world.config.faults.longest;
        let ttl = u64::try_from(self.world.config.ttl.as_millis()).unwrap();
        let lasts = match self.dice.below(4) {
            0 => self.dice.millis(1, 300),
            1 => self.dice.millis(1, longest.min(3_000)),
            // About when a session ends.
            2 => self.dice.millis(ttl.saturating_sub(400), ttl + 600),
            _ => self.dice.millis(1, longest),
        };
        lasts.min(left)
    }

    fn any_client(&mut self) -> Option<Host> {
        let clients = self.world.client_hosts();
        (!clients.is_empty()).then(|| self.dice.any_of(&clients))
    }

    fn any_coordinator(&mut self) -> Host {
        let count = u64::from(self.world.config.coordinators);
        Host::Coordinator(u16::try_from(self.dice.below(count)).unwrap())
    }

    fn any_process(&mut self) -> Option<Host> {
        if self.dice.one_in(2) {
            return Some(self.any_coordinator());
        }
        self.any_client()
    }

    async fn one(&mut self, left: Duration) {
        let Some(kind) = self.kind() else { return };
        let lasts = self.lasts(left);
        match kind {
            Kind::Cut => self.cut(lasts),
            Kind::Island => self.island(lasts),
            Kind::Reset => {
                if let Some(client) = self.any_client() {
                    let coordinator = self.any_coordinator();
                    self.world.ways.net.reset(client, coordinator);
                }
            }
            Kind::Crash => {
                if let Some(host) = self.any_process() {
                    self.crash(host, lasts).await;
                }
            }
            Kind::Pause => self.pause(lasts, false),
            Kind::Suspend => self.pause(lasts, true),
            Kind::StoreRestart => self.store_restart(lasts),
            Kind::Restore => self.restore(lasts).await,
            Kind::Disaster => {
                for client in self.world.client_hosts() {
                    if self.dice.one_in(2) {
                        self.crash(client, lasts).await;
                    }
                }
            }
        }
    }

    fn cut(&mut self, lasts: Duration) {
        let coordinator = self.any_coordinator();
        let other = match self.dice.below(3) {
            0 => Host::Store,
            1 => {
                let Some(client) = self.any_client() else {
                    return;
                };
                // Not every process works by way of coordinators alone.
                if self.dice.one_in(4) {
                    self.links(vec![(client, Host::Guard), (Host::Guard, client)], lasts);
                    return;
                }
                client
            }
            _ => match self.any_client() {
                Some(client) => client,
                None => return,
            },
        };
        let links = match self.dice.below(4) {
            0 => vec![(coordinator, other)],
            1 => vec![(other, coordinator)],
            _ => vec![(coordinator, other), (other, coordinator)],
        };
        self.links(links, lasts);
    }

    fn island(&mut self, lasts: Duration) {
        let Some(host) = self.any_process() else {
            return;
        };
        let mut others = vec![Host::Store, Host::Guard];
        others.extend((0..self.world.config.coordinators).map(Host::Coordinator));
        others.extend(self.world.client_hosts());
        let links = others.into_iter().filter(|other| *other != host);
        let links = links.flat_map(|other| [(host, other), (other, host)]);
        self.links(links.collect(), lasts);
    }

    fn links(&mut self, links: Vec<(Host, Host)>, lasts: Duration) {
        let world = Arc::clone(&self.world);
        for (from, to) in &links {
            world.note(What::Fault(Fault::Cut(*from, *to)));
            world.ways.net.cut(*from, *to);
        }
        let undoing = world.truth.clone().spawn(async move {
            world.truth.sleep(lasts).await;
            for (from, to) in links {
                world.note(What::Fault(Fault::Heal(from, to)));
                world.ways.net.heal(from, to);
            }
        });
        self.running.push(undoing);
    }

    fn gate(&self, host: Host) -> Option<Arc<Gate>> {
        match host {
            Host::Client(number) => {
                let processes = self.world.processes.lock().unwrap();
                processes
                    .get(&number)
                    .map(|process| Arc::clone(&process.gate))
            }
            Host::Coordinator(number) => {
                let coordinators = self.world.coordinators.lock().unwrap();
                coordinators
                    .get(&number)
                    .map(|coordinator| Arc::clone(&coordinator.gate))
            }
            Host::Store | Host::Guard => None,
        }
    }

    fn pause(&mut self, lasts: Duration, is_suspend: bool) {
        let Some(host) = self.any_process() else {
            return;
        };
        let Some(gate) = self.gate(host) else { return };
        if !gate.is_open() {
            return;
        }
        let begin = [Fault::Pause(host), Fault::Suspend(host)][usize::from(is_suspend)];
        let end = [Fault::Resume(host), Fault::Wake(host)][usize::from(is_suspend)];
        let world = Arc::clone(&self.world);
        world.note(What::Fault(begin));
        gate.shut();
        let mut dice = Dice::new(self.dice.roll());
        let undoing = world.truth.clone().spawn(async move {
            world.truth.sleep(lasts).await;
            if gate.is_gone() {
                return;
            }
            world.note(What::Fault(end));
            match is_suspend {
                true => gate.wake(world.truth.now(), &mut dice),
                false => gate.reopen(),
            }
            world.ways.net.stir();
        });
        self.running.push(undoing);
    }

    async fn crash(&mut self, host: Host, lasts: Duration) {
        let world = Arc::clone(&self.world);
        match host {
            Host::Coordinator(number) => {
                let gone = world.coordinators.lock().unwrap().remove(&number);
                let Some(gone) = gone else { return };
                world.note(What::Fault(Fault::Crash(host)));
                gone.crash(&world.ways).await;
                let undoing = world.truth.clone().spawn(async move {
                    world.truth.sleep(lasts).await;
                    world.note(What::Fault(Fault::Restart(host)));
                    world.start_coordinator(number);
                });
                self.running.push(undoing);
            }
            Host::Client(number) => {
                let gone = world.processes.lock().unwrap().remove(&number);
                let Some(gone) = gone else { return };
                world.note(What::Fault(Fault::Crash(host)));
                gone.gate.ruin();
                world.ways.net.stir();
                gone.running.abort();
                let undoing = world.truth.clone().spawn(async move {
                    world.truth.sleep(lasts).await;
                    let number = world.start_process(gone.is_operator);
                    world.note(What::Fault(Fault::Restart(Host::Client(number))));
                });
                self.running.push(undoing);
            }
            Host::Store | Host::Guard => {}
        }
    }

    fn store_restart(&mut self, lasts: Duration) {
        let world = Arc::clone(&self.world);
        let away = lasts.min(Duration::from_secs(3));
        let undoing = world.truth.clone().spawn(async move {
            world.ways.etcd.restart(away).await;
        });
        self.running.push(undoing);
    }

    /// Takes a backup, or restores the one that was taken.
    async fn restore(&mut self, lasts: Duration) {
        let world = Arc::clone(&self.world);
        let backup = self.backup.take();
        if let Some(backup) = backup {
            let away = lasts.min(Duration::from_secs(3));
            let undoing = world.truth.clone().spawn(async move {
                world.ways.etcd.restore(backup, away).await;
            });
            self.running.push(undoing);
        } else {
            self.backup = world.ways.etcd.kept().await;
        }
    }
}
