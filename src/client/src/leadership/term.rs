//! One leadership, from its beginning until its lease is given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use super::observers::{Notice, Observers, message};
use super::{Leadership, LeadershipEnd, Next, Stopped, Trouble, Work};
use crate::calls::Shared;
use crate::clock::within;
use crate::error::ClientError;
use crate::lease::{Lease, RevokeRequest};
use crate::session::Session;
use crate::standing::{LostReason, SessionState};

/// How long the steps of stopping may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) finish: Duration,
    pub(crate) drain: Duration,
}

/// Run in a task of its own: it goes on to the end when nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Term<S> {
    pub(super) shared: Arc<Shared>,
    pub(super) lease: Lease,
    pub(super) leadership: Leadership<S>,
    pub(super) limits: Limits,
    pub(super) observers: Observers,
    /// Tells it to stop.
    pub(super) stop: CancellationToken,
    /// Fires where the drain overruns.
    pub(super) overran: CancellationToken,
    /// The session, if it is this leadership's alone: then it is let expire where the drain overruns.
    pub(super) own: Option<Session>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) stopped: Stopped,
    pub(crate) next: Next,
    pub(crate) lasted: Duration,
}

type Running = AbortOnDropHandle<Next>;

impl<S: Send + Sync + 'static> Term<S> {
    pub(super) async fn run(mut self, work: Work<S>) -> Outcome {
        let clock = Arc::clone(&self.shared.clock);
        let begun = clock.now();
        let grant = self.leadership.info().grant.clone();
        let mut notice = Notice::due(&self.observers, &grant);
        debug!(%grant, "leading");
        let (end, next) = match self.observers.started(&grant) {
            Ok(()) => self.lead(work).await,
            Err(message) => (LeadershipEnd::Panicked { message }, Next::Campaign),
        };
        self.leadership.is_over();
        let overran = self.overran.is_cancelled();
        let stopped = Stopped {
            grant,
            end,
            overran,
        };
        if let Err(message) = notice.tell(&stopped) {
            self.observers.trouble(&Trouble::Panicked { message });
        }
        debug!(?stopped, "led");
        let lasted = begun.until(clock.now());
        self.give_back(next).await;
        Outcome {
            stopped,
            next,
            lasted,
        }
    }

    async fn lead(&mut self, work: Work<S>) -> (LeadershipEnd, Next) {
        let leadership = self.leadership.clone();
        let working = async move { work(leadership).await };
        let mut running = Running::new(self.shared.tasks.spawn_watched("lead", working));
        let (end, done) = match self.cause_to_stop(&mut running).await {
            Ok(done) => (LeadershipEnd::Finished, done),
            Err(cause) => {
                let done = self.wind_down(&cause, &mut running).await;
                (cause, done)
            }
        };
        match done {
            Ok(next) if matches!(end, LeadershipEnd::Finished) => match self.lost() {
                Some(reason) => (LeadershipEnd::Lost { reason }, next),
                None => (end, next),
            },
            Ok(next) => (end, next),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => {
                    let message = message(panic.as_ref());
                    (LeadershipEnd::Panicked { message }, Next::Campaign)
                }
                Err(_ended) => (end, Next::Campaign),
            },
        }
    }

    fn lost(&self) -> Option<LostReason> {
        match self.lease.state() {
            SessionState::Held | SessionState::Suspect => None,
            SessionState::Expired => Some(LostReason::Expired),
            SessionState::Lost(reason) => Some(reason),
        }
    }

    /// How the work ended, or why it must.
    async fn cause_to_stop(
        &self,
        running: &mut Running,
    ) -> Result<Result<Next, JoinError>, LeadershipEnd> {
        let lost = self.lease.lost();
        tokio::select! {
            biased;
            done = running => Ok(done),
            () = lost.cancelled() => Err(LeadershipEnd::Lost {
                reason: self.lost().unwrap_or(LostReason::Unknown),
            }),
            () = self.stop.cancelled() => Err(LeadershipEnd::Told),
            request = self.wanted_back() => Err(LeadershipEnd::WantedBack(request)),
        }
    }

    /// Answers an operator who wants the lease back, and tells what is wanted.
    async fn wanted_back(&self) -> RevokeRequest {
        let mut wanted = self.lease.revoke_requested();
        let request = match wanted.wait_for(Option::is_some).await {
            Ok(request) => request.clone(),
            Err(_) => None,
        };
        let Some(request) = request else {
            return std::future::pending().await;
        };
        self.lease.answer_revoke(true);
        request
    }

    /// Returns when no more is to be finished: after the limit, or sooner where an operator wants the lease back.
    async fn time_to_finish(&self) {
        let clock = &self.shared.clock;
        let end = clock.now().after(self.limits.finish);
        let wanted = within(clock, self.limits.finish, self.wanted_back());
        if let Some(request) = wanted.await {
            let now = clock.now();
            // The other half is for what does not finish.
            let half = now.until(request.deadline) / 2;
            clock.sleep(now.until(end).min(half)).await;
        }
    }

    /// Stop taking work → cancel → drain. Returns once the work has ended, though it was let expire meanwhile.
    async fn wind_down(
        &mut self,
        cause: &LeadershipEnd,
        running: &mut Running,
    ) -> Result<Next, JoinError> {
        let clock = Arc::clone(&self.shared.clock);
        let lost = self.lease.lost();
        self.leadership.closing().cancel();
        let is_lost = matches!(cause, LeadershipEnd::Lost { .. });
        if !(is_lost || self.limits.finish.is_zero()) {
            tokio::select! {
                biased;
                done = &mut *running => return done,
                () = lost.cancelled() => {}
                () = self.time_to_finish() => {}
            }
        }
        self.leadership.cancelled().cancel();
        let answering = async {
            self.wanted_back().await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            done = &mut *running => return done,
            _over = within(&clock, self.limits.drain, answering) => {}
        }
        self.overran.cancel();
        warn!(resource = %self.lease.resource(), limit = ?self.limits.drain, "the drain overran");
        if self.lease.state().is_held()
            && let Some(session) = self.own.take()
        {
            drop(session.detach());
        }
        running.abort();
        running.await
    }

    async fn give_back(self, next: Next) {
        if !self.lease.state().is_held() {
            return;
        }
        let released = match next {
            Next::Refused(fence) => self.lease.release_refused_by(fence).await,
            Next::Campaign | Next::Resign => self.lease.release().await,
        };
        match released {
            Ok(_) | Err(ClientError::SessionLost { .. }) => {}
            Err(error) => self.observers.trouble(&Trouble::Release(error)),
        }
    }
}
