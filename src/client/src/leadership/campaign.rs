//! How a leadership is come by, again and again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use palisade_token::{Grant, ResourceName};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::observers::message;
use super::term::Term;
use super::{
    Backoff, Ended, Kept, LeaderError, Leadership, LeadershipOptions, Next, Outcome, SealError,
    Sealer, Trouble, Work,
};
use crate::calls::Shared;
use crate::clock::within;
use crate::error::{ClientError, LeaseError, Source};
use crate::lease::Lease;
use crate::standing::LostReason;

/// A pause that a coordinator asks for is kept, up to this.
const LONGEST_ASKED_PAUSE: Duration = Duration::from_secs(60);
/// How long after it was dropped work is waited for, where the whole is to stop: what awaits anything has ended.
const DROPPED_LIMIT: Duration = Duration::from_secs(1);

/// What a campaign is made with; one may serve many resources.
pub(crate) struct Campaign<G: Sealer> {
    shared: Arc<Shared>,
    options: LeadershipOptions,
    sealer: G,
    work: Work<G::Sealed>,
}

/// Why there is no leadership yet.
#[derive(Debug)]
pub(crate) enum Hurdle {
    /// Others hold it.
    Held(ClientError),
    Trouble(Trouble),
    Final(LeaderError),
}

/// A leadership that is granted and sealed and has not begun.
#[derive(Debug)]
pub(crate) struct Elected<S> {
    lease: Lease,
    sealed: S,
}

/// How the wait for the end of a leadership ended.
pub(crate) enum Waited {
    Over(Outcome),
    /// All was told to stop, and the work goes on all the same.
    StillRunning,
    /// The runtime has ended.
    Gone,
}

