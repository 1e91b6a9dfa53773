//! Renewals of a stream's session, and the giving back of what its client does not know of (I5).
//!
//! The heartbeat is relayed at once: nothing that a client asked for before may delay it. What was named is
//! compared with what the session has once everything before it has had its first answer, and only with what was asked
//! for before it.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::AttachRenew;
use palisade_token::{FencingToken, ResourceName};
use tracing::debug;

use super::desk::Held;
use super::heard::How;
use super::job::{Give, Job};
use super::parse::{AllNamed, Named, by_resource};
use super::stream::{Done, End, Running};
use super::work::Failed;
use super::{parse, reply};
use crate::clock::Moment;
use crate::domain::{Acquired, HoldName, Refusal, RequestId};
use crate::service::counted;
use crate::service::error::CallError;
use crate::service::lease::Living;
use crate::store::{Failure, Standing, StoreError};

/// Renewals that are under way at a time: a client sends one in a third of the TTL.
const MAX_RENEWALS: usize = 16;
/// Lists in a row that may be compared only with what this stream knows: news of places in queues there is none,
/// and one that nobody knows of is given back after so many renewals at the latest.
const MAX_SKIPPED: u32 = 7;
/// How soon a session is asked after again whose store does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A list of open requests that waits for everything before it.
#[derive(Debug)]
pub(super) struct Barrier {
    seq: u64,
    /// Messages before it that have not had their first answer.
    before: usize,
    named: AllNamed,
}

impl Barrier {
    pub(super) fn new(seq: u64, before: usize, named: Vec<Named>) -> Self {
        Self {
            seq,
            before,
            named: by_resource(named),
        }
    }

    fn named(&self, resource: &ResourceName, request: &RequestId) -> impl Iterator<Item = &Named> {
        let named = self.named.get(resource).into_iter().flatten();
        named.filter(move |one| one.request == *request)
    }

    fn names(&self, resource: &ResourceName, request: &RequestId) -> bool {
        self.named(resource, request).next().is_some()
    }

    /// Whether the client was told that this request holds.
    fn holds(&self, resource: &ResourceName, request: &RequestId) -> bool {
        self.named(resource, request).any(|one| one.token.is_some())
    }
}

/// What the session has, for a list of what its client knows of.
#[derive(Debug)]
pub(super) struct Found {
    barrier: Barrier,
    holdings: Option<Vec<Acquired>>,
}

/// A hold that the client was told of, and that seems to be gone.
#[derive(Debug)]
pub(super) struct Missing {
    resource: ResourceName,
    request: RequestId,
    token: FencingToken,
    how: How,
    /// Who has the resource now, where nobody else told.
    now: Option<Standing>,
    is_gone: bool,
}

#[derive(Debug)]
pub(super) struct Renewals {
    /// The last list: it makes those before it superfluous.
    pub(super) barrier: Option<Barrier>,
    is_passing: bool,
    /// Messages that the heartbeat under way answers, and those that the next one will.
    relayed: Vec<u64>,
    slack: Option<Duration>,
    /// The next list is compared with what the store says, whatever else is known.
    pub(super) is_forced: bool,
    /// The grants that had been shown when a list was last dealt with.
    grants: Option<u64>,
    skipped: u32,
    behind: Vec<u64>,
}

impl Default for Renewals {
    fn default() -> Self {
        Self {
            barrier: None,
            is_passing: false,
            relayed: Vec::new(),
            behind: Vec::new(),
            slack: None,
            is_forced: true,
            grants: None,
            skipped: 0,
        }
    }
}

impl Renewals {
    /// All that the session ever gets is shown from now on, after this many grants.
    pub(super) fn nothing_before(&mut self, grants: Option<u64>) {
        self.is_forced = false;
        self.grants = grants;
    }

    /// A message has had its first answer.
    pub(super) fn answered(&mut self, seq: u64) {
        if let Some(barrier) = &mut self.barrier
            && seq < barrier.seq
        {
            barrier.before = barrier.before.saturating_sub(1);
        }
    }
}

impl Running {
    pub(super) fn renew(&mut self, seq: u64, given: AttachRenew) -> Result<(), End> {
        let limits = &self.shared.leases.limits;
        match parse::open_requests(given.open_requests, limits) {
            Ok(named) => {
                let before = self.desk.lanes.messages();
                self.renewals.barrier = Some(Barrier::new(seq, before, named));
                self.start_pass();
                self.relay(seq)
            }
            Err(error) => self.tell(reply::refused(seq, &self.about(), &error.into())),
        }
    }

    pub(super) fn refuse_renewal(&self, seq: u64, error: &CallError) -> Result<(), End> {
        self.tell(reply::refused(seq, &self.about(), error))
    }

    /// Relays a heartbeat that the client sent.
    pub(super) fn relay(&mut self, seq: u64) -> Result<(), End> {
        if self.renewals.behind.len() >= MAX_RENEWALS {
            let bound = u64::try_from(MAX_RENEWALS).unwrap_or(u64::MAX);
            let limit = "renewals";
            return self.refuse_renewal(seq, &CallError::Limit { limit, bound });
        }
        if self.renewals.relayed.is_empty() {
            self.renewals.relayed.push(seq);
            self.start_relay();
        } else {
            self.renewals.behind.push(seq);
        }
        Ok(())
    }

