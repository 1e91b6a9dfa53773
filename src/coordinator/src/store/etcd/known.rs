//! What this coordinator has lately seen or done in etcd: good enough to guess a step by, which etcd then
//! compares in its log. A guess that is wrong costs a transaction and decides nothing.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_token::ResourceName;

use super::codec::{SeenSession, Stored};
use super::link::Link;
use super::view::{Sight, Source, Subject};
use crate::domain::{Hold, Place, RequestId, Revision, SessionId, View};

/// Sessions remembered: about 1 KiB each. One that is forgotten costs a read.
const MAX_SESSIONS: usize = 64 * 1024;
/// Resources remembered, those that are held or waited for: one that is forgotten costs a transaction.
const MAX_RESOURCES: usize = 64 * 1024;

/// Guesses by what was seen.
#[derive(Debug, Default)]
pub(super) struct Known {
    sessions: Mutex<HashMap<SessionId, Arc<SeenSession>>>,
    resources: Mutex<HashMap<ResourceName, Resource>>,
}

/// What is known of a resource that is not vacant and without waiters.
#[derive(Debug, Default)]
struct Resource {
    hold: Option<Stored<Hold>>,
    places: BTreeMap<(Revision, SessionId, RequestId), Place>,
}

fn order(place: &Place) -> (Revision, SessionId, RequestId) {
    let claim = &place.claim;
    (place.since, claim.session, claim.request.clone())
}

fn lock<T>(known: &Mutex<T>) -> MutexGuard<'_, T> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes room where a map is full: whichever goes is only forgotten.
fn make_room<K: Hash + Eq + Clone, V>(map: &mut HashMap<K, V>, key: &K, bound: usize) {
    if map.len() >= bound
        && !map.contains_key(key)
        && let Some(victim) = map.keys().next().cloned()
    {
        map.remove(&victim);
    }
}

impl Known {
    /// What etcd may well show, if that is known enough to act on.
    pub(super) fn guess(&self, link: &Link, subject: Subject<'_>) -> Option<Sight> {
        let session = Arc::clone(lock(&self.sessions).get(&subject.session?)?);
        let generation = link.trusted()?;
        let resources = lock(&self.resources);
        let resource = resources.get(subject.resource);
        let hold = resource.and_then(|known| known.hold.clone());
        let places = resource.map(|known| &known.places);
        let own_place = places.zip(subject.request).and_then(|(places, request)| {
            let mut own = places.values();
            own.find(|place| place.claim.is_of(session.record.id, request))
                .cloned()
        });
        let view = View {
            session: Some(session.record.clone()),
            hold: hold.as_ref().map(|hold| hold.record.clone()),
            own_place,
            head: places.and_then(|places| places.values().next()).cloned(),
            delay: None,
            waiters: places.map_or(0, |places| u64::try_from(places.len()).unwrap_or(u64::MAX)),
        };
        Some(Sight {
            view,
            session: Some(session),
            hold,
            left: None,
            generation: Some(generation),
            source: Source::Guess,
        })
    }

    /// Takes note of what etcd showed.
    pub(super) fn saw(&self, subject: Subject<'_>, sight: &Sight) {
        match (&sight.session, subject.session) {
            (Some(session), _) => self.session(Arc::clone(session)),
            (None, Some(id)) => self.session_ended(id),
            (None, None) => {}
        }
        self.change(subject.resource, |known| {
            known.hold.clone_from(&sight.hold);
            match &sight.view.head {
                None => known.places.clear(),
                Some(head) => {
                    known.places.retain(|(since, ..), _| *since >= head.since);
                    known.places.insert(order(head), head.clone());
                }
            }
            if let Some(own) = &sight.view.own_place {
                known.places.insert(order(own), own.clone());
            }
        });
    }

    /// Takes note of a session as it is now.
    pub(super) fn session(&self, session: Arc<SeenSession>) {
        let mut sessions = lock(&self.sessions);
        make_room(&mut sessions, &session.record.id, MAX_SESSIONS);
        sessions.insert(session.record.id, session);
    }

    /// Forgets a session.
    pub(super) fn session_ended(&self, id: SessionId) {
        lock(&self.sessions).remove(&id);
    }

    /// Takes note of a lease that was granted, from a place if there was one.
    pub(super) fn granted(&self, hold: Stored<Hold>, place: Option<&Place>) {
        let resource = hold.record.claim.resource.clone();
        self.change(&resource, |known| {
            known.hold = Some(hold);
            if let Some(place) = place {
                known.places.remove(&order(place));
            }
        });
    }

    /// Takes note of a lease that ended without a successor.
    pub(super) fn vacated(&self, resource: &ResourceName) {
        self.change(resource, |known| known.hold = None);
    }

    /// Takes note of a place in a queue.
    pub(super) fn queued(&self, place: &Place) {
        self.change(&place.claim.resource, |known| {
            known.places.insert(order(place), place.clone());
        });
    }

    /// Takes note of a place that is given back.
    pub(super) fn left(&self, place: &Place) {
        self.change(&place.claim.resource, |known| {
            known.places.remove(&order(place));
        });
    }

    fn change(&self, name: &ResourceName, change: impl FnOnce(&mut Resource)) {
        let mut resources = lock(&self.resources);
        make_room(&mut resources, name, MAX_RESOURCES);
        let known = resources.entry(name.clone()).or_default();
        change(known);
        if known.hold.is_none() && known.places.is_empty() {
            resources.remove(name);
        }
    }
}
