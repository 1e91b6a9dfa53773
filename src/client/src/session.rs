use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use palisade_api::SessionOpening;
use palisade_api::v1::OpenSessionRequest;
use palisade_token::ResourceName;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::acquire::{self, AcquireOptions};
use crate::calls::{Shared, Tries};
use crate::client::Transport;
use crate::clock::Moment;
use crate::credentials::{Credentials, Secret};
use crate::epoch::Epochs;
use crate::error::ClientError;
use crate::lease::Lease;
use crate::random::Random;
use crate::standing::{Allowance, LostReason, SessionState, Standing};
use crate::stream::{self, Attached, First, Keeper};

pub(crate) mod core;
pub(crate) mod known;
pub(crate) mod renew;

use self::core::{Core, Owner};

/// How much faster than ours the coordinators' clocks may run, unless told otherwise: far more than any
/// clock that is not broken.
const DEFAULT_DRIFT_PPM: u32 = 10_000;
/// A drift of more than a tenth is a broken clock.
const MAX_DRIFT_PPM: u32 = 100_000;
/// The least default margin: what it takes to notice and to stop.
const LEAST_MARGIN: Duration = Duration::from_millis(250);
/// The default margin's share of the TTL, where that is more.
const MARGIN_SHARE: u32 = 10;

/// How a session is opened.
///
/// ```
/// use std::time::Duration;
/// use palisade_client::SessionOptions;
///
/// let options = SessionOptions::default().ttl(Duration::from_secs(5)).label("worker-7");
/// // Clocks that are known to be good, and work that is slow to stop:
/// let options = options.drift_ppm(1_000).margin(Duration::from_secs(2));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SessionOptions {
    ttl: Duration,
    label: String,
    drift_ppm: Option<u32>,
    margin: Option<Duration>,
}

impl SessionOptions {
    /// How long the session lives without a renewal: from 5 s to 5 min unless the coordinator is configured
    /// otherwise; its default, 15 s, unless set. Granted in whole seconds, rounded up.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// A name for people, at most 128 bytes without control characters. It identifies nothing.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// By how many millionths the clocks here and there may run apart: 10,000 (1 %) unless set, at most
    /// 100,000. It shortens the local deadline.
    pub fn drift_ppm(mut self, drift: u32) -> Self {
        self.drift_ppm = Some(drift);
        self
    }

    /// How long before the end of the TTL the local deadline lies, besides drift: time to stop in. The larger
    /// of 250 ms and a tenth of the TTL unless set, at most half of the TTL.
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = Some(margin);
        self
    }
}

