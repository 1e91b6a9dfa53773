//! What is told of leaderships.

use palisade_token::{FencingToken, Grant};

use crate::error::{ClientError, Source};
use crate::lease::RevokeRequest;
use crate::standing::LostReason;

/// What to do after a leadership, as its work decides.
///
/// ```
/// use palisade_client::Next;
///
/// async fn work(done: bool) -> Next {
///     if done { Next::Resign } else { Next::Campaign }
/// }
/// # drop(work(true));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Next {
    /// Campaign again, unless told to stop.
    #[default]
    Campaign,
    /// Release, and do not campaign any more.
    Resign,
    /// The guard refused the token because its fence, told here, is above it: release, so that the next token is
    /// above the fence, and campaign again.
    Refused(FencingToken),
}

/// How [`Client::run_as_leader`](crate::Client::run_as_leader) ended.
///
/// ```
/// fn exit_code(ended: &palisade_client::Ended) -> u8 {
///     match (ended.still_running, ended.resigned) {
///         (true, _) => 2, // end the process: its lease expires
///         (false, true) => 0,
///         (false, false) => 1,
///     }
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Ended {
    /// The work resigned; else it was told to stop.
    pub resigned: bool,
    /// How many leaderships there were.
    pub leaderships: u64,
    /// The last of them that has ended.
    pub last: Option<Stopped>,
    /// The work of the last leadership overran the drain and still runs. Its lease expires, if it is not lost
    /// already; `on_stopped` is called once it has ended.
    pub still_running: bool,
}

/// A leadership that has ended.
///
/// ```
/// fn line(stopped: &palisade_client::Stopped) -> String {
///     let overran = if stopped.overran { ", too slowly" } else { "" };
///     format!("{} ended{overran}: {:?}", stopped.grant.resource, stopped.end)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stopped {
    /// What it held.
    pub grant: Grant,
    /// How it ended.
    pub end: LeadershipEnd,
    /// The work did not end within the drain's limit: it was dropped.
    pub overran: bool,
}

/// How a leadership ended: what came first. Whatever it was, the lease may have been lost before the work had
/// ended.
///
/// ```
/// use palisade_client::{LeadershipEnd, LeadershipOptions};
///
/// let options = LeadershipOptions::default().on_stopped(|stopped| match &stopped.end {
///     LeadershipEnd::Lost { reason } => eprintln!("{} is lost: {reason:?}", stopped.grant),
///     LeadershipEnd::WantedBack(request) => eprintln!("{} wants it: {}", request.actor, request.reason),
///     end => eprintln!("{} ended: {end:?}", stopped.grant),
/// });
/// # let _ = options;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeadershipEnd {
    /// The work returned by itself.
    Finished,
    /// It was told to stop, or the future that ran it was dropped.
    Told,
    /// An operator wanted the lease back.
    WantedBack(RevokeRequest),
    /// The lease was lost, or its local deadline passed: others may have been at work already.
    Lost {
        /// Why.
        reason: LostReason,
    },
    /// The work, or the callback for its start, panicked.
    Panicked {
        /// What it said, shortened.
        message: String,
    },
    /// The runtime ended before the leadership did.
    Abandoned,
}

/// Why no further campaign is tried.
///
/// ```
/// use palisade_client::LeaderError;
///
/// fn advice(error: &LeaderError) -> &'static str {
///     match error {
///         LeaderError::Client(_) => "correct the options, the credentials or the access rules",
///         LeaderError::Seal(_) => "correct what the sealer complains about",
///         _ => "see the log",
///     }
/// }
/// # let _ = advice;
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaderError {
    /// An option, or what the coordinator allows, is such that no campaign can succeed.
    #[error("no campaign can succeed: {0}")]
    Client(#[source] ClientError),
    /// A sealer says that trying again does not help. The lease was released.
    #[error("the sealer says that trying again does not help")]
    Seal(#[source] Source),
}

/// What went wrong and is tried again: for logs and metrics.
///
/// ```
/// use palisade_client::{LeadershipOptions, Trouble};
///
/// let options = LeadershipOptions::default().on_trouble(|trouble| match trouble {
///     Trouble::Refused { grant, fence } => eprintln!("{grant} was refused: the fence is at {fence}"),
///     other => eprintln!("trying again: {other:?}"),
/// });
/// # let _ = options;
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Trouble {
    /// No session or no lease could be had.
    Campaign(ClientError),
    /// A fence is above the lease's token. It was released with the fence told.
    Refused {
        /// The lease.
        grant: Grant,
        /// The fence.
        fence: FencingToken,
    },
    /// Nothing was sealed within the limit for it; the lease was released.
    NotSealed {
        /// The lease.
        grant: Grant,
        /// The last failure; none if there was no answer at all.
        source: Option<Source>,
    },
    /// The lease was lost before everything was sealed.
    LostBeforeSealed {
        /// The lease.
        grant: Grant,
        /// Why.
        reason: LostReason,
    },
    /// An operator wanted the lease back before everything was sealed. It was released.
    WantedBackBeforeSealed {
        /// The lease.
        grant: Grant,
    },
    /// The sealer or a callback panicked.
    Panicked {
        /// What it said, shortened.
        message: String,
    },
    /// The lease was not released yet: that is tried further in the background. It is over with
    /// [`ClientError::FenceAhead`], released, but the next token will be refused, too; and with
    /// [`ClientError::StaleToken`] and [`ClientError::Invalid`], which leave nothing to release.
    Release(ClientError),
}
