//! Renewals of sessions over few streams of one connection, so that they cost a tenth of a call each.
//!
//! etcd answers each stream in order, and a lease that is expired but not yet revoked has no answer until its
//! revocation commits. So only sessions that have a good while left share a stream; the others, and those
//! whose last renewal has had no answer, have one of their own (I12). Only heartbeats that clients have sent
//! are relayed: nothing here renews by itself.

mod shard;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use etcd_client::MaintenanceClient;
use futures::StreamExt as _;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::shard::{Ask, Shard};
use self::wire::{Renew, Wire};
use super::connect::Connected;
use super::link::Context;
use super::liveness::{Liveness, Way};
use crate::clock::{Clock, Moment, within};
use crate::metrics::{EtcdOp, EtcdOutcome, Metrics};
use crate::tasks::Tasks;

/// Streams of one connection that sessions share. One that stalls holds up an eighth of them for a moment.
pub(super) const SHARDS: usize = 8;
/// How long a shared stream may be silent while an answer is due: below a third of the least time to live, so
/// that whoever was behind it is renewed in time.
pub(super) const SILENCE: Duration = Duration::from_millis(1500);
/// Renewals that wait for a place on one shared stream. Beyond it etcd is too slow for its sessions anyway.
const MAX_IN_LINE: usize = 16 * 1024;
/// Renewals on streams of their own at a time: what etcd and one HTTP/2 connection bear.
const MAX_ALONE: usize = 1024;

/// What came of a renewal that etcd has answered, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It lives for this long, counted from when the renewal was sent.
    Lives { ttl: Duration, sent: Moment },
    /// etcd knows no such lease. A hint, not proof.
    Gone,
    /// It may hold up others: it shall have a stream of its own.
    GoAlone,
}

/// Why a renewal has no answer. It may have happened.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    /// The connection is of no further use: another one may serve.
    #[error("the connection was given up before the renewal was answered")]
    Broken,
    /// Nothing came in time. The connection may be well.
    #[error("the renewal was not answered in time")]
    Silent,
    /// More is asked for than can be kept track of.
    #[error("too many renewals wait")]
    Crowded,
    /// etcd ended the stream.
    #[error("etcd ended the renewal's stream")]
    Refused(#[source] Box<tonic::Status>),
}

/// What the streams of one connection share.
struct Parts {
    wire: Wire,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    liveness: Arc<Liveness>,
    broken: CancellationToken,
    maintenance: MaintenanceClient,
    is_asking: AtomicBool,
    metrics: Metrics,
    counts: Counts,
}

/// What has happened.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    alone: AtomicU64,
    stalls: AtomicU64,
}

/// The renewals of one connection.
pub(super) struct Keepalive {
    parts: Arc<Parts>,
    shards: [OnceLock<mpsc::Sender<Ask>>; SHARDS],
    alone: Semaphore,
    limit: Duration,
}

impl fmt::Debug for Keepalive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keepalive").finish_non_exhaustive()
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

impl Keepalive {
    /// No stream is opened before it is needed. All end when `broken` is cancelled, or with this.
    pub(super) fn new(connected: &Connected, context: &Context, broken: CancellationToken) -> Self {
        let Connected {
            client,
            channel,
            login,
        } = connected;
        let parts = Parts {
            wire: Wire::new(channel.clone(), client.auth_client(), login.clone()),
            clock: Arc::clone(&context.clock),
            tasks: context.tasks.clone(),
            liveness: Arc::clone(&context.liveness),
            broken,
            maintenance: client.maintenance_client(),
            is_asking: AtomicBool::new(false),
            metrics: context.metrics.clone(),
            counts: Counts::default(),
        };
        Self {
            parts: Arc::new(parts),
            shards: Default::default(),
            alone: Semaphore::new(MAX_ALONE),
            limit: context.call_limit,
        }
    }

    /// How many renewals were sent on shared streams.
    #[cfg(test)]
    pub(super) fn sent(&self) -> u64 {
        self.parts.counts.sent.load(Ordering::Relaxed)
    }

    /// How many renewals were sent on streams of their own.
    #[cfg(test)]
    pub(super) fn sent_alone(&self) -> u64 {
        self.parts.counts.alone.load(Ordering::Relaxed)
    }

