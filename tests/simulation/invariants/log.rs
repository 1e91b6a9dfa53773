//! The state that the store's log makes, entry by entry.

use std::collections::BTreeMap;
use std::time::Duration;

use palisade_coordinator::domain::{RequestId, Revision, SessionId};
use palisade_token::ResourceName;

use crate::history::{At, Decision, Entry, Granted, Kept, What};

/// A session that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Live {
    pub ttl: Duration,
    /// When its time to live last began.
    pub renewed: At,
}

/// Who waits: by place.
pub(super) type Queue = BTreeMap<Revision, (SessionId, RequestId)>;

/// What the log has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub incarnation: u32,
    pub revision: Revision,
    pub sessions: BTreeMap<SessionId, Live>,
    pub holds: BTreeMap<ResourceName, Granted>,
    pub queues: BTreeMap<ResourceName, Queue>,
    pub delayed: BTreeMap<ResourceName, bool>,
    /// Of this incarnation.
    pub generation: Option<(u64, Revision)>,
}

impl State {
    /// Takes an entry in; those that are not of the log change nothing.
    pub(super) fn apply(&mut self, entry: &Entry) {
        let What::Log {
            incarnation,
            revision,
            decision,
        } = &entry.what
        else {
            return;
        };
        self.incarnation = *incarnation;
        match decision {
            Decision::Opened { session, ttl } => {
                let (ttl, renewed) = (*ttl, entry.at);
                self.sessions.insert(*session, Live { ttl, renewed });
            }
            Decision::Renewed { session } => {
                if let Some(live) = self.sessions.get_mut(session) {
                    live.renewed = entry.at;
                }
                return;
            }
            Decision::Ended { session } => {
                self.sessions.remove(session);
            }
            Decision::Granted(granted) => {
                let name = granted.resource.clone();
                self.delayed.remove(&name);
                self.holds.insert(name, granted.clone());
            }
            Decision::Over {
                resource, token, ..
            } => {
                if self
                    .holds
                    .get(resource)
                    .is_some_and(|hold| hold.token == *token)
                {
                    self.holds.remove(resource);
                }
            }
            Decision::Queued {
                resource,
                session,
                request,
                place,
            } => {
                let queue = self.queues.entry(resource.clone()).or_default();
                queue.insert(*place, (*session, request.clone()));
            }
            Decision::Left { resource, place } => {
                let queue = self.queues.entry(resource.clone()).or_default();
                queue.remove(place);
            }
            Decision::Delayed { resource } => {
                let is_delayed = self.delayed.entry(resource.clone()).or_default();
                *is_delayed = !*is_delayed;
            }
            Decision::Generation { base, since } => self.generation = Some((*base, *since)),
            Decision::Restored(kept) => {
                self.start_on(kept, entry.at);
                self.generation = None;
            }
            Decision::Restarted(kept) => self.start_on(kept, entry.at),
            Decision::Marked { .. } => {}
        }
        self.revision = *revision;
    }

    fn start_on(&mut self, kept: &Kept, at: At) {
        let live = |(session, ttl): &(SessionId, Duration)| {
            let (ttl, renewed) = (*ttl, at);
            (*session, Live { ttl, renewed })
        };
        self.sessions = kept.sessions.iter().map(live).collect();
        let holds = kept.holds.iter().cloned();
        self.holds = holds.map(|hold| (hold.resource.clone(), hold)).collect();
        self.queues = BTreeMap::new();
        for (resource, place, session, request) in &kept.places {
            let queue = self.queues.entry(resource.clone()).or_default();
            queue.insert(*place, (*session, request.clone()));
        }
    }

    pub(super) fn waiting(&self, resource: &ResourceName) -> usize {
        self.queues.get(resource).map_or(0, BTreeMap::len)
    }
}
