//! Lock-delay: after an unclean end of a lease nobody gets its resource for a while.
//!
//! For resources whose store cannot check tokens: it gives the old holder time to notice, and proves nothing.

use std::time::Duration;

use palisade_token::FencingToken;
use serde::{Deserialize, Serialize};

use super::{Generation, Hold, LeaseEnd, Previous, Revision};

/// What a lease with a lock-delay leaves behind: written by its grant, gone with its release, so that what is
/// left when the lease is gone means an unclean end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// The lease's token; not known to the grant that writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<FencingToken>,
    /// The generation that it was granted under.
    pub generation: Generation,
    /// The label of its session.
    pub label: String,
    /// For how long the resource stays closed, in milliseconds.
    pub lock_delay_ms: u64,
    /// How it ended, once somebody has seen to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<LeaseEnd>,
    /// Why, in the operator's words, where it was revoked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The delay was begun.
    #[serde(default)]
    pub has_begun: bool,
}

impl Last {
    /// What a lease leaves behind; `None` where it has no lock-delay.
    #[must_use]
    pub fn of(hold: &Hold) -> Option<Self> {
        (hold.claim.lock_delay_ms > 0).then(|| Self {
            token: None,
            generation: hold.generation,
            label: hold.claim.label.clone(),
            lock_delay_ms: hold.claim.lock_delay_ms,
            end: None,
            reason: String::new(),
            has_begun: false,
        })
    }

    /// The same after an unclean end that somebody saw.
    #[must_use]
    pub fn after(hold: &Hold, end: LeaseEnd, reason: &str) -> Option<Self> {
        Self::of(hold).map(|last| Self {
            token: hold.token(),
            end: Some(end),
            reason: reason.to_owned(),
            ..last
        })
    }

    /// The same as the revision shows it at which it was written: before its lease ended, that is the grant's.
    #[must_use]
    pub fn written_at(self, revision: Revision) -> Self {
        let token = self.token.or_else(|| self.generation.token(revision));
        Self { token, ..self }
    }

    /// The same once its delay has begun. An end that nobody saw is one for want of renewal: every other end
    /// is written down.
    #[must_use]
    pub fn begun(self) -> Self {
        Self {
            end: self.end.or(Some(LeaseEnd::Expired)),
            has_begun: true,
            ..self
        }
    }

    /// For how long the resource stays closed.
    #[must_use]
    pub fn lock_delay(&self) -> Duration {
        Duration::from_millis(self.lock_delay_ms)
    }

    /// How the lease ended, for the next holder.
    #[must_use]
    pub fn previous(&self) -> Previous {
        Previous {
            end: self.end.unwrap_or(LeaseEnd::Expired),
            token: self.token,
            reason: self.reason.clone(),
            label: self.label.clone(),
        }
    }
}

/// How it stands with what the last lease left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delay {
    /// What it left.
    pub last: Last,
    /// The delay has begun and is not over.
    pub is_running: bool,
}

/// Whether a vacant resource can be granted, as far as its last lease goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It can.
    Open,
    /// Its last lease ended uncleanly, and nobody has begun its delay yet.
    ToClose,
    /// The delay is not over.
    Closed,
}

impl Gate {
    /// The gate of a vacant resource.
    #[must_use]
    pub fn of(delay: Option<&Delay>) -> Self {
        match delay {
            None => Self::Open,
            Some(delay) if !delay.last.has_begun => Self::ToClose,
            Some(delay) if delay.is_running => Self::Closed,
            Some(_) => Self::Open,
        }
    }
}
