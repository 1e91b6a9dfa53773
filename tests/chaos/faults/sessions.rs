//! Holders that die, alone and by the thousand (I6).

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use palisade_client::{
    AcquireOptions, Client, Credentials, Moment, Session, SessionOptions, Transport,
};
use palisade_test_support::{Coordinator, Etcd, EtcdCluster, within};
use palisade_token::ResourceName;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::common::{LIMIT, now, rounds, spawn};
use crate::report::Row;

const TTL: Duration = Duration::from_secs(5);
/// What I6 allows beyond the TTL.
const BEYOND: Duration = Duration::from_secs(1);
/// What a machine with too few processors takes, with other tests beside this one.
const SLACK: Duration = Duration::from_secs(4);
/// What etcd ends in a second.
const ENDED_A_SECOND: f64 = 1000.0;

async fn served() -> (EtcdCluster, Coordinator) {
    let etcd = Etcd::builder().start_cluster(1).await.unwrap();
    let coordinator = Coordinator::builder().etcd(&etcd.endpoints());
    let coordinator = coordinator.start().await.unwrap();
    (etcd, coordinator)
}

fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

async fn open(client: &Client, ttl: Duration) -> Session {
    let options = SessionOptions::default().ttl(ttl);
    client.open_session(options).await.unwrap()
}

/// A process that holds `r`, and its end.
async fn holder_is_killed(coordinator: &Coordinator) -> (i64, Moment) {
    let ttl = TTL.as_secs().to_string();
    // It never speaks to a database.
    let args = [
        &*coordinator.addr(),
        "postgres://nobody",
        "r",
        "none",
        "unguarded",
        &ttl,
    ];
    let mut holder = Command::new(env!("CARGO_BIN_EXE_scenario-worker"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut commands = holder.stdin.take().unwrap();
    let mut answers = BufReader::new(holder.stdout.take().unwrap()).lines();
    commands.write_all(b"lead\n").await.unwrap();
    let answer = within("it leads", LIMIT, answers.next_line()).await;
    let answer = answer.unwrap().unwrap().unwrap();
    let token = answer.strip_prefix("leading ").unwrap().parse().unwrap();
    holder.kill().await.unwrap();
    (token, now())
}

/// F2: kill -9; a waiter gets it within the TTL and a second, with a greater token.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_holders_resource_is_granted_again_in_time() {
    let (_etcd, coordinator) = served().await;
    let client = Client::connect(coordinator.addr()).unwrap();
    let session = open(&client, TTL).await;
    let mut recovery = Vec::new();
    for _ in 0..rounds(1, 10) {
        let (token, killed) = holder_is_killed(&coordinator).await;
        let options = AcquireOptions::default().wait(LIMIT);
        let lease = session.acquire(&name("r"), options).await.unwrap();
        let took = killed.until(now());
        assert!(lease.token().as_i64() > token, "I3");
        assert!(took < TTL + BEYOND + SLACK, "I6: it took {took:?}");
        recovery.push(took);
        lease.release().await.unwrap();
    }
    Row {
        fault: "F2",
        test: "faults::sessions::a_killed_holders_resource_is_granted_again_in_time",
        operations: u64::try_from(recovery.len()).unwrap() * 3,
        unknown: 0,
        violations: 0,
        recovery,
    }
    .write();
}

/// One that will die, and when it was heard of last.
struct Dying {
    resource: ResourceName,
    credentials: Credentials,
    renewed: Moment,
}

async fn dies_later(client: &Client, number: usize) -> Dying {
    let session = open(client, mass_ttl()).await;
    let resource = name(&format!("mass/{number}"));
    let lease = session.acquire(&resource, AcquireOptions::default());
    let lease = lease.await.unwrap();
    let renewed = now();
    let credentials = session.detach().unwrap();
    drop(lease);
    Dying {
        resource,
        credentials,
        renewed,
    }
}

/// So long that none ends before all are there.
fn mass_ttl() -> Duration {
    Duration::from_secs(u64::try_from(rounds(30, 120)).unwrap())
}

/// At once, so that the coordinator's limits are not what is tried.
const AT_ONCE: usize = 32;
/// Who waits, of all resources: as many as one stream takes.
const WAITED_FOR: usize = 200;
/// Who lives, beside those who die.
const LIVING: usize = 20;

/// Each by itself, many at once, in the order of what they are made of.
async fn many<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    work: impl Iterator<Item = F>,
) -> Vec<T> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = Vec::new();
    for one in work {
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        tasks.push(spawn(async move {
            let done = one.await;
            drop(place);
            done
        }));
    }
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

