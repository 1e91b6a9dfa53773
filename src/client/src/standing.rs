//! Whether a session still stands, as far as this process may believe it: pure, every moment is given.

use std::time::Duration;

use crate::clock::Moment;

#[cfg(test)]
mod tests;

/// How a session, and with it each of its leases, stands.
///
/// ```
/// use palisade_client::{LostReason, SessionState};
///
/// fn begin_more(state: SessionState) -> bool {
///     match state {
///         SessionState::Held => true,
///         SessionState::Suspect => false, // finish what is running
///         _ => false,                     // stop
///     }
/// }
/// assert!(begin_more(SessionState::Held));
/// assert!(SessionState::Suspect.is_held());
/// assert!(!SessionState::Lost(LostReason::Closed).is_held());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionState {
    /// Renewed, and the local deadline lies ahead.
    Held,
    /// The last renewal failed, and the local deadline still lies ahead: finish what is running, start
    /// nothing long.
    Suspect,
    /// The local deadline has passed. The coordinator may have granted the resources to others: stop.
    Expired,
    /// The session has ended, for the reason told: stop.
    Lost(LostReason),
}

impl SessionState {
    /// Whether work under the session's leases may go on.
    #[must_use]
    pub fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Suspect)
    }
}

/// Why a session, or one of its leases, is lost.
///
/// ```
/// use palisade_client::LostReason;
///
/// /// Whether a new session is needed, or only a new acquire in this one.
/// fn needs_session(reason: LostReason) -> bool {
///     match reason {
///         LostReason::Revoked | LostReason::Released | LostReason::Unknown => false,
///         _ => true,
///     }
/// }
/// assert!(needs_session(LostReason::Expired));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// The local deadline passed without a renewal.
    Expired,
    /// The coordinator says that the session has ended.
    Ended,
    /// This process closed it.
    Closed,
    /// This process handed it out with [`Session::detach`](crate::Session::detach).
    Detached,
    /// Another process goes on with the session, by its secret.
    Superseded,
    /// An operator revoked the lease. The session goes on.
    Revoked,
    /// The lease was released, not by this handle: by somebody with the session's secret. The session goes on.
    Released,
    /// The coordinator says that the lease is the session's no more, and not why. The session goes on.
    Unknown,
}

/// What is taken off a TTL before it is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) drift_ppm: u32,
    pub(crate) margin: Duration,
}

impl Allowance {
    /// Until when a TTL may be believed that was counted from `sent` or later.
    pub(crate) fn deadline(self, sent: Moment, ttl_left: Duration) -> Moment {
        let share = u128::from(PPM.saturating_sub(self.drift_ppm));
        let nanos = ttl_left.as_nanos() * share / u128::from(PPM);
        let believed = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        sent.after(believed.saturating_sub(self.margin))
    }
}

const PPM: u32 = 1_000_000;

/// A session's standing. Once it has ended, by its deadline or by news, nothing revives it (I8).
#[derive(Debug)]
pub(crate) struct Standing {
    allowance: Allowance,
    deadline: Moment,
    renewed_at: Moment,
    failing: bool,
    ended: Option<LostReason>,
}

impl Standing {
    /// The standing of a session that was opened by a call sent at `sent`.
    pub(crate) fn opened(allowance: Allowance, sent: Moment, ttl_left: Duration) -> Self {
        Self {
            allowance,
            deadline: allowance.deadline(sent, ttl_left),
            renewed_at: sent,
            failing: false,
            ended: None,
        }
    }

    /// How it stands at `now`. Passing the deadline is final from the first look on.
    pub(crate) fn observe(&mut self, now: Moment) -> SessionState {
        if self.ended.is_none() && now >= self.deadline {
            self.ended = Some(LostReason::Expired);
        }
        match self.ended {
            Some(LostReason::Expired) => SessionState::Expired,
            Some(reason) => SessionState::Lost(reason),
            None if self.failing => SessionState::Suspect,
            None => SessionState::Held,
        }
    }

    /// A renewal sent at `sent` was answered. An answer that overtook another, or came twice, moves the
    /// deadline neither back nor past what its own sending allows.
    pub(crate) fn renewed(&mut self, now: Moment, sent: Moment, ttl_left: Duration) {
        if !self.observe(now).is_held() {
            return;
        }
        self.deadline = self.deadline.max(self.allowance.deadline(sent, ttl_left));
        if sent >= self.renewed_at {
            self.renewed_at = sent;
            self.failing = false;
        }
    }

    /// An answer to a message sent at `sent` told what was left of the TTL, though it renewed nothing: the
    /// deadline is moved as far as that allows, and not back.
    pub(crate) fn told(&mut self, now: Moment, sent: Moment, ttl_left: Duration) {
        if self.observe(now).is_held() {
            self.deadline = self.deadline.max(self.allowance.deadline(sent, ttl_left));
        }
    }

    /// A renewal failed, or its outcome is unknown.
    pub(crate) fn failing(&mut self) {
        self.failing = true;
    }

    /// The session has ended. The first reason stays.
    pub(crate) fn lost(&mut self, now: Moment, reason: LostReason) {
        if self.observe(now).is_held() {
            self.ended = Some(reason);
        }
    }

    pub(crate) fn deadline(&self) -> Moment {
        self.deadline
    }

    /// When the last renewal that was answered had been sent.
    pub(crate) fn renewed_at(&self) -> Moment {
        self.renewed_at
    }
}
