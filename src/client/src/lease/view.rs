//! How a lease stands, for those who may not release it.

use std::sync::Arc;
use std::time::Duration;

use palisade_token::Grant;

use super::{LeaseNews, RevokeRequest};
use crate::clock::Moment;
use crate::error::LeaseError;
use crate::info::{LeaseInfo, PreviousLease};
use crate::session::core::Core;
use crate::standing::{LostReason, SessionState};

/// As [`Lease`](super::Lease), but it keeps no session open and releases nothing.
#[derive(Debug)]
pub(crate) struct LeaseView {
    pub(super) core: Arc<Core>,
    pub(super) info: LeaseInfo,
    pub(super) previous: Option<PreviousLease>,
    pub(super) news: Arc<LeaseNews>,
}

impl LeaseView {
    pub(crate) fn info(&self) -> &LeaseInfo {
        &self.info
    }

    pub(crate) fn previous(&self) -> Option<&PreviousLease> {
        self.previous.as_ref()
    }

    pub(crate) fn state(&self) -> SessionState {
        state(&self.core, &self.news)
    }

    pub(crate) fn grant(&self) -> Result<Grant, LeaseError> {
        grant(self.state(), &self.info)
    }

    /// The local deadline. It moves with each renewal.
    pub(crate) fn deadline(&self) -> Moment {
        self.core.deadline()
    }

    pub(crate) fn time_left(&self) -> Duration {
        if self.state().is_held() {
            self.core.time_left()
        } else {
            Duration::ZERO
        }
    }

    pub(crate) fn revoke_request(&self) -> Option<RevokeRequest> {
        self.news.watch_revoke().borrow().clone()
    }
}

pub(super) fn state(core: &Core, news: &LeaseNews) -> SessionState {
    let state = core.state();
    match news.lost_reason() {
        Some(reason) if state.is_held() => SessionState::Lost(reason),
        _ => state,
    }
}

pub(super) fn grant(state: SessionState, info: &LeaseInfo) -> Result<Grant, LeaseError> {
    match state {
        SessionState::Held | SessionState::Suspect => Ok(info.grant.clone()),
        SessionState::Expired => Err(LeaseError::Expired),
        SessionState::Lost(LostReason::Expired) => Err(LeaseError::Expired),
        SessionState::Lost(reason) => Err(LeaseError::Lost(reason)),
    }
}
