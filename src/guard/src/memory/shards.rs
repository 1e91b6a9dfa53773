use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use palisade_token::ResourceName;

use super::Slot;
use crate::GuardError;

/// Enough that two lookups seldom meet; the locks themselves are small.
const SHARDS: usize = 64;

/// The hash is seeded by chance: names come from clients.
type Shard = RwLock<HashMap<ResourceName, Slot, RandomState>>;

/// The slots by name. None is ever taken out: a fence is never deleted.
pub(super) struct Shards {
    shards: Box<[Padded]>,
    resources: AtomicUsize,
    max_resources: usize,
}

/// On cache lines of its own: a reader's lock is written too.
#[derive(Default)]
#[repr(align(128))]
struct Padded(Shard);

impl Shards {
    pub(super) fn new(max_resources: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Padded::default()).collect(),
            resources: AtomicUsize::new(0),
            max_resources,
        }
    }

    /// By the last bytes, where names differ. Whoever makes names meet on purpose only slows them down.
    fn shard(&self, name: &ResourceName) -> &Shard {
        let tail = name.as_str().bytes().rev().take(8);
        let mixed = tail.fold(0_usize, |mixed, byte| {
            (mixed ^ usize::from(byte)).wrapping_mul(0x9E37_79B1)
        });
        &self.shards[(mixed >> 16) % SHARDS].0
    }

    pub(super) fn find(&self, name: &ResourceName) -> Option<Slot> {
        let shard = self.shard(name).read();
        // A map is whole after a panic in between: inserting is the only change.
        let shard = shard.unwrap_or_else(PoisonError::into_inner);
        shard.get(name).map(Arc::clone)
    }

    pub(super) fn find_or_insert(&self, name: &ResourceName) -> Result<Slot, GuardError> {
        if let Some(slot) = self.find(name) {
            return Ok(slot);
        }
        let shard = self.shard(name).write();
        let mut shard = shard.unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = shard.get(name) {
            return Ok(Arc::clone(slot));
        }
        let counted =
            self.resources
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |resources| {
                    (resources < self.max_resources).then_some(resources + 1)
                });
        if counted.is_err() {
            return Err(GuardError::LimitReached {
                what: "resources of one table",
                limit: self.max_resources.try_into().unwrap_or(u64::MAX),
            });
        }
        let slot = Slot::new(super::slot::Slot::new());
        shard.insert(name.clone(), Arc::clone(&slot));
        Ok(slot)
    }
}

impl fmt::Debug for Shards {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Shards")
            .field("resources", &self.resources)
            .field("max_resources", &self.max_resources)
            .finish_non_exhaustive()
    }
}