    fn start_relay(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.renewals.slack = Some(shared.leases.left(self.living.until));
        // After a third of the TTL the client has sent the next one.
        let until = shared.now().after(self.living.ttl / 3);
        self.start(async move { Done::Renewed(shared.renew(until).await) });
    }

    pub(super) fn renewed(&mut self, done: Result<Living, Failed>) -> Result<(), End> {
        let outcome = match &done {
            Ok(living) => counted::renewal(Ok(living)),
            Err(Failed::Told(error) | Failed::Ends(error)) => counted::renewal::<()>(Err(error)),
        };
        // What the session had left when the heartbeat came: the early warning of late clients.
        let slack = self.renewals.slack.take();
        self.shared.leases.metrics.renewed(outcome, slack);
        let relayed = std::mem::take(&mut self.renewals.relayed);
        match done {
            Ok(living) => {
                self.living = living;
                let left = self.shared.leases.left(living.until);
                for seq in relayed {
                    self.tell(reply::renewed(seq, living.ttl, left))?;
                }
            }
            Err(Failed::Told(error)) => {
                for seq in relayed {
                    self.refuse_renewal(seq, &error)?;
                }
            }
            Err(Failed::Ends(error)) => return self.over(error),
        }
        self.renewals.relayed = std::mem::take(&mut self.renewals.behind);
        if !self.renewals.relayed.is_empty() {
            self.start_relay();
        }
        Ok(())
    }

    /// Compares what the client knows of with what its session has, once it is time.
    pub(super) fn start_pass(&mut self) {
        let renewals = &mut self.renewals;
        let is_due = renewals
            .barrier
            .as_ref()
            .is_some_and(|barrier| barrier.before == 0);
        if !is_due || renewals.is_passing {
            return;
        }
        let Some(barrier) = renewals.barrier.take() else {
            return;
        };
        if !self.is_pass_needed(&barrier) {
            self.desk.forget_ends();
            return;
        }
        self.renewals.is_passing = true;
        let shared = Arc::clone(&self.shared);
        self.start(async move {
            let asked = shared.leases.store.holdings(shared.caller.session).await;
            let holdings = match asked {
                Ok(holdings) => Some(holdings),
                Err(error) => {
                    let session = shared.caller.session;
                    debug!(%error, %session, "could not read what a session has");
                    None
                }
            };
            Done::Found(Box::new(Found { barrier, holdings }))
        });
    }

    /// Whether the session may have anything that its client does not know of, or not have what it believes in.
    /// Most sessions only say that they live: reading what each of them has would be most of the store's work.
    fn is_pass_needed(&mut self, barrier: &Barrier) -> bool {
        let grants = self.news.grants();
        let renewals = &mut self.renewals;
        let seen = std::mem::replace(&mut renewals.grants, grants);
        let is_forced = std::mem::take(&mut renewals.is_forced);
        let is_needed = is_forced
            || grants.is_none()
            || grants != seen
            || renewals.skipped >= MAX_SKIPPED
            || self.shared.marks.is_in_doubt()
            || !self.desk.is_as_named(&barrier.named, barrier.seq);
        let skipped = self.renewals.skipped.saturating_add(1);
        self.renewals.skipped = if is_needed { 0 } else { skipped };
        is_needed
    }

    pub(super) fn found(&mut self, found: Found) -> Result<(), End> {
        self.renewals.is_passing = false;
        // What could not be read is read with the next renewal.
        self.renewals.is_forced |= found.holdings.is_none();
        if let Some(holdings) = &found.holdings {
            self.give_back(&found.barrier, holdings)?;
            self.look_for_missing(&found.barrier, holdings);
            self.desk.forget_ends();
        }
        self.start_pass();
        Ok(())
    }

    /// Gives back what the client does not know of; not what a later message has to do with.
    fn give_back(&mut self, barrier: &Barrier, holdings: &[Acquired]) -> Result<(), End> {
        for acquired in holdings {
            let claim = match acquired {
                Acquired::Held(hold) => &hold.claim,
                Acquired::Queued(place) => &place.claim,
            };
            let (resource, request) = (&claim.resource, &claim.request);
            if self.desk.is_after(resource, request, barrier.seq) {
                continue;
            }
            if barrier.names(resource, request) {
                // What waits though its client holds it, as after a restore, is soon named no more.
                self.renewals.is_forced |=
                    matches!(acquired, Acquired::Queued(_)) && barrier.holds(resource, request);
                self.take_up_named(barrier, acquired);
                continue;
            }
            debug!(%resource, session = %claim.session, %request, "giving back what its client does not name");
            self.put(Job::Give(Box::new(Give {
                seq: barrier.seq,
                resource: resource.clone(),
                hold: HoldName::Request(request.clone()),
                fence: None,
                is_asked: false,
            })))?;
        }
        Ok(())
    }

