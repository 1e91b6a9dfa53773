//! Planted bugs: defects that a test puts into a run and expects the checks to catch.
//!
//! A bug is a [`Planted`] that changes one of the parts which the world puts together. The product knows nothing
//! of it.

mod clocks;
mod log;
mod store;
#[cfg(test)]
mod tests;
mod vault;

use std::fmt;
use std::sync::Arc;

use palisade_coordinator::domain::{Change, Ledger};
use palisade_coordinator::store::Store;

use crate::history::Recorder;
use crate::vault::Vault;

/// What a run's parts are replaced by. By default each is what it is.
pub(crate) trait Planted: fmt::Debug + Send + Sync {
    /// The store, as one coordinator sees it: outside of whatever loses and delays calls, and inside of
    /// nothing.
    fn store(&self, store: Arc<dyn Store>, _recorder: &Recorder) -> Arc<dyn Store> {
        store
    }

    /// What is kept, and written into the history, of a transaction that was planned on `before`.
    fn kept(&self, _before: &Ledger, changes: Vec<Change>) -> Vec<Change> {
        changes
    }

    /// What a store that crashed finds when it starts again.
    fn after_crash(&self, kept: Ledger) -> Ledger {
        kept
    }

    /// What a store that is put back from `now` to an older point shows. One that hides that history went
    /// backwards shows the old state at no lower a revision.
    fn after_restore(&self, _now: &Ledger, older: Ledger) -> Ledger {
        older
    }

    /// The clock of one client's process.
    fn client_clock(
        &self,
        clock: Arc<dyn palisade_client::Clock>,
    ) -> Arc<dyn palisade_client::Clock> {
        clock
    }

    /// The clock by which the store ends sessions.
    fn store_clock(
        &self,
        clock: Arc<dyn palisade_coordinator::clock::Clock>,
    ) -> Arc<dyn palisade_coordinator::clock::Clock> {
        clock
    }

    /// Guard and data.
    fn vault(&self, vault: Arc<dyn Vault>, _recorder: &Recorder) -> Arc<dyn Vault> {
        vault
    }
}

/// Nothing is planted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Honest;

impl Planted for Honest {}
