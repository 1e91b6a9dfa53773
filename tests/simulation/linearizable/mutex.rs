//! The fenced mutex: what one resource is, seen from outside, and the calls of a history that concern it.

use std::collections::{BTreeMap, BTreeSet};

use palisade_token::{FencingToken, HolderId, ResourceName};

use super::{Sequential, Span, Verdict};
use crate::history::{
    Asked, CallId, Decision, Granted, History, Kept, Operation, Outcome, Reason, What,
};

/// Who holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
enum Held {
    #[default]
    ByNobody,
    By(FencingToken, HolderId),
    /// By a request whose outcome nobody was told.
    ByUntold,
}

/// A resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Mutex {
    held: Held,
    /// The last token that is known.
    last: u64,
    waiting: u32,
}

/// What happens to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// Somebody holds it from then on, or is told again that he does.
    Acquired(FencingToken, HolderId),
    /// Somebody holds it, with a token that nobody was told.
    AcquiredUntold,
    /// Its lease ended: released, expired or revoked.
    Over(FencingToken),
    /// This lease was over already, or is not there.
    NotHeld(FencingToken),
    /// A try failed.
    Refused,
    /// A request waits.
    Queued,
    /// A request waits no longer.
    Left,
    /// It was put back to an older state.
    Restored(Option<(FencingToken, HolderId)>, u32),
}

impl Sequential for Mutex {
    type State = Self;
    type Call = Call;

    fn step(state: &Self, call: &Call) -> Option<Self> {
        let mut after = state.clone();
        match call {
            Call::Acquired(token, holder) => match state.held {
                Held::By(current, by) if (current, by) == (*token, *holder) => {}
                Held::By(..) => return None,
                Held::ByNobody | Held::ByUntold => {
                    after.held = Held::By(*token, *holder);
                    after.last = above(state.last, *token)?;
                }
            },
            Call::AcquiredUntold => match state.held {
                Held::ByNobody => after.held = Held::ByUntold,
                Held::By(..) | Held::ByUntold => return None,
            },
            Call::Over(token) => {
                match state.held {
                    Held::By(current, _) if current == *token => {}
                    Held::ByUntold => after.last = above(state.last, *token)?,
                    Held::By(..) | Held::ByNobody => return None,
                }
                after.held = Held::ByNobody;
            }
            Call::NotHeld(token) => match state.held {
                Held::By(current, _) if current == *token => return None,
                Held::By(..) | Held::ByNobody | Held::ByUntold => {}
            },
            Call::Refused if state.held == Held::ByNobody && state.waiting == 0 => return None,
            Call::Refused => {}
            Call::Queued => after.waiting = state.waiting.checked_add(1)?,
            Call::Left => after.waiting = state.waiting.checked_sub(1)?,
            Call::Restored(hold, waiting) => {
                after.held = hold.map_or(Held::ByNobody, |(token, holder)| Held::By(token, holder));
                after.waiting = *waiting;
            }
        }
        Some(after)
    }
}

fn above(last: u64, token: FencingToken) -> Option<u64> {
    (token.get() > last).then_some(token.get())
}

/// The calls of a history that concern a resource. What clients were told counts from when they asked until they were
/// told; of what nobody was told, such as expiry, the store's log says when it was. Without a log a call whose outcome
/// is unknown stays open for ever.
pub(crate) fn calls(history: &History, resource: &ResourceName) -> Vec<Span<Call>> {
    let mut reading = Reading::default();
    for (index, entry) in history.entries.iter().enumerate() {
        let index = u64::try_from(index).expect("a history is bounded");
        match &entry.what {
            What::Asked(asked) if asked.resource == *resource => {
                reading.open.insert(asked.call, (index, asked.clone()));
            }
            What::Told { call, outcome } => reading.told(index, *call, outcome),
            What::Log { decision, .. } => {
                reading.has_log = true;
                reading.decided(index, resource, decision);
            }
            _ => {}
        }
    }
    reading.finish()
}

/// All resources that a history names.
pub(crate) fn resources(history: &History) -> BTreeSet<ResourceName> {
    let mut names = BTreeSet::new();
    for entry in &history.entries {
        match &entry.what {
            What::Asked(asked) => names.extend([asked.resource.clone()]),
            What::Log { decision, .. } => names.extend(decision.resource().cloned()),
            _ => {}
        }
    }
    names
}

/// Checks one resource.
pub(crate) fn check(history: &History, resource: &ResourceName) -> (Vec<Span<Call>>, Verdict) {
    let calls = calls(history, resource);
    let verdict = super::check::<Mutex>(&calls, super::MOST_VISITED);
    (calls, verdict)
}

