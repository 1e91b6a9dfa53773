//! The in-memory fence table: what its conformance subject does not show.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod engine;
mod seals;
mod table;
mod threads;

use std::error::Error;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use event_listener::Event;
use palisade_guard::memory::Durability;
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};

pub(crate) fn name(text: &str) -> ResourceName {
    ResourceName::new(text).unwrap()
}

pub(crate) fn grant(resource: &str, token: u64) -> Grant {
    Grant {
        resource: name(resource),
        token: FencingToken::new(token).unwrap(),
        holder: HolderId::from_bytes([u8::try_from(token % 251).unwrap(); 16]),
    }
}

/// Keeps a fence when it is told to go on; fails as often as it is told to.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) kept: Mutex<Vec<u64>>,
    pub(crate) begun: AtomicUsize,
    failures: AtomicUsize,
    allowed: AtomicUsize,
    event: Event,
}

impl Held {
    pub(crate) fn allow(&self, seals: usize) {
        self.allowed.fetch_add(seals, Ordering::SeqCst);
        self.event.notify(usize::MAX);
    }

    pub(crate) fn fail_next(&self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
    }

    fn take(from: &AtomicUsize) -> bool {
        let less = |count: usize| count.checked_sub(1);
        from.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
    }
}

impl Durability for Held {
    async fn raise(&self, fence: &Grant) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        if Self::take(&self.failures) {
            return Err(Box::from("the disk is full"));
        }
        while !Self::take(&self.allowed) {
            let listener = self.event.listen();
            if Self::take(&self.allowed) {
                break;
            }
            listener.await;
        }
        self.kept.lock().unwrap().push(fence.token.get());
        Ok(())
    }
}
