//! What one stream has under way, and what it has told its client: plain bookkeeping, without I/O.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use palisade_token::{FencingToken, ResourceName};

use super::job::{Ask, Lanes};
use super::parse::AllNamed;
use crate::clock::Moment;
use crate::domain::{HoldName, Notice, RequestId, Revision};

/// Ends that are remembered between two renewals, so that a renewal that crossed them on the way is not answered with
/// losses. Beyond these a client may hear of an end twice.
const MAX_ENDS: usize = 512;

/// A lease as the client was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// The message that asked for it.
    pub(super) seq: u64,
    pub(super) request: RequestId,
    pub(super) token: FencingToken,
    pub(super) granted: Revision,
}

/// An acquire whose place is in the queue.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ask: Arc<Ask>,
    /// How many are before it and whose turn it is, as the client was told, and when.
    pub(super) told: Option<((u32, i64), Moment)>,
}

#[derive(Debug, Default)]
pub(super) struct Desk {
    pub(super) lanes: Lanes,
    waiting: BTreeMap<ResourceName, Vec<Waiting>>,
    waiting_count: usize,
    /// A session holds a resource once.
    held: BTreeMap<ResourceName, Held>,
    /// What operators want back and the client has not been told of yet, as its grant is not.
    notices: BTreeMap<ResourceName, Notice>,
    ends: VecDeque<(ResourceName, RequestId)>,
    ends_before: VecDeque<(ResourceName, RequestId)>,
}

impl Desk {
    /// How many requests are open: held, waiting, or not answered yet.
    pub(super) fn open_requests(&self) -> usize {
        self.held.len() + self.waiting_count + self.lanes.messages()
    }

    pub(super) fn wait(&mut self, ask: Arc<Ask>) {
        let waiting = self
            .waiting
            .entry(ask.acquire.resource.clone())
            .or_default();
        waiting.push(Waiting { ask, told: None });
        self.waiting_count += 1;
    }

    pub(super) fn waiting(&mut self, ask: &Arc<Ask>) -> Option<&mut Waiting> {
        let waiting = self.waiting.get_mut(&ask.acquire.resource)?;
        waiting.iter_mut().find(|one| Arc::ptr_eq(&one.ask, ask))
    }

    /// Until when some acquire of the same request waits: a client may ask again while the first one waits.
    pub(super) fn waits_until(&self, ask: &Ask) -> Option<Moment> {
        let waiting = self.waiting.get(&ask.acquire.resource)?;
        let same = waiting
            .iter()
            .filter(|one| one.ask.is_for(&ask.acquire.request));
        same.map(|one| one.ask.until).max()
    }

    /// Takes an acquire out of those that wait.
    pub(super) fn unwait(&mut self, ask: &Arc<Ask>) -> bool {
        !self
            .take_waiting(&ask.acquire.resource, |one| Arc::ptr_eq(one, ask))
            .is_empty()
    }

    /// Takes out those of a request that were sent before a message.
    pub(super) fn unwait_before(
        &mut self,
        resource: &ResourceName,
        request: &RequestId,
        seq: u64,
    ) -> Vec<Arc<Ask>> {
        self.take_waiting(resource, |one| one.is_for(request) && one.seq < seq)
    }

    /// Takes all out.
    pub(super) fn unwait_all(&mut self) -> Vec<Arc<Ask>> {
        self.waiting_count = 0;
        let all = std::mem::take(&mut self.waiting);
        all.into_values().flatten().map(|one| one.ask).collect()
    }

    fn take_waiting(
        &mut self,
        resource: &ResourceName,
        is_meant: impl Fn(&Arc<Ask>) -> bool,
    ) -> Vec<Arc<Ask>> {
        let Some(waiting) = self.waiting.get_mut(resource) else {
            return Vec::new();
        };
        let taken = waiting.extract_if(.., |one| is_meant(&one.ask));
        let taken: Vec<_> = taken.map(|one| one.ask).collect();
        if waiting.is_empty() {
            self.waiting.remove(resource);
        }
        self.waiting_count -= taken.len();
        taken
    }

