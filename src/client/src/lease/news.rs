//! What a coordinator tells of a lease after its grant.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_token::FencingToken;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::info::LeaseEnd;
use crate::standing::LostReason;

/// How a lease was lost, as the coordinator told it. The next holder may be at work already.
///
/// ```
/// use palisade_client::LeaseLoss;
///
/// fn line(loss: &LeaseLoss) -> String {
///     match loss.successor {
///         Some(token) => format!("{:?}; {} goes on, {token}", loss.end, loss.successor_label),
///         None => format!("{:?} {}", loss.end, loss.reason),
///     }
/// }
/// # fn example(lease: &palisade_client::Lease)
/// # -> Option<String> { lease.loss().as_ref().map(line) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseLoss {
    /// How it ended. [`LeaseEnd::Released`] is a release outside of this process's session.
    pub end: LeaseEnd,
    /// The next lease's token, where there is one and it is known.
    pub successor: Option<FencingToken>,
    /// The label of the next holder's session, for people; empty if not known.
    pub successor_label: String,
    /// The operator's reason where it was revoked; else empty.
    pub reason: String,
}

/// An operator wants a lease back: stop its work and release it. Else it is revoked when the time is over.
///
/// ```
/// use std::time::Duration;
/// use palisade_client::{Clock, RevokeRequest, SystemClock};
///
/// fn time_to_stop(request: &RevokeRequest) -> Duration {
///     println!("{} wants it back: {}", request.actor, request.reason);
///     SystemClock.now().until(request.deadline)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RevokeRequest {
    /// When it is revoked, on the client's [`Clock`](crate::Clock), counted from when the request was heard: a
    /// little later than the coordinator counts.
    pub deadline: Moment,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who asked for it.
    pub actor: String,
}

/// Shared by a lease and the stream that hears of it. What is told here is never taken back (I8).
#[derive(Debug)]
pub(crate) struct LeaseNews {
    /// Fires when the lease is lost or begins to be released.
    pub(crate) lost: CancellationToken,
    gone: AtomicBool,
    loss: OnceLock<LeaseLoss>,
    revoke: OnceLock<watch::Sender<Option<RevokeRequest>>>,
    answer_due: AtomicBool,
}

impl LeaseNews {
    pub(crate) fn of_session(ended: &CancellationToken) -> Self {
        Self {
            lost: ended.child_token(),
            gone: AtomicBool::new(false),
            loss: OnceLock::new(),
            revoke: OnceLock::new(),
            answer_due: AtomicBool::new(false),
        }
    }

    /// It is the session's no more; how it ended may be told later.
    pub(crate) fn gone(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.lost.cancel();
    }

    /// It is lost. What is told first stays.
    pub(crate) fn lost(&self, loss: LeaseLoss) {
        drop(self.loss.set(loss));
        self.gone();
    }

    pub(crate) fn loss(&self) -> Option<LeaseLoss> {
        if !self.gone.load(Ordering::SeqCst) {
            return None;
        }
        let unknown = || LeaseLoss {
            end: LeaseEnd::Unknown,
            successor: None,
            successor_label: String::new(),
            reason: String::new(),
        };
        Some(self.loss.get().cloned().unwrap_or_else(unknown))
    }

    pub(crate) fn lost_reason(&self) -> Option<LostReason> {
        if !self.gone.load(Ordering::SeqCst) {
            return None;
        }
        let end = self.loss.get().map_or(LeaseEnd::Unknown, |loss| loss.end);
        Some(match end {
            LeaseEnd::Released => LostReason::Released,
            LeaseEnd::Expired => LostReason::Expired,
            LeaseEnd::Revoked => LostReason::Revoked,
            LeaseEnd::Unknown => LostReason::Unknown,
        })
    }

    fn revoke(&self) -> &watch::Sender<Option<RevokeRequest>> {
        self.revoke.get_or_init(|| watch::Sender::new(None))
    }

    pub(crate) fn revoke_requested(&self, request: RevokeRequest) {
        self.answer_due.store(true, Ordering::SeqCst);
        self.revoke().send_replace(Some(request));
    }

    pub(crate) fn watch_revoke(&self) -> watch::Receiver<Option<RevokeRequest>> {
        self.revoke().subscribe()
    }

    /// Whether a request was heard and not answered yet; it is answered from here on.
    pub(crate) fn begin_answer(&self) -> bool {
        self.answer_due.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::{LeaseLoss, LeaseNews};
    use crate::info::LeaseEnd;
    use crate::standing::LostReason;

    fn revoked() -> LeaseLoss {
        LeaseLoss {
            end: LeaseEnd::Revoked,
            successor: None,
            successor_label: String::new(),
            reason: "maintenance".into(),
        }
    }

    #[test]
    fn what_is_lost_stays_lost_and_how_may_be_told_later() {
        let news = LeaseNews::of_session(&CancellationToken::new());
        assert_eq!((news.lost_reason(), news.loss()), (None, None));
        news.gone();
        assert_eq!(news.lost_reason(), Some(LostReason::Unknown));
        assert!(news.lost.is_cancelled());
        news.lost(revoked());
        assert_eq!(news.lost_reason(), Some(LostReason::Revoked));
        let other = LeaseLoss {
            end: LeaseEnd::Expired,
            ..revoked()
        };
        news.lost(other);
        assert_eq!(news.loss(), Some(revoked()), "what was told first stays");
    }
}
