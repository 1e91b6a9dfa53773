//! Which endpoint is used, and what all of them must show first (I9, F9, F10, F14, F19).

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use palisade_test_support::{Etcd, EtcdVersion, Proxy, eventually, within};

use super::{TTL, coordinator, coordinator_at};
use crate::clock::SystemClock;
use crate::domain::{Acquired, HoldName};
use crate::entropy::SystemEntropy;
use crate::store::conformance::Client;
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::store::{Failure, Outcome, Store, StoreError};
use crate::tasks::Tasks;

const LIMIT: Duration = Duration::from_secs(60);

fn on(endpoints: Vec<String>) -> Arc<EtcdStore> {
    coordinator_at(endpoints, EtcdOptions::PREFIX, SystemClock::shared())
}

fn as_store(store: &Arc<EtcdStore>) -> Arc<dyn Store> {
    Arc::<EtcdStore>::clone(store)
}

async fn becomes_ready(store: &EtcdStore) {
    eventually("the store is ready", LIMIT, async || {
        store.ready().await.is_ok()
    })
    .await
    .unwrap();
}

fn failure<T: std::fmt::Debug>(done: Result<T, StoreError>) -> (Failure, Outcome) {
    match done {
        Err(StoreError::Failed {
            failure, outcome, ..
        }) => (failure, outcome),
        other => panic!("it must fail, and yet: {other:?}"),
    }
}

/// Whether each endpoint is healthy, by what was last seen of it.
fn healthy(store: &EtcdStore) -> Vec<bool> {
    let endpoints = store.links.endpoints();
    endpoints
        .iter()
        .map(|endpoint| endpoint.is_healthy)
        .collect()
}

async fn url_in_use(store: &EtcdStore) -> String {
    store.links.get().await.unwrap();
    store.links.url_in_use().expect("there is a link")
}

#[tokio::test]
async fn a_silent_endpoint_is_passed_over_and_used_when_it_is_back() {
    let etcd = Etcd::start().await.unwrap();
    let silent = Proxy::start(&etcd.host_port()).await.unwrap();
    silent.blackhole();
    let store = on(vec![silent.url(), etcd.url()]);
    // A caller that waits for the silent one is not served in time.
    let opened = within("a session", EtcdOptions::CALL_LIMIT, async {
        Client::open(&as_store(&store), "one", TTL).await
    });
    opened.await.unwrap();
    assert_eq!(url_in_use(&store).await, etcd.url());
    store.ready().await.unwrap();
    assert_eq!(healthy(&store), [false, true]);
    silent.heal().await.unwrap();
    eventually("it is seen to be back", LIMIT, async || {
        store.ready().await.unwrap();
        healthy(&store) == [true, true]
    })
    .await
    .unwrap();
    assert_eq!(url_in_use(&store).await, etcd.url(), "what serves is kept");
    for endpoint in store.status().await.endpoints {
        assert!(endpoint.cluster.is_some(), "{endpoint:?}");
        let version = endpoint.version.as_deref().unwrap_or_default();
        assert!(version.starts_with("3.5."), "{endpoint:?}");
    }
}

#[tokio::test]
async fn a_refusing_endpoint_is_left_for_another_which_is_kept() {
    let etcd = Etcd::start().await.unwrap();
    let first = Proxy::start(&etcd.host_port()).await.unwrap();
    let second = Proxy::start(&etcd.host_port()).await.unwrap();
    let store = on(vec![first.url(), second.url()]);
    becomes_ready(&store).await;
    assert_eq!(url_in_use(&store).await, first.url());
    first.cut().await.unwrap();
    becomes_ready(&store).await;
    assert_eq!(url_in_use(&store).await, second.url());
    first.heal().await.unwrap();
    eventually("both are healthy", LIMIT, async || {
        store.ready().await.unwrap();
        healthy(&store) == [true, true]
    })
    .await
    .unwrap();
    assert_eq!(
        url_in_use(&store).await,
        second.url(),
        "what serves is kept"
    );
    second.cut().await.unwrap();
    becomes_ready(&store).await;
    assert_eq!(url_in_use(&store).await, first.url());
}

/// Renewals are the leader's business: through another member each of them takes one way more.
#[tokio::test]
async fn a_new_connection_goes_to_the_leader_if_that_is_known() {
    let cluster = Etcd::builder().start_cluster(3).await.unwrap();
    let leader = cluster.leader().await.unwrap();
    let mut endpoints = cluster.endpoints();
    endpoints.rotate_left((leader + 1) % 3);
    let store = on(endpoints);
    becomes_ready(&store).await;
    assert_ne!(url_in_use(&store).await, cluster.url(leader));
    store.links.get().await.unwrap().give_up();
    assert_eq!(url_in_use(&store).await, cluster.url(leader));
}

