//! Sessions over streams, of which links are cut, dead or slow to be noticed: nothing is lost, and no token
//! changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use palisade_client::{Client, FencingToken, Lease, Session, SessionOptions, SessionState};
use palisade_test_support::{Coordinator, Etcd, Proxy, eventually, within};

use crate::setup::{LIMIT, TTL, coordinator, name, spawn, waiting};

const TASKS: usize = 64;

fn over_streams(links: &[&Proxy]) -> Client {
    Client::builder()
        .endpoints(links.iter().map(|link| link.url()))
        .connect()
        .unwrap()
}

async fn open(client: &Client, ttl: Duration) -> Session {
    let options = SessionOptions::default().ttl(ttl);
    client.open_session(options).await.unwrap()
}

/// Tasks that acquire and release for as long as they may, each its own resource.
struct Load {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(session: &Session) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let one = |task| {
            let (session, stop) = (session.clone(), Arc::clone(&stop));
            let rounds: Arc<AtomicU64> = Arc::clone(&rounds);
            spawn(async move {
                let resource = name(&format!("load/{task}"));
                let mut last: Option<FencingToken> = None;
                while !stop.load(Ordering::Relaxed) {
                    let lease = session.acquire(&resource, waiting(LIMIT)).await.unwrap();
                    assert!(Some(lease.token()) > last, "tokens grow");
                    last = Some(lease.token());
                    assert!(lease.grant().is_ok(), "{:?}", lease.loss());
                    // One whose answer was lost finds that it is done.
                    let _released = lease.release().await.unwrap();
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let tasks = (0..TASKS).map(one).collect();
        Self {
            stop,
            rounds,
            tasks,
        }
    }

    /// Waits until each task has got on.
    async fn gets_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        let more = u64::try_from(TASKS).unwrap() * 2;
        let moved = async || self.rounds.load(Ordering::Relaxed) >= before + more;
        eventually("the tasks get on", LIMIT, moved).await.unwrap();
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            within("a task", LIMIT, task).await.unwrap().unwrap();
        }
    }
}

/// Leases that are held all the while, and must be the same in the end.
async fn held(session: &Session) -> Vec<Lease> {
    let mut leases = Vec::new();
    for number in 0..8 {
        let resource = name(&format!("kept/{number}"));
        leases.push(session.acquire(&resource, waiting(LIMIT)).await.unwrap());
    }
    leases
}

async fn expect_same(leases: &[Lease], direct: &Client) {
    for lease in leases {
        let token = lease.grant().unwrap().token;
        let seen = direct.get_lease(lease.resource(), 0).await.unwrap();
        assert_eq!(seen.lease.map(|seen| seen.grant.token), Some(token));
    }
    let load = direct.list_leases("load/", 0, None).await.unwrap();
    assert_eq!(load.leases.len(), 0, "left over: {:?}", load.leases);
}

fn direct(coordinator: &Coordinator) -> Client {
    Client::connect(coordinator.addr()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_cut_under_load_lose_nothing() {
    let coordinator = Coordinator::builder().start().await.unwrap();
    let link = Proxy::start(&coordinator.addr()).await.unwrap();
    let session = open(&over_streams(&[&link]), TTL).await;
    let leases = held(&session).await;
    let load = Load::start(&session);
    for round in 0..10 {
        load.gets_on().await;
        if round % 3 == 2 {
            // Done there, and never heard of here.
            link.drop_replies();
            eventually("answers are lost", LIMIT, async || {
                tokio::task::yield_now().await;
                session.state() != SessionState::Held || round % 2 == 0
            })
            .await
            .unwrap();
            link.heal().await.unwrap();
        } else {
            link.reset();
        }
    }
    load.gets_on().await;
    load.end().await;
    assert!(session.state().is_held(), "{:?}", session.state());
    expect_same(&leases, &direct(&coordinator)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_through_another_coordinator_whatever_becomes_of_the_first() {
    let etcd = Etcd::start().await.unwrap();
    let mut coordinators = [
        coordinator(&etcd.endpoints()).await,
        coordinator(&etcd.endpoints()).await,
    ];
    let links = [
        Proxy::start(&coordinators[0].addr()).await.unwrap(),
        Proxy::start(&coordinators[1].addr()).await.unwrap(),
    ];
    let session = open(&over_streams(&[&links[0], &links[1]]), TTL * 2).await;
    let leases = held(&session).await;
    let load = Load::start(&session);
    load.gets_on().await;
    // Half-open: nothing ends, and nothing comes. It is one of the two that serves the stream.
    for link in &links {
        link.blackhole();
        load.gets_on().await;
        link.heal().await.unwrap();
        load.gets_on().await;
    }
    coordinators[0].kill().unwrap();
    load.gets_on().await;
    coordinators[0].start_again().await.unwrap();
    coordinators[1].terminate().await.unwrap();
    load.gets_on().await;
    load.end().await;
    assert!(session.state().is_held(), "{:?}", session.state());
    expect_same(&leases, &direct(&coordinators[0])).await;
}
