//! How one stream follows another.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::{AttachOpen, attach_open};
use tracing::debug;

use crate::clock::Moment;
use crate::error::ClientError;
use crate::error::status::{Failure, Verdict};
use crate::session::renew;
use crate::standing::LostReason;

use super::super::open::{Opened, reopen};
use super::super::table::Garbage;
use super::Keeper;

/// Of a drain's time this share is used to spread the sessions that leave...
const DRAIN_SHARE: u32 = 4;
/// ...up to this: acquires wait for it.
const LONGEST_SPREAD: Duration = Duration::from_millis(500);

impl Keeper {
    /// Attaches elsewhere; the present stream serves on until that is done, as well as it can.
    pub(super) fn leave(&mut self, now: Moment, draining: Option<Duration>) {
        if draining.is_some() && !std::mem::replace(&mut self.draining, true) {
            self.table.heard_draining();
        }
        let Some(wire) = &self.wire else { return };
        if self.opening.is_some() || self.open_at.is_some() {
            return;
        }
        self.core.shared.endpoints.give_up(&wire.used);
        let spread = draining.map_or(Duration::ZERO, |limit| limit / DRAIN_SHARE);
        let pause = self
            .core
            .shared
            .random
            .jittered(spread.min(LONGEST_SPREAD), 0);
        self.open_at = Some(now.after(pause));
    }

    /// The stream has ended, or is not to be used any more.
    pub(super) fn cut(&mut self, now: Moment, failure: &Failure) {
        debug!(error = ?failure.error, "the stream has ended");
        self.table.cut();
        self.renewal = None;
        if let Some(wire) = self.wire.take()
            && failure.endpoint_at_fault
        {
            self.core.shared.endpoints.give_up(&wire.used);
        }
        if let ClientError::SessionLost { reason } = &failure.error {
            self.core.lose(*reason);
            return;
        }
        if self.opening.is_none() {
            self.open_pause = renew::next_pause(&self.core, self.open_pause);
            let pause = self.core.shared.random.jittered(self.open_pause, 0);
            self.open_at = Some(now.after(pause));
        }
    }

    pub(super) fn begin_opening(&mut self) {
        let epoch = self.core.epochs.raised();
        let open = AttachOpen {
            owner: Some(attach_open::Owner::Session(self.core.credentials.at(epoch))),
            open_requests: self.table.begin_opening(),
        };
        let shared = Arc::clone(&self.core.shared);
        self.opening = Some(Box::pin(reopen(shared, self.answer_limit(), open)));
    }

    pub(super) fn opened(&mut self, now: Moment, opened: Result<Opened, Failure>) {
        let failure = match opened.and_then(|opened| self.take(now, opened)) {
            Ok(()) => return,
            Err(failure) => failure,
        };
        debug!(error = ?failure.error, "no other stream");
        self.open_unknown |= failure.may_have_happened;
        match failure {
            Failure {
                error: ClientError::SessionLost { reason },
                ..
            } => {
                self.core.lose(reason);
                return;
            }
            // Each of this process's epochs is new, so this one is another's.
            Failure {
                verdict: Verdict::EpochStale { .. },
                ..
            } => {
                self.core.lose(LostReason::Superseded);
                return;
            }
            _ => {}
        }
        if self.wire.is_none() {
            self.core.failing();
            if let ClientError::Unavailable { cause, .. } = failure.error {
                self.table.away(cause);
            }
        } else if !self.draining && !self.open_unknown {
            // The present one does after all.
            self.table.opening_undone(now);
            return;
        }
        self.open_pause = renew::next_pause(&self.core, self.open_pause);
        self.open_at = Some(now.after(self.core.shared.random.jittered(self.open_pause, 500)));
    }

    fn take(&mut self, now: Moment, opened: Opened) -> Result<(), Failure> {
        let answer = opened.answer;
        if answer.session_id != self.core.credentials.session_id {
            return Err(Failure::garbled(Garbage("another session")));
        }
        self.table
            .opened(now, answer.requests)
            .map_err(Failure::garbled)?;
        self.wire = Some(opened.wire);
        (self.open_at, self.open_unknown, self.draining) = (None, false, false);
        self.renewal = None;
        let left = Duration::from_millis(answer.ttl_left_ms).min(self.core.ttl);
        self.core.renewed(opened.sent, left);
        self.renewed(opened.sent, left);
        Ok(())
    }
}
