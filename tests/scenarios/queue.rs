//! A thousand waiters on one resource are served in the order in which they were queued (I11).

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use palisade_client::{Client, SessionOptions};
use palisade_test_support::{Etcd, eventually, within};
use rustix::process::Signal;

use crate::setup::{Worker, client_of, coordinator, name, waiting};

const WAITERS: u32 = 1_000;
/// Waiters whose process dies while they wait.
const DEAD: [u32; 3] = [1, 500, 501];
/// None of the living is to end by itself, however busy the machine is.
const LONG_TTL: Duration = Duration::from_secs(120);
/// Nor any of those that are to die before it is their time: their places would be gone while others come.
const DYING_TTL: &str = "30";
/// Nobody's wait is over before all have come, and been served.
const WAIT: Duration = Duration::from_secs(3600);
/// For any one step, on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// These workers only lead.
const NO_POSTGRES: &str = "postgres://127.0.0.1:1/none";

async fn expect_waiters(client: &Client, count: u32) {
    let reached = async || client.get_lease(&name("r"), 0).await.unwrap().waiters == count;
    eventually("the queue to have its length", LIMIT, reached)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_waiters_are_served_in_order_and_the_dead_are_skipped() {
    let etcd = Etcd::start().await.unwrap();
    let coordinator = coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&coordinator]);
    let options = SessionOptions::default().ttl(LONG_TTL);
    let holder = client.open_session(options.clone()).await.unwrap();
    let held = holder.acquire(&name("r"), waiting(WAIT)).await.unwrap();

    let served = Arc::new(Mutex::new(Vec::new()));
    let (mut living, mut dying) = (Vec::new(), Vec::new());
    for at in 0..WAITERS {
        if DEAD.contains(&at) {
            let args = [
                &*coordinator.addr(),
                NO_POSTGRES,
                "r",
                "t",
                "unguarded",
                DYING_TTL,
            ];
            let mut worker = Worker::start(&args);
            worker.send("lead").await;
            dying.push(worker);
        } else {
            let session = client.open_session(options.clone()).await.unwrap();
            let served = Arc::clone(&served);
            living.push(crate::setup::spawn(async move {
                let lease = session.acquire(&name("r"), waiting(WAIT)).await.unwrap();
                served.lock().unwrap().push((at, lease.token()));
                lease.release().await.unwrap();
            }));
        }
        expect_waiters(&client, at + 1).await;
    }
    for worker in dying {
        worker.signal(Signal::KILL);
    }
    expect_waiters(&client, WAITERS - u32::try_from(DEAD.len()).unwrap()).await;
    held.release().await.unwrap();
    for waiter in living {
        within("a waiter", LIMIT, waiter).await.unwrap().unwrap();
    }

    let served = served.lock().unwrap();
    let order: Vec<u32> = served.iter().map(|(at, _)| *at).collect();
    let expected: Vec<u32> = (0..WAITERS).filter(|at| !DEAD.contains(at)).collect();
    assert_eq!(order, expected);
    assert!(
        served.is_sorted_by(|(_, a), (_, b)| a < b),
        "tokens went backwards: {served:?}"
    );
}
