//! A session over one stream: everything that it asks, and all that is told of it, goes over it.
//!
//! One task per session ([`keeper`]) owns the stream and what is open on it ([`table`]). Whoever asks puts a
//! command into the task's queue and waits for the answer: no lock is held, and no task is started for it.

use std::sync::Arc;

use palisade_token::{FencingToken, ResourceName};
use tokio::sync::{mpsc, oneshot};

use crate::acquire::AcquireOptions;
use crate::clock::Moment;
use crate::error::ClientError;
use crate::lease::{Lease, LeaseNews, Way};
use crate::release::Released;
use crate::session::core::{Owner, lost_error};
use crate::session::milliseconds;

mod keeper;
mod messages;
mod open;
mod request;
mod table;

pub(crate) use self::keeper::Keeper;
pub(crate) use self::open::{First, first};
pub(crate) use self::request::RequestKey;
use self::request::{Ask, Command, Giving, MAX_OPEN_REQUESTS, Slots};

/// Each open request sends at most three commands: acquire, cancel or release, and one answer to an operator;
/// and a session is closed by one of two.
const COMMANDS: usize = 3 * MAX_OPEN_REQUESTS + 2;

/// The way to a session's task.
#[derive(Debug)]
pub(crate) struct Attached {
    commands: mpsc::Sender<Command>,
    slots: Arc<Slots>,
}

/// Where it is told how a closing went.
pub(crate) type Told = oneshot::Sender<Result<(), ClientError>>;

/// What the task takes its commands from.
#[derive(Debug)]
pub(crate) struct Commands(mpsc::Receiver<Command>);

impl Attached {
    pub(crate) fn new() -> (Self, Commands) {
        let (commands, taken) = mpsc::channel(COMMANDS);
        let slots = Arc::default();
        (Self { commands, slots }, Commands(taken))
    }

    /// Never full, by the number of slots. Says whether it was taken: not once the session has ended.
    fn send(&self, command: Command) -> bool {
        self.commands.try_send(command).is_ok()
    }

    /// Closes the session, and tells how that went. Gives `told` back if there is no stream to do it.
    pub(crate) fn close(&self, told: Option<Told>) -> Result<(), Option<Told>> {
        let refused = self.commands.try_send(Command::Close(told)).err();
        match refused.map(mpsc::error::TrySendError::into_inner) {
            Some(Command::Close(told)) => Err(told),
            _ => Ok(()),
        }
    }

    pub(crate) fn answer_revoke(&self, key: RequestKey, will_release: bool) {
        self.send(Command::RevokeAnswer { key, will_release });
    }
}

/// A request that may be granted without anybody knowing: dropped, it is given back (I5).
#[derive(Debug)]
struct Claim<'a> {
    attached: &'a Attached,
    key: RequestKey,
    open: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.open {
            self.attached.send(Command::Cancel(self.key));
        }
    }
}

pub(crate) async fn acquire(
    owner: &Arc<Owner>,
    attached: &Attached,
    resource: &ResourceName,
    options: AcquireOptions,
) -> Result<Lease, ClientError> {
    let core = &owner.core;
    let state = core.state();
    if !state.is_held() {
        return Err(lost_error(state));
    }
    milliseconds("wait", options.wait)?;
    let lock_delay_ms = milliseconds("lock_delay", options.lock_delay)?;
    let wait_end = core.shared.clock.now().after(options.wait);
    let (reply, answer) = oneshot::channel();
    let key = RequestKey::random(&core.shared.random);
    let ask = Ask {
        key,
        resource: resource.clone(),
        is_try: options.wait.is_zero(),
        wait_end,
        give_up_at: wait_end.after(core.shared.operation_timeout),
        lock_delay_ms,
        metadata: options.metadata.0,
        progress: options.progress,
        reply,
        slot: attached.slots.take()?,
    };
    if !attached.send(Command::Acquire(Box::new(ask))) {
        return Err(ended(owner));
    }
    let mut claim = Claim {
        attached,
        key,
        open: true,
    };
    let outcome = answer.await;
    // What is not decided the task gives back by itself.
    claim.open = false;
    let granted = outcome.unwrap_or_else(|_| Err(ended(owner)))?;
    let lease = Lease::granted(
        Arc::clone(owner),
        granted.info,
        granted.previous,
        granted.news,
        Way::Stream(key),
    );
    let state = core.state();
    if !state.is_held() {
        return Err(lost_error(state));
    }
    Ok(lease)
}

fn ended(owner: &Owner) -> ClientError {
    let state = owner.core.state();
    if state.is_held() {
        // The runtime is gone, and the session's task with it.
        return ClientError::NoRuntime;
    }
    lost_error(state)
}

/// What is released over the stream.
#[derive(Debug)]
pub(crate) struct ToRelease {
    pub(crate) key: RequestKey,
    pub(crate) refused_by_fence: Option<FencingToken>,
    pub(crate) news: Arc<LeaseNews>,
}

/// Releases, and waits for it no longer than an operation may take; it goes on in the background.
pub(crate) async fn release(
    owner: &Owner,
    attached: &Attached,
    what: ToRelease,
) -> Result<Released, ClientError> {
    let shared = &owner.core.shared;
    let tell_by = shared.clock.now().after(shared.operation_timeout);
    let (reply, answer) = oneshot::channel();
    give_back(attached, what, Some(reply), tell_by);
    answer.await.unwrap_or_else(|_| Err(ended(owner)))
}

/// Releases in the background.
pub(crate) fn release_unwatched(attached: &Attached, what: ToRelease) {
    give_back(attached, what, None, Moment::default());
}

fn give_back(
    attached: &Attached,
    what: ToRelease,
    reply: Option<oneshot::Sender<Result<Released, ClientError>>>,
    tell_by: Moment,
) {
    let giving = Giving {
        key: what.key,
        refused_by_fence: what.refused_by_fence,
        reply,
        tell_by,
        news: what.news,
    };
    attached.send(Command::Release(giving));
}
