//! The streams at this coordinator: how many there are, and whose.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::SessionId;
use crate::service::error::CallError;
use crate::tasks::Tasks;

/// What a stream is woken for, besides its messages and its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stir {
    /// The transport is done with it.
    Gone,
    /// The session has a newer stream.
    Superseded,
    /// This coordinator drains.
    Draining,
}

impl Stir {
    fn bit(self) -> u8 {
        match self {
            Self::Gone => 1,
            Self::Superseded => 2,
            Self::Draining => 4,
        }
    }
}

/// What wakes one stream.
#[derive(Debug, Default)]
pub(super) struct Post {
    stirred: Notify,
    why: AtomicU8,
}

impl Post {
    pub(super) fn stir(&self, why: Stir) {
        self.why.fetch_or(why.bit(), Ordering::AcqRel);
        self.stirred.notify_one();
    }

    /// Waits for the next time that it is stirred.
    pub(super) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    pub(super) fn is(&self, why: Stir) -> bool {
        self.why.load(Ordering::Acquire) & why.bit() != 0
    }
}

/// All streams of this coordinator.
#[derive(Debug)]
pub(crate) struct Streams {
    bound: usize,
    count: Arc<AtomicUsize>,
    tasks: Tasks,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_draining: bool,
    sessions: BTreeMap<SessionId, Entry>,
}

#[derive(Debug)]
struct Entry {
    epoch: u64,
    post: Arc<Post>,
}

/// One of the streams that may be open.
#[derive(Debug)]
pub(super) struct Permit {
    count: Arc<AtomicUsize>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream that is its session's own, as far as this coordinator knows.
#[derive(Debug)]
pub(super) struct Entered {
    streams: Arc<Streams>,
    session: SessionId,
    post: Arc<Post>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut state = self.streams.lock();
        let own = state.sessions.get(&self.session);
        if own.is_some_and(|entry| Arc::ptr_eq(&entry.post, &self.post)) {
            state.sessions.remove(&self.session);
        }
    }
}

impl Streams {
    /// Room for so many streams, which are told when the coordinator drains.
    pub(crate) fn start(bound: usize, tasks: &Tasks, draining: CancellationToken) -> Arc<Self> {
        let streams = Arc::new(Self {
            bound,
            count: Arc::default(),
            tasks: tasks.clone(),
            state: Mutex::default(),
        });
        let all = Arc::clone(&streams);
        tasks.spawn("streams: drain", async move {
            draining.cancelled().await;
            all.drain();
        });
        streams
    }

    /// How many streams are open.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Room for one more.
    pub(super) fn permit(&self) -> Result<Permit, CallError> {
        let bound = self.bound;
        let taken = self
            .count
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| {
                (count < bound).then(|| count + 1)
            });
        match taken {
            Ok(_) => Ok(Permit {
                count: Arc::clone(&self.count),
            }),
            Err(_) => Err(CallError::Limit {
                limit: "streams",
                bound: u64::try_from(bound).unwrap_or(u64::MAX),
            }),
        }
    }

    /// Makes a stream that has raised its session's epoch the session's own here, too: an older one is told
    /// at once, where it would else find out with its next write.
    pub(super) fn enter(
        self: &Arc<Self>,
        session: SessionId,
        epoch: u64,
        post: &Arc<Post>,
    ) -> Entered {
        let mut state = self.lock();
        if state.is_draining {
            post.stir(Stir::Draining);
        }
        let older = match state.sessions.get(&session) {
            Some(other) if other.epoch > epoch => Some(Arc::clone(post)),
            _ => {
                let post = Arc::clone(post);
                let entry = Entry { epoch, post };
                state
                    .sessions
                    .insert(session, entry)
                    .map(|before| before.post)
            }
        };
        drop(state);
        older.iter().for_each(|post| post.stir(Stir::Superseded));
        Entered {
            streams: Arc::clone(self),
            session,
            post: Arc::clone(post),
        }
    }

    fn drain(&self) {
        let mut state = self.lock();
        state.is_draining = true;
        for entry in state.sessions.values() {
            entry.post.stir(Stir::Draining);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
