//! The whole state of a coordinator's store, as a state machine without I/O.
//!
//! The stores that own their state run on it: it plans what an operation comes to, the store makes the
//! planned changes durable, and only then are they applied. One plan is one transaction and one revision.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use palisade_token::ResourceName;

use super::{
    Acquire, AcquireStep, Acquired, AttachMark, Caller, Claim, Delay, Ended, Event, Generation,
    GrantNote, Granted, Hold, Last, LeaseEnd, Place, Previous, Principal, PromoteStep, Refusal,
    Release, ReleaseStep, Released, RequestId, Revision, Revoke, Revoked, Session, SessionId, View,
    WallClock, admit, decide_acquire, decide_attach, decide_promotion, decide_raise,
    decide_release, decide_revoke,
};

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A session was opened, or its mark raised.
    PutSession(Session),
    /// A session ended.
    DropSession(SessionId),
    /// A lease was granted.
    PutHold(Hold),
    /// A lease ended.
    DropHold(Ending),
    /// A request was queued.
    PutPlace(Place),
    /// A request left the queue.
    DropPlace(Place),
    /// A generation was made.
    PutGeneration(Generation),
    /// A resource is closed by its last lease's lock-delay, or was until now.
    PutDelay(ResourceName, Delay),
    /// The resource was granted again.
    DropDelay(ResourceName),
}

/// The end of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Whose lease ended.
    pub resource: ResourceName,
    /// How.
    pub end: LeaseEnd,
    /// Why, in the operator's words, where it was revoked.
    pub reason: String,
    /// Who revoked it, in the operator's words.
    pub actor: String,
    /// Who called to revoke it; nobody, however else it ended.
    pub principal: Principal,
}

impl Ending {
    /// The end of a lease that no operator asked for.
    #[must_use]
    pub fn plain(resource: &ResourceName, end: LeaseEnd) -> Self {
        Self {
            resource: resource.clone(),
            end,
            reason: String::new(),
            actor: String::new(),
            principal: Principal::anonymous(),
        }
    }
}

/// What an operation comes to: changes that belong into one transaction, and the answer once they are
/// durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan<T> {
    /// The changes, in order. Empty where nothing changes.
    pub changes: Vec<Change>,
    /// The revision of the transaction, or the current one where nothing changes.
    pub revision: Revision,
    /// What to answer.
    pub answer: T,
}

/// Sessions, leases and queues.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    revision: Revision,
    generation: Option<Generation>,
    sessions: BTreeMap<SessionId, Session>,
    holds: BTreeMap<ResourceName, Hold>,
    queues: BTreeMap<ResourceName, BTreeMap<Revision, Place>>,
    delays: BTreeMap<ResourceName, Delay>,
    /// What each session holds and waits for, so that its end costs what it has and not what there is.
    owned: BTreeMap<SessionId, Owned>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Owned {
    holds: BTreeSet<ResourceName>,
    places: BTreeSet<(ResourceName, Revision)>,
}

impl Ledger {
    /// Starts from a revision that was read back; [`Ledger::apply`] fills in the rest.
    #[must_use]
    pub fn at(revision: Revision) -> Self {
        Self {
            revision,
            ..Self::default()
        }
    }

    /// The revision of the last transaction.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The current generation.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// A session that lives.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// All sessions that live.
    pub fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// The resources that a lock-delay closes, and for how long from its beginning.
    pub fn closed(&self) -> impl Iterator<Item = (&ResourceName, Duration)> {
        let closed = self.delays.iter().filter(|(_, delay)| delay.is_running);
        closed.map(|(resource, delay)| (resource, delay.last.lock_delay()))
    }

    /// Those who wait for a resource, in the order in which they will be served.
    pub fn queue(&self, resource: &ResourceName) -> impl Iterator<Item = &Place> {
        let queue = self.queues.get(resource);
        queue.into_iter().flat_map(BTreeMap::values)
    }