    /// A lease that the client has from elsewhere is its stream's to look after from now on.
    fn take_up_named(&mut self, barrier: &Barrier, acquired: &Acquired) {
        let Acquired::Held(hold) = acquired else {
            return;
        };
        let (resource, request) = (&hold.claim.resource, &hold.claim.request);
        if barrier.holds(resource, request)
            && self.desk.held(resource, request).is_none()
            && !self.desk.has_ended(resource, request)
            && !self.desk.lanes.is_busy(resource)
        {
            self.take_up(barrier.seq, hold);
        }
    }

    /// Looks after holds that the client believes in and that were not among what its session has. That list may
    /// be old, so each is looked up by itself.
    fn look_for_missing(&mut self, barrier: &Barrier, holdings: &[Acquired]) {
        let has = |resource: &ResourceName, request: &RequestId| {
            holdings.iter().any(|acquired| match acquired {
                Acquired::Held(hold) => {
                    hold.claim.resource == *resource && hold.claim.request == *request
                }
                Acquired::Queued(_) => false,
            })
        };
        let named = barrier.named.values().flatten();
        let believed = named.filter_map(|one| {
            let names = (one.resource.clone(), one.request.clone());
            one.token.map(|token| (names, token))
        });
        let told = self.desk.held_before(barrier.seq).into_iter();
        let told = told.map(|(resource, Held { request, token, .. })| ((resource, request), token));
        let mut all: Vec<_> = believed.chain(told).collect();
        all.sort_unstable();
        all.dedup();
        for ((resource, request), token) in all {
            let is_gone = !has(&resource, &request)
                && !self.desk.lanes.is_busy(&resource)
                && !self.desk.has_ended(&resource, &request);
            if is_gone {
                self.start_missing(resource, request, token, How::default());
            }
        }
    }

    pub(super) fn start_missing(
        &mut self,
        resource: ResourceName,
        request: RequestId,
        token: FencingToken,
        how: How,
    ) {
        let shared = Arc::clone(&self.shared);
        self.start(async move {
            let store = &shared.leases.store;
            let session = shared.caller.session;
            let found = store.standing(session, &resource, &request).await;
            let is_gone = matches!(found, Ok(None | Some(Acquired::Queued(_))));
            let now = match is_gone && how.successor.is_none() {
                true => shared.standing(&resource).await,
                false => None,
            };
            Done::Missing(Box::new(Missing {
                resource,
                request,
                token,
                how,
                now,
                is_gone,
            }))
        });
    }

    pub(super) fn missing(&mut self, missing: &Missing) -> Result<(), End> {
        let Missing {
            resource,
            request,
            token,
            how,
            now,
            is_gone,
        } = missing;
        // If it was released meanwhile, that is what the client is told.
        if !is_gone || self.desk.lanes.is_busy(resource) || self.desk.has_ended(resource, request) {
            return Ok(());
        }
        if self.desk.end(resource, &HoldName::Token(*token)).is_none() {
            self.desk.note_end(resource, request);
        }
        let names = (resource, request, *token);
        self.tell(reply::lost(names, how, now.as_ref()))
    }

    /// Sees to it that the stream does not outlive its session.
    pub(super) fn watch_expiry(&mut self) {
        self.watch_expiry_at(self.living.until);
    }

    fn watch_expiry_at(&mut self, at: Moment) {
        let clock = Arc::clone(&self.shared.leases.clock);
        self.start(async move {
            let time = clock.now().until(at);
            clock.sleep(time).await;
            Done::Expiring
        });
    }

    pub(super) fn expiring(&mut self) {
        let left = self.shared.leases.left(self.living.until);
        if !left.is_zero() {
            return self.watch_expiry();
        }
        let shared = Arc::clone(&self.shared);
        self.start(async move {
            let asked = shared.now();
            let left = shared.leases.store.time_left(shared.caller.session).await;
            Done::Alive(left.map(|left| asked.after(left)))
        });
    }

    pub(super) fn alive(&mut self, done: Result<Moment, StoreError>) -> Result<(), End> {
        let now = self.shared.now();
        match done {
            // Renewed by another call; or about to end, which takes a moment.
            Ok(until) => {
                self.living.until = self.living.until.max(until);
                self.watch_expiry_at(self.living.until.max(now.after(ASK_AGAIN)));
                Ok(())
            }
            Err(StoreError::Refused(refusal)) => self.over(refusal.into()),
            // A store that is away may keep sessions a while longer, though not for ever.
            Err(_) if now < self.living.until.after(self.living.ttl) => {
                self.watch_expiry_at(now.after(ASK_AGAIN));
                Ok(())
            }
            Err(_) => {
                let session = self.shared.caller.session;
                debug!(%session, "the store does not say whether a session lives");
                let error = StoreError::not_applied(Failure::Unavailable);
                Err(End::Error(error.or_happened().into()))
            }
        }
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Error(refusal.into())
    }
}
