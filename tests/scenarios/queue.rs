//! A thousand waiters on one resource are served in the order in which they were queued (I11).

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use palisade_client::SessionOptions;
use palisade_test_support::{Etcd, eventually, within};

use crate::setup::{client_of, coordinator, name, waiting};

const WAITERS: u32 = 1_000;
/// Waiters whose process dies while they wait.
const DEAD: [u32; 3] = [1, 500, 501];
/// None of them is to end by itself, however busy the machine is.
const LONG_TTL: Duration = Duration::from_secs(120);
/// For all of them, on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_waiters_are_served_in_order_and_the_dead_are_skipped() {
    let etcd = Etcd::start().await.unwrap();
    let coordinator = coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&coordinator]);
    let options = SessionOptions::default().ttl(LONG_TTL);
    let holder = client.open_session(options.clone()).await.unwrap();
    let held = holder.acquire(&name("r"), waiting(LIMIT)).await.unwrap();

    let served = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for at in 0..WAITERS {
        let session = client.open_session(options.clone()).await.unwrap();
        let served = Arc::clone(&served);
        let ending = session.clone();
        let waiter = crate::setup::spawn(async move {
            let Ok(lease) = session.acquire(&name("r"), waiting(LIMIT)).await else {
                return;
            };
            served.lock().unwrap().push((at, lease.token()));
            lease.release().await.unwrap();
        });
        let queued = async || client.get_lease(&name("r"), 0).await.unwrap().waiters == at + 1;
        eventually("a place in the queue", LIMIT, queued)
            .await
            .unwrap();
        waiters.push((waiter, ending));
    }
    for at in DEAD {
        let (_, session) = &waiters[usize::try_from(at).unwrap()];
        session.clone().close().await.unwrap();
    }
    held.release().await.unwrap();
    for (waiter, _session) in waiters {
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
