//! Releases and cancels of one stream, and the end of its session.

use std::sync::Arc;

use palisade_api::LeaseEnd;

use super::heard::How;
use super::job::{Give, Job, MAX_JOBS_PER_RESOURCE};
use super::reply;
use super::stream::{Done, End, Running, limit};
use super::work::Failed;
use crate::access::Verb;
use crate::domain::{HoldName, Released, RequestId};
use crate::service::error::{About, BadField, CallError};

impl Running {
    pub(super) fn give(
        &mut self,
        seq: u64,
        give: Result<Give, BadField>,
        about: &About,
    ) -> Result<(), End> {
        let checked = give.map_err(CallError::from).and_then(|give| {
            let shared = &self.shared;
            let principal = &shared.caller.principal;
            shared
                .access
                .check(principal, Verb::Acquire, &give.resource)?;
            if !self.desk.lanes.has_room(&give.resource) {
                return Err(limit("requests per resource", MAX_JOBS_PER_RESOURCE));
            }
            Ok(give)
        });
        match checked {
            Ok(give) => self.put(Job::Give(Box::new(give))),
            Err(error) => self.tell(reply::refused(seq, about, &error)),
        }
    }

    pub(super) fn gave(
        &mut self,
        give: &Give,
        done: Result<(Released, Option<CallError>), Failed>,
    ) -> Result<(), End> {
        let mut about = self.about();
        about.resource = Some(give.resource.clone());
        if let HoldName::Request(request) = &give.hold {
            about.request = Some(request.clone());
        }
        let (released, lasting) = match done {
            Ok(done) => done,
            Err(Failed::Told(_)) if !give.is_asked => {
                self.renewals.is_forced = true;
                return Ok(());
            }
            Err(failed) => return self.fail(give.seq, &about, failed),
        };
        if let HoldName::Request(request) = &give.hold {
            self.cancel_waiting(give, request)?;
        }
        let known = self.desk.end(&give.resource, &give.hold);
        self.shared.leases.released(&released);
        // A restore that takes a lease away may put its request back into the queue.
        self.renewals.is_forced |= matches!(released, Released::NotHeld(_));
        if let Released::Lease { hold, .. } = &released {
            about.request = Some(hold.claim.request.clone());
        }
        match (give.is_asked, lasting, known) {
            (true, Some(error), _) => self.tell(reply::refused(give.seq, &about, &error)),
            (true, None, known) => {
                let request = about.request.or_else(|| known.map(|known| known.request));
                let answer = reply::released(give.seq, &give.resource, request.as_ref(), &released);
                self.tell(answer)
            }
            (false, _, Some(known)) => {
                let names = (&give.resource, &known.request, known.token);
                let end = match released {
                    Released::Lease { .. } => LeaseEnd::Released,
                    _ => LeaseEnd::Unknown,
                };
                let how = How {
                    end,
                    ..How::default()
                };
                self.tell(reply::lost(names, &how, None))
            }
            (false, _, None) => Ok(()),
        }
    }

    /// Acquires whose request is given back are answered before that is.
    pub(super) fn cancel_waiting(&mut self, give: &Give, request: &RequestId) -> Result<(), End> {
        for ask in self.desk.unwait_before(&give.resource, request, give.seq) {
            self.dismiss(&ask)?;
        }
        let leases = &self.shared.leases;
        leases
            .waiters
            .cancel(self.shared.caller.session, &give.resource, request);
        Ok(())
    }

    /// Closing the session comes after everything before it.
    pub(super) fn close_if_due(&mut self) {
        if self.closing.is_none() || self.is_closing || self.desk.lanes.messages() > 0 {
            return;
        }
        self.is_closing = true;
        let shared = Arc::clone(&self.shared);
        self.start(async move { Done::Closed(shared.close().await) });
    }

    pub(super) fn closed(&mut self, done: Result<(), Failed>) -> Result<(), End> {
        let seq = self.closing.take().unwrap_or(self.last_seq);
        match done {
            Ok(()) => {
                for ask in self.desk.unwait_all() {
                    self.dismiss(&ask)?;
                }
                self.tell(reply::closed(seq))?;
                Err(End::Closed)
            }
            Err(failed) => {
                self.is_closing = false;
                self.fail(seq, &self.about(), failed)
            }
        }
    }
}
