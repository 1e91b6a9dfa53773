//! What this coordinator has lately seen or done in etcd: good enough to guess a step by, which etcd then
//! compares in its log. A guess that is wrong costs a transaction and decides nothing.

mod line;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_token::ResourceName;

use self::line::Line;
use super::codec::{SeenSession, Stored};
use super::link::Link;
use super::view::{Own, Sight, Source, Spot, Subject};
use crate::domain::{Hold, Revision, SessionId, View};

pub(super) use self::line::Listed;

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
    line: Line,
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
        let nothing = Resource::default();
        let Resource { hold, line } = resources.get(subject.resource).unwrap_or(&nothing);
        let own = subject.own(&link.context().keys);
        let own = own.map_or_else(Own::default, |keys| {
            let [first, further] = &keys;
            Own::among(subject, [line.under(first), line.under(further)], &keys)
        });
        let head = match line.first() {
            Some((key, Some(place))) => {
                let key = key.to_vec();
                Some(Spot { place, key })
            }
            // Whose turn it is has to be looked up, where it matters.
            Some((_, None)) if !is_anothers(hold.as_ref(), session.record.id) => return None,
            Some((_, None)) | None => None,
        };
        let is_first = head.as_ref().is_some_and(|head| line.is_first(head));
        let view = View {
            session: Some(session.record.clone()),
            hold: hold.as_ref().map(|hold| hold.record.clone()),
            own_place: own.spot.as_ref().map(|spot| spot.place.clone()),
            head: head.as_ref().map(|spot| spot.place.clone()),
            delay: None,
            waiters: u64::try_from(line.len()).unwrap_or(u64::MAX),
        };
        Some(Sight {
            view,
            own,
            head,
            is_first,
            session: Some(session),
            hold: hold.clone(),
            left: None,
            generation: Some(generation),
            source: Source::Guess,
            at: Revision::default(),
        })
    }

    /// Whether etcd's log has shown over this connection that nobody waits longer than a place.
    pub(super) fn is_first(&self, spot: &Spot) -> bool {
        let resources = lock(&self.resources);
        let known = resources.get(&spot.place.claim.resource);
        known.is_some_and(|known| known.line.is_first(spot))
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
            known.line.begins_with(sight.head.as_ref(), sight.at);
            if sight.source == Source::Log {
                known.line.proved(sight.head.as_ref(), sight.at);
            }
            if let Some(own) = &sight.own.spot {
                known.line.queued(own);
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

    /// Takes note of a lease that was granted, from a place if there was one, and of who waits behind that.
    pub(super) fn granted(&self, hold: Stored<Hold>, spot: Option<&Spot>, listed: Option<&Listed>) {
        let resource = hold.record.claim.resource.clone();
        let at = hold.record.granted;
        self.change(&resource, |known| {
            known.hold = Some(hold);
            if let Some(spot) = spot {
                known.line.left(spot);
            }
            if let Some(listed) = listed {
                known.line.listed(listed, at);
            }
        });
    }

    /// Takes note of a lease that ended without a successor.
    pub(super) fn vacated(&self, resource: &ResourceName) {
        self.change(resource, |known| known.hold = None);
    }

    /// Takes note of a place in a queue.
    pub(super) fn queued(&self, spot: &Spot) {
        self.change(&spot.place.claim.resource, |known| known.line.queued(spot));
    }

    /// Takes note of a place that is given back.
    pub(super) fn left(&self, spot: &Spot) {
        self.change(&spot.place.claim.resource, |known| known.line.left(spot));
    }

    fn change(&self, name: &ResourceName, change: impl FnOnce(&mut Resource)) {
        let mut resources = lock(&self.resources);
        make_room(&mut resources, name, MAX_RESOURCES);
        let known = resources.entry(name.clone()).or_default();
        change(known);
        if known.hold.is_none() && known.line.is_empty() {
            resources.remove(name);
        }
    }
}

/// Whether a lease is held, by another session: then whoever comes can only wait.
fn is_anothers(hold: Option<&Stored<Hold>>, session: SessionId) -> bool {
    hold.is_some_and(|hold| hold.record.claim.session != session)
}