    pub(super) fn hold(&mut self, resource: ResourceName, held: Held) {
        self.held.insert(resource, held);
    }

    pub(super) fn held_of(&self, resource: &ResourceName) -> Option<&Held> {
        self.held.get(resource)
    }

    /// Keeps a notice until the grant of what it is about is told.
    pub(super) fn keep_notice(&mut self, notice: Notice) {
        let is_waited_for =
            self.waiting.contains_key(&notice.resource) || self.lanes.is_busy(&notice.resource);
        if is_waited_for {
            self.notices.insert(notice.resource.clone(), notice);
        }
    }

    /// The notice that was kept for a hold; any other of its resource is over.
    pub(super) fn take_notice(
        &mut self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Option<Notice> {
        if self.notices.is_empty() {
            return None;
        }
        self.notices
            .remove(resource)
            .filter(|notice| notice.token == token)
    }

    /// Whether a list of what the client knows of has all that was told or asked before a message, and
    /// nothing that is held besides.
    pub(super) fn is_as_named(&self, named: &AllNamed, seq: u64) -> bool {
        let names = |resource: &ResourceName, request: &RequestId| {
            let mut named = named.get(resource).into_iter().flatten();
            named.any(|one| one.request == *request)
        };
        let mut held = self.held.iter().filter(|(_, held)| held.seq < seq);
        let mut waiting = self
            .waiting
            .iter()
            .flat_map(|(resource, waiting)| waiting.iter().map(move |one| (resource, &one.ask)));
        let mut believed = named.values().flatten();
        held.all(|(resource, held)| names(resource, &held.request))
            && waiting.all(|(resource, ask)| ask.seq > seq || names(resource, &ask.acquire.request))
            && believed.all(|one| {
                let held = self.held(&one.resource, &one.request);
                one.token.is_none() || held.is_some_and(|held| Some(held.token) == one.token)
            })
    }

    pub(super) fn held(&self, resource: &ResourceName, request: &RequestId) -> Option<&Held> {
        let held = self.held.get(resource)?;
        (held.request == *request).then_some(held)
    }

    /// Takes note that a hold has ended, and returns it if the client was told of it.
    pub(super) fn end(&mut self, resource: &ResourceName, named: &HoldName) -> Option<Held> {
        let held = self.held.get(resource)?;
        let is_meant = match named {
            HoldName::Token(token) => held.token == *token,
            HoldName::Request(request) => held.request == *request,
        };
        if !is_meant {
            return None;
        }
        let held = self.held.remove(resource)?;
        self.note_end(resource, &held.request);
        Some(held)
    }

    /// Takes note that the client is told of an end.
    pub(super) fn note_end(&mut self, resource: &ResourceName, request: &RequestId) {
        if self.ends.len() == MAX_ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back((resource.clone(), request.clone()));
    }

    /// Whether the client was told, or is about to be, that a hold has ended.
    pub(super) fn has_ended(&self, resource: &ResourceName, request: &RequestId) -> bool {
        let mut ends = self.ends.iter().chain(&self.ends_before);
        ends.any(|(name, of)| name == resource && of == request)
    }

    /// A renewal has been dealt with: what ended before the one before it cannot have crossed the next.
    pub(super) fn forget_ends(&mut self) {
        self.ends_before = std::mem::take(&mut self.ends);
    }

    /// Whether a message after `seq` has to do with a request: then it is not given back for not being named
    /// in that one.
    pub(super) fn is_after(&self, resource: &ResourceName, request: &RequestId, seq: u64) -> bool {
        let waiting = self.waiting.get(resource);
        let mut waiting = waiting.into_iter().flatten();
        self.lanes.is_after(resource, seq)
            || waiting.any(|one| one.ask.is_for(request) && one.ask.seq > seq)
            || self
                .held(resource, request)
                .is_some_and(|held| held.seq > seq)
    }

    /// The holds that the client was told of before a message.
    pub(super) fn held_before(&self, seq: u64) -> Vec<(ResourceName, Held)> {
        let held = self.held.iter().filter(|(_, held)| held.seq < seq);
        held.map(|(resource, held)| (resource.clone(), held.clone()))
            .collect()
    }
}
