//! Who waits for what at this coordinator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use palisade_token::ResourceName;
use tokio::sync::Notify;

use super::glance::Glanced;
use crate::domain::{Granted, Hold, RequestId, Revision, SessionId};
use crate::service::error::CallError;

/// A request of a session.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) session: SessionId,
    pub(super) request: RequestId,
}

/// All waiting calls, by resource and request, so that news of one grant costs the same however many wait.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bound: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    count: usize,
    next: u64,
    resources: BTreeMap<ResourceName, Hosted>,
}

#[derive(Debug, Default)]
struct Hosted {
    /// Several calls may wait for one request: a client's second try, while the first is still here.
    seats: BTreeMap<Key, Vec<(u64, Arc<Bell>)>>,
    promotion: Promotion,
    /// Whether one of them has a place in the queue: until then nobody is to be promoted for its sake.
    has_queued: bool,
    /// Whether a promotion was begun since the first of them came: from then on there is news.
    is_looked_after: bool,
    glanced: Arc<Glanced>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Promotion {
    #[default]
    Idle,
    Running,
    /// Running, and to be run once more: what it saw may be old.
    Again,
}

/// What wakes one waiting call.
#[derive(Debug, Default)]
pub(super) struct Bell {
    woken: Notify,
    is_rung: AtomicBool,
    is_cancelled: AtomicBool,
    granted: OnceLock<Hold>,
    /// Since when the request has its place.
    since: OnceLock<Revision>,
    /// The last grant to its session that was heard of: whose it is costs more to read than most need, since they
    /// are answered otherwise.
    heard: Mutex<Option<Arc<Granted>>>,
}

impl Bell {
    pub(super) fn ring(&self) {
        self.is_rung.store(true, Ordering::Release);
        self.woken.notify_one();
    }

    fn hear(&self, granted: &Arc<Granted>) {
        let unread = self.heard().replace(Arc::clone(granted));
        // What it told is not lost: whoever waits looks for himself then.
        if unread.is_some() {
            self.is_rung.store(true, Ordering::Release);
        }
        self.woken.notify_one();
    }

    /// Whether what it was woken for concerns a request.
    fn is_for(&self, key: &Key) -> bool {
        let is_rung = self.is_rung.swap(false, Ordering::AcqRel);
        let heard = self.heard().take();
        match heard.as_ref().and_then(|granted| granted.hold()) {
            Some(hold) if hold.claim.is_of(key.session, &key.request) => {
                self.granted.get_or_init(|| hold.clone());
                true
            }
            Some(_) | None => is_rung,
        }
    }

    fn heard(&self) -> MutexGuard<'_, Option<Arc<Granted>>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What wakes those who wait for one resource.
#[derive(Debug)]
pub(super) struct Wakes {
    pub(super) resource: ResourceName,
    pub(super) wakes: Vec<Arc<Bell>>,
}

/// The place of one call in the registry; dropping it takes it out. The place in the queue is another
/// thing: it is in the store, and stays.
#[derive(Debug)]
pub(crate) struct Seat {
    shared: Arc<Shared>,
    resource: ResourceName,
    key: Key,
    id: u64,
    wake: Arc<Bell>,
}

impl Seat {
    /// Waits for news since the last time.
    pub(crate) async fn woken(&self) {
        loop {
            self.wake.woken.notified().await;
            if self.wake.is_for(&self.key) {
                return;
            }
        }
    }

    /// Takes note that the request has a place in the queue since then. News of an older grant are of an earlier try of it,
    /// which was not heard of and has ended: told now, it would leave the place to a ghost (I4).
    pub(crate) fn queued(&self, since: Revision) {
        self.wake.since.get_or_init(|| since);
        let mut state = self.shared.lock();
        if let Some(hosted) = state.resources.get_mut(&self.resource) {
            hosted.has_queued = true;
        }
    }

    /// Has whoever waits here look once more.
    pub(crate) fn ring(&self) {
        self.wake.ring();
    }

    /// The lease that the request was granted, once that was told.
    pub(crate) fn granted(&self) -> Option<Hold> {
        let since = self.wake.since.get().copied().unwrap_or_default();
        let granted = self.wake.granted.get();
        granted.filter(|hold| hold.granted >= since).cloned()
    }

