//! What `palisade run` is for: when the resource can be granted to another, nobody of the command's process group is
//! alive. Fifty rounds, in which the network, a coordinator, `palisade run` and its guardian are broken.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a grant and a death are compared on the machine's one wall clock, and the time between is told"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use palisade_client::{AcquireOptions, Client, Lease, Session, SessionOptions};
use palisade_test_support::{Coordinator, Etcd, Proxy, eventually};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::{JoinSet, LocalSet};

use crate::groups::{self, SOON, members};
use crate::program::{Running, palisade};

/// The least that a coordinator grants.
const TTL: &str = "5s";
/// For the whole of a round on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
/// Leader, two children, and one of theirs, at least.
const MEMBERS: usize = 4;

/// Ends when it is told to.
const POLITE: &str = "sleep 1000 & (sleep 1000; true) & echo $$; wait";
/// All of it ignores SIGTERM.
const STUBBORN: &str = "trap '' TERM; sleep 1000 & (sleep 1000; true) & echo $$; \
                        while :; do sleep 1000; done";

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    NetworkCut,
    NetworkSilent,
    CoordinatorFrozen,
    RunKilled,
    RunStopped,
    GuardianKilled,
}

/// How `palisade run` must end; none where it is killed.
fn code_after(fault: Fault) -> Option<i32> {
    match fault {
        Fault::RunKilled => None,
        Fault::GuardianKilled => Some(1),
        _ => Some(70),
    }
}

struct Place {
    /// Its holders are cut off from it.
    frozen: Coordinator,
    other: Coordinator,
    client: Client,
}

impl Place {
    async fn start(etcd: &Etcd) -> Self {
        let start = || Coordinator::builder().etcd(&etcd.endpoints()).start();
        let (frozen, other) = (start().await.unwrap(), start().await.unwrap());
        let client = Client::connect(other.addr()).unwrap();
        Self {
            frozen,
            other,
            client,
        }
    }
}

/// A held resource, a waiter for it, and everything that can be broken.
struct Round {
    name: String,
    fault: Fault,
    /// None once it has ended.
    run: Option<Running>,
    id: i32,
    group: i32,
    guardian: i32,
    proxy: Proxy,
    waiter: Session,
    client: Client,
}

impl Round {
    async fn prepare(place: &Place, number: usize, fault: Fault, script: &str) -> Self {
        let name = format!("round-{number}");
        let server = match fault {
            Fault::CoordinatorFrozen => &place.frozen,
            _ => &place.other,
        };
        let proxy = Proxy::start(&server.host_port()).await.unwrap();
        let mut command: Command =
            palisade(&["run", &name, "--ttl", TTL, "--", "sh", "-c", script]);
        command
            .env("PALISADE_ADDR", proxy.url())
            .stdin(Stdio::null());
        let mut run = Running::start(command);
        let group = tokio::task::block_in_place(|| run.line()).parse().unwrap();
        let started = async || members(group).len() >= MEMBERS;
        eventually("the whole group", SOON, started).await.unwrap();
        let id = run.id();
        let ttl = SessionOptions::default().ttl(Duration::from_secs(30));
        Self {
            guardian: groups::guardian_of(id),
            waiter: place.client.open_session(ttl).await.unwrap(),
            client: place.client.clone(),
            name,
            fault,
            run: Some(run),
            id,
            group,
            proxy,
        }
    }

    async fn break_it(&self) {
        match self.fault {
            Fault::NetworkCut => self.proxy.cut().await.unwrap(),
            Fault::NetworkSilent => self.proxy.blackhole(),
            // All of those at once, by whoever has it.
            Fault::CoordinatorFrozen => {}
            Fault::RunKilled => kill(self.id, Signal::KILL),
            Fault::RunStopped => kill(self.id, Signal::STOP),
            Fault::GuardianKilled => kill(self.guardian, Signal::KILL),
        }
    }

    /// Waits in the queue; nobody of the group may be alive when it is granted.
    async fn wait(&self) -> Lease {
        let wanted = AcquireOptions::default().wait(LIMIT);
        let resource = self.name.parse().unwrap();
        let lease = self.waiter.acquire(&resource, wanted).await.unwrap();
        let alive = members(self.group);
        assert!(
            alive.is_empty(),
            "{} {:?}: {alive:?}",
            self.name,
            self.fault
        );
        lease
    }

    async fn is_queued(&self) {
        let resource = self.name.parse().unwrap();
        let queued = async || self.client.get_lease(&resource, 0).await.unwrap().waiters == 1;
        eventually("a place in the queue", SOON, queued)
            .await
            .unwrap();
    }

