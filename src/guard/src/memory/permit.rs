use std::fmt;

use palisade_token::Grant;

use super::word::NotEntered;
use super::{Sealed, Slot, slot};
use crate::GuardError;
use crate::metrics::{self, StoreKind};

/// A sealed grant, looked up: for a holder that writes often.
///
/// ```
/// use palisade_guard::memory::{FenceTable, Volatile};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let table = FenceTable::new(Volatile);
/// let sealed = table.seal(&grant).await?;
/// let handle = table.resolve(&sealed)?; // once
/// for _record in ["a", "b", "c"] {
///     let _permit = handle.enter()?; // each time
///     // … write it, and make it durable …
/// }
/// assert_eq!(handle.grant(), &grant);
/// # Ok(()) }
/// ```
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
            Ok(()) => Ok(Permit::new(&self.slot)),
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

/// One write under way. A seal waits until it is dropped.
///
/// ```
/// use std::error::Error;
/// use std::fs::File;
/// use std::io::Write as _;
///
/// use palisade_guard::memory::Handle;
///
/// fn append(handle: &Handle, mut log: &File, record: &[u8]) -> Result<(), Box<dyn Error>> {
///     let _permit = handle.enter()?; // named: `let _ =` would drop it at once
///     log.write_all(record)?;
///     log.sync_data()?; // still under the permit
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[must_use = "the write is guarded only while the permit is held"]
pub struct Permit<'a>(&'a slot::Slot);

impl<'a> Permit<'a> {
    pub(super) const fn new(slot: &'a slot::Slot) -> Self {
        Self(slot)
    }
}

impl Drop for Permit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// One write under way that borrows from nothing. A seal waits until it is dropped.
///
/// ```
/// use palisade_guard::memory::{FenceTable, Volatile};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let grant: palisade_token::Grant = "orders#42#000102030405060708090a0b0c0d0e0f".parse()?;
/// # let table = FenceTable::new(Volatile);
/// # let sealed = table.seal(&grant).await?;
/// let permit = table.resolve(&sealed)?.enter_owned()?; // or `table.enter_owned(&sealed)?`
/// let flushed = tokio::task::spawn_blocking(move || {
///     // … make the write durable …
///     drop(permit);
/// });
/// flushed.await?;
/// # Ok(()) }
/// ```
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
