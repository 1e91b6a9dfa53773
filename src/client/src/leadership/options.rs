use std::sync::Arc;
use std::time::Duration;

use palisade_token::Grant;
use tokio_util::sync::CancellationToken;

use super::observers::Observers;
use super::term::Limits;
use super::{Stopped, Trouble};
use crate::acquire::AcquireOptions;
use crate::error::ClientError;
use crate::info::Metadata;
use crate::session::SessionOptions;

/// One acquire waits this long, unless told otherwise: well below what coordinators allow.
const WAIT: Duration = Duration::from_secs(10 * 60);
/// How long the work may take to end once it is cancelled, unless told otherwise.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How long sealing is tried, unless told otherwise: longer than most transactions that it waits for.
const SEAL_LIMIT: Duration = Duration::from_secs(30);
/// The first pause after a failure, unless told otherwise...
const LEAST_PAUSE: Duration = Duration::from_millis(250);
/// ...and the longest: a coordinator that is back is found soon.
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// How to campaign and to lead. See [`Client::run_as_leader`](crate::Client::run_as_leader).
///
/// ```
/// use std::time::Duration;
/// use palisade_client::{LeadershipOptions, SessionOptions};
///
/// let options = LeadershipOptions::default()
///     .session(SessionOptions::default().ttl(Duration::from_secs(10)).label("worker-7"))
///     .lock_delay(Duration::from_secs(5))
///     .seal_limit(Duration::from_secs(20))
///     .pauses(Duration::from_millis(100), Duration::from_secs(2))
///     .finish_limit(Duration::from_secs(5))
///     .drain_limit(Duration::from_secs(10))
///     .on_started(|grant| println!("leading {grant}"))
///     .on_stopped(|stopped| println!("not leading {}: {:?}", stopped.grant, stopped.end));
/// # let _ = options;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct LeadershipOptions {
    pub(crate) session: SessionOptions,
    pub(crate) wait: Duration,
    pub(crate) lock_delay: Duration,
    pub(crate) metadata: Metadata,
    pub(crate) limits: Limits,
    pub(crate) seal_limit: Duration,
    pub(crate) pauses: (Duration, Duration),
    pub(crate) observers: Observers,
    pub(crate) stop: CancellationToken,
}

impl Default for LeadershipOptions {
    fn default() -> Self {
        Self {
            session: SessionOptions::default(),
            wait: WAIT,
            lock_delay: Duration::ZERO,
            metadata: Metadata::default(),
            limits: Limits {
                finish: Duration::ZERO,
                drain: DRAIN_LIMIT,
            },
            seal_limit: SEAL_LIMIT,
            pauses: (LEAST_PAUSE, MOST_PAUSE),
            observers: Observers::default(),
            stop: CancellationToken::new(),
        }
    }
}

impl LeadershipOptions {
    /// How the session is opened that holds the lease: TTL, label, drift, margin.
    pub fn session(mut self, options: SessionOptions) -> Self {
        self.session = options;
        self
    }

    /// How long one acquire waits in the queue: 10 min unless set, at most what the coordinators allow (1 h unless
    /// configured). Then it queues again, for ever. Zero polls instead, with the pauses of
    /// [`pauses`](Self::pauses).
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// As [`AcquireOptions::lock_delay`].
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = delay;
        self
    }

    /// As [`AcquireOptions::metadata`].
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = Metadata(metadata.into());
        self
    }

    /// How long the work may go on with what it has begun, between
    /// [`Leadership::closing`](crate::Leadership::closing) and
    /// [`Leadership::cancelled`](crate::Leadership::cancelled): not at all unless set. At most half of what an
    /// operator gives who wants the lease back, and not at all where it is lost.
    pub fn finish_limit(mut self, limit: Duration) -> Self {
        self.limits.finish = limit;
        self
    }

    /// How long the work may take to end once it is cancelled: 10 s unless set. If it takes longer, the lease is
    /// not released but left to expire, and the work's future is dropped at its next `await`.
    pub fn drain_limit(mut self, limit: Duration) -> Self {
        self.limits.drain = limit;
        self
    }

    /// How long sealing is tried while the lease is held: 30 s unless set. Then the lease is released, for others
    /// to try.
    pub fn seal_limit(mut self, limit: Duration) -> Self {
        self.seal_limit = limit;
        self
    }

    /// The shortest and the longest pause after a failure, above 0: from 250 ms, doubled with each, to 5 s
    /// unless set. Each is shortened by up to a half, by chance.
    pub fn pauses(mut self, least: Duration, most: Duration) -> Self {
        self.pauses = (least, most);
        self
    }

    /// Called at the beginning of each leadership: sealed, and the work not yet begun. It must return soon. If it
    /// panics, the work does not begin.
    pub fn on_started(mut self, told: impl Fn(&Grant) + Send + Sync + 'static) -> Self {
        self.observers.started = Some(Arc::new(told));
        self
    }

    /// Called exactly once for each call of [`on_started`](Self::on_started), also after one that panicked: once the
    /// work has ended, whatever ended it, and before the lease is released. It must return soon.
    ///
    /// It is called even if the future of `run_as_leader` is dropped: in the background, or with
    /// [`LeadershipEnd::Abandoned`](crate::LeadershipEnd::Abandoned) where the runtime ends first. Not, if the
    /// process ends without unwinding, or the work blocks its thread for ever.
    pub fn on_stopped(mut self, told: impl Fn(&Stopped) + Send + Sync + 'static) -> Self {
        self.observers.stopped = Some(Arc::new(told));
        self
    }

    /// Called with what went wrong and is tried again. It must return soon.
    pub fn on_trouble(mut self, told: impl Fn(&Trouble) + Send + Sync + 'static) -> Self {
        self.observers.trouble = Some(Arc::new(told));
        self
    }

    /// Stops everything once this fires: no new campaign; a leadership is stopped, drained and released.
    pub fn stop_on(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    pub(crate) fn acquire(&self) -> AcquireOptions {
        AcquireOptions::default()
            .wait(self.wait)
            .lock_delay(self.lock_delay)
            .metadata(self.metadata.0.clone())
    }

    pub(crate) fn checked(&self) -> Result<(), ClientError> {
        let (least, most) = self.pauses;
        let bound = "above 0, the longest not below the shortest";
        if least.is_zero() || most < least {
            let given = format!("{least:?} to {most:?}");
            return Err(ClientError::invalid("pauses", bound, given));
        }
        Ok(())
    }
}
