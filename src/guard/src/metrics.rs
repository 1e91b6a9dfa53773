//! What the guard counts, through the [`metrics`](https://docs.rs/metrics) facade: install a recorder,
//! and call [`describe`] once after it.
//!
//! The label `store` says which kind of store it was. No label ever holds a resource, a key, a token or
//! a holder: the number of series is bounded by this code. Each function counts one event; the stores
//! of this crate call them, and a store of your own may.
//!
//! | metric | labels besides `store` |
//! |---|---|
//! | `palisade_guard_checks_total` | `outcome`: admitted, stale, unsealed, backwards, collision, unguarded |
//! | `palisade_guard_seal_seconds` | `outcome`: sealed, stale, collision, timeout, failed |
//! | `palisade_guard_seal_blockers_total` | |
//! | `palisade_guard_unguarded_total` | |
//! | `palisade_guard_commit_rolled_back_total`, `palisade_guard_commit_unknown_total` | |
//! | `palisade_guard_tx_dropped_total` | |
//! | `palisade_guard_store_seconds` | `operation` |
//! | `palisade_guard_idempotency_total` | `outcome`: executed, replayed, in_progress, mismatch, taken_over, expired, lost |
//! | `palisade_guard_idempotency_oldest_in_progress_seconds` | |
//! | `palisade_guard_sequence_total` | `outcome`: applied, duplicate, gap, fenced |
//! | `palisade_guard_position_total` | `outcome`: offset_advanced, offset_conflict, version_advanced, version_conflict |
//! | `palisade_guard_inbox_total` | `outcome`: accepted, duplicate, late |
//! | `palisade_guard_outbox_pending`, `palisade_guard_outbox_horizon_lag_seconds` | |
//! | `palisade_guard_outbox_publish_total` | `outcome`: published, failed, fenced, dead |
//! | `palisade_guard_dead_letters_total` | `outcome`: buried, replayed, discarded |
//! | `palisade_guard_purged_total`, `palisade_guard_rows` | `table`: keys, inbox, outbox, dead_letters |

mod families;

use std::time::{Duration, Instant};

use metrics::{Key, Level, Metadata, Unit};

pub use families::{
    Check, DeadLetter, Idempotency, Inbox, Operation, Position, Publish, Purged, Rows, Seal,
    Sequence, StoreKind,
};

use crate::GuardError;
use families::Plain;

static METADATA: Metadata<'static> =
    Metadata::new("palisade_guard", Level::INFO, Some("palisade_guard"));

fn add(key: &'static Key, number: u64) {
    metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA).increment(number));
}

fn set(key: &'static Key, value: f64) {
    metrics::with_recorder(|recorder| recorder.register_gauge(key, &METADATA).set(value));
}

fn took(key: &'static Key, time: Duration) {
    metrics::with_recorder(|recorder| {
        recorder
            .register_histogram(key, &METADATA)
            .record(time.as_secs_f64());
    });
}

/// Measures how long something takes, for a histogram. Nothing is decided by it.
///
/// ```
/// use palisade_guard::metrics::{Operation, StoreKind, Timer, store_answered};
///
/// let timer = Timer::start();
/// // … begin a guarded write …
/// store_answered(StoreKind::Memory, Operation::Begin, timer);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Timer(Instant);

impl Timer {
    /// Starts now.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "measures for a histogram; no decision of the guard knows a clock"
    )]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long ago it was started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A grant was checked.
pub fn check(store: StoreKind, outcome: Check) {
    add(outcome.key(store), 1);
}

/// A statement failed: counts a refused check, or a write without a grant, if the error is one.
///
/// ```
/// use palisade_guard::GuardError;
/// use palisade_guard::metrics::{StoreKind, refused};
///
/// let error = GuardError::Misuse("no check has refused this");
/// refused(StoreKind::Memory, &error); // so nothing is counted; a stale token would be
/// ```
pub fn refused(store: StoreKind, error: &GuardError) {
    let outcome = match error {
        GuardError::Stale { .. } => Check::Stale,
        GuardError::Unsealed { .. } => Check::Unsealed,
        GuardError::StoreWentBackwards { .. } => Check::Backwards,
        GuardError::Collision { .. } => Check::Collision,
        GuardError::Unguarded { .. } => {
            add(Plain::Unguarded.key(store), 1);
            Check::Unguarded
        }
        _ => return,
    };
    check(store, outcome);
}

