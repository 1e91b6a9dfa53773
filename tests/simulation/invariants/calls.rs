//! Which calls of clients may still want a lease.

use std::collections::BTreeMap;

use palisade_coordinator::domain::{RequestId, SessionId};
use palisade_token::{FencingToken, ResourceName};

use crate::history::{Asked, At, CallId, Decision, Granted, History, Operation, Outcome, What};

/// How an acquire stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Open,
    /// Its caller does not know what it came to, and has given up.
    Forgotten,
    /// Its caller was told what it came to in that incarnation of the store.
    Told(u32),
}

/// An acquire.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// Under which name, where that is ever known.
    pub request: Option<RequestId>,
    pub standing: Standing,
    /// Since when it stands so.
    pub since: At,
}

/// Acquires by whose they are, as a history goes on.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The names that calls turn out to have.
    requests: BTreeMap<CallId, RequestId>,
    asked: BTreeMap<CallId, Asked>,
    wanted: BTreeMap<(SessionId, ResourceName), BTreeMap<CallId, Wanted>>,
    incarnation: u32,
    /// In which incarnation of the store leases were granted.
    granted: BTreeMap<(ResourceName, FencingToken), u32>,
}

impl Calls {
    /// Of a history, at its beginning.
    pub(super) fn of(history: &History) -> Self {
        let told = history
            .entries
            .iter()
            .filter_map(|entry| match &entry.what {
                What::Told {
                    call,
                    outcome:
                        Outcome::Acquired {
                            request: Some(request),
                            ..
                        },
                } => Some((*call, request.clone())),
                _ => None,
            });
        Self {
            requests: told.collect(),
            ..Self::default()
        }
    }

    /// Takes in what happens at `at`. Answers the call that was told of.
    pub(super) fn apply(&mut self, at: At, what: &What) -> Option<&Asked> {
        match what {
            What::Log {
                incarnation,
                decision,
                ..
            } => {
                self.incarnation = *incarnation;
                if let Decision::Granted(Granted {
                    resource, token, ..
                }) = decision
                {
                    let lease = (resource.clone(), *token);
                    self.granted.insert(lease, *incarnation);
                }
                None
            }
            What::Asked(asked) => {
                if let (Operation::Acquire { request, .. }, Some(session)) =
                    (&asked.operation, asked.session)
                {
                    let known = request.clone();
                    let wanted = Wanted {
                        request: known.or_else(|| self.requests.get(&asked.call).cloned()),
                        standing: Standing::Open,
                        since: at,
                    };
                    let key = (session, asked.resource.clone());
                    self.wanted
                        .entry(key)
                        .or_default()
                        .insert(asked.call, wanted);
                }
                self.asked.insert(asked.call, asked.clone());
                None
            }
            What::Told { call, outcome } => {
                let asked = self.asked.get(call)?;
                let key = (asked.session?, asked.resource.clone());
                // What was granted before a restore may be told after it.
                let of = match outcome {
                    Outcome::Acquired { token, .. } => {
                        let lease = (asked.resource.clone(), *token);
                        self.granted.get(&lease).copied()
                    }
                    _ => None,
                };
                let wanted = self.wanted.get_mut(&key);
                if let Some(wanted) = wanted.and_then(|wanted| wanted.get_mut(call)) {
                    wanted.since = at;
                    wanted.standing = match outcome {
                        Outcome::Unknown => Standing::Forgotten,
                        _ => Standing::Told(of.unwrap_or(self.incarnation)),
                    };
                }
                Some(asked)
            }
            _ => None,
        }
    }

    /// The acquires that a hold or a place of a session may belong to.
    pub(super) fn of_request(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> impl Iterator<Item = &Wanted> {
        let key = (session, resource.clone());
        let wanted = self.wanted.get(&key).into_iter();
        wanted.flat_map(BTreeMap::values).filter(move |wanted| {
            let known = wanted.request.as_ref();
            known.is_none_or(|known| known == request)
        })
    }
}
