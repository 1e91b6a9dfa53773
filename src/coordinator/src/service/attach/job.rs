//! What is to be done for one resource, and in which order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use palisade_token::{FencingToken, ResourceName};

use crate::clock::Moment;
use crate::domain::{Acquire, AttachMark, HoldName, RequestId};
use crate::service::waiters::Seat;

/// What may wait behind each other for one resource: a client has few reasons to ask for more.
pub(super) const MAX_JOBS_PER_RESOURCE: usize = 64;

/// An acquire.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) seq: u64,
    pub(super) since: Moment,
    pub(super) acquire: Acquire,
    /// When its wait is over.
    pub(super) until: Moment,
    /// It was sent before, perhaps under this mark, and its outcome is unknown.
    pub(super) stale: Option<AttachMark>,
    /// Where it hears of its grant, if it waits.
    pub(super) seat: Option<Seat>,
}

impl Ask {
    /// Whether another call of the session gave it back.
    pub(super) fn is_cancelled(&self) -> bool {
        self.seat.as_ref().is_some_and(Seat::is_cancelled)
    }

    pub(super) fn is_for(&self, request: &RequestId) -> bool {
        self.acquire.request == *request
    }
}

/// A release, a cancel, or the giving back of what the client does not know of.
#[derive(Debug)]
pub(super) struct Give {
    /// The message that asks for it; what came after that is not meant.
    pub(super) seq: u64,
    pub(super) resource: ResourceName,
    pub(super) hold: HoldName,
    pub(super) fence: Option<FencingToken>,
    /// Whether the message is answered with its outcome.
    pub(super) is_asked: bool,
}

/// A piece of work on one resource.
#[derive(Debug)]
pub(super) enum Job {
    Acquire(Arc<Ask>),
    Give(Box<Give>),
    /// Find out what became of a request that waits.
    Look(Arc<Ask>),
    /// End a wait.
    Leave(Arc<Ask>),
}

impl Job {
    pub(super) fn resource(&self) -> &ResourceName {
        match self {
            Self::Acquire(ask) | Self::Look(ask) | Self::Leave(ask) => &ask.acquire.resource,
            Self::Give(give) => &give.resource,
        }
    }

    /// The number of the message that it is the whole of.
    fn seq(&self) -> Option<u64> {
        match self {
            Self::Acquire(ask) => Some(ask.seq),
            Self::Give(give) => give.is_asked.then_some(give.seq),
            Self::Look(_) | Self::Leave(_) => None,
        }
    }
}

/// Jobs by resource: one at a time is under way for each, so that they take effect in the order in which
/// they came; resources do not wait for each other.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: HashMap<ResourceName, Lane>,
    messages: usize,
}

#[derive(Debug, Default)]
struct Lane {
    behind: VecDeque<Job>,
    /// The last message that a job in it is for.
    latest: u64,
}

impl Lanes {
    /// How many messages wait for their first answer.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Whether a resource takes another job.
    pub(super) fn has_room(&self, resource: &ResourceName) -> bool {
        let lane = self.lanes.get(resource);
        lane.is_none_or(|lane| lane.behind.len() < MAX_JOBS_PER_RESOURCE)
    }

    /// Whether something is under way for a resource.
    pub(super) fn is_busy(&self, resource: &ResourceName) -> bool {
        self.lanes.contains_key(resource)
    }

    /// Whether something is under way for a resource that a later message asked for.
    pub(super) fn is_after(&self, resource: &ResourceName, seq: u64) -> bool {
        let lane = self.lanes.get(resource);
        lane.is_some_and(|lane| lane.latest > seq)
    }

    /// Takes a job in, and gives it back if it is to be started now.
    pub(super) fn put(&mut self, job: Job) -> Option<Job> {
        let seq = job.seq();
        self.messages += usize::from(seq.is_some());
        if let Some(lane) = self.lanes.get_mut(job.resource()) {
            lane.latest = lane.latest.max(seq.unwrap_or(0));
            lane.behind.push_back(job);
            return None;
        }
        let lane = Lane {
            behind: VecDeque::new(),
            latest: seq.unwrap_or(0),
        };
        self.lanes.insert(job.resource().clone(), lane);
        Some(job)
    }

    /// A message has had its first answer.
    pub(super) fn answered(&mut self) {
        self.messages = self.messages.saturating_sub(1);
    }

    /// What is to be started next for a resource whose job has ended.
    pub(super) fn next(&mut self, resource: &ResourceName) -> Option<Job> {
        let next = self.lanes.get_mut(resource)?.behind.pop_front();
        if next.is_none() {
            self.lanes.remove(resource);
        }
        next
    }
}