    /// When somebody of those who were there at the fault was last seen alive, and when first nobody.
    async fn death(&self) -> (i64, i64) {
        let there: Vec<_> = members(self.group).iter().map(|one| one.pid).collect();
        let mut alive = unix_ms();
        let dead = async || {
            let now = unix_ms();
            let is_alive = there.iter().any(|pid| groups::lives(*pid));
            if is_alive {
                alive = now;
            }
            !is_alive
        };
        eventually("the death of the group", LIMIT, dead)
            .await
            .unwrap();
        (alive, unix_ms())
    }

    /// How many milliseconds lie between the last death and the grant, where the lease ran out; a release comes
    /// when its holder knows of the death.
    async fn go(mut self) -> Option<i64> {
        let what = format!("{} {:?}", self.name, self.fault);
        let (grant, death, ()) = tokio::join!(self.wait(), self.death(), async {
            self.is_queued().await;
            self.break_it().await;
        });
        let (lease, (alive, dead)) = (grant, death);
        let granted = lease.info().granted_unix_ms;
        eprintln!("{what}: {} ms to spare", granted - dead);
        assert!(
            alive <= granted,
            "{what}: alive {} ms after the grant",
            alive - granted
        );
        drop(lease);
        if self.fault == Fault::RunStopped {
            kill(self.id, Signal::CONT);
        }
        let ended = self.run.take().unwrap().ends_within(LIMIT).await;
        assert_eq!(ended.code, code_after(self.fault), "{what}: {ended:?}");
        groups::is_gone(self.guardian).await;
        (self.fault != Fault::GuardianKilled).then_some(granted - dead)
    }
}

impl Drop for Round {
    /// What failed must not leave anything behind, nor wait for what is frozen.
    fn drop(&mut self) {
        if self.run.is_some() {
            for one in members(self.group) {
                kill(one.pid, Signal::KILL);
            }
            kill(self.id, Signal::CONT);
        }
    }
}

fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

/// Rounds that go on together; those of a frozen coordinator are of one freeze.
async fn batch(place: &mut Place, faults: &[(usize, Fault, &'static str)]) -> Vec<Option<i64>> {
    let mut rounds = Vec::new();
    for (number, fault, script) in faults {
        rounds.push(Round::prepare(place, *number, *fault, script).await);
    }
    let freezes = faults
        .iter()
        .any(|(_, fault, _)| *fault == Fault::CoordinatorFrozen);
    let mut going = JoinSet::new();
    let mut spare = Vec::new();
    let all = async {
        for round in rounds {
            going.spawn_local(round.go());
        }
        if freezes {
            place.frozen.pause().unwrap();
        }
        while let Some(done) = going.join_next().await {
            spare.push(done.unwrap());
        }
    };
    LocalSet::new().run_until(all).await;
    if freezes {
        place.frozen.resume().unwrap();
    }
    spare
}

/// The rounds of one batch: each fault with a polite group and with a stubborn one.
const FAULTS: [(Fault, &str); 10] = [
    (Fault::NetworkCut, POLITE),
    (Fault::NetworkSilent, STUBBORN),
    (Fault::CoordinatorFrozen, POLITE),
    (Fault::CoordinatorFrozen, STUBBORN),
    (Fault::RunKilled, POLITE),
    (Fault::RunKilled, STUBBORN),
    (Fault::RunStopped, POLITE),
    (Fault::RunStopped, STUBBORN),
    (Fault::GuardianKilled, STUBBORN),
    (Fault::NetworkCut, STUBBORN),
];
const BATCHES: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_of_the_group_lives_when_another_is_granted_the_resource() {
    let etcd = Etcd::start().await.unwrap();
    let mut place = Place::start(&etcd).await;
    let mut spare = Vec::new();
    for number in 0..BATCHES {
        let faults = FAULTS.iter().enumerate();
        let faults: Vec<_> = faults
            .map(|(at, (fault, script))| (number * FAULTS.len() + at, *fault, *script))
            .collect();
        spare.extend(batch(&mut place, &faults).await);
    }
    assert_eq!(spare.len(), BATCHES * FAULTS.len());
    let mut spare: Vec<_> = spare.into_iter().flatten().collect();
    spare.sort_unstable();
    let (least, median) = (spare[0], spare[spare.len() / 2]);
    eprintln!(
        "{} leases ran out: least {least} ms, median {median} ms to spare",
        spare.len()
    );
}