    /// The lease of a resource, and how many wait for it.
    #[must_use]
    pub fn lease(&self, resource: &ResourceName) -> (Option<&Hold>, u64) {
        (self.holds.get(resource), self.waiters(resource))
    }

    /// Up to `limit` leases of resources that begin with `prefix`, after `after`, by name.
    pub fn leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> impl Iterator<Item = &Hold> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.holds
            .range::<ResourceName, _>((start, Bound::Unbounded))
            .filter(move |(name, _)| name.as_str().starts_with(prefix))
            .map(|(_, hold)| hold)
            .take(limit)
    }

    fn waiters(&self, resource: &ResourceName) -> u64 {
        let count = self.queues.get(resource).map_or(0, BTreeMap::len);
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    fn next_revision(&self) -> Revision {
        Revision(self.revision.0.saturating_add(1))
    }

    fn view(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: Option<&RequestId>,
    ) -> View {
        let queue = self.queues.get(resource);
        let is_own =
            |place: &&Place| request.is_some_and(|request| place.claim.is_of(session, request));
        View {
            session: self.sessions.get(&session).cloned(),
            hold: self.holds.get(resource).cloned(),
            own_place: queue.and_then(|queue| queue.values().find(is_own)).cloned(),
            head: queue.and_then(|queue| queue.values().next()).cloned(),
            waiters: self.waiters(resource),
            delay: self.delays.get(resource).cloned(),
        }
    }

    fn planned<T>(&self, changes: Vec<Change>, answer: T) -> Plan<T> {
        let revision = if changes.is_empty() {
            self.revision
        } else {
            self.next_revision()
        };
        Plan {
            changes,
            revision,
            answer,
        }
    }

    /// Plans a new generation.
    #[must_use]
    pub fn plan_generation(&self, generation: Generation) -> Plan<Generation> {
        self.planned(vec![Change::PutGeneration(generation)], generation)
    }

    /// Plans the opening of a session; one that is open already is the answer to a retry (I4).
    ///
    /// # Errors
    /// [`Refusal::OpenIdTaken`] where the session is open with another secret.
    pub fn plan_open(&self, session: &Session) -> Result<Plan<Session>, Refusal> {
        match self.sessions.get(&session.id) {
            Some(open) if open.secret != session.secret || open.principal != session.principal => {
                Err(Refusal::OpenIdTaken {
                    session: session.id,
                })
            }
            Some(open) => Ok(self.planned(Vec::new(), open.clone())),
            None => {
                let changes = vec![Change::PutSession(session.clone())];
                Ok(self.planned(changes, session.clone()))
            }
        }
    }

    /// Checks that a caller may renew a session.
    ///
    /// # Errors
    /// A [`Refusal`] of [`admit`].
    pub fn admit(&self, caller: &Caller) -> Result<&Session, Refusal> {
        admit(self.sessions.get(&caller.session), caller)
    }

    /// Plans that a stream becomes the session's own (I4).
    ///
    /// # Errors
    /// A [`Refusal`] of [`decide_attach`].
    pub fn plan_attach(&self, caller: &Caller) -> Result<Plan<Session>, Refusal> {
        let found = self.sessions.get(&caller.session);
        let mark = decide_attach(found, caller)?;
        self.plan_mark(caller.session, mark)
    }

    /// Plans that a stream raises its own mark (I4).
    ///
    /// # Errors
    /// A [`Refusal`] of [`decide_raise`].
    pub fn plan_raise(&self, caller: &Caller, to: AttachMark) -> Result<Plan<Session>, Refusal> {
        let found = self.sessions.get(&caller.session);
        let is_due = decide_raise(found, caller, to)?;
        self.plan_mark(caller.session, is_due.then_some(to))
    }

    fn plan_mark(&self, id: SessionId, mark: Option<AttachMark>) -> Result<Plan<Session>, Refusal> {
        let found = self.sessions.get(&id);
        let mut session = found
            .cloned()
            .ok_or(Refusal::SessionEnded { session: id })?;
        let Some(mark) = mark else {
            return Ok(self.planned(Vec::new(), session));
        };
        session.mark = mark;
        Ok(self.planned(vec![Change::PutSession(session.clone())], session))
    }

    /// How many leases are held.
    #[must_use]
    pub fn leases_held(&self) -> u64 {
        u64::try_from(self.holds.len()).unwrap_or(u64::MAX)
    }

    /// What a session holds and waits for.
    #[must_use]
    pub fn holdings(&self, id: SessionId) -> Vec<Acquired> {
        let holds = self.holds_of(id).cloned().map(Acquired::Held);
        holds
            .chain(self.places_of(id).cloned().map(Acquired::Queued))
            .collect()
    }

    fn holds_of(&self, id: SessionId) -> impl Iterator<Item = &Hold> {
        let names = self.owned.get(&id).into_iter().flat_map(|own| &own.holds);
        names.filter_map(|name| self.holds.get(name))
    }

    fn places_of(&self, id: SessionId) -> impl Iterator<Item = &Place> {
        let places = self.owned.get(&id).into_iter().flat_map(|own| &own.places);
        places.filter_map(|(name, since)| self.queues.get(name)?.get(since))
    }

    /// Plans the end of a session, with which its leases end in a given way: they go to those that wait, its
    /// own places are given back (I5).
    #[must_use]
    pub fn plan_end_session(&self, id: SessionId, end: LeaseEnd, now: WallClock) -> Plan<()> {
        if !self.sessions.contains_key(&id) {
            return self.planned(Vec::new(), ());
        }
        let mut changes = vec![Change::DropSession(id)];
        changes.extend(self.places_of(id).cloned().map(Change::DropPlace));
        for hold in self.holds_of(id) {
            let resource = &hold.claim.resource;
            changes.push(Change::DropHold(Ending::plain(resource, end)));
            if let Some(closed) = closed(hold, end, "") {
                changes.push(closed);
                continue;
            }
            let queue = self.queues.get(resource);
            let heirs = queue.into_iter().flat_map(BTreeMap::values);
            let heir = heirs.into_iter().find(|place| place.claim.session != id);
            let note = GrantNote::at(now, Some(Previous::of(hold, end, "")));
            let promotion = heir.and_then(|heir| self.promotion(heir, note));
            changes.extend(promotion.into_iter().flatten());
        }
        self.planned(changes, ())
    }

    /// Plans an acquire. `None` where there is no generation to grant under (I9).
    ///
    /// # Errors
    /// A [`Refusal`]; the changes of a refusal that gives a place back come with the other plans.
    pub fn plan_acquire(
        &self,
        acquire: &Acquire,
        now: WallClock,
    ) -> Option<Plan<Result<Acquired, Refusal>>> {
        let session = acquire.caller.session;
        let mut view = self.view(session, &acquire.resource, Some(&acquire.request));
        let mut acquire = acquire.clone();
        let mut changes = Vec::new();
        loop {
            match decide_acquire(&view, &acquire) {
                Err(refusal) => return Some(self.planned(changes, Err(refusal))),
                Ok(AcquireStep::Answer(answer)) => return Some(self.planned(changes, Ok(answer))),
                Ok(AcquireStep::Raise(mark)) => {
                    acquire.caller = acquire.caller.having_raised();
                    raise(&mut view, mark, &mut changes);
                }
                Ok(AcquireStep::Leave(place)) => {
                    view.own_place = None;
                    changes.push(Change::DropPlace(place));
                }
                Ok(AcquireStep::Grant { claim, place }) => {
                    let last = self.delays.get(&acquire.resource);
                    let previous = last.map(|delay| delay.last.previous());
                    let note = GrantNote::at(now, previous.or_else(|| acquire.previous.clone()));
                    let hold = self.hold(claim, note)?;
                    changes.extend(last.map(|_| Change::DropDelay(acquire.resource.clone())));
                    changes.extend(place.map(Change::DropPlace));
                    changes.push(Change::PutHold(hold.clone()));
                    return Some(self.planned(changes, Ok(Acquired::Held(hold))));
                }
                Ok(AcquireStep::BeginDelay(last)) => {
                    let delay = Delay {
                        last: last.begun(),
                        is_running: true,
                    };
                    view.delay = Some(delay.clone());
                    changes.push(Change::PutDelay(acquire.resource.clone(), delay));
                }
                Ok(AcquireStep::Enqueue(claim)) => {
                    let place = Place {
                        claim,
                        since: self.next_revision(),
                    };
                    changes.push(Change::PutPlace(place.clone()));
                    return Some(self.planned(changes, Ok(Acquired::Queued(place))));
                }
            }
        }
    }

    /// What a request came to so far: its hold, its place, or neither.
    #[must_use]
    pub fn standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Option<Acquired> {
        let view = self.view(session, resource, Some(request));
        match (view.hold, view.own_place) {
            (Some(hold), _) if hold.claim.is_of(session, request) => Some(Acquired::Held(hold)),
            (_, place) => place.map(Acquired::Queued),
        }
    }

    /// Plans a release, with the hand-over to whoever waits.
    pub fn plan_release(
        &self,
        release: &Release,
        now: WallClock,
    ) -> Plan<Result<Released, Refusal>> {
        let session = release.caller.session;
        let mut view = self.view(session, &release.resource, release.request());
        let mut release = release.clone();
        let mut changes = Vec::new();
        loop {
            match decide_release(&view, &release) {
                Err(refusal) => return self.planned(changes, Err(refusal)),
                Ok(ReleaseStep::Answer(answer)) => return self.planned(changes, Ok(answer)),
                Ok(ReleaseStep::Raise(mark)) => {
                    release.caller = release.caller.having_raised();
                    raise(&mut view, mark, &mut changes);
                }
                Ok(ReleaseStep::Leave(place)) => {
                    changes.push(Change::DropPlace(place));
                    return self.planned(
                        changes,
                        Ok(Released::Place {
                            ended: self.next_revision(),
                        }),
                    );
                }
                Ok(ReleaseStep::End { hold, successor }) => {
                    let end = LeaseEnd::Released;
                    changes.push(Change::DropHold(Ending::plain(&release.resource, end)));
                    let note = GrantNote::at(now, Some(Previous::of(&hold, end, "")));
                    let promotion = successor.and_then(|place| self.promotion(&place, note));
                    let successor = promotion.as_ref().and_then(granted).map(Box::new);
                    changes.extend(promotion.into_iter().flatten());
                    return self.planned(
                        changes,
                        Ok(Released::Lease {
                            hold,
                            ended: self.next_revision(),
                            successor,
                        }),
                    );
                }
            }
        }
    }

    /// Plans the end of a lease by an operator, with the hand-over to whoever waits.
    ///
    /// # Errors
    /// A [`Refusal`] of [`decide_revoke`].
    pub fn plan_revoke(&self, revoke: &Revoke, now: WallClock) -> Result<Plan<Revoked>, Refusal> {
        let view = self.public_view(&revoke.resource);
        let Some((hold, successor)) = decide_revoke(&view, revoke.token)? else {
            return Ok(self.planned(Vec::new(), Revoked::NotHeld));
        };
        let mut changes = vec![Change::DropHold(Ending {
            resource: revoke.resource.clone(),
            end: LeaseEnd::Revoked,
            reason: revoke.reason.clone(),
            actor: revoke.actor.clone(),
            principal: revoke.principal.clone(),
        })];
        let previous = Previous::of(hold, LeaseEnd::Revoked, &revoke.reason);
        let note = GrantNote::at(now, Some(previous));
        match closed(hold, LeaseEnd::Revoked, &revoke.reason) {
            Some(closed) => changes.push(closed),
            None => {
                let promotion = successor.and_then(|place| self.promotion(place, note));
                changes.extend(promotion.into_iter().flatten());
            }
        }
        let answer = Revoked::Lease {
            hold: hold.clone(),
            ended: self.next_revision(),
        };
        Ok(self.planned(changes, answer))
    }

    /// The lease that a holder is to be asked for; `None` where it has ended.
    ///
    /// # Errors
    /// A [`Refusal`] of [`decide_revoke`].
    pub fn asked_back(&self, revoke: &Revoke) -> Result<Option<&Hold>, Refusal> {
        let view = self.public_view(&revoke.resource);
        let is_held = decide_revoke(&view, revoke.token)?.is_some();
        Ok(self.holds.get(&revoke.resource).filter(|_| is_held))
    }

    fn public_view(&self, resource: &ResourceName) -> View {
        View {
            hold: self.holds.get(resource).cloned(),
            head: self.queue(resource).next().cloned(),
            delay: self.delays.get(resource).cloned(),
            ..View::default()
        }
    }

    /// Plans the grant of a vacant resource to whoever waits first.
    #[must_use]
    pub fn plan_promotion(&self, resource: &ResourceName, now: WallClock) -> Plan<Option<Hold>> {
        let view = self.public_view(resource);
        let PromoteStep::Grant(place) = decide_promotion(&view) else {
            return self.planned(Vec::new(), None);
        };
        let changes = self.promotion(place, GrantNote::at(now, None));
        let granted = changes.as_ref().and_then(granted);
        self.planned(changes.into_iter().flatten().collect(), granted)
    }

    /// Plans the end of a lock-delay: whoever waits first is granted the resource.
    #[must_use]
    pub fn plan_reopen(&self, resource: &ResourceName, now: WallClock) -> Plan<()> {
        let Some(delay) = self.delays.get(resource).filter(|delay| delay.is_running) else {
            return self.planned(Vec::new(), ());
        };
        let head = self.queue(resource).next();
        let note = GrantNote::at(now, Some(delay.last.previous()));
        if let Some(promotion) = head.and_then(|place| self.promotion(place, note)) {
            let mut changes = vec![Change::DropDelay(resource.clone())];
            changes.extend(promotion);
            return self.planned(changes, ());
        }
        let over = Delay {
            is_running: false,
            ..delay.clone()
        };
        self.planned(vec![Change::PutDelay(resource.clone(), over)], ())
    }

    fn promotion(&self, place: &Place, note: GrantNote) -> Option<[Change; 2]> {
        let hold = self.hold(place.claim.clone(), note)?;
        Some([Change::DropPlace(place.clone()), Change::PutHold(hold)])
    }

    /// Nothing is granted without a generation (I9).
    fn hold(&self, claim: Claim, note: GrantNote) -> Option<Hold> {
        let generation = self.generation?;
        Some(Hold {
            claim,
            generation,
            granted: self.next_revision(),
            note,
        })
    }

    /// Applies changes that are durable as the transaction of a revision, and says what happened.
    pub fn apply(&mut self, revision: Revision, changes: &[Change]) -> Vec<Event> {
        self.revision = revision;
        let mut told = Told::default();
        for change in changes {
            match change {
                Change::PutSession(session) => {
                    self.sessions.insert(session.id, session.clone());
                }
                Change::DropSession(id) => {
                    self.sessions.remove(id);
                }
                Change::PutHold(hold) => {
                    self.put_hold(hold);
                    told.granted(hold);
                }
                Change::DropHold(ending) => {
                    let lease = self.drop_hold(&ending.resource);
                    told.ended(ending, lease, revision);
                }
                Change::PutPlace(place) => self.put_place(place),
                Change::DropPlace(place) => self.drop_place(place),
                Change::PutGeneration(generation) => self.generation = Some(*generation),
                Change::PutDelay(resource, delay) => {
                    if !delay.is_running {
                        told.reopened.insert(resource.clone());
                    }
                    self.delays.insert(resource.clone(), delay.clone());
                }
                Change::DropDelay(resource) => {
                    self.delays.remove(resource);
                }
            }
        }
        told.in_order(revision)
    }

    fn put_hold(&mut self, hold: &Hold) {
        let resource = &hold.claim.resource;
        self.drop_hold(resource);
        self.holds.insert(resource.clone(), hold.clone());
        let owned = self.owned.entry(hold.claim.session).or_default();
        owned.holds.insert(resource.clone());
    }

    fn drop_hold(&mut self, resource: &ResourceName) -> Option<Hold> {
        let hold = self.holds.remove(resource)?;
        self.disown(hold.claim.session, |owned| {
            owned.holds.remove(resource);
        });
        Some(hold)
    }

    fn disown(&mut self, id: SessionId, change: impl FnOnce(&mut Owned)) {
        if let Some(owned) = self.owned.get_mut(&id) {
            change(owned);
            if owned.holds.is_empty() && owned.places.is_empty() {
                self.owned.remove(&id);
            }
        }
    }

    fn put_place(&mut self, place: &Place) {
        let resource = &place.claim.resource;
        let queue = self.queues.entry(resource.clone()).or_default();
        queue.insert(place.since, place.clone());
        let owned = self.owned.entry(place.claim.session).or_default();
        owned.places.insert((resource.clone(), place.since));
    }

    fn drop_place(&mut self, place: &Place) {
        self.disown(place.claim.session, |owned| {
            owned
                .places
                .remove(&(place.claim.resource.clone(), place.since));
        });
        if let Some(queue) = self.queues.get_mut(&place.claim.resource) {
            queue.remove(&place.since);
            if queue.is_empty() {
                self.queues.remove(&place.claim.resource);
            }
        }
    }
}

