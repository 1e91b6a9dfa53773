//! The store in memory does what every store must.
#![allow(clippy::unwrap_used, reason = "the harness of a test is a part of it")]

use std::sync::Arc;

use async_trait::async_trait;
use palisade_coordinator::clock::{Clock, SystemClock};
use palisade_coordinator::entropy::SystemEntropy;
use palisade_coordinator::store::Store;
use palisade_coordinator::store::conformance::{self, Harness, Subject};
use palisade_coordinator::store::memory::MemoryStore;
use palisade_coordinator::tasks::Tasks;

struct Memory;

struct State {
    store: Arc<MemoryStore>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Harness for Memory {
    async fn fresh(&self) -> Box<dyn Subject> {
        let clock = SystemClock::shared();
        let tasks = Tasks::default();
        let store = MemoryStore::start(Arc::clone(&clock), SystemEntropy::shared(), &tasks).await;
        Box::new(State {
            store: store.unwrap(),
            clock,
        })
    }
}

#[async_trait]
impl Subject for State {
    fn store(&self) -> Arc<dyn Store> {
        Arc::<MemoryStore>::clone(&self.store)
    }

    async fn another(&self) -> Arc<dyn Store> {
        self.store()
    }

    async fn restart(&mut self) -> Option<Arc<dyn Store>> {
        None
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

#[tokio::test]
async fn memory_does_what_every_store_must() {
    conformance::run(&Memory).await;
}