impl<G: Sealer> Campaign<G> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        options: LeadershipOptions,
        sealer: G,
        work: Work<G::Sealed>,
    ) -> Result<Self, LeaderError> {
        options.checked().map_err(LeaderError::Client)?;
        Ok(Self {
            shared,
            options,
            sealer,
            work,
        })
    }

    pub(crate) fn options(&self) -> &LeadershipOptions {
        &self.options
    }

    pub(crate) fn backoff(&self) -> Backoff {
        let (least, most) = self.options.pauses;
        Backoff::new(least, most)
    }

    pub(super) async fn run(self, resource: &ResourceName) -> Result<Ended, LeaderError> {
        let stop = self.options.stop.child_token();
        let _dropped = stop.clone().drop_guard();
        let session = self.options.session.clone();
        let kept = Kept::new(Arc::clone(&self.shared), session);
        let mut ended = Ended {
            resigned: false,
            leaderships: 0,
            last: None,
            still_running: false,
        };
        let outcome = self.lead_on(resource, &kept, &stop, &mut ended).await;
        if !ended.still_running {
            kept.close().await;
        }
        outcome.map(|()| ended)
    }

    async fn lead_on(
        &self,
        resource: &ResourceName,
        kept: &Kept,
        stop: &CancellationToken,
        ended: &mut Ended,
    ) -> Result<(), LeaderError> {
        let mut backoff = self.backoff();
        loop {
            let electing = self.elect(resource, kept, self.options.wait, ended.leaderships > 0);
            let elected = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                elected = electing => elected,
            };
            let asked = match elected {
                Ok(elected) => {
                    ended.leaderships += 1;
                    match self.lead(elected, Some(kept), stop, stop).await {
                        Waited::Over(outcome) => {
                            ended.last = Some(outcome.stopped);
                            ended.resigned = outcome.next == Next::Resign;
                            backoff.after_leadership(outcome.lasted);
                        }
                        Waited::StillRunning => {
                            ended.still_running = true;
                            return Ok(());
                        }
                        Waited::Gone => return Err(LeaderError::Client(ClientError::NoRuntime)),
                    }
                    if ended.resigned {
                        return Ok(());
                    }
                    None
                }
                Err(hurdle) => {
                    if let Hurdle::Held(ClientError::WaitExpired { .. }) = &hurdle {
                        // It has waited long enough: back into the queue.
                        backoff.reset();
                    }
                    self.passes(hurdle)?
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = self.pause(&mut backoff, asked) => {}
            }
        }
    }

    async fn pause(&self, backoff: &mut Backoff, asked: Option<Duration>) {
        let pause = self
            .shared
            .random
            .jittered(backoff.next(), 500)
            .max(asked.unwrap_or_default());
        self.shared.clock.sleep(pause).await;
    }

    /// Tells of a hurdle that a later campaign may pass, and how long the coordinator asks to wait.
    pub(crate) fn passes(&self, hurdle: Hurdle) -> Result<Option<Duration>, LeaderError> {
        let trouble = match hurdle {
            Hurdle::Held(error) => return Ok(asked_pause(&error)),
            Hurdle::Final(error) => return Err(error),
            Hurdle::Trouble(trouble) => trouble,
        };
        let asked = match &trouble {
            Trouble::Campaign(error) => asked_pause(error),
            _ => None,
        };
        debug!(?trouble, "campaigning again");
        self.options.observers.trouble(&trouble);
        Ok(asked)
    }

    /// Acquires and seals. Dropped, it gives back what it may have been granted.
    pub(crate) async fn elect(
        &self,
        resource: &ResourceName,
        kept: &Kept,
        wait: Duration,
        worked_before: bool,
    ) -> Result<Elected<G::Sealed>, Hurdle> {
        let failed = |error| hurdle(error, worked_before);
        let session = kept.session().await.map_err(failed)?;
        let asked = self.options.acquire().wait(wait);
        let lease = session.acquire(resource, asked).await.map_err(failed)?;
        match Box::pin(self.seal(&lease)).await {
            Ok(sealed) => Ok(Elected { lease, sealed }),
            Err(unsealed) => Err(self.give_back_unsealed(lease, unsealed).await),
        }
    }

    async fn give_back_unsealed(&self, lease: Lease, unsealed: Unsealed) -> Hurdle {
        let grant = lease.info().grant.clone();
        let (released, hurdle) = match unsealed {
            Unsealed::Lost(reason) => {
                return Hurdle::Trouble(Trouble::LostBeforeSealed { grant, reason });
            }
            Unsealed::Refused(fence) => {
                warn!(%grant, %fence, "the fence is above the token");
                let released = lease.release_refused_by(fence).await;
                (released, Hurdle::Trouble(Trouble::Refused { grant, fence }))
            }
            Unsealed::Fatal(source) => {
                let hurdle = Hurdle::Final(LeaderError::Seal(source));
                (lease.release().await, hurdle)
            }
            Unsealed::Trouble(trouble) => (lease.release().await, Hurdle::Trouble(trouble)),
        };
        match released {
            Ok(_) | Err(ClientError::SessionLost { .. }) => {}
            Err(error) => self.options.observers.trouble(&Trouble::Release(error)),
        }
        hurdle
    }

    /// Seals, as often as it takes, while the lease is held and its time for it is not over.
    async fn seal(&self, lease: &Lease) -> Result<G::Sealed, Unsealed> {
        let (lost, mut wanted) = (lease.lost(), lease.revoke_requested());
        let wanted = async {
            // The sender lives as long as the lease.
            if wanted.wait_for(Option::is_some).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let grant = lease.info().grant.clone();
        let mut last = None;
        let sealing = within(
            &self.shared.clock,
            self.options.seal_limit,
            self.seal_until_done(lease, &mut last),
        );
        let sealed = tokio::select! {
            biased;
            () = lost.cancelled() => return Err(Unsealed::Lost(lost_reason(lease))),
            () = wanted => {
                lease.answer_revoke(true);
                return Err(Unsealed::Trouble(Trouble::WantedBackBeforeSealed { grant }));
            }
            sealed = sealing => sealed,
        };
        let sealed = match sealed {
            Some(sealed) => sealed?,
            None => {
                let source = last;
                return Err(Unsealed::Trouble(Trouble::NotSealed { grant, source }));
            }
        };
        match lease.grant() {
            Ok(_) => Ok(sealed),
            Err(_) => Err(Unsealed::Lost(lost_reason(lease))),
        }
    }

    async fn seal_until_done(
        &self,
        lease: &Lease,
        last: &mut Option<Source>,
    ) -> Result<G::Sealed, Unsealed> {
        let grant = lease.info().grant.clone();
        let mut backoff = self.backoff();
        loop {
            // The call itself may panic, too.
            let sealing = async { self.sealer.seal(&grant).await };
            let source = match AssertUnwindSafe(sealing).catch_unwind().await {
                Ok(Ok(sealed)) => return Ok(sealed),
                Ok(Err(SealError::Refused { fence })) => return Err(Unsealed::Refused(fence)),
                Ok(Err(SealError::Fatal(source))) => return Err(Unsealed::Fatal(source)),
                Ok(Err(SealError::Transient(source))) => source,
                Err(panic) => {
                    let message = message(panic.as_ref());
                    return Err(Unsealed::Trouble(Trouble::Panicked { message }));
                }
            };
            debug!(%grant, error = %source, "not sealed yet");
            *last = Some(source);
            self.pause(&mut backoff, None).await;
        }
    }

    /// Leads, in a task of its own that `stop` ends. `kept` is the session where it is this leadership's alone.
    /// Only where `all`, of which `stop` is part, is to stop it ends while work goes on that was dropped.
    pub(crate) async fn lead(
        &self,
        elected: Elected<G::Sealed>,
        kept: Option<&Kept>,
        stop: &CancellationToken,
        all: &CancellationToken,
    ) -> Waited {
        let Elected { lease, sealed } = elected;
        let overran = CancellationToken::new();
        let term = Term {
            shared: Arc::clone(&self.shared),
            leadership: Leadership::new(&lease, sealed),
            lease,
            limits: self.options.limits,
            observers: self.options.observers.clone(),
            stop: stop.clone(),
            overran: overran.clone(),
            own: match kept {
                Some(kept) => kept.present().await,
                None => None,
            },
        };
        let leading = term.run(Arc::clone(&self.work));
        let mut leading = self.shared.tasks.spawn_watched("leadership", leading);
        let clock = &self.shared.clock;
        let given_up = async {
            overran.cancelled().await;
            all.cancelled().await;
            clock.sleep(DROPPED_LIMIT).await;
        };
        tokio::select! {
            biased;
            outcome = &mut leading => outcome.map_or(Waited::Gone, Waited::Over),
            () = given_up => Waited::StillRunning,
        }
    }
}

