//! What a coordinator counts and times, for Prometheus.
//!
//! Made with `prometheus-client`: every series is resolved once, when a coordinator starts, so that counting is
//! one atomic addition and timing a short lock, without a look-up by labels; a registry is a value, so that
//! coordinators in one process do not meet; and nothing is kept between scrapes beyond the numbers themselves.
//! (The `metrics` facade with its exporter records into one global place, and keeps every timing until it is
//! next scraped.) All label values are known beforehand: no resource, session or principal is ever one (I13).

mod calls;
mod census;
mod labels;
mod series;
mod standing;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use self::census::Held;
use self::series::{Counters, Histograms, Pairs, Register, observe};

pub(crate) use self::calls::{CountCalls, Counting};
pub(crate) use self::census::census;
pub(crate) use self::labels::Label;
pub(crate) use self::standing::{Exported, Standing};

pub use self::labels::{AcquireOutcome, EndReason, EtcdOp, EtcdOutcome, RenewOutcome};

/// What one coordinator counts and times. A clone counts into the same.
///
/// ```
/// use palisade_coordinator::metrics::{EndReason, Metrics};
///
/// let metrics = Metrics::default();
/// metrics.ended(EndReason::Released);
/// assert!(metrics.text().contains("palisade_lease_ended_total{reason=\"released\"} 1\n"));
/// ```
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Mutex<Registry>,
    tokens: Counter,
    acquires: Counters<AcquireOutcome>,
    acquire_wait: Histogram,
    renewals: Counters<RenewOutcome>,
    renew_slack: Histogram,
    ends: Counters<EndReason>,
    generations: Counter,
    fences_ahead: Counter,
    tokens_ahead: Counter,
    resumes: Counter,
    held: Held,
    /// There from the first word of an etcd: a store of another kind exports nothing of it.
    etcd: OnceLock<Etcd>,
}

#[derive(Debug)]
struct Etcd {
    up: Gauge,
    requests: Pairs<EtcdOp, EtcdOutcome>,
    seconds: Histograms<EtcdOp>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let held = Held::default();
        registry.register_collector(Box::new(held.clone()));
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("palisade_build", "The coordinator's build", build);
        let inner = Inner {
            tokens: registry.counter(
                "palisade_tokens_issued",
                "Tokens issued by transactions of this coordinator",
            ),
            acquires: registry.counters(
                "palisade_lease_acquire",
                "Acquires answered by this coordinator, by what they came to",
            ),
            acquire_wait: registry.latencies(
                "palisade_lease_acquire_wait_seconds",
                "From an acquire's arrival to its grant, for those granted",
            ),
            renewals: registry.counters(
                "palisade_lease_renew",
                "Renewals of sessions answered by this coordinator, by what they came to",
            ),
            renew_slack: registry.left(
                "palisade_lease_renew_slack_seconds",
                "What a session had left when its renewal arrived",
            ),
            ends: registry.counters(
                "palisade_lease_ended",
                "Leases whose end this coordinator brought about or saw, by reason",
            ),
            generations: registry.counter(
                "palisade_generations_made",
                "Generations made by this coordinator",
            ),
            fences_ahead: registry.counter(
                "palisade_fences_ahead",
                "Releases that named a guard's fence above the token of their lease",
            ),
            tokens_ahead: registry.counter(
                "palisade_tokens_ahead",
                "Tokens checked that were above any that the store can have issued",
            ),
            resumes: registry.counter(
                "palisade_watch_resumes",
                "Times that the store's news were taken up after they had broken off or could not be had",
            ),
            held,
            etcd: OnceLock::new(),
            registry: Mutex::new(registry),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl Metrics {
    /// What [`Metrics::text`] is, for `Content-Type`.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// A transaction of this coordinator issued a token: its own grant, or a hand-over. A replayed answer
    /// issues none.
    pub fn token_issued(&self) {
        self.inner.tokens.inc();
    }

    /// An acquire was answered, so long after it arrived.
    pub fn acquired(&self, outcome: AcquireOutcome, took: Duration) {
        self.inner.acquires.inc(outcome);
        if outcome == AcquireOutcome::Granted {
            observe(&self.inner.acquire_wait, took);
        }
    }

    /// A renewal was answered. `slack` is what the session had left when it arrived, where that is known: the
    /// early warning of clients that renew too late.
    pub fn renewed(&self, outcome: RenewOutcome, slack: Option<Duration>) {
        self.inner.renewals.inc(outcome);
        if let Some(slack) = slack {
            observe(&self.inner.renew_slack, slack);
        }
    }

    /// A lease ended, as this coordinator brought about or saw.
    pub fn ended(&self, reason: EndReason) {
        self.inner.ends.inc(reason);
    }

    /// This coordinator made a generation.
    pub fn generation_made(&self) {
        self.inner.generations.inc();
    }

    /// A holder said that a guard's fence is above its token: somebody else wrote the fence, or it outlived
    /// a restore.
    pub fn fence_ahead(&self) {
        self.inner.fences_ahead.inc();
    }

    /// A token was checked that the store cannot have issued: its history went backwards, or the token is
    /// another's.
    pub fn token_ahead(&self) {
        self.inner.tokens_ahead.inc();
    }

    /// The store's news broke off and were taken up again.
    pub fn watch_resumed(&self) {
        self.inner.resumes.inc();
    }

    /// A call to etcd ended so, after so long.
    pub fn etcd_request(&self, op: EtcdOp, took: Duration, outcome: EtcdOutcome) {
        let etcd = self.etcd();
        etcd.seconds.observe(op, took);
        etcd.requests.inc(op, outcome);
    }

    /// From now on what concerns etcd is exported, before its first answer, too.
    pub fn expect_etcd(&self) {
        self.etcd();
    }

    /// Whether the store answered when it was last asked, in time. Exported where it is an etcd.
    pub fn store_answers(&self, does: bool) {
        if let Some(etcd) = self.inner.etcd.get() {
            etcd.up.set(i64::from(does));
        }
    }

    /// All metrics in the text format that Prometheus reads.
    #[must_use]
    pub fn text(&self) -> String {
        self.text_with(&Registry::default())
    }

    /// The same, with those of another registry.
    pub(crate) fn text_with(&self, others: &Registry) -> String {
        let mut text = String::new();
        let written: fmt::Result = [&*self.registry(), others]
            .into_iter()
            .try_for_each(|registry| text::encode_registry(&mut text, registry))
            .and_then(|()| text::encode_eof(&mut text));
        written.expect("a string takes whatever is written to it");
        text
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        let registry = self.inner.registry.lock();
        registry.unwrap_or_else(PoisonError::into_inner)
    }

    fn etcd(&self) -> &Etcd {
        self.inner.etcd.get_or_init(|| {
            let mut registry = self.registry();
            let up = Gauge::default();
            registry.register(
                "palisade_etcd_up",
                "1 where etcd answered this coordinator's last linearizable read in time",
                up.clone(),
            );
            Etcd {
                up,
                requests: registry.pairs(
                    "palisade_etcd_requests",
                    "Calls to etcd, by what for and how they went",
                ),
                seconds: registry.latencies_of(
                    "palisade_etcd_request_seconds",
                    "How long calls to etcd took, by what for",
                ),
            }
        })
    }
}
