//! What a session's handles and tasks share.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_api::v1::CloseSessionRequest;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::calls::{Shared, Tries};
use crate::clock::Moment;
use crate::credentials::Credentials;
use crate::epoch::Epochs;
use crate::error::ClientError;
use crate::standing::{LostReason, SessionState, Standing};
use crate::stream::{Attached, Told};

use super::known::Known;

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) credentials: Credentials,
    pub(crate) epochs: Epochs,
    pub(crate) ttl: Duration,
    pub(crate) state: watch::Sender<SessionState>,
    pub(crate) ended: CancellationToken,
    /// The way to its stream; none where it goes by calls of their own.
    pub(crate) attached: Option<Attached>,
    /// Of a session that goes by calls of their own, the requests that somebody here knows of.
    pub(crate) known: Known,
    standing: Mutex<Standing>,
}

impl Core {
    pub(crate) fn new(
        shared: Arc<Shared>,
        credentials: Credentials,
        epochs: Epochs,
        ttl: Duration,
        standing: Standing,
        attached: Option<Attached>,
    ) -> Self {
        Self {
            shared,
            credentials,
            epochs,
            ttl,
            state: watch::Sender::new(SessionState::Held),
            ended: CancellationToken::new(),
            attached,
            known: Known::default(),
            standing: Mutex::new(standing),
        }
    }

    /// Changes the standing, looks at it, and tells what is new: in one step, so that news keep their
    /// order.
    fn change(&self, change: impl FnOnce(&mut Standing, Moment)) -> SessionState {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.shared.clock.now();
        change(&mut standing, now);
        let state = standing.observe(now);
        let tell = |told: &mut SessionState| std::mem::replace(told, state) != state;
        if self.state.send_if_modified(tell) {
            debug!(session = %self.credentials.session_id, ?state, "session");
        }
        if !state.is_held() {
            self.ended.cancel();
        }
        state
    }

    pub(crate) fn state(&self) -> SessionState {
        self.change(|_, _| {})
    }

    pub(crate) fn renewed(&self, sent: Moment, ttl_left: Duration) -> SessionState {
        self.change(|standing, now| standing.renewed(now, sent, ttl_left))
    }

    /// As [`Standing::told`]. Most answers tell nothing new.
    pub(crate) fn told(&self, sent: Moment, ttl_left: Duration) {
        if sent.after(ttl_left) > self.deadline() {
            self.change(|standing, now| standing.told(now, sent, ttl_left));
        }
    }

    pub(crate) fn failing(&self) -> SessionState {
        self.change(|standing, _| standing.failing())
    }

    pub(crate) fn lose(&self, reason: LostReason) -> SessionState {
        self.change(|standing, now| standing.lost(now, reason))
    }

    fn look<T>(&self, look: impl FnOnce(&Standing) -> T) -> T {
        look(&self.standing.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn deadline(&self) -> Moment {
        self.look(Standing::deadline)
    }

    pub(crate) fn renewed_at(&self) -> Moment {
        self.look(Standing::renewed_at)
    }

    pub(crate) fn time_left(&self) -> Duration {
        if self.state().is_held() {
            self.shared.clock.now().until(self.deadline())
        } else {
            Duration::ZERO
        }
    }

    /// The result of `work`, or how the session stands if it ends first; `work` is dropped then.
    pub(crate) async fn while_held<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, SessionState> {
        let state = self.state();
        if !state.is_held() {
            return Err(state);
        }
        tokio::select! {
            biased;
            () = self.ended.cancelled() => Err(self.state()),
            done = work => Ok(done),
        }
    }

    /// Ends when the session has, and sees to it that its deadline is noticed: a timer only wakes it.
    pub(crate) async fn watch_deadline(&self) {
        while self.state().is_held() {
            let left = self.shared.clock.now().until(self.deadline());
            tokio::select! {
                biased;
                () = self.ended.cancelled() => {}
                () = self.shared.clock.sleep(left) => {}
            }
        }
    }

    /// By a call of its own.
    pub(crate) async fn ask_to_close(&self) -> Result<(), ClientError> {
        let shared = &self.shared;
        let message = |epoch| CloseSessionRequest {
            session: Some(self.credentials.at(epoch)),
        };
        let closed = shared
            .call(
                Tries::new(shared, &self.epochs),
                |next| message(next.epoch),
                |mut stub, request| async move { stub.close_session(request).await },
            )
            .await;
        match closed {
            Ok(_) | Err(ClientError::SessionLost { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The error of a call whose session stands no more.
pub(crate) fn lost_error(state: SessionState) -> ClientError {
    let reason = match state {
        SessionState::Lost(reason) => reason,
        SessionState::Held | SessionState::Suspect | SessionState::Expired => LostReason::Expired,
    };
    ClientError::SessionLost { reason }
}

/// Held by the session's handles, its leases and whatever is being given back: the last one that goes
/// closes the session.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) core: Arc<Core>,
}

impl Owner {
    pub(crate) fn of(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// Closes the session here at once, and at the coordinator unless it is not ours to close any more.
    pub(crate) async fn close(&self) -> Result<(), ClientError> {
        let core = Arc::clone(&self.core);
        let (told, closed) = oneshot::channel();
        if !begin_closing(&core) {
            return Ok(());
        }
        // In a task of its own: it goes on if the caller stops waiting.
        if let Some(Some(told)) = over_stream(&core, Some(told)) {
            self.core.shared.tasks.spawn("close", async move {
                let outcome = core.ask_to_close().await;
                drop(told.send(outcome));
            });
        }
        closed.await.unwrap_or(Err(ClientError::NoRuntime))
    }
}

/// Has the session's stream close it. What it gives back is to be closed by a call.
fn over_stream(core: &Core, told: Option<Told>) -> Option<Option<Told>> {
    match &core.attached {
        Some(attached) => attached.close(told).err(),
        None => Some(told),
    }
}

/// Whether there is something to close at the coordinator. A session past its local deadline may still
/// stand there; its work is over, as nobody holds a handle any more, so others need not wait for it.
fn begin_closing(core: &Core) -> bool {
    if core.state() == SessionState::Expired {
        return true;
    }
    let before = core.state.borrow().is_held();
    core.lose(LostReason::Closed);
    before
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !begin_closing(&self.core) {
            return;
        }
        let core = Arc::clone(&self.core);
        if over_stream(&core, None).is_none() {
            return;
        }
        self.core.shared.tasks.spawn("close", async move {
            if let Err(error) = core.ask_to_close().await {
                debug!(%error, "session not closed; it ends by its TTL");
            }
        });
    }
}
