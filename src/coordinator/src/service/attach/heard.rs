//! News of what one session holds.

use std::sync::Arc;

use palisade_api::LeaseEnd;
use palisade_api::v1::AttachRevokeAck;
use palisade_token::{FencingToken, ResourceName};
use tracing::debug;

use super::reply;
use super::stream::{Done, End, Running};
use crate::domain::{Ended, Granted, Notice};
use crate::service::news::SessionNews;
use crate::service::reply::end;

/// How a lease ended, as far as it was heard.
#[derive(Debug, Clone)]
pub(super) struct How {
    pub(super) end: LeaseEnd,
    /// In the operator's words.
    pub(super) reason: String,
    pub(super) successor: Option<Arc<Granted>>,
}

impl Default for How {
    fn default() -> Self {
        Self {
            end: LeaseEnd::Unknown,
            reason: String::new(),
            successor: None,
        }
    }
}

impl Running {
    pub(super) fn heard(&mut self, news: SessionNews) -> Result<(), End> {
        match news {
            SessionNews::Ended { ended, successor } => {
                self.ended(&ended, successor);
                Ok(())
            }
            SessionNews::Asked(notice) => self.asked_back(notice),
            SessionNews::Missed => {
                self.renewals.is_forced = true;
                Ok(())
            }
        }
    }

    /// News may be late: that the lease is gone is what the store says.
    fn ended(&mut self, ended: &Ended, successor: Option<Arc<Granted>>) {
        let resource = &ended.resource;
        let Some(held) = self.desk.held_of(resource) else {
            return;
        };
        if held.granted >= ended.revision {
            return;
        }
        // Its own release is told by its answer; whatever else it is, the next renewal finds out.
        if self.desk.lanes.is_busy(resource) {
            self.renewals.is_forced = true;
            return;
        }
        let how = How {
            end: end(ended.end),
            reason: ended.reason.clone(),
            successor,
        };
        let (request, token) = (held.request.clone(), held.token);
        self.start_missing(resource.clone(), request, token, how);
    }

    fn asked_back(&mut self, notice: Notice) -> Result<(), End> {
        let held = self.desk.held_of(&notice.resource);
        if held.is_some_and(|held| held.token == notice.token) {
            return self.tell(reply::revoke_requested(&notice));
        }
        self.desk.keep_notice(notice);
        Ok(())
    }

    /// Tells of what came while the grant was not told yet.
    pub(super) fn catch_up(
        &mut self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<(), End> {
        match self.desk.take_notice(resource, token) {
            Some(notice) => self.tell(reply::revoke_requested(&notice)),
            None => Ok(()),
        }
    }

    /// Who will not release need not be waited for.
    pub(super) fn revoke_ack(&mut self, ack: &AttachRevokeAck) {
        let Ok(resource) = ResourceName::new(&ack.resource) else {
            return;
        };
        let held = self.desk.held_of(&resource);
        let Some(held) = held.filter(|held| held.token.as_i64() == ack.token) else {
            return;
        };
        if ack.will_release {
            return;
        }
        let (shared, token) = (Arc::clone(&self.shared), held.token);
        self.start(async move {
            if let Err(error) = shared.leases.store.decline(&resource, token).await {
                debug!(%error, %resource, "could not say that a lease is not given back");
            }
            Done::Told
        });
    }
}
