//! What a session's stream knows of one request: from its acquire to its end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use palisade_token::{FencingToken, ResourceName};
use tokio::sync::{oneshot, watch};

use crate::acquire::QueuePlace;
use crate::clock::Moment;
use crate::error::ClientError;
use crate::info::{LeaseInfo, PreviousLease};
use crate::lease::LeaseNews;
use crate::random::Random;
use crate::release::Released;

/// How many requests a session may have open at once, on a stream: each renewal names them all.
pub(crate) const MAX_OPEN_REQUESTS: usize = 1000;

/// A request's id: 128 random bits, so that no process that shares the session's memory, like a clone of a
/// machine, makes it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RequestKey(u128);

impl RequestKey {
    pub(super) fn random(random: &Random) -> Self {
        Self(u128::from_le_bytes(random.bytes()))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let ours = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(text, 16)
            .ok()
            .filter(|_| ours)
            .map(Self)
    }
}

impl fmt::Display for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The open requests of one session, counted.
#[derive(Debug, Default)]
pub(super) struct Slots(AtomicUsize);

impl Slots {
    /// # Errors
    /// [`ClientError::LimitReached`] if all are taken.
    pub(super) fn take(self: &Arc<Self>) -> Result<Slot, ClientError> {
        let more = |used: usize| (used < MAX_OPEN_REQUESTS).then(|| used + 1);
        match self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        {
            Ok(_) => Ok(Slot(Arc::clone(self))),
            Err(_) => Err(ClientError::LimitReached {
                limit: "openRequests".to_owned(),
                bound: format!("{MAX_OPEN_REQUESTS} in one session"),
                may_have_happened: false,
                retry_after: None,
            }),
        }
    }
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A grant, on its way to whoever asked.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) info: LeaseInfo,
    pub(super) previous: Option<PreviousLease>,
    pub(super) news: Arc<LeaseNews>,
}

/// What is asked for, the same in each of its tries but for the wait that is left.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) key: RequestKey,
    pub(super) resource: ResourceName,
    /// Not to wait at all.
    pub(super) is_try: bool,
    pub(super) wait_end: Moment,
    /// No answer is awaited for longer.
    pub(super) give_up_at: Moment,
    pub(super) lock_delay_ms: u64,
    pub(super) metadata: Vec<u8>,
    pub(super) progress: Option<watch::Sender<Option<QueuePlace>>>,
    pub(super) reply: oneshot::Sender<Result<Granted, ClientError>>,
    pub(super) slot: Slot,
}

/// What the session's task is told. Each open request sends at most three of them.
#[derive(Debug)]
pub(super) enum Command {
    Acquire(Box<Ask>),
    /// Nobody waits for it any more.
    Cancel(RequestKey),
    Release(Giving),
    RevokeAnswer {
        key: RequestKey,
        will_release: bool,
    },
    /// Close the session.
    Close(Option<super::Told>),
}

/// A release.
#[derive(Debug)]
pub(super) struct Giving {
    pub(super) key: RequestKey,
    pub(super) refused_by_fence: Option<FencingToken>,
    pub(super) reply: Option<oneshot::Sender<Result<Released, ClientError>>>,
    /// Whoever waits for it is told no later that it is not known; it goes on.
    pub(super) tell_by: Moment,
    pub(super) news: Arc<LeaseNews>,
}

/// One open request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) resource: ResourceName,
    pub(super) stage: Stage,
    /// The place of its last message among those of its session, over all streams.
    pub(super) order: u64,
    /// Its acquire as sent on this stream and not answered.
    pub(super) acquire: Option<u64>,
    /// An acquire was sent on some stream.
    pub(super) sent: bool,
    /// It was named when the stream that is being opened was.
    pub(super) named: bool,
    /// Refusals in a row.
    pub(super) failures: u32,
    /// When it is sent again after a refusal.
    pub(super) retry_at: Option<Moment>,
    /// None for what was granted although nobody had asked.
    pub(super) _slot: Option<Slot>,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Asked for, or to be.
    Asking(Box<Asking>),
    Held {
        token: FencingToken,
        news: Arc<LeaseNews>,
    },
    /// To be given back.
    Returning(Returning),
    /// Lost; how it ended may still be told.
    Gone(Arc<LeaseNews>),
}

#[derive(Debug)]
pub(super) struct Asking {
    pub(super) is_try: bool,
    pub(super) wait_end: Moment,
    pub(super) give_up_at: Moment,
    pub(super) lock_delay_ms: u64,
    pub(super) metadata: Vec<u8>,
    pub(super) progress: Option<watch::Sender<Option<QueuePlace>>>,
    pub(super) reply: oneshot::Sender<Result<Granted, ClientError>>,
    /// The number of the next try: 1 until the outcome of one is unknown.
    pub(super) attempt: u32,
    /// An earlier try's outcome is unknown.
    pub(super) unknown: bool,
    /// When the last try was sent: what its answer says of time counts from here.
    pub(super) sent_at: Moment,
}

#[derive(Debug)]
pub(super) struct Returning {
    pub(super) how: Return,
    /// As sent on this stream and not answered.
    pub(super) asked: Option<u64>,
    pub(super) reply: Option<oneshot::Sender<Result<Released, ClientError>>>,
    pub(super) tell_by: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// By request: whatever it came to.
    Cancel,
    Release {
        token: FencingToken,
        refused_by_fence: Option<FencingToken>,
    },
}

impl Returning {
    pub(super) fn new(how: Return) -> Self {
        Self {
            how,
            asked: None,
            reply: None,
            tell_by: None,
        }
    }

    pub(super) fn tell(&mut self, outcome: Result<Released, ClientError>) {
        drop(self.reply.take().map(|reply| reply.send(outcome)));
    }
}

impl Request {
    /// When whoever waits for it is told that there is no answer.
    pub(super) fn limit(&self) -> Option<Moment> {
        match &self.stage {
            Stage::Asking(asking) => Some(asking.give_up_at),
            Stage::Returning(returning) => returning.tell_by,
            Stage::Held { .. } | Stage::Gone(_) => None,
        }
    }

    pub(super) fn gives_up(&self, now: Moment) -> bool {
        self.limit().is_some_and(|limit| limit <= now)
    }

    /// The token with which a renewal or an opening names it; nothing for what is given up.
    pub(super) fn known_as(&self) -> Option<i64> {
        match &self.stage {
            Stage::Asking(_) => self.sent.then_some(0),
            Stage::Held { token, .. } => Some(token.as_i64()),
            Stage::Returning(Returning {
                how: Return::Release { token, .. },
                ..
            }) => Some(token.as_i64()),
            Stage::Returning(_) | Stage::Gone(_) => None,
        }
    }

    /// As [`Request::known_as`], for a renewal, which takes effect after all that was sent before it: what is
    /// being released is left out. Unless a fence refused it, for then it is released past the fence only.
    pub(super) fn known_in_renewal(&self) -> Option<i64> {
        match &self.stage {
            Stage::Returning(Returning {
                how:
                    Return::Release {
                        refused_by_fence: None,
                        ..
                    },
                asked: Some(_),
                ..
            }) => None,
            _ => self.known_as(),
        }
    }
}