#[derive(Default)]
struct Reading {
    open: BTreeMap<CallId, (u64, Asked)>,
    calls: Vec<Span<Call>>,
    /// What the log says of leases, to be taken where no client was told it.
    log: Vec<(u64, Call)>,
    has_log: bool,
    /// Leases that were over when a restore brought them back: of these, too, it is true that they are over.
    revived: BTreeSet<FencingToken>,
    ended: BTreeSet<FencingToken>,
    /// Whether a lock-delay ever closed the resource: then a try may fail though nobody holds it.
    is_delayed: bool,
}

impl Reading {
    fn told(&mut self, index: u64, call: CallId, outcome: &Outcome) {
        let Some((from, asked)) = self.open.get(&call) else {
            return;
        };
        let told = match (&asked.operation, outcome) {
            (Operation::Acquire { .. }, Outcome::Acquired { token, holder, .. }) => {
                Call::Acquired(*token, *holder)
            }
            // Whoever wanted it back may be told how it ended before; that it has ended is looked at in I7.
            (Operation::Revoke { token }, Outcome::Ended) if self.revived.contains(token) => {
                self.open.remove(&call);
                return;
            }
            (Operation::Release { token } | Operation::Revoke { token }, Outcome::Ended) => {
                Call::Over(*token)
            }
            // Whoever was told so before says it without asking.
            (Operation::Release { token }, Outcome::NotHeld) if self.revived.contains(token) => {
                self.open.remove(&call);
                return;
            }
            (Operation::Release { token } | Operation::Revoke { token }, Outcome::NotHeld) => {
                Call::NotHeld(*token)
            }
            (Operation::Acquire { .. }, Outcome::Refused(Reason::LeaseHeld)) => Call::Refused,
            // Nothing that one sees from outside.
            (_, Outcome::Refused(_)) => {
                self.open.remove(&call);
                return;
            }
            // It stays open.
            _ => return,
        };
        self.calls.push(Span {
            call: told,
            from: *from,
            to: Some(index),
        });
        self.open.remove(&call);
    }

    fn decided(&mut self, index: u64, resource: &ResourceName, decision: &Decision) {
        let call = match decision {
            Decision::Restored(Kept { holds, places, .. }) => {
                let hold = holds.iter().find(|hold| hold.resource == *resource);
                let waiting = places.iter().filter(|(name, ..)| name == resource).count();
                let token = hold.map(|hold| hold.token);
                self.revived
                    .extend(token.filter(|token| self.ended.contains(token)));
                Call::Restored(
                    hold.map(|hold| (hold.token, hold.holder)),
                    u32::try_from(waiting).expect("a queue is bounded"),
                )
            }
            _ if decision.resource() != Some(resource) => return,
            Decision::Granted(Granted { token, holder, .. }) => {
                self.log.push((index, Call::Acquired(*token, *holder)));
                return;
            }
            Decision::Over { token, .. } => {
                self.ended.insert(*token);
                self.log.push((index, Call::Over(*token)));
                return;
            }
            Decision::Queued { .. } => Call::Queued,
            Decision::Left { .. } => Call::Left,
            Decision::Delayed { .. } => {
                self.is_delayed = true;
                return;
            }
            _ => return,
        };
        self.calls.push(point(call, index));
    }

    fn finish(mut self) -> Vec<Span<Call>> {
        let untold = self.open.into_values().filter(|_| !self.has_log);
        for (from, asked) in untold {
            let call = match asked.operation {
                Operation::Acquire { .. } => Call::AcquiredUntold,
                Operation::Release { token } | Operation::Revoke { token } => Call::Over(token),
                Operation::Nonsense => continue,
            };
            let to = None;
            self.calls.push(Span { call, from, to });
        }
        let mut used = BTreeSet::new();
        for (index, call) in self.log {
            let told = self.calls.iter().enumerate().position(|(number, span)| {
                let is_told = span.call == call && span.to.is_some_and(|to| to >= index);
                is_told && span.from <= index && used.insert(number)
            });
            if told.is_none() {
                self.calls.push(point(call, index));
            }
        }
        if self.is_delayed {
            self.calls.retain(|span| span.call != Call::Refused);
        }
        self.calls.sort_by_key(|span| span.from);
        self.calls
    }
}

fn point(call: Call, at: u64) -> Span<Call> {
    Span {
        call,
        from: at,
        to: Some(at),
    }
}
