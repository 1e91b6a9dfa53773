//! Who waits for one resource, as far as one connection has shown it.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::domain::{Claim, Place, Revision};
use crate::store::etcd::view::Spot;

/// Those who wait, in the order of service.
///
/// Places are named by the revision that they were put at and their key: that names one for ever, within one
/// history of etcd's. Whatever is here may have left since; what counts is who is *not* here, see
/// [`Line::is_first`].
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Whose place it is may not be known.
    places: BTreeMap<(Revision, Vec<u8>), Option<Claim>>,
    since: HashMap<Vec<u8>, Revision>,
    /// Whoever waits since before a place that is itself not after this is here.
    complete_to: Revision,
}

impl Line {
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The first: its key, and its place where it is known whose that is.
    pub(super) fn first(&self) -> Option<(&[u8], Option<Place>)> {
        let ((since, key), claim) = self.places.first_key_value()?;
        Some((key, place(*since, claim.as_ref())))
    }

    /// Whether etcd's log has shown that nobody waits longer than a place (I11). It stays so: whoever comes
    /// later has a later revision.
    pub(super) fn is_first(&self, spot: &Spot) -> bool {
        let first = self.places.first_key_value();
        let is_first = first.is_some_and(|((since, _), _)| *since >= spot.place.since);
        is_first && spot.place.since <= self.complete_to
    }

    /// Who waits under a key.
    pub(super) fn under(&self, key: &[u8]) -> Option<Place> {
        let since = *self.since.get(key)?;
        let claim = self.places.get(&(since, key.to_vec()))?;
        place(since, claim.as_ref())
    }

    /// Takes note of a place.
    pub(super) fn queued(&mut self, spot: &Spot) {
        self.insert(spot.place.since, &spot.key, Some(&spot.place.claim));
    }

    /// Takes note that a place is there no more.
    pub(super) fn left(&mut self, spot: &Spot) {
        self.remove(spot.place.since, &spot.key);
    }

    /// Takes note of who was first at a revision.
    pub(super) fn begins_with(&mut self, first: Option<&Spot>, at: Revision) {
        // Who came at that very revision may have been put behind the look, in the same transaction.
        let gone_before = first.map_or(at, |first| first.place.since);
        self.retain(|since, _| since >= gone_before);
        if let Some(first) = first {
            self.queued(first);
        }
    }

    /// Takes note that etcd's log has shown who was first at a revision.
    pub(super) fn proved(&mut self, first: Option<&Spot>, at: Revision) {
        let shown = first.map_or(at, |first| first.place.since);
        self.complete_to = self.complete_to.max(shown);
    }

    /// Takes note of the first of those who waited at a revision, as etcd's log has shown them.
    pub(super) fn listed(&mut self, listed: &Listed, at: Revision) {
        let last = listed.places.last().filter(|_| listed.are_more);
        let shown = last.map_or(at, |(since, _)| *since);
        let there: HashSet<_> = listed.places.iter().collect();
        self.retain(|since, key| since >= shown || there.contains(&(since, key.to_vec())));
        for (since, key) in &listed.places {
            self.insert(*since, key, None);
        }
        self.complete_to = self.complete_to.max(shown);
    }

    fn insert(&mut self, since: Revision, key: &[u8], claim: Option<&Claim>) {
        match self.since.get(key).copied() {
            Some(later) if later > since => return,
            Some(earlier) if earlier < since => self.remove(earlier, key),
            Some(_) | None => {}
        }
        self.since.insert(key.to_vec(), since);
        let known = self.places.entry((since, key.to_vec())).or_default();
        if known.is_none() {
            *known = claim.cloned();
        }
    }

    fn remove(&mut self, since: Revision, key: &[u8]) {
        if self.places.remove(&(since, key.to_vec())).is_some() {
            self.since.remove(key);
        }
    }

    fn retain(&mut self, stays: impl Fn(Revision, &Vec<u8>) -> bool) {
        let gone = self
            .places
            .extract_if(.., |(since, key), _| !stays(*since, key));
        for ((_, key), _) in gone {
            self.since.remove(&key);
        }
    }
}

/// The first of those who waited, in the order of service: since when, and under which keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::store::etcd) struct Listed {
    pub(in crate::store::etcd) places: Vec<(Revision, Vec<u8>)>,
    /// There were more behind them.
    pub(in crate::store::etcd) are_more: bool,
}

fn place(since: Revision, claim: Option<&Claim>) -> Option<Place> {
    let claim = claim?.clone();
    Some(Place { claim, since })
}

#[cfg(test)]
mod tests;