/// A guarded transaction was to be committed, or a guarded write done in one step: counts the check as
/// admitted or refused, a rollback, or a commit of unknown outcome.
///
/// ```
/// use palisade_guard::GuardError;
/// use palisade_guard::metrics::{StoreKind, settled};
///
/// fn counted<T>(committed: Result<T, GuardError>) -> Result<T, GuardError> {
///     settled(StoreKind::Memory, &committed); // admitted, refused, rolled back, or unknown
///     committed
/// }
/// assert!(counted(Ok(())).is_ok());
/// ```
pub fn settled<T>(store: StoreKind, result: &Result<T, GuardError>) {
    match result {
        Ok(_) => check(store, Check::Admitted),
        Err(GuardError::RolledBack(_) | GuardError::Serialization(_)) => {
            add(Plain::RolledBack.key(store), 1);
        }
        Err(GuardError::CommitUnknown { .. }) => add(Plain::CommitUnknown.key(store), 1),
        Err(error) => refused(store, error),
    }
}

/// A seal has ended: counts its time by outcome, and who kept it waiting in vain.
///
/// ```
/// use palisade_guard::GuardError;
/// use palisade_guard::metrics::{StoreKind, Timer, seal};
///
/// let timer = Timer::start();
/// let sealed: Result<(), GuardError> = Ok(()); // … of your store …
/// seal(StoreKind::Memory, timer, &sealed);
/// ```
pub fn seal<T>(store: StoreKind, timer: Timer, result: &Result<T, GuardError>) {
    let outcome = match result {
        Ok(_) => Seal::Sealed,
        Err(GuardError::Stale { .. }) => Seal::Stale,
        Err(GuardError::Collision { .. }) => Seal::Collision,
        Err(GuardError::SealTimeout { blockers, .. }) => {
            seal_blockers(store, blockers.len());
            Seal::Timeout
        }
        Err(_) => Seal::Failed,
    };
    took(outcome.key(store), timer.elapsed());
}

/// So many writers kept a seal waiting for too long.
///
/// ```
/// use palisade_guard::metrics::{StoreKind, seal_blockers};
/// seal_blockers(StoreKind::Memory, 2);
/// ```
pub fn seal_blockers(store: StoreKind, blockers: usize) {
    let blockers = u64::try_from(blockers).unwrap_or(u64::MAX);
    add(Plain::SealBlockers.key(store), blockers);
}

/// A guarded transaction was dropped without commit or rollback.
///
/// ```
/// use palisade_guard::metrics::{StoreKind, tx_dropped};
/// tx_dropped(StoreKind::Memory); // or let an `Unended` do it
/// ```
pub fn tx_dropped(store: StoreKind) {
    add(Plain::Dropped.key(store), 1);
}

/// Kept by a transaction: counts it as dropped unless it was ended before.
///
/// ```
/// use palisade_guard::metrics::{StoreKind, Unended};
///
/// struct Write {
///     unended: Unended, // dropped without an end, it is counted
/// }
///
/// impl Write {
///     fn commit(mut self) {
///         self.unended.end();
///         // … check, and write …
///     }
/// }
/// Write { unended: Unended::new(StoreKind::Memory) }.commit();
/// ```
#[derive(Debug)]
pub struct Unended(Option<StoreKind>);

impl Unended {
    /// A transaction has begun.
    #[must_use]
    pub const fn new(store: StoreKind) -> Self {
        Self(Some(store))
    }

    /// Its commit or rollback was asked for.
    pub const fn end(&mut self) {
        self.0 = None;
    }
}

impl Drop for Unended {
    fn drop(&mut self) {
        if let Some(store) = self.0 {
            tx_dropped(store);
        }
    }
}

/// The store has answered an operation.
pub fn store_answered(store: StoreKind, operation: Operation, timer: Timer) {
    took(operation.key(store), timer.elapsed());
}

/// An idempotency key was shown.
pub fn idempotency(store: StoreKind, outcome: Idempotency) {
    add(outcome.key(store), 1);
}

/// How long the oldest unfinished attempt has been under way; zero if there is none.
///
/// ```
/// use palisade_guard::metrics::{StoreKind, oldest_in_progress};
/// oldest_in_progress(StoreKind::Memory, std::time::Duration::from_secs(40));
/// ```
pub fn oldest_in_progress(store: StoreKind, age: Duration) {
    set(Plain::OldestInProgress.key(store), age.as_secs_f64());
}

/// A sequence number was shown.
pub fn sequence(store: StoreKind, outcome: Sequence) {
    add(outcome.key(store), 1);
}

