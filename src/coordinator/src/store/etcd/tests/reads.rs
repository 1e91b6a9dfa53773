//! Sessions that are read together: each caller is told of its own, in few transactions.

use std::sync::Arc;

use futures::future::join_all;
use palisade_test_support::Etcd;

use super::{TTL, coordinator_with};
use crate::domain::SessionId;
use crate::store::Store;
use crate::store::conformance::Client;
use crate::store::etcd::reads::read;
use crate::store::etcd::{EtcdOptions, EtcdStore};

const SESSIONS: u64 = 150;

fn start(etcd: &Etcd, is_batching: bool) -> Arc<EtcdStore> {
    let options = EtcdOptions {
        is_batching,
        ..EtcdOptions::new(etcd.endpoints())
    };
    coordinator_with(options)
}

/// Reads each session and one that there is not beside each, all at once.
async fn read_all(store: &Arc<EtcdStore>) -> u64 {
    let shared: Arc<dyn Store> = Arc::<EtcdStore>::clone(store);
    let names: Vec<_> = (0..SESSIONS).map(|at| format!("session-{at}")).collect();
    let clients = join_all(names.iter().map(|name| Client::open(&shared, name, TTL))).await;
    let link = store.links.get().await.unwrap();
    let before = link.reads().sent();
    let reads = clients.iter().map(async |client| {
        let id = client.caller.session;
        let nobody = SessionId::try_from(id.as_i64() ^ 1).unwrap();
        let (own, none) = futures::join!(read(&link, id), read(&link, nobody));
        assert_eq!(own.unwrap().map(|own| own.record.id), Some(id));
        assert!(none.unwrap().is_none());
    });
    join_all(reads).await;
    link.reads().sent() - before
}

#[tokio::test]
async fn each_is_told_of_its_own_in_few_transactions() {
    let etcd = Etcd::start().await.unwrap();
    let store = start(&etcd, true);
    let sent = Box::pin(read_all(&store)).await;
    assert!((1..=SESSIONS / 10).contains(&sent), "{sent} transactions");
}

#[tokio::test]
async fn without_group_commit_each_reads_by_itself() {
    let etcd = Etcd::start().await.unwrap();
    let store = start(&etcd, false);
    assert_eq!(Box::pin(read_all(&store)).await, 0);
}

/// A caller that goes away takes nobody's answer with it.
#[tokio::test]
async fn whoever_goes_away_holds_up_nobody() {
    let etcd = Etcd::start().await.unwrap();
    let store = start(&etcd, true);
    let shared: Arc<dyn Store> = Arc::<EtcdStore>::clone(&store);
    let client = Client::open(&shared, "one", TTL).await;
    let link = store.links.get().await.unwrap();
    let id = client.caller.session;
    for _ in 0..10 {
        let mut gone = Box::pin(read(&link, id));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(gone);
        let found = read(&link, id).await.unwrap();
        assert_eq!(found.map(|found| found.record.id), Some(id));
    }
}
