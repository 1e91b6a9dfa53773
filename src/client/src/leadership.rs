//! Leaderships: campaign → acquire → seal → run → stop taking work → cancel → drain → release.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use palisade_token::{FencingToken, Grant, ResourceName};
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::clock::Moment;
use crate::error::LeaseError;
use crate::info::{LeaseInfo, PreviousLease};
use crate::lease::{Lease, LeaseView, RevokeRequest};
use crate::standing::{LostReason, SessionState};

mod backoff;
mod campaign;
mod observers;
mod options;
mod outcome;
mod seal;
mod sessions;
mod term;

pub(crate) use self::backoff::Backoff;
pub(crate) use self::campaign::{Campaign, Hurdle, Waited, hurdle};
pub use self::options::LeadershipOptions;
pub use self::outcome::{Ended, LeaderError, LeadershipEnd, Next, Stopped, Trouble};
pub use self::seal::{SealError, Sealer};
pub(crate) use self::sessions::Kept;
use self::term::Outcome;

/// What is done under a leadership.
pub(crate) type Work<S> = Arc<dyn Fn(Leadership<S>) -> BoxFuture<'static, Next> + Send + Sync>;

impl Client {
    /// Campaigns for a resource, leads when it is granted, and campaigns again, until it is told to stop or the
    /// work resigns.
    ///
    /// Each leadership: acquire, with a wait → `sealer` seals → `work` runs, in a task of its own. It goes on
    /// through outages of coordinators and their store, as long as the local deadline lies ahead, and never
    /// past it. Where it has to end, because the work returned, the lease is lost or wanted back, or
    /// this was told to stop: stop taking work ([`Leadership::closing`]) → cancel
    /// ([`Leadership::cancelled`]) → drain → release. The lease is released only after the work's future has
    /// ended. If it does not within the drain's limit, the session is left to expire, and the
    /// future is dropped at its next `await`; there is no next campaign before that.
    ///
    /// `sealer` and `work` may panic: that ends the leadership and no more. The safety is the guard's and not this
    /// function's: what `work` writes must go through what `sealer` gave it.
    ///
    /// If the future of this function is dropped, the leadership is stopped, drained and released in
    /// the background, as long as the runtime lives.
    ///
    /// # Errors
    /// [`LeaderError`]: what no further campaign can mend. All else is tried again for ever, with growing pauses,
    /// and told to [`LeadershipOptions::on_trouble`].
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use palisade_client::{CancellationToken, LeadershipOptions, Next, SealError};
    ///
    /// let stop = CancellationToken::new(); // cancelled by a signal, for example
    /// let options = LeadershipOptions::default().stop_on(stop.clone());
    /// let seal = async |grant: palisade_client::Grant| {
    ///     // The guard's seal, of each store that is written to.
    ///     Ok::<_, SealError>(grant)
    /// };
    /// let ended = client
    ///     .run_as_leader(&"orders/eu-1".parse()?, options, seal, |leadership| async move {
    ///         while !leadership.closing().is_cancelled() {
    ///             // Read, and write through leadership.sealed().
    /// #           break;
    ///         }
    ///         Next::Campaign
    ///     })
    ///     .await?;
    /// println!("led {} times", ended.leaderships);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run_as_leader<G, W, F>(
        &self,
        resource: &ResourceName,
        options: LeadershipOptions,
        sealer: G,
        work: W,
    ) -> Result<Ended, LeaderError>
    where
        G: Sealer,
        W: Fn(Leadership<G::Sealed>) -> F + Send + Sync + 'static,
        F: Future<Output = Next> + Send + 'static,
    {
        let work: Work<G::Sealed> = Arc::new(move |leadership| Box::pin(work(leadership)));
        let campaign = Campaign::new(Arc::clone(self.shared()), options, sealer, work)?;
        Box::pin(campaign.run(resource)).await
    }
}

/// A leadership under way: what the work is handed. Cheap to clone; clones that outlive the leadership say so.
///
/// ```no_run
/// # use palisade_client::{Leadership, Next};
/// async fn work(leadership: Leadership<()>) -> Next {
///     let cancelled = leadership.cancelled();
///     tokio::select! {
///         () = cancelled.cancelled() => {}
///         () = one_long_job(leadership.grant()) => {}
///     }
///     Next::Campaign
/// }
/// # async fn one_long_job(_: Result<palisade_client::Grant, palisade_client::LeaseError>) {}
/// ```
pub struct Leadership<S> {
    inner: Arc<Inner<S>>,
}