/// One process's liveness at the coordinators: what holds leases.
///
/// It is renewed in the background, every third of its TTL, until it is closed, or until the last clone
/// of it and the last of its leases are dropped. Its local deadline is counted from before the last answered
/// renewal was sent, on a clock that goes on during suspend, and lies before the earliest moment at which
/// the coordinator can give its resources to others. Past it the session says so, and never
/// again that it holds (I8). That is politeness, not safety: between a look at the deadline and a write
/// anything may happen, and only the guard where the data is stops a stale write.
///
/// Its secret is in this process's memory only: a restarted process opens a new session.
///
/// ```no_run
/// # async fn example(client: palisade_client::Client)
/// # -> Result<(), Box<dyn std::error::Error>> {
/// use palisade_client::{AcquireOptions, SessionOptions};
///
/// let session = client.open_session(SessionOptions::default().label("worker-7")).await?;
/// println!("{} lives {:?} without a renewal", session.id(), session.ttl());
/// let lease = session.acquire(&"orders".parse()?, AcquireOptions::default()).await?;
/// if session.state().is_held() {
///     println!("{:?} to the local deadline", session.time_left());
/// }
/// session.close().await?; // and `lease` is lost
/// # drop(lease);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Session {
    owner: Arc<Owner>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id())
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) async fn open(
        shared: Arc<Shared>,
        options: SessionOptions,
    ) -> Result<Self, ClientError> {
        let drift_ppm = options.drift_ppm.unwrap_or(DEFAULT_DRIFT_PPM);
        if drift_ppm > MAX_DRIFT_PPM {
            let bound = format!("at most {MAX_DRIFT_PPM}");
            return Err(ClientError::invalid(
                "drift_ppm",
                bound,
                drift_ppm.to_string(),
            ));
        }
        let secret = Secret::random(&shared.random);
        let epochs = Epochs::starting_at(1);
        let opening = opening(&secret, &options, &shared.random)?;
        let (answer, first) = match shared.transport {
            Transport::Unary => (ask_to_open(&shared, &epochs, opening).await?, None),
            Transport::Stream => {
                let first = stream::first(&shared, &epochs, opening).await?;
                (Standings::of_stream(&first), Some(first))
            }
        };
        let ttl = answer.ttl;
        let margin = options
            .margin
            .unwrap_or_else(|| LEAST_MARGIN.max(ttl / MARGIN_SHARE));
        let allowance = Allowance { drift_ppm, margin };
        let credentials = Credentials::new(answer.session_id, secret, 0);
        let standing = Standing::opened(allowance, answer.sent, answer.ttl_left.min(ttl));
        let (attached, work) = match first {
            Some(first) => {
                let (attached, commands) = Attached::new();
                (Some(attached), Some((first, commands)))
            }
            None => (None, None),
        };
        let core = Core::new(shared, credentials, epochs, ttl, standing, attached);
        let core = Arc::new(core);
        let session = Self {
            owner: Arc::new(Owner::of(Arc::clone(&core))),
        };
        let kept = Arc::clone(&core);
        match work {
            Some((first, commands)) => {
                let keeper = Keeper::new(kept, commands, first);
                core.shared.tasks.spawn("stream", keeper.run());
            }
            None => core.shared.tasks.spawn("renew", renew::keep(kept)),
        }
        if margin > ttl / 2 {
            let bound = format!("at most {:?}, half of the TTL granted", ttl / 2);
            return Err(ClientError::invalid("margin", bound, format!("{margin:?}")));
        }
        Ok(session)
    }

    #[cfg(test)]
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }

    /// The session's id, for logs and for people.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.owner.core.credentials.session_id
    }

    /// The TTL granted.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.owner.core.ttl
    }

    /// How the session stands now, by the clock and not by a timer (I8).
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.owner.core.state()
    }

    /// How long it is to the local deadline; zero once the session has ended.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.owner.core.time_left()
    }

    /// The local deadline, on the client's [`Clock`](crate::Clock). It moves with each renewal.
    ///
    /// ```no_run
    /// # fn example(session: &palisade_client::Session) {
    /// use palisade_client::{Clock, SystemClock};
    ///
    /// // The same as `session.time_left()`, while the session is held.
    /// let left = SystemClock.now().until(session.deadline());
    /// # let _ = left;
    /// # }
    /// ```
    #[must_use]
    pub fn deadline(&self) -> Moment {
        self.owner.core.deadline()
    }

    /// The session's states as they come. A reader that was suspended may see an old one: to decide, ask
    /// [`Session::state`].
    ///
    /// ```no_run
    /// # async fn example(session: palisade_client::Session) {
    /// let mut states = session.watch();
    /// while states.changed().await.is_ok() {
    ///     println!("{:?}", *states.borrow_and_update());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<SessionState> {
        self.owner.core.state.subscribe()
    }

    /// Fires once the session has ended, for whatever reason: stop. A timer wakes it, up to a quarter of a
    /// second late after a suspend; [`Session::state`] is never late.
    ///
    /// ```no_run
    /// # async fn example(session: palisade_client::Session) {
    /// if session.lost().run_until_cancelled(work()).await.is_none() {
    ///     eprintln!("stopped: {:?}", session.state());
    /// }
    /// # }
    /// # async fn work() {}
    /// ```
    #[must_use]
    pub fn lost(&self) -> CancellationToken {
        self.owner.core.ended.child_token()
    }

    /// Asks for a resource, and waits for it as long as the options say.
    ///
    /// Tries and retries are one request: it is granted at most once (I4). If this future is dropped, or
    /// ends with its outcome unknown, what it may have been granted or queued is given back in the
    /// background (I5).
    ///
    /// # Errors
    /// [`ClientError::Held`] without a wait, [`ClientError::WaitExpired`] after it,
    /// [`ClientError::AlreadyHeld`], [`ClientError::SessionLost`], [`ClientError::Invalid`],
    /// [`ClientError::Denied`], [`ClientError::LimitReached`] (on a stream also, before anything is sent, for
    /// more than 1000 open requests), [`ClientError::Unavailable`].
    pub async fn acquire(
        &self,
        resource: &ResourceName,
        options: AcquireOptions,
    ) -> Result<Lease, ClientError> {
        acquire::acquire(&self.owner, resource, options).await
    }

    /// Asks for a resource without waiting.
    ///
    /// # Errors
    /// As [`Session::acquire`].
    pub async fn try_acquire(&self, resource: &ResourceName) -> Result<Lease, ClientError> {
        self.acquire(resource, AcquireOptions::default()).await
    }

    /// Closes the session: all its leases are lost here at once, and released at the coordinator.
    ///
    /// # Errors
    /// [`ClientError::Denied`], [`ClientError::Unavailable`]: then the session ends by its TTL. One that has
    /// ended already is closed: no error.
    pub async fn close(self) -> Result<(), ClientError> {
        self.owner.close().await
    }

    /// Stops renewing and gives the session away: it and its leases stay as they are at the coordinator until
    /// somebody with the credentials goes on, or its TTL is over. In this process they are lost.
    ///
    /// # Errors
    /// [`ClientError::SessionLost`] if it has ended.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client, session: palisade_client::Session)
    /// # -> Result<(), palisade_client::ClientError> {
    /// let credentials = session.detach()?;
    /// // … perhaps in another process, before the TTL is over …
    /// let goes_on = client.detached(credentials);
    /// let (_since, ttl_left) = goes_on.renew().await?;
    /// println!("renew again within {:?}", ttl_left / 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn detach(self) -> Result<Credentials, ClientError> {
        let core = &self.owner.core;
        match core.lose(LostReason::Detached) {
            SessionState::Lost(LostReason::Detached) => Ok(Credentials {
                epoch: core.epochs.current(),
                ..core.credentials.clone()
            }),
            state => Err(core::lost_error(state)),
        }
    }
}