/// An offset or a version was to be advanced.
pub fn position(store: StoreKind, outcome: Position) {
    add(outcome.key(store), 1);
}

/// A message was received.
pub fn inbox(store: StoreKind, outcome: Inbox) {
    add(outcome.key(store), 1);
}

/// So many staged messages wait to be published.
///
/// ```
/// use palisade_guard::metrics::{StoreKind, outbox_pending};
/// outbox_pending(StoreKind::Memory, 120);
/// ```
pub fn outbox_pending(store: StoreKind, messages: u64) {
    set(Plain::OutboxPending.key(store), gauge(messages));
}

/// How long the oldest transaction still running has been keeping later messages back; zero if none does.
///
/// ```
/// use palisade_guard::metrics::{StoreKind, outbox_horizon_lag};
/// outbox_horizon_lag(StoreKind::Memory, std::time::Duration::ZERO);
/// ```
pub fn outbox_horizon_lag(store: StoreKind, lag: Duration) {
    set(Plain::HorizonLag.key(store), lag.as_secs_f64());
}

/// The relay has published so many messages, or failed to.
pub fn published(store: StoreKind, outcome: Publish, messages: u64) {
    add(outcome.key(store), messages);
}

/// Something happened to a dead letter.
pub fn dead_letter(store: StoreKind, outcome: DeadLetter) {
    add(outcome.key(store), 1);
}

/// So many rows were deleted because they had expired.
pub fn purged(store: StoreKind, table: Purged, rows: u64) {
    add(table.key(store), rows);
}

/// A table holds so many rows.
pub fn rows(store: StoreKind, table: Rows, rows: u64) {
    set(table.key(store), gauge(rows));
}

/// Exact below 2^53, which no table comes near.
#[allow(clippy::as_conversions, reason = "there is no From from u64 to f64")]
fn gauge(number: u64) -> f64 {
    number as f64
}

/// Tells the recorder what each metric means. Call it once, after the recorder was installed.
///
/// ```
/// use metrics_util::debugging::DebuggingRecorder;
/// use palisade_guard::metrics::{Check, StoreKind, check, describe};
///
/// let recorder = DebuggingRecorder::new(); // or Prometheus's
/// let snapshotter = recorder.snapshotter();
/// recorder.install()?;
/// describe();
/// check(StoreKind::Memory, Check::Admitted);
/// let counted = snapshotter.snapshot().into_vec();
/// assert!(counted.iter().any(|(key, ..)| key.key().name() == "palisade_guard_checks_total"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn describe() {
    let counters = [
        (Check::METRIC, "Checks of grants by outcome"),
        (
            Plain::SealBlockers.name(),
            "Writers that kept seals waiting for too long",
        ),
        (
            Plain::Unguarded.name(),
            "Writes to protected tables without a grant: bugs",
        ),
        (
            Plain::RolledBack.name(),
            "Guarded transactions that were rolled back at commit",
        ),
        (Plain::CommitUnknown.name(), "Commits whose answer was lost"),
        (
            Plain::Dropped.name(),
            "Guarded transactions dropped without commit or rollback",
        ),
        (Idempotency::METRIC, "Idempotency keys shown by outcome"),
        (Sequence::METRIC, "Sequence numbers shown by outcome"),
        (
            Position::METRIC,
            "Offsets and versions advanced or found elsewhere",
        ),
        (Inbox::METRIC, "Messages received by outcome"),
        (Publish::METRIC, "Messages published by outcome"),
        (DeadLetter::METRIC, "Dead letters by what happened to them"),
        (Purged::METRIC, "Expired rows deleted by table"),
    ];
    for (name, text) in counters {
        metrics::describe_counter!(name, Unit::Count, text);
    }
    let seconds = "Age of the oldest unfinished attempt";
    metrics::describe_gauge!(Plain::OldestInProgress.name(), Unit::Seconds, seconds);
    metrics::describe_gauge!(
        Plain::OutboxPending.name(),
        Unit::Count,
        "Messages that wait to be published"
    );
    metrics::describe_gauge!(
        Plain::HorizonLag.name(),
        Unit::Seconds,
        "How long a running transaction has kept later messages back"
    );
    metrics::describe_gauge!(Rows::METRIC, Unit::Count, "Rows by table");
    metrics::describe_histogram!(Seal::METRIC, Unit::Seconds, "Time of seals by outcome");
    metrics::describe_histogram!(
        Operation::METRIC,
        Unit::Seconds,
        "Time of the store's answers by operation"
    );
}

#[cfg(test)]
mod tests;