struct Inner<S> {
    view: LeaseView,
    sealed: S,
    closing: CancellationToken,
    cancelled: CancellationToken,
    over: AtomicBool,
}

impl<S> Clone for Leadership<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S> fmt::Debug for Leadership<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership")
            .field("grant", &self.info().grant)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl<S> Leadership<S> {
    fn new(lease: &Lease, sealed: S) -> Self {
        // Both fire with the lease's loss, whether or not anybody watches it.
        let (closing, cancelled) = (lease.lost().child_token(), lease.lost().child_token());
        Self {
            inner: Arc::new(Inner {
                view: lease.view(),
                sealed,
                closing,
                cancelled,
                over: AtomicBool::new(false),
            }),
        }
    }

    /// What to show a guard, if the leadership stands by the clock at this moment (I8); also while it is being
    /// stopped, until the work has ended. Ask anew for each piece of work.
    ///
    /// # Errors
    /// [`LeaseError`], never followed by a grant again.
    pub fn grant(&self) -> Result<Grant, LeaseError> {
        if self.inner.over.load(Ordering::SeqCst) {
            return Err(LeaseError::Lost(LostReason::Closed));
        }
        self.inner.view.grant()
    }

    /// What the sealer made of the grant: what to write with.
    #[must_use]
    pub fn sealed(&self) -> &S {
        &self.inner.sealed
    }

    /// The fencing token, also after the leadership: for logs, and for messages.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.info().grant.token
    }

    /// What is led.
    #[must_use]
    pub fn resource(&self) -> &ResourceName {
        &self.info().grant.resource
    }

    /// What the coordinator told with the grant.
    #[must_use]
    pub fn info(&self) -> &LeaseInfo {
        self.inner.view.info()
    }

    /// How the lease before ended, as far as the coordinator knows.
    #[must_use]
    pub fn previous(&self) -> Option<&PreviousLease> {
        self.inner.view.previous()
    }

    /// How the lease stands now, by the clock and not by a timer (I8). While it is
    /// [`SessionState::Suspect`], finish what is running and start nothing long.
    #[must_use]
    pub fn state(&self) -> SessionState {
        if self.inner.over.load(Ordering::SeqCst) {
            return SessionState::Lost(LostReason::Closed);
        }
        self.inner.view.state()
    }

    /// How long it is to the local deadline, which moves with each renewal; zero once it is over.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn example(leadership: &palisade_client::Leadership<()>) {
    /// if leadership.state().is_held() && leadership.time_left() > Duration::from_secs(2) {
    ///     println!("{}: time for one more piece of work", leadership.info().grant);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn time_left(&self) -> Duration {
        if self.state().is_held() {
            self.inner.view.time_left()
        } else {
            Duration::ZERO
        }
    }

    /// The local deadline, on the client's [`Clock`](crate::Clock). It moves with each renewal.
    #[must_use]
    pub fn deadline(&self) -> Moment {
        self.inner.view.deadline()
    }

    /// Fires when no new work is to be taken: what runs may be finished.
    #[must_use]
    pub fn closing(&self) -> CancellationToken {
        self.inner.closing.clone()
    }

    /// Fires when what runs is to be given up: at once where the lease is lost, else after the limit for
    /// finishing. Then the drain's limit runs.
    #[must_use]
    pub fn cancelled(&self) -> CancellationToken {
        self.inner.cancelled.clone()
    }

    /// What an operator asks for, who wants the lease back. It is answered without the work's doing, and the
    /// leadership stopped.
    ///
    /// ```no_run
    /// # async fn example(leadership: palisade_client::Leadership<()>) {
    /// leadership.closing().cancelled().await;
    /// if let Some(request) = leadership.revoke_requested() {
    ///     println!("{} wants {} back: {}", request.actor, leadership.resource(), request.reason);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn revoke_requested(&self) -> Option<RevokeRequest> {
        self.inner.view.revoke_request()
    }

    /// The work has ended.
    fn is_over(&self) {
        self.inner.over.store(true, Ordering::SeqCst);
        self.inner.closing.cancel();
        self.inner.cancelled.cancel();
    }
}
