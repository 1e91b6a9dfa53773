use std::fmt;

use palisade_token::Grant;

use super::word::NotEntered;
use super::{Sealed, Slot, slot};
use crate::GuardError;
use crate::metrics::{self, StoreKind};

/// A sealed grant, looked up: for a holder that writes often.
#[derive(Clone)]
pub struct Handle {
    slot: Slot,
    epoch: u64,
    sealed: Sealed,
}

impl Handle {
    pub(super) const fn new(slot: Slot, epoch: u64, sealed: Sealed) -> Self {
        Self {
            slot,
            epoch,
            sealed,
        }
    }

    /// Begins a write. Hold the permit over the write and its durability: a seal waits for it.
    ///
    /// # Errors
    /// [`GuardError::Stale`], which kills every clone of the [`Sealed`]; [`GuardError::LimitReached`] when
    /// [`MAX_PERMITS`](super::MAX_PERMITS) are held.
    #[inline]
    pub fn enter(&self) -> Result<Permit<'_>, GuardError> {
        match self.slot.enter(self.epoch) {
            Ok(()) => Ok(Permit(&self.slot)),
            Err(reason) => Err(self.refused(reason)),
        }
    }

    /// Begins a write whose permit moves to another task or thread.
    ///
    /// # Errors
    /// As [`Handle::enter`].
    pub fn enter_owned(&self) -> Result<OwnedPermit, GuardError> {
        match self.slot.enter(self.epoch) {
            Ok(()) => Ok(OwnedPermit::new(Slot::clone(&self.slot))),
            Err(reason) => Err(self.refused(reason)),
        }
    }

    #[cold]
    fn refused(&self, reason: NotEntered) -> GuardError {
        if reason == NotEntered::Full {
            return slot::full();
        }
        if let Err(error) = self.sealed.alive() {
            return error;
        }
        // An epoch ends when the fence is raised, and by nothing else.
        let refusal = self.slot.epoch_of(self.sealed.grant()).err();
        let refusal = refusal.unwrap_or_else(|| slot::unsealed(self.sealed.grant(), None));
        refused(&self.sealed, refusal)
    }

    /// The grant that was sealed.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        self.sealed.grant()
    }
}

#[cold]
pub(super) fn refused(sealed: &Sealed, error: GuardError) -> GuardError {
    let error = sealed.learn(error);
    metrics::refused(StoreKind::Memory, &error);
    error
}

/// One write under way, from [`Handle::enter`]. A seal waits until it is dropped.
#[derive(Debug)]
#[must_use = "the write is guarded only while the permit is held"]
pub struct Permit<'a>(&'a Slot);

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// One write under way that borrows from nothing. A seal waits until it is dropped.
#[derive(Debug)]
#[must_use = "the write is guarded only while the permit is held"]
pub struct OwnedPermit(Slot);

impl OwnedPermit {
    pub(super) const fn new(slot: Slot) -> Self {
        Self(slot)
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Handle")
            .field("sealed", &self.sealed)
            .finish_non_exhaustive()
    }
}