/// Sessions that are heard of once more, all as near to each other as can be, and then never again.
async fn die_at_once(coordinator: &Coordinator, count: usize) -> Vec<Dying> {
    let client = Client::builder().endpoint(coordinator.addr());
    let client = client.transport(Transport::Unary).connect().unwrap();
    let born = many((0..count).map(|number| {
        let client = client.clone();
        async move { dies_later(&client, number).await }
    }));
    let born = born.await;
    let renewed = many(born.into_iter().map(|mut one| {
        let session = client.detached(one.credentials.clone());
        async move {
            // On a machine that does much else, some have ended before all are there.
            let renewed = session.renew().await.is_ok();
            one.renewed = now();
            renewed.then_some(one)
        }
    }));
    let dead: Vec<_> = renewed.await.into_iter().flatten().collect();
    assert!(dead.len() > count / 2, "{} of {count} live", dead.len());
    dead
}

/// F23: all clients die at once. The last resource is granted again within the TTL and a second, and what etcd takes to
/// end so many; and whoever lives notices nothing.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_die_by_the_thousand() {
    let (_etcd, coordinator) = served().await;
    let dead = die_at_once(&coordinator, rounds(300, 5_000)).await;
    let count = dead.len();
    let last = dead.iter().map(|one| one.renewed).max().unwrap();

    let client = Client::connect(coordinator.addr()).unwrap();
    let living = many((0..LIVING).map(|_| {
        let client = client.clone();
        async move { open(&client, mass_ttl()).await }
    }));
    let living = living.await;
    let heir = open(&client, mass_ttl()).await;
    let stride = count.div_ceil(WAITED_FOR);
    let waited = dead.iter().rev().step_by(stride).take(WAITED_FOR);
    let mut waiting = Vec::new();
    for one in waited {
        let (heir, resource, since) = (heir.clone(), one.resource.clone(), one.renewed);
        waiting.push(spawn(async move {
            let options = AcquireOptions::default().wait(mass_ttl() + LIMIT);
            let lease = heir.acquire(&resource, options).await.unwrap();
            let took = since.until(now());
            (lease, took)
        }));
    }
    let mut taken = Vec::new();
    for one in waiting {
        let one = within("the last is granted again", mass_ttl() + LIMIT * 2, one).await;
        taken.push(one.unwrap().unwrap());
    }
    let ended = last.until(now());
    let worst = taken.iter().map(|(_, took)| *took).max().unwrap();
    let count = u32::try_from(count).unwrap();
    let queue = Duration::from_secs_f64(f64::from(count) / ENDED_A_SECOND);
    assert!(
        worst < mass_ttl() + BEYOND + queue + SLACK,
        "I6: the last of {count} took {worst:?}"
    );
    for session in &living {
        assert!(session.state().is_held(), "I12: {:?}", session.state());
        let left = session.time_left();
        assert!(
            left > mass_ttl() / 4,
            "I12: renewals were held up: {left:?} left"
        );
    }
    let beyond = |took: &Duration| took.saturating_sub(mass_ttl());
    Row {
        fault: "F23",
        test: "faults::sessions::sessions_die_by_the_thousand",
        operations: u64::from(count) * 3 + u64::try_from(taken.len()).unwrap(),
        unknown: 0,
        violations: 0,
        // Of the worst, and of the end of them all: what lies beyond the TTL.
        recovery: vec![beyond(&worst), beyond(&ended)],
    }
    .write();
}
