//! F25: etcd has more to do than it can, from somebody else (I1–I5, I8).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::Client;

use super::stage::{HEALED, Plan, Stage, one_node};
use crate::common::{rounds, spawn};

/// Large enough that etcd is behind with them.
const JUNK: usize = 4 * 1024;

/// Puts without end, many at once, and counts what etcd turned away.
async fn floods(client: Client, number: usize, stop: Arc<AtomicBool>, shed: Arc<AtomicU64>) {
    let junk = vec![0; JUNK];
    // The same keys again and again: the database is to stay small.
    let key = format!("flood/{}", number % 64);
    let mut kv = client.kv_client();
    while !stop.load(Ordering::Relaxed) {
        if kv.put(key.as_str(), junk.clone(), None).await.is_err() {
            shed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "figures are shown beside the test")]
async fn etcd_is_flooded() {
    let name = "faults::overload::etcd_is_flooded";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    for _ in 0..rounds(1, 4) {
        stage
            .suffers("F25", async |stage| {
                let stop = Arc::<AtomicBool>::default();
                let shed = Arc::<AtomicU64>::default();
                let mut tasks = Vec::new();
                for number in 0..rounds(100, 6_000) {
                    let endpoints = stage.etcd.endpoints();
                    // Few connections, so that descriptors last.
                    if number % 500 == 0 {
                        tasks.push((Client::connect(endpoints, None).await.unwrap(), Vec::new()));
                    }
                    let (client, flood) = tasks.last_mut().unwrap();
                    let (stop, shed) = (Arc::clone(&stop), Arc::clone(&shed));
                    flood.push(spawn(floods(client.clone(), number, stop, shed)));
                }
                Stage::lasts(Duration::from_secs(u64::try_from(rounds(2, 10)).unwrap())).await;
                // It serves all the while, if not soon.
                stage.load.one_gets_on(HEALED).await;
                stop.store(true, Ordering::Relaxed);
                for (_, flood) in tasks {
                    for one in flood {
                        one.await.unwrap();
                    }
                }
                let shed = shed.load(Ordering::Relaxed);
                eprintln!("etcd turned away {shed} of the flood");
            })
            .await;
    }
    stage.ends().await;
}