/// What the answer to an opening tells.
struct Standings {
    session_id: String,
    ttl: Duration,
    ttl_left: Duration,
    sent: Moment,
}

impl Standings {
    fn of_stream(first: &First) -> Self {
        Self {
            session_id: first.session_id.clone(),
            ttl: first.ttl,
            ttl_left: first.ttl_left,
            sent: first.sent,
        }
    }
}

fn opening(
    secret: &Secret,
    options: &SessionOptions,
    random: &Random,
) -> Result<SessionOpening, ClientError> {
    Ok(SessionOpening {
        open_id: random.id(),
        secret: secret.bytes(),
        ttl_ms: milliseconds("ttl", options.ttl)?,
        label: options.label.clone(),
        epoch: 0,
    })
}

async fn ask_to_open(
    shared: &Shared,
    epochs: &Epochs,
    opening: SessionOpening,
) -> Result<Standings, ClientError> {
    let opening = |epoch| OpenSessionRequest {
        opening: Some(SessionOpening {
            epoch,
            ..opening.clone()
        }),
    };
    let answer = shared
        .call(
            Tries::new(shared, epochs),
            |next| opening(next.epoch),
            |mut stub, request| async move { stub.open_session(request).await },
        )
        .await?;
    Ok(Standings {
        session_id: answer.body.session_id,
        ttl: Duration::from_millis(answer.body.ttl_ms),
        ttl_left: Duration::from_millis(answer.body.ttl_left_ms),
        sent: answer.sent,
    })
}

/// A duration as the wire has it, rounded up: a very short wait is still a wait.
pub(crate) fn milliseconds(field: &str, given: Duration) -> Result<u64, ClientError> {
    u64::try_from(given.as_nanos().div_ceil(1_000_000))
        .map_err(|_| ClientError::invalid(field, "below 2^64 ms", format!("{given:?}")))
}