/// I9, F19: an endpoint of another cluster is found out while it is not even used, and from there on nothing
/// is granted, also when it has gone away again.
#[tokio::test]
async fn another_cluster_is_seen_by_a_coordinator_that_runs() {
    let (own, other) = (Etcd::start().await.unwrap(), Etcd::start().await.unwrap());
    let strange = Proxy::start(&other.host_port()).await.unwrap();
    strange.cut().await.unwrap();
    let store = on(vec![own.url(), strange.url()]);
    becomes_ready(&store).await;
    let client = Client::open(&as_store(&store), "one", TTL).await;
    client.take("r", "1").await;
    strange.heal().await.unwrap();
    let is_refused = async || {
        let (failure, outcome) = failure(store.ready().await);
        matches!(
            (failure, outcome),
            (Failure::WrongCluster, Outcome::NotApplied)
        )
    };
    eventually("it is not ready", LIMIT, async || {
        store.ready().await.is_err()
    })
    .await
    .unwrap();
    eventually("it says why", LIMIT, is_refused).await.unwrap();
    for _ in 0..2 {
        let refused = async || client.try_acquire("r2", "2").await.is_err();
        assert!(refused().await, "granted from one of two clusters");
        strange.cut().await.unwrap();
    }
}

/// F14: a store without space grants nothing, also where etcd would let a nested transaction through; what is
/// held can be renewed and released, and everything goes on when there is space again.
async fn without_space_nothing_is_granted(version: EtcdVersion) {
    let etcd = Etcd::builder()
        .version(version)
        .quota_bytes(2 * 1024 * 1024)
        .start()
        .await
        .unwrap();
    let store = coordinator(&etcd, EtcdOptions::PREFIX);
    becomes_ready(&store).await;
    let client = Client::open(&as_store(&store), "one", TTL).await;
    let hold = client.take("held", "1").await;
    let mut waiters = Vec::new();
    for number in 0..8 {
        let name = format!("waiter{number}");
        waiters.push(Client::open(&as_store(&store), &name, TTL).await);
    }
    // As much as one argument of a command may be.
    let filling = "x".repeat(100 * 1024);
    let mut fill = 0;
    eventually("there is no space", LIMIT, async || {
        fill += 1;
        let key = format!("fill{fill}");
        drop(etcd.etcdctl(&["put", &key, &filling]).await);
        let alarms = etcd.etcdctl(&["alarm", "list"]).await.unwrap();
        alarms.contains("NOSPACE")
    })
    .await
    .unwrap();
    eventually("it is not ready", LIMIT, async || {
        store.ready().await.is_err()
    })
    .await
    .unwrap();
    let (reason, _) = failure(store.ready().await);
    assert!(matches!(reason, Failure::NoSpace), "{reason:?}");
    let (reason, outcome) = failure(client.try_acquire("other", "2").await);
    assert!(matches!(reason, Failure::NoSpace), "{reason:?}");
    assert_eq!(outcome, Outcome::NotApplied);
    // At once, so that they travel together.
    for waited in join_all(waiters.iter().map(|it| it.acquire("held", "waits"))).await {
        let (reason, outcome) = failure(waited);
        assert!(matches!(reason, Failure::NoSpace), "{reason:?}");
        assert_eq!(outcome, Outcome::NotApplied);
    }
    client.renew().await.unwrap();
    let again = client.try_acquire("held", "1").await.unwrap();
    assert_eq!(again, Acquired::Held(hold.clone()), "a retry is answered");
    client.give_back(&hold).await;

    let revision = etcd.revision().await.unwrap().to_string();
    etcd.etcdctl(&["del", "fill", "--prefix"]).await.unwrap();
    etcd.etcdctl(&["compact", &revision]).await.unwrap();
    etcd.etcdctl(&["defrag"]).await.unwrap();
    etcd.etcdctl(&["alarm", "disarm"]).await.unwrap();
    becomes_ready(&store).await;
    let next = client.take("held", "3").await;
    assert!(next.token().unwrap() > hold.token().unwrap());
    let release = HoldName::Token(next.token().unwrap());
    client.release("held", release).await.unwrap();
}

#[tokio::test]
async fn without_space_nothing_is_granted_on_etcd_3_5() {
    without_space_nothing_is_granted(EtcdVersion::V3_5).await;
}

#[tokio::test]
async fn without_space_nothing_is_granted_on_etcd_3_4() {
    without_space_nothing_is_granted(EtcdVersion::V3_4).await;
}

#[tokio::test]
async fn a_strict_coordinator_refuses_an_etcd_that_loses_sessions() {
    for (version, serves) in [(EtcdVersion::V3_4, false), (EtcdVersion::V3_5, true)] {
        let etcd = Etcd::builder().version(version).start().await.unwrap();
        let mut options = EtcdOptions::new(etcd.endpoints());
        options.access.strict = true;
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let store = EtcdStore::new(options, clock, entropy, &Tasks::default());
        let ready = store.ready().await;
        assert_eq!(ready.is_ok(), serves, "{version:?}: {ready:?}");
        // What it is can be seen all the same.
        assert!(store.status().await.endpoints[0].version.is_some());
    }
}
