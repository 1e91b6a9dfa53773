//! A watch goes on where it broke off only in the history that it has told of.

use std::sync::Arc;
use std::time::Duration;

use palisade_test_support::{Etcd, eventually, within};

use super::Watch;
use crate::clock::SystemClock;
use crate::domain::Event;
use crate::entropy::SystemEntropy;
use crate::store::Store;
use crate::store::conformance::Client;
use crate::store::etcd::codec::as_i64;
use crate::store::etcd::link::Link;
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::tasks::Tasks;

const LIMIT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(60);

fn store_on(etcd: &Etcd) -> (Arc<EtcdStore>, Arc<dyn Store>) {
    let options = EtcdOptions::new(etcd.endpoints());
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    let store = EtcdStore::new(options, clock, entropy, &Tasks::default());
    (Arc::clone(&store), store)
}

async fn becomes_ready(store: &EtcdStore) {
    let ready = async || store.ready().await.is_ok();
    eventually("the store is ready", LIMIT, ready)
        .await
        .unwrap();
}

/// A watch that has told all there was.
async fn started(store: &EtcdStore) -> Watch {
    let link = store.links.get().await.unwrap();
    let links = Arc::downgrade(&store.links);
    let mut watch = Box::pin(Watch::start(links, link)).await.unwrap();
    watch.ready.clear();
    watch
}

async fn told_of(watch: &mut Watch, name: &str) {
    let told = async {
        loop {
            let batch = Box::pin(watch.next()).await.unwrap();
            let is_it = |event: &Event| match event {
                Event::Granted(granted) => granted.resource().as_str() == name,
                _ => false,
            };
            if batch.iter().any(is_it) {
                return;
            }
        }
    };
    within("the grant is told", LIMIT, told).await.unwrap();
}

/// Another connection in place of the one that was watched over.
async fn another(store: &EtcdStore, watch: &Watch) -> Arc<Link> {
    watch.open.link.give_up();
    let is_back = async || store.links.get().await.is_ok();
    eventually("etcd is reached", LIMIT, is_back).await.unwrap();
    store.links.get().await.unwrap()
}

fn begins_anew(watch: &Watch) -> bool {
    let mut events = watch.ready.iter().flat_map(|batch| batch.iter());
    events.any(|event| matches!(event, Event::Resync))
}

/// Also where the generation changed, as long as the watch has told of that.
#[tokio::test]
async fn a_watch_goes_on_over_another_connection() {
    let etcd = Etcd::start().await.unwrap();
    let (store, shared) = store_on(&etcd);
    becomes_ready(&store).await;
    let client = Client::open(&shared, "one", TTL).await;
    let mut watch = started(&store).await;
    store.advance(None).await.unwrap();
    client.take("before", "1").await;
    told_of(&mut watch, "before").await;
    let link = another(&store, &watch).await;
    Box::pin(watch.go_on(link)).await.unwrap();
    assert!(!begins_anew(&watch));
    client.take("after", "1").await;
    told_of(&mut watch, "after").await;
}

/// A restored etcd issues its revisions again, and other things happen at them: where that has come further than what
/// was told, only the generation shows it (I9).
#[tokio::test]
async fn a_watch_begins_anew_in_a_restored_history_that_has_overtaken_it() {
    let mut etcd = Etcd::start().await.unwrap();
    let (store, shared) = store_on(&etcd);
    becomes_ready(&store).await;
    let client = Client::open(&shared, "one", TTL).await;
    let mut watch = started(&store).await;
    let snapshot = etcd.snapshot_save("before").await.unwrap();
    for name in ["lost/1", "lost/2", "lost/3"] {
        client.take(name, "1").await;
        told_of(&mut watch, name).await;
    }
    etcd.restore_from(&snapshot).await.unwrap();
    let (other, other_shared) = store_on(&etcd);
    becomes_ready(&other).await;
    let client = Client::open(&other_shared, "other", TTL).await;
    let mut taken = 0;
    while other.leases("", None, 1).await.unwrap().revision <= watch.last {
        taken += 1;
        client.take(&format!("instead/{taken}"), "1").await;
    }
    let link = another(&store, &watch).await;
    Box::pin(watch.go_on(link)).await.unwrap();
    assert!(begins_anew(&watch));
}

/// Nothing tells such a history from another one.
#[tokio::test]
async fn a_watch_of_a_history_without_a_generation_begins_anew() {
    let etcd = Etcd::start().await.unwrap();
    let (store, _) = store_on(&etcd);
    let mut watch = started(&store).await;
    assert_eq!(watch.generation, None);
    let link = another(&store, &watch).await;
    Box::pin(watch.go_on(link)).await.unwrap();
    assert!(begins_anew(&watch));
}

/// What else is kept in the same etcd has overtaken it, before any coordinator was there to make a generation: the one at
/// the last revision that was told is the same. That the last thing told was a lease, or the end of one, makes no
/// difference.
#[tokio::test]
async fn a_watch_begins_anew_in_a_restored_history_that_other_keys_have_overtaken() {
    for is_released in [false, true] {
        let mut etcd = Etcd::start().await.unwrap();
        let (store, shared) = store_on(&etcd);
        becomes_ready(&store).await;
        let client = Client::open(&shared, "one", TTL).await;
        let mut watch = started(&store).await;
        let held = client.take("held", "1").await;
        told_of(&mut watch, "held").await;
        let snapshot = etcd.snapshot_save("before").await.unwrap();
        if is_released {
            client.give_back(&held).await;
        } else {
            client.take("lost", "1").await;
        }
        let told = async {
            while watch.last.0 <= held.granted.0 {
                Box::pin(watch.next()).await.unwrap();
            }
        };
        within("what is lost is told", LIMIT, told).await.unwrap();
        etcd.restore_from(&snapshot).await.unwrap();
        let others = etcd_client::Client::connect(etcd.endpoints(), None).await;
        let others = others.unwrap().kv_client();
        let overtakes = async || {
            let put = others.clone().put("of/others", "", None).await;
            let header = put.ok().and_then(|put| put.header().cloned());
            header.is_some_and(|header| header.revision() > as_i64(watch.last))
        };
        eventually("it is overtaken", LIMIT, overtakes)
            .await
            .unwrap();
        let link = another(&store, &watch).await;
        Box::pin(watch.go_on(link)).await.unwrap();
        assert!(begins_anew(&watch), "released: {is_released}");
    }
}
