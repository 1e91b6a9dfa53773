//! The store on etcd does what every store must, on etcd 3.5 and 3.4.
#![allow(clippy::unwrap_used, reason = "the harness of a test is a part of it")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use palisade_coordinator::clock::{Clock, SystemClock};
use palisade_coordinator::entropy::SystemEntropy;
use palisade_coordinator::store::Store;
use palisade_coordinator::store::conformance::{self, Harness, Subject};
use palisade_coordinator::store::etcd::{EtcdOptions, EtcdStore};
use palisade_coordinator::tasks::Tasks;
use palisade_test_support::{Etcd, EtcdVersion};

/// One and a half of etcd's elections: the shortest that it grants.
const LEAST_TTL: Duration = Duration::from_secs(2);

struct OnEtcd {
    etcd: Etcd,
    is_batching: bool,
    states: AtomicUsize,
}

struct State {
    options: EtcdOptions,
    clock: Arc<dyn Clock>,
    store: Arc<EtcdStore>,
}

fn coordinator(options: &EtcdOptions, clock: &Arc<dyn Clock>) -> Arc<EtcdStore> {
    EtcdStore::new(
        options.clone(),
        Arc::clone(clock),
        SystemEntropy::shared(),
        &Tasks::default(),
    )
}

#[async_trait]
impl Harness for OnEtcd {
    async fn fresh(&self) -> Box<dyn Subject> {
        let number = self.states.fetch_add(1, Ordering::Relaxed);
        let mut options = EtcdOptions::new(self.etcd.endpoints());
        options.prefix = format!("/conformance/{number}");
        options.least_ttl = LEAST_TTL;
        options.is_batching = self.is_batching;
        let clock = SystemClock::shared();
        Box::new(State {
            store: coordinator(&options, &clock),
            options,
            clock,
        })
    }
}

#[async_trait]
impl Subject for State {
    fn store(&self) -> Arc<dyn Store> {
        Arc::<EtcdStore>::clone(&self.store)
    }

    async fn another(&self) -> Arc<dyn Store> {
        coordinator(&self.options, &self.clock)
    }

    /// A coordinator keeps nothing of its own, so that one is as good as the next.
    async fn restart(&mut self) -> Option<Arc<dyn Store>> {
        self.store = coordinator(&self.options, &self.clock);
        Some(self.store())
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

async fn does_what_every_store_must(version: EtcdVersion, is_batching: bool) {
    let etcd = Etcd::builder().version(version).start().await.unwrap();
    let harness = OnEtcd {
        etcd,
        is_batching,
        states: AtomicUsize::new(0),
    };
    conformance::run(&harness).await;
}

#[tokio::test]
async fn etcd_3_5_does_what_every_store_must() {
    does_what_every_store_must(EtcdVersion::V3_5, true).await;
}

#[tokio::test]
async fn etcd_3_5_without_group_commit_does_what_every_store_must() {
    does_what_every_store_must(EtcdVersion::V3_5, false).await;
}

#[tokio::test]
async fn etcd_3_4_does_what_every_store_must() {
    does_what_every_store_must(EtcdVersion::V3_4, true).await;
}
