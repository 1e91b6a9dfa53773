//! What calls are counted as.

use std::sync::Arc;

use super::error::CallError;
use crate::clock::{Clock, Moment};
use crate::domain::Refusal;
use crate::metrics::{AcquireOutcome, Metrics, RenewOutcome};
use crate::store::{Failure, StoreError};

/// An acquire under way, counted when it is dropped: one whose client hung up is counted, too.
#[derive(Debug)]
pub(super) struct CountedAcquire<'a> {
    metrics: &'a Metrics,
    clock: &'a Arc<dyn Clock>,
    since: Moment,
    outcome: AcquireOutcome,
}

impl<'a> CountedAcquire<'a> {
    pub(super) fn start(metrics: &'a Metrics, clock: &'a Arc<dyn Clock>) -> Self {
        Self {
            metrics,
            clock,
            since: clock.now(),
            outcome: AcquireOutcome::Abandoned,
        }
    }

    pub(super) fn end<T>(mut self, done: &Result<T, CallError>) {
        self.outcome = acquire(done.as_ref());
    }
}

impl Drop for CountedAcquire<'_> {
    fn drop(&mut self) {
        let took = self.since.until(self.clock.now());
        self.metrics.acquired(self.outcome, took);
    }
}

/// What an acquire is counted as.
pub(super) fn acquire<T>(done: Result<T, &CallError>) -> AcquireOutcome {
    match done {
        Ok(_) => AcquireOutcome::Granted,
        Err(error) => acquire_failed(error),
    }
}

fn acquire_failed(error: &CallError) -> AcquireOutcome {
    match error {
        CallError::Store(StoreError::Refused(refusal)) => acquire_refused(refusal),
        CallError::Store(StoreError::Failed {
            failure: Failure::NoSpace,
            ..
        })
        | CallError::Limit { .. } => AcquireOutcome::Limit,
        CallError::Superseded
        | CallError::Cancelled
        | CallError::TooLate
        | CallError::WaitCutShort => AcquireOutcome::Abandoned,
        CallError::Field(_) | CallError::NotServed(_) | CallError::Access(_) => {
            AcquireOutcome::Refused
        }
        CallError::Store(StoreError::Failed { .. })
        | CallError::StoreSlow(_)
        | CallError::Draining
        | CallError::DrainingPlaceStands
        | CallError::FenceAhead { .. }
        | CallError::Broken(_) => AcquireOutcome::Unavailable,
    }
}

fn acquire_refused(refusal: &Refusal) -> AcquireOutcome {
    match refusal {
        Refusal::LeaseHeld { .. } => AcquireOutcome::Held,
        Refusal::WaitExpired => AcquireOutcome::WaitExpired,
        Refusal::SessionEnded { .. } => AcquireOutcome::SessionEnded,
        Refusal::LimitReached { .. } => AcquireOutcome::Limit,
        Refusal::Superseded { .. } => AcquireOutcome::Abandoned,
        Refusal::AlreadyHeld { .. }
        | Refusal::NotYours { .. }
        | Refusal::OpenIdTaken { .. }
        | Refusal::EpochStale { .. }
        | Refusal::RequestMismatch { .. }
        | Refusal::StaleToken { .. }
        | Refusal::FenceAhead(_) => AcquireOutcome::Refused,
    }
}

/// What a renewal is counted as.
pub(super) fn renewal<T>(done: Result<T, &CallError>) -> RenewOutcome {
    match done {
        Ok(_) => RenewOutcome::Renewed,
        Err(CallError::Store(StoreError::Refused(Refusal::SessionEnded { .. }))) => {
            RenewOutcome::SessionEnded
        }
        Err(
            CallError::Store(StoreError::Refused(_)) | CallError::Superseded | CallError::Access(_),
        ) => RenewOutcome::Refused,
        Err(_) => RenewOutcome::Unavailable,
    }
}
