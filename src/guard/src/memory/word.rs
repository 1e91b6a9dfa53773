//! Who may enter, and how many are inside, in one atomic word: so that nobody is admitted by one look and
//! counted by a later one, between which a seal has counted to zero.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits for the number inside; the rest is the epoch.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Most permits that are held at once for one resource.
pub const MAX_PERMITS: u64 = COUNT;

/// The greatest epoch there is room for.
pub(super) const LAST_EPOCH: u64 = u64::MAX >> COUNT_BITS;

/// The epoch of nobody: a seal is under way, or there never was one.
pub(super) const CLOSED: u64 = 0;

/// Why nobody was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotEntered {
    /// The epoch is another, or the word is closed.
    Elsewhere,
    /// There are [`MAX_PERMITS`] inside.
    Full,
}

/// What the word needs of an atomic number, so that a model checker can put its own in.
pub(super) trait Atomic {
    fn new(value: u64) -> Self;
    /// Sees what those who have left have done.
    fn load_acquire(&self) -> u64;
    fn store_release(&self, value: u64);
    fn exchange_acquire(&self, current: u64, new: u64) -> Result<u64, u64>;
    /// Shows what was done inside to whoever sees the number.
    fn decrement_release(&self) -> u64;
    fn and(&self, mask: u64) -> u64;
}

impl Atomic for AtomicU64 {
    fn new(value: u64) -> Self {
        Self::new(value)
    }

    fn load_acquire(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    fn store_release(&self, value: u64) {
        self.store(value, Ordering::Release);
    }

    fn exchange_acquire(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.compare_exchange_weak(current, new, Ordering::Acquire, Ordering::Acquire)
    }

    fn decrement_release(&self) -> u64 {
        self.fetch_sub(1, Ordering::Release)
    }

    fn and(&self, mask: u64) -> u64 {
        self.fetch_and(mask, Ordering::AcqRel)
    }
}

/// An epoch and the number of those inside.
#[derive(Debug)]
pub(super) struct Word<A = AtomicU64>(A);

impl<A: Atomic> Word<A> {
    pub(super) fn new(epoch: u64) -> Self {
        Self(A::new(epoch << COUNT_BITS))
    }

    /// Goes in, if the epoch is this one.
    #[inline]
    pub(super) fn enter(&self, epoch: u64) -> Result<(), NotEntered> {
        let mut word = self.0.load_acquire();
        loop {
            if epoch == CLOSED || word >> COUNT_BITS != epoch {
                return Err(NotEntered::Elsewhere);
            }
            if word & COUNT == COUNT {
                return Err(NotEntered::Full);
            }
            match self.0.exchange_acquire(word, word + 1) {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }

    /// Goes out. Says whether it was the last one that a seal waits for.
    #[inline]
    pub(super) fn leave(&self) -> bool {
        self.0.decrement_release() == (CLOSED << COUNT_BITS) + 1
    }

    /// Lets nobody in any more. Those inside stay counted.
    pub(super) fn close(&self) {
        self.0.and(COUNT);
    }

    /// Nobody is inside; while it is closed, nobody will be.
    pub(super) fn is_empty(&self) -> bool {
        self.0.load_acquire() & COUNT == 0
    }

    /// Lets those of an epoch in, once it is closed and empty.
    pub(super) fn open(&self, epoch: u64) {
        debug_assert!(self.is_empty(), "opened over somebody inside");
        self.0.store_release(epoch << COUNT_BITS);
    }
}

#[cfg(test)]
mod tests;
