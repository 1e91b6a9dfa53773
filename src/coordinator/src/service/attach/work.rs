//! What one stream asks of the store, each thing until its outcome is certain.
//!
//! Every write carries the mark that the stream wrote last. Where an outcome is unknown the mark is raised, and
//! only then the same write is submitted again: see `mark.rs`.

use std::sync::Arc;

use palisade_token::{FencingToken, ResourceName};
use tracing::debug;

use super::job::{Ask, Give};
use super::mark::Marks;
use crate::access::Access;
use crate::clock::Moment;
use crate::domain::{Acquired, AttachMark, Caller, Hold, HoldName, Refusal, Release, Released};
use crate::service::backoff::backoff;
use crate::service::deadline::Deadline;
use crate::service::error::CallError;
use crate::service::lease::{Leases, Living, is_lasting};
use crate::service::waiters::Seat;
use crate::store::{Failure, Outcome, Standing, StoreError};
use crate::traces::Traced;

/// What the work of one stream has in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) leases: Arc<Leases>,
    pub(super) access: Access,
    /// Whose stream it is. Its nonce is the stream's own; the mark is that of each write.
    pub(super) caller: Caller,
    pub(super) marks: Marks,
    /// What is told of its acquires, if anybody listens.
    pub(super) trace: Option<Traced>,
}

/// Why a piece of work came to nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// The client is told, and the stream goes on.
    Told(CallError),
    /// The stream ends.
    Ends(CallError),
}

/// The tries of one write so far.
#[derive(Debug, Default)]
struct Tries {
    failures: u32,
    /// A copy may be under way that was submitted under this mark.
    stale: Option<AttachMark>,
    /// It may have happened, by what is known so far.
    in_doubt: bool,
}

impl Tries {
    /// The first ones of a request that may have been submitted under a mark before.
    fn after(stale: Option<AttachMark>) -> Self {
        Self {
            failures: 0,
            stale,
            in_doubt: stale.is_some(),
        }
    }

    /// The mark for the next one.
    async fn mark(&self, shared: &Shared) -> Result<AttachMark, Failed> {
        let raise = |from, to| shared.raise(from, to);
        match shared.marks.above(self.stale, raise).await {
            Err(Failed::Told(error)) if self.in_doubt => Err(Failed::Told(error.or_happened())),
            other => other,
        }
    }

    /// Takes note of a failure, and waits until it is worth another try; fails where it is not.
    async fn failed(
        &mut self,
        shared: &Shared,
        error: StoreError,
        mark: AttachMark,
    ) -> Result<(), Failed> {
        let error = match error {
            StoreError::Refused(refusal) => return shared.refused(refusal, mark),
            failed => failed,
        };
        let unknown = error.outcome() == Outcome::Unknown;
        if unknown {
            self.stale = Some(mark);
            self.in_doubt = true;
        }
        if is_passing(&error) {
            self.failures = self.failures.saturating_add(1);
            shared.pause(&error, self.failures).await;
            return Ok(());
        }
        if unknown {
            shared.marks.doubt();
        }
        let told = CallError::from(error);
        Err(Failed::Told(if self.in_doubt {
            told.or_happened()
        } else {
            told
        }))
    }
}

/// Whether a store that failed is worth another try without anybody's help.
fn is_passing(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Failed {
            failure: Failure::Unavailable | Failure::HistoryRegressed,
            ..
        }
    )
}

impl Shared {
    pub(super) fn now(&self) -> Moment {
        self.leases.clock.now()
    }

    /// The caller of a write under a mark.
    pub(super) fn caller(&self, mark: AttachMark) -> Caller {
        Caller {
            mark: Some(mark),
            ..self.caller.clone()
        }
    }

    async fn pause(&self, error: &StoreError, failures: u32) {
        let session = self.caller.session;
        debug!(%error, %session, failures, "the store failed; trying again");
        let leases = &self.leases;
        leases
            .clock
            .sleep(backoff(&*leases.entropy, failures))
            .await;
    }

    /// What a refusal of a write means: to submit it again, as this stream's own raise overtook it, or an end.
    fn refused(&self, refusal: Refusal, mark: AttachMark) -> Result<(), Failed> {
        match refusal {
            Refusal::Superseded { stored, .. } if self.marks.has_raised(mark, stored) => Ok(()),
            Refusal::Superseded { .. }
            | Refusal::SessionEnded { .. }
            | Refusal::NotYours { .. }
            | Refusal::EpochStale { .. } => Err(Failed::Ends(refusal.into())),
            other => Err(Failed::Told(other.into())),
        }
    }

    /// Raises the mark from the one that this stream wrote last, never from one that it read.
    async fn raise(&self, from: AttachMark, to: AttachMark) -> Result<(), Failed> {
        let caller = self.caller(from);
        let mut failures = 0;
        loop {
            match self.leases.store.raise(&caller, to).await {
                Ok(()) => return Ok(()),
                Err(StoreError::Refused(refusal)) => return Err(Failed::Ends(refusal.into())),
                Err(error) if is_passing(&error) => {
                    failures += 1;
                    self.pause(&error, failures).await;
                }
                Err(error) => return Err(Failed::Told(error.into())),
            }
        }
    }

    /// Asks for a resource, until the store has decided.
    pub(super) async fn acquire(&self, ask: &Ask) -> Result<Acquired, Failed> {
        let mut acquire = ask.acquire.clone();
        let mut tries = Tries::after(ask.stale);
        loop {
            let mark = tries.mark(self).await?;
            acquire.caller.mark = Some(mark);
            match self.leases.store.acquire(&acquire).await {
                Ok(acquired) => return Ok(acquired),
                Err(error) => tries.failed(self, error, mark).await?,
            }
        }
    }

