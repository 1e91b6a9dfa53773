//! What is known of the leases: those that stand, and what happened lately.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use palisade_token::{FencingToken, ResourceName};

use super::news::{Before, Ended, Row};

/// The most leases that are kept: some 30 MB, and far more than anybody looks through. Of the others it is known
/// how many they are.
pub(super) const MOST_LEASES: usize = 50_000;
/// The most events that are kept: more than a screen shows.
pub(super) const MOST_EVENTS: usize = 256;

/// What is known. A clone shares the leases.
#[derive(Debug, Clone, Default)]
pub(super) struct World {
    leases: Leases,
    /// The newest first.
    events: VecDeque<Event>,
    /// How many events there have been.
    changes: u64,
}

/// The leases that stand.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases {
    rows: BTreeMap<ResourceName, Arc<Row>>,
    /// How many stand beside them.
    unkept: usize,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// When it was seen.
    pub(super) at: Duration,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Granted {
        resource: ResourceName,
        token: Option<FencingToken>,
        label: String,
    },
    Ended(Ended),
    /// Nobody saw what happened for a while; this is how much is different.
    CaughtUp {
        new: usize,
        gone: usize,
    },
}

impl Leases {
    pub(super) fn put(&mut self, row: Row) {
        if self.rows.len() < MOST_LEASES || self.rows.contains_key(row.resource()) {
            self.rows.insert(row.resource().clone(), Arc::new(row));
        } else {
            self.unkept += 1;
        }
    }

    /// Ends the lease of a resource, unless a later one stands already.
    fn end(&mut self, ended: &Ended) {
        match self.rows.get(&ended.resource) {
            Some(row) if ended.token.is_none_or(|token| row.grant.token <= token) => {
                self.rows.remove(&ended.resource);
            }
            Some(_) => {}
            None => self.unkept = self.unkept.saturating_sub(1),
        }
    }
}

impl World {
    pub(super) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.leases.rows.values()
    }

    pub(super) fn row(&self, resource: &ResourceName) -> Option<&Row> {
        self.leases.rows.get(resource).map(Arc::as_ref)
    }

    /// How many leases stand, and how many of them are not kept.
    pub(super) fn standing(&self) -> (usize, usize) {
        let unkept = self.leases.unkept;
        (self.leases.rows.len() + unkept, unkept)
    }

    /// How many wait in all, as far as they are counted.
    pub(super) fn waiting(&self) -> u64 {
        self.rows()
            .filter_map(|row| row.waiters)
            .map(u64::from)
            .sum()
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn granted(&mut self, mut row: Row, at: Duration) {
        row.before = self.last_end_of(row.resource());
        self.note(
            at,
            What::Granted {
                resource: row.resource().clone(),
                token: Some(row.grant.token),
                label: row.label.clone(),
            },
        );
        self.leases.put(row);
    }

    /// It stands, and that is all that is known of it.
    pub(super) fn granted_unread(&mut self, resource: ResourceName, at: Duration) {
        let (token, label) = (None, String::new());
        self.leases.rows.remove(&resource);
        self.leases.unkept += 1;
        self.note(
            at,
            What::Granted {
                resource,
                token,
                label,
            },
        );
    }

    pub(super) fn ended(&mut self, ended: Ended, at: Duration) {
        self.leases.end(&ended);
        self.note(at, What::Ended(ended));
    }

    /// Puts a whole snapshot in the place of what was known. What is different is told unless it is the first.
    pub(super) fn replace(&mut self, mut now: Leases, is_first: bool, at: Duration) {
        let known = std::mem::take(&mut self.leases.rows);
        let mut new = 0;
        for (resource, row) in &mut now.rows {
            match known.get(resource) {
                Some(old) if old.grant == row.grant => {
                    let row = Arc::make_mut(row);
                    row.waiters = row.waiters.or(old.waiters);
                    row.before.clone_from(&old.before);
                }
                _ => new += 1,
            }
        }
        let stands =
            |old: &Row| matches!(now.rows.get(old.resource()), Some(row) if row.grant == old.grant);
        let gone = known.values().filter(|old| !stands(old)).count();
        self.leases = now;
        if !is_first && new + gone > 0 {
            self.note(at, What::CaughtUp { new, gone });
        }
    }

    /// Notes how many wait for a lease, if it still stands.
    pub(super) fn counted(
        &mut self,
        resource: &ResourceName,
        token: FencingToken,
        waiters: Option<u32>,
    ) {
        if let Some(row) = self.leases.rows.get_mut(resource)
            && row.grant.token == token
            && row.waiters != waiters
        {
            Arc::make_mut(row).waiters = waiters;
        }
    }

    fn last_end_of(&self, resource: &ResourceName) -> Option<Before> {
        self.events.iter().find_map(|event| match &event.what {
            What::Ended(ended) if ended.resource == *resource => Some(Before {
                ended: ended.clone(),
                seen_at: event.at,
            }),
            _ => None,
        })
    }

    fn note(&mut self, at: Duration, what: What) {
        self.changes += 1;
        self.events.truncate(MOST_EVENTS - 1);
        self.events.push_front(Event { at, what });
    }
}
