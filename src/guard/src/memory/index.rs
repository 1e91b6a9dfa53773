use std::fmt;
use std::hash::BuildHasher as _;
use std::iter;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use foldhash::fast::RandomState;
use palisade_token::ResourceName;

use super::Slot;
use crate::GuardError;

/// Cells of the first size of the index; each further one has twice as many.
const FIRST: usize = 64;

/// The last one has 2^32 cells: 100 GB.
const SIZES: usize = 27;

/// The slots by name. None is ever taken out, for a fence is never deleted: so those who look take no lock,
/// and what an index has grown out of is kept, which costs as much again as the index does.
pub(super) struct Index {
    /// Which of the sizes is in use. Those below are as they were when it was grown out of them.
    size: AtomicUsize,
    sizes: [OnceLock<Box<[Cell]>>; SIZES],
    /// How many slots there are; held while one is added.
    resources: Mutex<usize>,
    max_resources: usize,
    /// Seeded by chance: names come from clients.
    hasher: RandomState,
}

/// Linear probing: an empty cell ends the search.
type Cell = OnceLock<Entry>;

#[derive(Clone)]
struct Entry {
    hash: u64,
    slot: Slot,
}

impl Index {
    pub(super) fn new(max_resources: usize) -> Self {
        Self {
            size: AtomicUsize::new(0),
            sizes: [const { OnceLock::new() }; SIZES],
            resources: Mutex::new(0),
            max_resources,
            hasher: RandomState::default(),
        }
    }

    fn cells(&self, size: usize) -> &[Cell] {
        let make = || iter::repeat_with(Cell::new).take(FIRST << size).collect();
        self.sizes[size].get_or_init(make)
    }

    pub(super) fn find(&self, name: &ResourceName) -> Option<&Slot> {
        self.lookup(self.hasher.hash_one(name.as_str()), name)
    }

    /// Whoever has been told of a slot finds it: the size is shown after its cells were filled.
    fn lookup(&self, hash: u64, name: &ResourceName) -> Option<&Slot> {
        let cells = self.cells(self.size.load(Ordering::Acquire));
        probe(cells, hash)
            .map_while(OnceLock::get)
            .find(|entry| entry.hash == hash && entry.slot.is_of(name))
            .map(|entry| &entry.slot)
    }

    pub(super) fn find_or_insert(&self, name: &ResourceName) -> Result<&Slot, GuardError> {
        let hash = self.hasher.hash_one(name.as_str());
        if let Some(slot) = self.lookup(hash, name) {
            return Ok(slot);
        }
        // Whole after a panic in between: the number is raised last, and there is room for more than it says.
        let mut resources = self
            .resources
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = self.lookup(hash, name) {
            return Ok(slot);
        }
        if *resources >= self.max_resources {
            return Err(GuardError::LimitReached {
                what: "resources of one table",
                limit: self.max_resources.try_into().unwrap_or(u64::MAX),
            });
        }
        let mut size = self.size.load(Ordering::Relaxed);
        if *resources >= self.cells(size).len() / 2 {
            size = self.grow(size);
        }
        let slot = Arc::new(super::slot::Slot::new(name));
        let slot = put(self.cells(size), Entry { hash, slot });
        *resources += 1;
        Ok(slot)
    }

    /// Fills the next size with what is in this one; under the lock of those who add.
    fn grow(&self, size: usize) -> usize {
        let next = self.cells(size + 1);
        for entry in self.cells(size).iter().filter_map(OnceLock::get) {
            put(next, entry.clone());
        }
        self.size.store(size + 1, Ordering::Release);
        size + 1
    }
}

/// The cells in which an entry of this hash may be.
fn probe(cells: &[Cell], hash: u64) -> impl Iterator<Item = &Cell> {
    let mask = cells.len() - 1;
    // Its low half, which is enough for the cells of any index; every usize holds it.
    let first = usize::try_from(hash & u64::from(u32::MAX)).unwrap_or_default();
    (0..cells.len()).map(move |step| &cells[first.wrapping_add(step) & mask])
}

/// Into the first empty cell of its own; at most half of them are taken.
fn put(cells: &[Cell], entry: Entry) -> &Slot {
    let empty = probe(cells, entry.hash).find(|cell| cell.get().is_none());
    &empty
        .expect("half of the cells are empty")
        .get_or_init(|| entry)
        .slot
}

impl fmt::Debug for Index {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Index")
            .field("resources", &self.resources)
            .field("max_resources", &self.max_resources)
            .finish_non_exhaustive()
    }
}