    /// Releases, until the store has done so. What keeps the tokens below a guard's fence for good comes
    /// besides.
    pub(super) async fn give(&self, give: &Give) -> Result<(Released, Option<CallError>), Failed> {
        let mut release = Release {
            caller: self.caller.clone(),
            resource: give.resource.clone(),
            hold: give.hold.clone(),
        };
        let lasting = match give.fence {
            Some(fence) => {
                self.leases.metrics.fence_ahead();
                self.step_past(fence, &mut release).await?
            }
            None => None,
        };
        Ok((self.release(&mut release).await?, lasting))
    }

    async fn release(&self, release: &mut Release) -> Result<Released, Failed> {
        let mut tries = Tries::default();
        loop {
            let mark = tries.mark(self).await?;
            release.caller.mark = Some(mark);
            match self.leases.store.release(release).await {
                Ok(released) => return Ok(released),
                Err(error) => tries.failed(self, error, mark).await?,
            }
        }
    }

    /// What will not pass soon is no failure here: it keeps no lease from being released.
    async fn step_past(
        &self,
        fence: FencingToken,
        release: &mut Release,
    ) -> Result<Option<CallError>, Failed> {
        let leases = &self.leases;
        loop {
            let mark = Tries::default().mark(self).await?;
            release.caller.mark = Some(mark);
            let deadline = Deadline::within(&leases.clock, leases.timeouts.default_call);
            match leases.step_past(fence, release, &deadline).await {
                Ok(()) => return Ok(None),
                Err(error) if is_lasting(&error) => return Ok(Some(error.or_happened())),
                Err(CallError::Store(StoreError::Refused(refusal))) => {
                    self.refused(refusal, mark)?;
                }
                Err(error) => return Err(Failed::Told(error)),
            }
        }
    }

    /// Closes the session, until the store has done so.
    pub(super) async fn close(&self) -> Result<(), Failed> {
        let mut tries = Tries::default();
        loop {
            let mark = tries.mark(self).await?;
            match self.leases.store.close_session(&self.caller(mark)).await {
                Ok(()) => return Ok(()),
                Err(error) => tries.failed(self, error, mark).await?,
            }
        }
    }

    /// Relays a heartbeat. After `until` it is none any more: then the client is told.
    pub(super) async fn renew(&self, until: Moment) -> Result<Living, Failed> {
        let mut failures = 0;
        loop {
            let mark = self.marks.present();
            let sent = self.now();
            match self.leases.store.renew_session(&self.caller(mark)).await {
                Ok(alive) => {
                    return Ok(Living {
                        session: alive.session,
                        ttl: alive.ttl,
                        until: sent.after(alive.ttl),
                    });
                }
                Err(StoreError::Refused(refusal)) => {
                    self.refused(refusal, mark)?;
                    // The raise that overtook it may not have been answered yet.
                    self.pause(&StoreError::not_applied(Failure::Unavailable), 1)
                        .await;
                }
                Err(error) if is_passing(&error) && self.now() < until => {
                    failures += 1;
                    self.pause(&error, failures).await;
                }
                Err(error) => return Err(Failed::Told(error.into())),
            }
        }
    }

    /// What became of a request that waits.
    pub(super) async fn look(&self, ask: &Ask) -> Result<Acquired, Failed> {
        if let Some(hold) = ask.seat.as_ref().and_then(Seat::granted) {
            return Ok(Acquired::Held(hold));
        }
        let mut failures = 0;
        loop {
            match self.leases.waiters.look(&ask.acquire).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => return Err(self.why_gone(ask).await),
                Err(StoreError::Refused(refusal)) => return Err(Failed::Ends(refusal.into())),
                Err(error) => {
                    failures += 1;
                    self.pause(&error, failures).await;
                }
            }
        }
    }

    /// A place ends with its session, with its stream's being superseded, or because the client gave it back
    /// by another call. It is not asked for again here: that could grant what is given back (I4).
    async fn why_gone(&self, ask: &Ask) -> Failed {
        let mut failures = 0;
        loop {
            let mark = self.marks.present();
            // Nothing is raised: this asks whether the mark is still this stream's own.
            match self.leases.store.raise(&self.caller(mark), mark).await {
                Ok(()) if ask.is_cancelled() => return Failed::Told(CallError::Cancelled),
                Ok(()) => return Failed::Told(CallError::Superseded),
                Err(StoreError::Refused(refusal)) => {
                    if let Err(failed) = self.refused(refusal, mark) {
                        return failed;
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.pause(&error, failures).await;
                }
            }
        }
    }

    /// Gives the place back when the wait is over, unless the request was granted just before.
    pub(super) async fn leave(&self, ask: &Ask) -> Result<Hold, Failed> {
        match self.look(ask).await? {
            Acquired::Held(hold) => Ok(hold),
            Acquired::Queued(_) => {
                let mut release = Release {
                    caller: self.caller.clone(),
                    resource: ask.acquire.resource.clone(),
                    hold: HoldName::Request(ask.acquire.request.clone()),
                };
                // Also if it was granted in between: that lease has ended again.
                self.release(&mut release).await?;
                Err(Failed::Told(Refusal::WaitExpired.into()))
            }
        }
    }

    /// The lease of a resource, as it stands; `None` where that cannot be read now.
    pub(super) async fn standing(&self, resource: &ResourceName) -> Option<Standing> {
        let store = &self.leases.store;
        store.lease(resource).await.ok()
    }
}
