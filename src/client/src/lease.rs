use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use palisade_token::{FencingToken, Grant, ResourceName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::error::{ClientError, LeaseError};
use crate::info::{LeaseInfo, PreviousLease};
use crate::release::{self, Hold, Release, Released};
use crate::session::core::{Owner, lost_error};
use crate::session::known::Knows;
use crate::standing::SessionState;
use crate::stream::{self, RequestKey, ToRelease};

mod news;
mod view;

pub(crate) use self::news::LeaseNews;
pub use self::news::{LeaseLoss, RevokeRequest};
pub(crate) use self::view::LeaseView;

/// The right of a session to a resource, from its grant until it is released or its session ends.
///
/// What to do with it: show [`Lease::grant`] to the guard where the data is, seal, read, and only then
/// write. The lease keeps most stale work from being tried; the guard refuses the rest. Dropped, it is
/// released in the background.
///
/// ```no_run
/// # async fn example(session: palisade_client::Session) -> Result<(), Box<dyn std::error::Error>> {
/// let lease = session.try_acquire(&"orders".parse()?).await?;
/// let lost = lease.lost();
/// tokio::select! {
///     () = lost.cancelled() => eprintln!("lost: stopped"),
///     () = work(lease.grant()?) => {
///         lease.release().await?;
///     }
/// }
/// # Ok(())
/// # }
/// # async fn work(_grant: palisade_client::Grant) {}
/// ```
#[must_use = "a lease that is dropped is released"]
pub struct Lease {
    owner: Arc<Owner>,
    info: LeaseInfo,
    previous: Option<PreviousLease>,
    news: Arc<LeaseNews>,
    way: Way,
    given_back: bool,
}

/// How a lease came, and how it goes.
#[derive(Debug)]
pub(crate) enum Way {
    /// Over the session's stream, by its request's key.
    Stream(RequestKey),
    /// By calls of their own; kept for as long as the lease is known of.
    Calls(Option<Knows>),
}

impl Way {
    /// Goes on to who gives the lease back.
    fn knows(&mut self) -> Option<Knows> {
        match self {
            Self::Stream(_) => None,
            Self::Calls(knows) => knows.take(),
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("info", &self.info)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Lease {
    pub(crate) fn granted(
        owner: Arc<Owner>,
        info: LeaseInfo,
        previous: Option<PreviousLease>,
        news: Arc<LeaseNews>,
        way: Way,
    ) -> Self {
        Self {
            owner,
            info,
            previous,
            news,
            way,
            given_back: false,
        }
    }

    /// What to show a guard, if the lease still holds by the clock at this moment (I8). Ask anew for each
    /// piece of work; a grant kept in a variable does not know that it is over, though the guard does.
    ///
    /// # Errors
    /// [`LeaseError::Expired`] past the local deadline, [`LeaseError::Lost`] if the lease or its session has
    /// ended otherwise. Neither is ever followed by a grant again.
    pub fn grant(&self) -> Result<Grant, LeaseError> {
        view::grant(self.state(), &self.info)
    }

    /// The fencing token, also after the lease is lost: for logs, and for messages.
    #[must_use]
    pub fn token(&self) -> FencingToken {
        self.info.grant.token
    }

    /// What is held.
    #[must_use]
    pub fn resource(&self) -> &ResourceName {
        &self.info.grant.resource
    }

    /// What the coordinator told with the grant.
    #[must_use]
    pub fn info(&self) -> &LeaseInfo {
        &self.info
    }

    /// How the lease before ended, as far as the coordinator knows. However it did: seal first.
    #[must_use]
    pub fn previous(&self) -> Option<&PreviousLease> {
        self.previous.as_ref()
    }

    /// How the lease stands now, by the clock and not by a timer (I8): as its session does, unless it was lost
    /// alone, which news of it on the session's stream says.
    #[must_use]
    pub fn state(&self) -> SessionState {
        view::state(&self.owner.core, &self.news)
    }

    /// What tells how it stands, without keeping its session open.
    pub(crate) fn view(&self) -> LeaseView {
        LeaseView {
            core: Arc::clone(&self.owner.core),
            info: self.info.clone(),
            previous: self.previous.clone(),
            news: Arc::clone(&self.news),
        }
    }

    /// How it was lost, where the coordinator told; none while it holds, or where its session has ended.
    #[must_use]
    pub fn loss(&self) -> Option<LeaseLoss> {
        self.news.loss()
    }

    /// Tells when an operator wants the lease back: stop its work, then release it. Told on sessions with
    /// [`Transport::Stream`](crate::Transport::Stream) only, and again after the stream broke.
    ///
    /// ```no_run
    /// # async fn example(lease: palisade_client::Lease) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut wanted = lease.revoke_requested();
    /// wanted.wait_for(Option::is_some).await?;
    /// lease.answer_revoke(true);
    /// // … stop the work …
    /// lease.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn revoke_requested(&self) -> watch::Receiver<Option<RevokeRequest>> {
        self.news.watch_revoke()
    }

    /// Tells the operator that the request was heard, and whether the lease will be released; if not, it need
    /// not be waited for. It promises nothing: only [`Lease::release`] counts. Each request is answered
    /// once; says whether there was one to answer.
    pub fn answer_revoke(&self, will_release: bool) -> bool {
        match (&self.owner.core.attached, &self.way) {
            (Some(attached), &Way::Stream(key)) if self.news.begin_answer() => {
                attached.answer_revoke(key, will_release);
                true
            }
            _ => false,
        }
    }

    /// How long it is to the local deadline; zero once the lease is lost.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn example(lease: &palisade_client::Lease) {
    /// if lease.state().is_held() && lease.time_left() > Duration::from_secs(2) {
    ///     println!("{}: time for one more piece of work", lease.info().grant);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn time_left(&self) -> Duration {
        if self.state().is_held() {
            self.owner.core.time_left()
        } else {
            Duration::ZERO
        }
    }

    /// Fires once the lease is lost, or begins to be released: stop. A timer wakes it, up to a quarter of a
    /// second late after a suspend; [`Lease::grant`] is never late.
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.news.lost.clone()
    }

    /// Releases the lease, so that the next waiter gets it at once. The work must have stopped before: where
    /// it has not, let the lease expire instead. Goes on in the background if the caller stops waiting.
    ///
    /// # Errors
    /// [`ClientError::SessionLost`]: there is nothing left to release. [`ClientError::StaleToken`]: it is
    /// not this session's any more. All others, [`ClientError::Unavailable`] and [`ClientError::Denied`]
    /// among them: it is tried further in the background until the session ends.
    pub async fn release(self) -> Result<Released, ClientError> {
        self.release_because(None).await
    }

    /// Releases a lease whose token a guard refused as stale, and tells the fence that refused it, so that
    /// the next token is above it.
    ///
    /// # Errors
    /// As [`Lease::release`], and [`ClientError::FenceAhead`]: released, but the next lease's token will be
    /// refused, too.
    ///
    /// ```no_run
    /// # async fn example(lease: palisade_client::Lease, fence: palisade_client::FencingToken) {
    /// use palisade_client::ClientError;
    ///
    /// // `fence` is what the guard's refusal told.
    /// match lease.release_refused_by(fence).await {
    ///     Ok(_) => println!("acquire again: the next token is above the fence"),
    ///     Err(ClientError::FenceAhead { .. }) => println!("a clock is wrong: tell a person"),
    ///     Err(error) => println!("{error}"),
    /// }
    /// # }
    /// ```
    pub async fn release_refused_by(self, fence: FencingToken) -> Result<Released, ClientError> {
        self.release_because(Some(fence)).await
    }

    async fn release_because(
        mut self,
        fence: Option<FencingToken>,
    ) -> Result<Released, ClientError> {
        let state = self.owner.core.state();
        if !state.is_held() {
            return Err(lost_error(state));
        }
        self.begin_return();
        match (&self.owner.core.attached, &self.way) {
            (Some(attached), &Way::Stream(key)) => {
                let release = self.over_stream(key, fence);
                stream::release(&self.owner, attached, release).await
            }
            _ => {
                let release = self.by_call().refused_by(fence);
                release::and_wait(&self.owner, release, self.way.knows()).await
            }
        }
    }

    fn begin_return(&mut self) {
        self.given_back = true;
        self.news.lost.cancel();
    }

    fn over_stream(&self, key: RequestKey, refused_by_fence: Option<FencingToken>) -> ToRelease {
        ToRelease {
            key,
            refused_by_fence,
            news: Arc::clone(&self.news),
        }
    }

    fn by_call(&self) -> Release {
        Release::new(self.resource().clone(), Hold::Token(self.token()))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.given_back && self.state().is_held() {
            self.begin_return();
            match (&self.owner.core.attached, &self.way) {
                (Some(attached), &Way::Stream(key)) => {
                    stream::release_unwatched(attached, self.over_stream(key, None));
                }
                _ => {
                    let knows = self.way.knows();
                    drop(release::in_background(&self.owner, self.by_call(), knows));
                }
            }
        }
    }
}
