//! The last that is known of each resource: who held it, or how its last lease ended.

use std::sync::Arc;

use hashlink::LruCache;
use palisade_token::ResourceName;

use crate::domain::{Ended, Granted, Previous, Revision};

/// Resources that are remembered: twice the sessions that one coordinator is made for.
const MAX_RESOURCES: usize = 100_000;
/// What they may take together, in bytes: large metadata is remembered of fewer.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What is known of one resource. Calls of this coordinator tell of grants and ends before the store's news
/// does, so the lease before the last is kept, too: its end may still be told.
#[derive(Debug, Default)]
struct Last {
    held: Option<Arc<Granted>>,
    held_before: Option<Arc<Granted>>,
    ended: Option<Ended>,
}

impl Last {
    fn weight(&self) -> usize {
        let ended = self.ended.as_ref().and_then(|ended| ended.lease.as_ref());
        let leases = [self.held.as_ref(), self.held_before.as_ref(), ended];
        leases
            .into_iter()
            .flatten()
            .map(|lease| lease.weight())
            .sum()
    }

    fn vacated(&self) -> Option<&Ended> {
        let held = self.held.as_ref().map(|held| held.revision());
        self.ended
            .as_ref()
            .filter(|ended| held.is_none_or(|held| held < ended.revision))
    }
}

/// What is remembered; what was not touched for longest is forgotten first.
#[derive(Debug)]
pub(super) struct Memory {
    last: LruCache<ResourceName, (Last, usize)>,
    bytes: usize,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            last: LruCache::new(MAX_RESOURCES),
            bytes: 0,
        }
    }

    /// The lease that ended at a revision, where it was seen.
    pub(super) fn held(&mut self, resource: &ResourceName, end: Revision) -> Option<Arc<Granted>> {
        let (last, _) = self.last.get(resource)?;
        let told = last.ended.as_ref().filter(|ended| ended.revision == end);
        let told = told.and_then(|ended| ended.lease.as_ref());
        let held = [&last.held, &last.held_before].into_iter().flatten();
        let mut held = held.filter(|held| held.revision() < end);
        told.or_else(|| held.next()).map(Arc::clone)
    }

    /// How the last lease of a vacant resource ended, where it was seen.
    pub(super) fn previous(&mut self, resource: &ResourceName) -> Option<Previous> {
        self.last.get(resource)?.0.vacated()?.previous()
    }

    /// The last end of a lease of a resource.
    pub(super) fn ended(&mut self, resource: &ResourceName) -> Option<Ended> {
        self.last.get(resource)?.0.ended.clone()
    }

    /// News overtake each other: only what is later counts.
    pub(super) fn note_grant(&mut self, granted: &Arc<Granted>) {
        self.note(granted.resource(), |last| {
            let known = last.held.as_ref().map(|held| held.revision());
            if known.is_none_or(|known| known < granted.revision()) {
                last.held_before = last.held.replace(Arc::clone(granted));
            }
        });
    }

    /// News overtake each other: only what is later counts.
    pub(super) fn note_end(&mut self, ended: &Ended) {
        self.note(&ended.resource, |last| {
            let known = last.ended.as_ref().map(|known| known.revision);
            if known.is_none_or(|known| known <= ended.revision) {
                last.ended = Some(ended.clone());
            }
        });
    }

    fn note(&mut self, resource: &ResourceName, change: impl FnOnce(&mut Last)) {
        let (mut last, before) = self.last.remove(resource).unwrap_or_default();
        change(&mut last);
        let weight = last.weight();
        self.bytes = self.bytes + weight - before;
        self.last.insert(resource.clone(), (last, weight));
        while self.bytes > MAX_BYTES || self.last.len() >= MAX_RESOURCES {
            let Some((_, (_, weight))) = self.last.remove_lru() else {
                return;
            };
            self.bytes -= weight;
        }
    }

    /// What was known may not be so any more.
    pub(super) fn clear(&mut self) {
        self.last.clear();
        self.bytes = 0;
    }
}