/// How a lease with a lock-delay closes its resource where it ends uncleanly.
fn closed(hold: &Hold, end: LeaseEnd, reason: &str) -> Option<Change> {
    if end == LeaseEnd::Released {
        return None;
    }
    let last = Last::after(hold, end, reason)?.begun();
    let delay = Delay {
        last,
        is_running: true,
    };
    Some(Change::PutDelay(hold.claim.resource.clone(), delay))
}

fn granted(promotion: &[Change; 2]) -> Option<Hold> {
    promotion.iter().find_map(|change| match change {
        Change::PutHold(hold) => Some(hold.clone()),
        _ => None,
    })
}

/// What happens at one revision.
#[derive(Default)]
struct Told {
    ends: Vec<Event>,
    grants: Vec<Event>,
    vacant: BTreeSet<ResourceName>,
    reopened: BTreeSet<ResourceName>,
}

impl Told {
    fn granted(&mut self, hold: &Hold) {
        self.vacant.remove(&hold.claim.resource);
        let granted = Granted::known(hold.clone());
        self.grants.push(Event::Granted(Arc::new(granted)));
    }

    fn ended(&mut self, ending: &Ending, lease: Option<Hold>, revision: Revision) {
        self.vacant.insert(ending.resource.clone());
        self.ends.push(Event::Ended(Ended {
            resource: ending.resource.clone(),
            revision,
            end: Some(ending.end),
            reason: ending.reason.clone(),
            actor: ending.actor.clone(),
            lease: lease.map(Granted::known).map(Arc::new),
            told: None,
        }));
    }

    fn in_order(self, revision: Revision) -> Vec<Event> {
        let vacant = self.vacant.into_iter();
        let vacant = vacant.map(|resource| Event::Vacant { resource, revision });
        let events = self.ends.into_iter().chain(self.grants);
        let reopened = self.reopened.into_iter();
        let reopened = reopened.map(|resource| Event::Reopened { resource, revision });
        events.chain(vacant).chain(reopened).collect()
    }
}

fn raise(view: &mut View, mark: AttachMark, changes: &mut Vec<Change>) {
    if let Some(session) = &mut view.session {
        session.mark = mark;
        changes.push(Change::PutSession(session.clone()));
    }
}

#[cfg(test)]
mod tests;