/// Why a lease that was granted is given back at once.
enum Unsealed {
    Lost(LostReason),
    Refused(palisade_token::FencingToken),
    Fatal(Source),
    Trouble(Trouble),
}

fn lost_reason(lease: &Lease) -> LostReason {
    match lease.grant() {
        Err(LeaseError::Expired) => LostReason::Expired,
        Err(LeaseError::Lost(reason)) => reason,
        Ok(Grant { .. }) => LostReason::Unknown,
    }
}

fn asked_pause(error: &ClientError) -> Option<Duration> {
    let asked = match error {
        ClientError::Held { retry_after, .. }
        | ClientError::Unavailable { retry_after, .. }
        | ClientError::LimitReached { retry_after, .. } => *retry_after,
        _ => None,
    };
    asked.map(|asked| asked.min(LONGEST_ASKED_PAUSE))
}

/// What is final is so for every campaign. Credentials that were good once may be good again.
pub(crate) fn hurdle(error: ClientError, worked_before: bool) -> Hurdle {
    match error {
        ClientError::Held { .. } | ClientError::WaitExpired { .. } => Hurdle::Held(error),
        ClientError::Invalid { .. } | ClientError::NotServed | ClientError::NoRuntime => {
            Hurdle::Final(LeaderError::Client(error))
        }
        ClientError::Denied { .. } if !worked_before => Hurdle::Final(LeaderError::Client(error)),
        error => Hurdle::Trouble(Trouble::Campaign(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST_ASKED_PAUSE, asked_pause};
    use crate::error::ClientError;

    #[test]
    fn a_pause_that_is_asked_for_is_kept_up_to_its_bound() {
        let asks = |retry_after| ClientError::LimitReached {
            limit: "sessions".to_owned(),
            bound: "1".to_owned(),
            may_have_happened: false,
            retry_after,
        };
        let seconds = |count| Some(Duration::from_secs(count));
        assert_eq!(asked_pause(&asks(None)), None);
        assert_eq!(asked_pause(&asks(seconds(7))), seconds(7));
        assert_eq!(asked_pause(&asks(seconds(3600))), Some(LONGEST_ASKED_PAUSE));
    }
}