    /// Whether another call at this coordinator gave the request back.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.wake.is_cancelled.load(Ordering::Acquire)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(hosted) = state.resources.get_mut(&self.resource) else {
            return;
        };
        if let Some(seats) = hosted.seats.get_mut(&self.key) {
            seats.retain(|(id, _)| *id != self.id);
            if seats.is_empty() {
                hosted.seats.remove(&self.key);
            }
        }
        // A running promotion takes the entry out when it ends.
        if hosted.seats.is_empty() && hosted.promotion == Promotion::Idle {
            state.resources.remove(&self.resource);
        }
        state.count = state.count.saturating_sub(1);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    pub(super) fn new(bound: usize) -> Self {
        let shared = Shared {
            bound,
            state: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    pub(super) fn seat(&self, resource: &ResourceName, key: Key) -> Result<Seat, CallError> {
        let mut state = self.shared.lock();
        if state.count >= self.shared.bound {
            return Err(CallError::Limit {
                limit: "waiters",
                bound: u64::try_from(self.shared.bound).unwrap_or(u64::MAX),
            });
        }
        state.count += 1;
        state.next += 1;
        let id = state.next;
        let wake = Arc::new(Bell::default());
        let hosted = state.resources.entry(resource.clone()).or_default();
        let seats = hosted.seats.entry(key.clone()).or_default();
        seats.push((id, Arc::clone(&wake)));
        drop(state);
        Ok(Seat {
            shared: Arc::clone(&self.shared),
            resource: resource.clone(),
            key,
            id,
            wake,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.shared.lock().count
    }

    /// Wakes the calls that wait for one request, to find that it was given back.
    pub(super) fn cancel(&self, resource: &ResourceName, key: &Key) {
        self.for_each(resource, key, |bell| {
            bell.is_cancelled.store(true, Ordering::Release)
        });
        self.wake(resource, key);
    }

    /// Tells the calls that wait for a request that it was granted.
    pub(super) fn grant(&self, hold: &Hold) {
        let key = Key {
            session: hold.claim.session,
            request: hold.claim.request.clone(),
        };
        self.for_each(&hold.claim.resource, &key, |bell| {
            bell.granted.get_or_init(|| hold.clone());
            bell.ring();
        });
    }

    /// Tells the calls of a session that it was granted a resource; each finds out whether that is for its request.
    pub(super) fn hear(&self, granted: &Arc<Granted>) {
        let state = self.shared.lock();
        let Some(hosted) = state.resources.get(granted.resource()) else {
            return;
        };
        for (key, seats) in &hosted.seats {
            if key.session == granted.session() {
                seats.iter().for_each(|(_, bell)| bell.hear(granted));
            }
        }
    }

    /// Whether a request of a call here has a place in the queue of a resource.
    pub(super) fn has_queued(&self, resource: &ResourceName) -> bool {
        let state = self.shared.lock();
        let hosted = state.resources.get(resource);
        hosted.is_some_and(|hosted| hosted.has_queued)
    }

    /// Where the last glance at a resource's queue is kept, while anybody waits for it here.
    pub(super) fn glanced(&self, resource: &ResourceName) -> Option<Arc<Glanced>> {
        let state = self.shared.lock();
        let hosted = state.resources.get(resource)?;
        Some(Arc::clone(&hosted.glanced))
    }

    /// Wakes the calls that wait for one request.
    pub(super) fn wake(&self, resource: &ResourceName, key: &Key) {
        self.for_each(resource, key, Bell::ring);
    }

    fn for_each(&self, resource: &ResourceName, key: &Key, act: impl Fn(&Bell)) {
        let state = self.shared.lock();
        let seats = state
            .resources
            .get(resource)
            .and_then(|hosted| hosted.seats.get(key));
        for (_, wake) in seats.into_iter().flatten() {
            act(wake);
        }
    }

    /// All that wait, by resource.
    pub(super) fn hosted(&self) -> Vec<Wakes> {
        let state = self.shared.lock();
        let wakes = |hosted: &Hosted| {
            let seats = hosted.seats.values().flatten();
            seats.map(|(_, wake)| Arc::clone(wake)).collect()
        };
        let resources = state.resources.iter();
        resources
            .map(|(resource, hosted)| Wakes {
                resource: resource.clone(),
                wakes: wakes(hosted),
            })
            .collect()
    }

    /// Like [`Registry::begin_promotion`], but once only for as long as somebody waits.
    pub(super) fn begin_first_promotion(&self, resource: &ResourceName) -> bool {
        let state = self.shared.lock();
        let hosted = state.resources.get(resource);
        let is_first = hosted.is_some_and(|hosted| !hosted.is_looked_after);
        drop(state);
        is_first && self.begin_promotion(resource)
    }

    /// Whether a promotion of a resource is to be started now: somebody waits for it here, and none runs.
    /// One that runs will run once more.
    pub(super) fn begin_promotion(&self, resource: &ResourceName) -> bool {
        let mut state = self.shared.lock();
        let Some(hosted) = state.resources.get_mut(resource) else {
            return false;
        };
        hosted.is_looked_after = true;
        let begins = hosted.promotion == Promotion::Idle;
        hosted.promotion = match hosted.promotion {
            Promotion::Idle => Promotion::Running,
            Promotion::Running | Promotion::Again => Promotion::Again,
        };
        begins
    }

    /// Whether a promotion that ran is to run once more: while somebody waits here, and it failed or
    /// something happened meanwhile.
    pub(super) fn promotes_again(&self, resource: &ResourceName, failed: bool) -> bool {
        let mut state = self.shared.lock();
        let Some(hosted) = state.resources.get_mut(resource) else {
            return false;
        };
        if hosted.seats.is_empty() {
            state.resources.remove(resource);
            return false;
        }
        let again = failed || hosted.promotion == Promotion::Again;
        hosted.promotion = if again {
            Promotion::Running
        } else {
            Promotion::Idle
        };
        again
    }
}

#[cfg(test)]
mod schedules;

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use std::sync::Arc;

    use palisade_token::{HolderId, ResourceName};

    use super::{Key, Registry, Seat};
    use crate::domain::{
        Claim, Generation, GrantNote, Granted, Hold, Nonce, OpenId, Principal, RequestId, Revision,
        SessionId,
    };

    fn key(request: &str) -> Key {
        let open_id = OpenId::new("open").unwrap();
        Key {
            session: SessionId::derive(&Principal::anonymous(), &open_id),
            request: RequestId::new(request).unwrap(),
        }
    }

    #[test]
    fn only_the_request_in_the_news_is_woken_and_nothing_stays_behind() {
        let registry = Registry::new(3);
        let resource = ResourceName::new("a").unwrap();
        let first = registry.seat(&resource, key("1")).unwrap();
        let again = registry.seat(&resource, key("1")).unwrap();
        let other = registry.seat(&resource, key("2")).unwrap();
        assert!(registry.seat(&resource, key("3")).is_err(), "bounded");

        registry.wake(&resource, &key("1"));
        assert!(first.woken().now_or_never().is_some());
        assert!(again.woken().now_or_never().is_some());
        assert!(other.woken().now_or_never().is_none());

        drop((first, other));
        registry.wake(&resource, &key("1"));
        assert!(again.woken().now_or_never().is_some());
        drop(again);
        assert_eq!(registry.count(), 0);
        assert!(registry.hosted().is_empty());
    }

    fn hold(seat: &Seat, resource: &ResourceName, granted: Revision) -> Hold {
        let claim = Claim {
            resource: resource.clone(),
            session: seat.key.session,
            request: seat.key.request.clone(),
            holder: HolderId::from_bytes([1; 16]),
            label: String::new(),
            ttl_ms: 5000,
            metadata: Vec::new(),
            lock_delay_ms: 0,
        };
        Hold {
            claim,
            generation: Generation {
                nonce: Nonce::from_bytes([1; 16]),
                base: 1,
                since_revision: Revision(0),
            },
            granted,
            note: GrantNote::default(),
        }
    }

    #[test]
    fn a_grant_to_the_session_wakes_the_request_that_it_was_for_and_no_other() {
        let registry = Registry::new(2);
        let resource = ResourceName::new("a").unwrap();
        let first = registry.seat(&resource, key("1")).unwrap();
        let other = registry.seat(&resource, key("2")).unwrap();
        let hold = hold(&first, &resource, Revision(1));
        registry.hear(&Arc::new(Granted::known(hold.clone())));
        assert!(other.woken().now_or_never().is_none());
        assert!(first.woken().now_or_never().is_some());
        assert_eq!(first.granted(), Some(hold));
        assert_eq!(other.granted(), None);
    }

    #[test]
    fn a_grant_from_before_the_request_had_its_place_is_none_of_it() {
        let registry = Registry::new(1);
        let resource = ResourceName::new("a").unwrap();
        let seat = registry.seat(&resource, key("1")).unwrap();
        let hold = hold(&seat, &resource, Revision(30));
        registry.hear(&Arc::new(Granted::known(hold.clone())));
        assert!(seat.woken().now_or_never().is_some());
        assert_eq!(seat.granted(), Some(hold));

        seat.queued(Revision(37));
        assert_eq!(seat.granted(), None, "whoever was woken looks at the store");
    }

    #[test]
    fn one_promotion_runs_at_a_time_and_once_more_if_something_happened() {
        let registry = Registry::new(1);
        let resource = ResourceName::new("a").unwrap();
        assert!(!registry.begin_promotion(&resource), "nobody waits");
        let seat = registry.seat(&resource, key("1")).unwrap();
        assert!(registry.begin_first_promotion(&resource));
        assert!(!registry.begin_first_promotion(&resource));
        assert!(!registry.begin_promotion(&resource), "one runs");
        assert!(registry.promotes_again(&resource, false));
        assert!(!registry.promotes_again(&resource, false));
        assert!(registry.begin_promotion(&resource));
        assert!(registry.promotes_again(&resource, true));
        drop(seat);
        assert!(!registry.promotes_again(&resource, true), "nobody waits");
        assert!(registry.hosted().is_empty());
    }
}