    /// How often a shared stream fell silent while an answer was due.
    #[cfg(test)]
    pub(super) fn stalls(&self) -> u64 {
        self.parts.counts.stalls.load(Ordering::Relaxed)
    }

    /// Renews a lease: on a stream that it shares, or alone where it might hold up others.
    pub(super) async fn renew(&self, lease: i64) -> Result<Answer, Unanswered> {
        let parts = &self.parts;
        let answered = async {
            match parts.liveness.way(lease, parts.clock.now()) {
                Way::Shared { late_at } => match self.on_shard(lease, late_at).await? {
                    Answer::GoAlone => self.on_its_own(lease).await,
                    answer => Ok(answer),
                },
                Way::Alone => self.on_its_own(lease).await,
            }
        };
        let asked = parts.clock.now();
        let answer = tokio::select! {
            biased;
            () = parts.broken.cancelled() => Err(Unanswered::Broken),
            answer = within(&parts.clock, self.limit, answered) => match answer {
                Ok(answer) => answer,
                Err(_elapsed) => Err(Unanswered::Silent),
            },
        };
        let took = asked.until(parts.clock.now());
        let outcome = match &answer {
            Ok(_) => EtcdOutcome::Ok,
            Err(Unanswered::Refused(_) | Unanswered::Crowded) => EtcdOutcome::Refused,
            Err(Unanswered::Broken | Unanswered::Silent) => EtcdOutcome::Broken,
        };
        parts.metrics.etcd_request(EtcdOp::KeepAlive, took, outcome);
        answer
    }

    /// Has the connection given up, unless the member gives a sign of life.
    pub(super) fn ask_for_a_sign_of_life(&self) {
        self.parts.ask_for_a_sign_of_life();
    }

    async fn on_shard(&self, lease: i64, late_at: Moment) -> Result<Answer, Unanswered> {
        let (told, answer) = oneshot::channel();
        let ask = Ask {
            lease,
            late_at,
            told,
        };
        match self.shard(lease).try_send(ask) {
            Ok(()) => answer.await.map_err(|_ended| Unanswered::Broken),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Unanswered::Crowded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Unanswered::Broken),
        }
    }

    fn shard(&self, lease: i64) -> &mpsc::Sender<Ask> {
        let at = usize::try_from(lease.unsigned_abs()).unwrap_or(0) % SHARDS;
        self.shards[at].get_or_init(|| {
            let (asks, asked) = mpsc::channel(MAX_IN_LINE);
            let shard = Shard::new(Arc::clone(&self.parts), asked);
            self.parts.tasks.spawn("etcd: keepalive", shard.run());
            asks
        })
    }

    async fn on_its_own(&self, lease: i64) -> Result<Answer, Unanswered> {
        let turn = self.alone.acquire().await;
        let _turn = turn.map_err(|_closed| Unanswered::Broken)?;
        self.parts.counts.alone.fetch_add(1, Ordering::Relaxed);
        let sent = self.parts.clock.now();
        let mut stream = self.parts.wire.open(1);
        let sending = stream.requests.try_send(Renew { lease });
        sending.map_err(|_full| Unanswered::Crowded)?;
        match stream.replies.next().await {
            Some(Ok(reply)) => Ok(self.parts.note(lease, sent, seconds(reply.ttl))),
            Some(Err(status)) => Err(Unanswered::Refused(Box::new(status))),
            None => Err(Unanswered::Silent),
        }
    }
}

impl Parts {
    /// Takes note of a reply.
    fn note(&self, lease: i64, sent: Moment, ttl: Duration) -> Answer {
        if ttl.is_zero() {
            return Answer::Gone;
        }
        self.liveness.lives(lease, sent, ttl);
        Answer::Lives { ttl, sent }
    }

    /// Asks the member for something that it answers by itself. Whoever does not is not there: the connection
    /// may be half open, which nothing else shows before long.
    fn ask_for_a_sign_of_life(self: &Arc<Self>) {
        if self.is_asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let parts = Arc::clone(self);
        self.tasks.spawn("etcd: sign of life", async move {
            let mut maintenance = parts.maintenance.clone();
            let asked = within(&parts.clock, SILENCE, maintenance.status()).await;
            parts.is_asking.store(false, Ordering::Release);
            if asked.is_err() {
                warn!("etcd connection given up: it gave no sign of life");
                parts.broken.cancel();
            }
        });
    }
}
