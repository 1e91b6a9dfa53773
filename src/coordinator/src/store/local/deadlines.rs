//! When sessions and lock-delays end. In memory only: a renewal writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use crate::clock::Moment;

#[derive(Debug)]
pub(super) struct Deadlines<K> {
    by_key: BTreeMap<K, Moment>,
    by_time: BTreeSet<(Moment, K)>,
}

impl<K> Default for Deadlines<K> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Deadlines<K> {
    pub(super) fn get(&self, key: &K) -> Option<Moment> {
        self.by_key.get(key).copied()
    }

    pub(super) fn set(&mut self, key: K, deadline: Moment) {
        self.remove(&key);
        self.by_key.insert(key.clone(), deadline);
        self.by_time.insert((deadline, key));
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(deadline) = self.by_key.remove(key) {
            self.by_time.remove(&(deadline, key.clone()));
        }
    }

    /// Whether something's time is over though it was not ended yet.
    pub(super) fn is_over(&self, key: &K, now: Moment) -> bool {
        self.get(key).is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn nearest(&self) -> Option<Moment> {
        self.by_time.first().map(|(deadline, _)| *deadline)
    }

    /// Up to `limit` whose time is over, the longest over first.
    pub(super) fn due(&self, now: Moment, limit: usize) -> Vec<K> {
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now);
        due.take(limit).map(|(_, key)| key.clone()).collect()
    }

    /// Forgets what is not among those that there are, and gives the full time to those that are new. The
    /// others keep their deadline: a failure of the disk prolongs nobody's life.
    pub(super) fn follow(&mut self, all: impl Iterator<Item = (K, Duration)>, now: Moment) {
        let all: BTreeMap<K, Duration> = all.collect();
        self.by_key.retain(|key, _| all.contains_key(key));
        self.by_time.retain(|(_, key)| all.contains_key(key));
        for (key, while_) in all {
            if self.get(&key).is_none() {
                self.set(key, now.after(while_));
            }
        }
    }
}
