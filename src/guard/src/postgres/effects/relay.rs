use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use palisade_token::{FencingToken, Grant};
use sqlx::PgPool;

use super::super::{Guard, GuardedTx, Sealed, sql};
use super::ask::name;
use super::outbox::{envelope, verdict};
use crate::GuardError;
use crate::effects::{Envelope, Name, PublishError, Publisher, Verdict, error_chain, is_fenced};
use crate::metrics::{self, Publish, StoreKind};

const STORE: StoreKind = StoreKind::Postgres;

/// Publishes the messages of one outbox, under a lease of its own: at least once, in order within each
/// aggregate, and never one of a transaction that did not commit.
///
/// Each [`Relay::pass`] reads a batch in a guarded transaction, publishes it message by message, asking before
/// each whether the lease is still held, and deletes in a second guarded transaction what the publisher has
/// taken. A relay that was replaced reads nothing, and its deletion is refused. What it published just
/// before is published again by its successor, with the same id.
///
/// A message waits until every transaction of the server that began before its own has ended, in whatever
/// database: [`Guard::backlog`] shows how long, and for whom. Messages that were committed late are not skipped:
/// nothing remembers how far the relay has come, the rows that are there are the ones to publish.
///
/// ```no_run
/// # use palisade_guard::{GuardError, effects::*, postgres::{Guard, Relay, RelayPolicy, Sealed}};
/// # async fn run(pool: &sqlx::PgPool, sealed: Sealed, publisher: impl Publisher, held: impl Fn() -> bool + Send + Sync, outbox: Name) -> Result<(), GuardError> {
/// let policy = RelayPolicy::new().with_batch(200);
/// let relay = Relay::new(Guard::new(), sealed, outbox, publisher).with_policy(policy);
/// loop {
///     let pass = relay.pass(pool, &held).await?;
///     if pass.stopped.is_some() {
///         break; // or wait, if it is the broker
///     }
///     // wait a little if pass.is_idle()
/// }
/// # Ok(()) }
/// ```
pub struct Relay<P> {
    guard: Guard,
    sealed: Sealed,
    outbox: Name,
    publisher: P,
    policy: RelayPolicy,
}

/// How much a relay takes at once, and how it tries again.
///
/// ```
/// use std::time::Duration;
/// use palisade_guard::postgres::RelayPolicy;
///
/// let policy = RelayPolicy::new()
///     .with_batch(200)
///     .with_attempts(5)
///     .with_waits(Duration::from_secs(2), Duration::from_secs(60));
/// assert_eq!(policy.with_batch(0), policy.with_batch(1)); // others are moved into the range
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayPolicy {
    batch: u32,
    attempts: u32,
    first_wait: Duration,
    longest_wait: Duration,
}

impl RelayPolicy {
    /// The largest batch: what is published again when a relay is killed between publishing and deleting.
    pub const LARGEST_BATCH: u32 = 1000;

    /// A batch ends where its payloads come to this many bytes; the message that reaches it is in it.
    pub const BATCH_BYTES: u64 = 16 << 20;

    /// The longest wait: who needs a longer one wants a dead letter.
    pub const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

    /// Batches of 100; ten attempts, the first again after a second and each later one after twice the time
    /// before, five minutes at most.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            batch: 100,
            attempts: 10,
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
        }
    }

    /// How many messages are taken at once: 1 to [`RelayPolicy::LARGEST_BATCH`]; others are moved there.
    #[must_use]
    pub fn with_batch(mut self, messages: u32) -> Self {
        self.batch = messages.clamp(1, Self::LARGEST_BATCH);
        self
    }

    /// After how many failed attempts a message becomes a dead letter; at least one.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// How long a message that failed waits, and its aggregate with it: `first` after the first failure, twice
    /// as long after each other one, up to `longest`, which is at most [`RelayPolicy::LONGEST_WAIT`].
    #[must_use]
    pub fn with_waits(mut self, first: Duration, longest: Duration) -> Self {
        self.longest_wait = longest.min(Self::LONGEST_WAIT);
        self.first_wait = first.min(self.longest_wait);
        self
    }

    fn wait(&self, failed_before: u32) -> Duration {
        let factor = 1_u32.checked_shl(failed_before).unwrap_or(u32::MAX);
        self.first_wait
            .checked_mul(factor)
            .unwrap_or(self.longest_wait)
            .min(self.longest_wait)
    }
}

impl Default for RelayPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// What one [`Relay::pass`] has done.
///
/// ```
/// use palisade_guard::postgres::Pass;
///
/// let pass = Pass::default(); // as of an empty outbox
/// assert!(pass.is_idle() && pass.stopped.is_none()); // wait a little, then the next
/// ```
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Pass {
    /// Messages that the publisher has taken, and that are deleted.
    pub published: u64,
    /// Messages that failed and are tried again.
    pub failed: u64,
    /// Messages that are dead letters now.
    pub buried: u64,
    /// Why it did not go through its whole batch, if it did not.
    pub stopped: Option<Stop>,
}

/// Why a pass stopped early.
///
/// ```
/// use palisade_guard::postgres::Stop;
///
/// fn goes_on(stopped: Option<Stop>) -> bool {
///     match stopped {
///         None => true,
///         Some(Stop::Broker(_)) => true, // after a wait
///         Some(Stop::Lease) => false, // acquire it again, and seal
///         Some(_) => false,
///     }
/// }
/// assert!(!goes_on(Some(Stop::Lease)));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Stop {
    /// The lease is over, or not certain enough: publish nothing more under it.
    Lease,
    /// The broker is not available: wait, then go on. No message was blamed for it.
    Broker(Box<dyn std::error::Error + Send + Sync>),
}

impl Pass {
    /// There was nothing to do: wait a little before the next pass.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.published == 0 && self.failed == 0 && self.buried == 0
    }
}

/// What came of a batch, to be written down.
#[derive(Default)]
struct Results {
    published: Vec<i64>,
    failed: Vec<Failure>,
    stopped: Option<Stop>,
}

struct Failure {
    row: i64,
    text: String,
    wait: Duration,
    is_final: bool,
}

impl<P: Publisher> Relay<P> {
    /// A relay of this outbox with the default policy. The first relay of an outbox binds it to its resource: a
    /// relay of another one is refused, because the two would not exclude each other.
    #[must_use]
    pub fn new(guard: Guard, sealed: Sealed, outbox: Name, publisher: P) -> Self {
        Self {
            guard,
            sealed,
            outbox,
            publisher,
            policy: RelayPolicy::new(),
        }
    }

    /// The same relay with another policy.
    #[must_use]
    pub const fn with_policy(mut self, policy: RelayPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Publishes one batch. `held` says whether the lease is held for certain, and for as long as the publisher
    /// may take: it is asked before each message, and the first no ends the pass.
    ///
    /// If the future is dropped, what was published and not yet deleted is published again.
    ///
    /// # Errors
    /// [`GuardError::Stale`] when a later relay has sealed the resource, or the broker has seen one: final.
    /// [`GuardError::CommitUnknown`]: go on with the next pass, at worst messages come again. The rest as
    /// [`Guard::begin`] and [`GuardedTx::commit`].
    pub async fn pass(
        &self,
        pool: &PgPool,
        held: impl Fn() -> bool + Send,
    ) -> Result<Pass, GuardError> {
        if !held() {
            return Ok(Pass {
                stopped: Some(Stop::Lease),
                ..Pass::default()
            });
        }
        let batch = self.batch(pool).await?;
        if batch.is_empty() {
            return Ok(Pass::default());
        }
        let results = self.publish(batch, held).await?;
        let noted = self.note(pool, results).await;
        if matches!(noted, Err(GuardError::Stale { .. })) {
            metrics::published(STORE, Publish::Fenced, 1);
        }
        noted
    }

    /// The commit checks the fence once more, so that the batch is not from before a takeover.
    async fn batch(&self, pool: &PgPool) -> Result<Vec<(i64, Envelope)>, GuardError> {
        let mut tx = self.guard.begin(pool, &self.sealed).await?;
        let arguments = [
            name(&self.outbox),
            self.policy.batch.to_string(),
            RelayPolicy::BATCH_BYTES.to_string(),
        ];
        let rows = tx.rows("outbox_batch", &arguments).await?;
        tx.commit().await?;
        rows.iter().map(envelope).collect()
    }

    async fn publish(
        &self,
        batch: Vec<(i64, Envelope)>,
        held: impl Fn() -> bool + Send,
    ) -> Result<Results, GuardError> {
        let mut results = Results::default();
        // What follows a message that failed waits with it.
        let mut waiting: HashSet<Name> = HashSet::new();
        for (row, message) in batch {
            if message
                .aggregate
                .as_ref()
                .is_some_and(|a| waiting.contains(a))
            {
                continue;
            }
            if !held() {
                results.stopped = Some(Stop::Lease);
                break;
            }
            let grant = self.sealed.grant();
            let (error, is_final) = match self.publisher.publish(&message, grant).await {
                Ok(()) => {
                    results.published.push(row);
                    continue;
                }
                Err(PublishError::Fenced { fence }) => {
                    metrics::published(STORE, Publish::Fenced, 1);
                    return Err(self.sealed.learn(fenced(grant, fence)));
                }
                Err(PublishError::Unavailable(error)) => {
                    results.stopped = Some(Stop::Broker(error));
                    break;
                }
                // The grant was refused somewhere below: no message is to blame.
                Err(PublishError::Failed(error) | PublishError::Refused(error))
                    if is_fenced(&*error) =>
                {
                    results.stopped = Some(Stop::Lease);
                    break;
                }
                Err(PublishError::Failed(error)) => (error, false),
                Err(PublishError::Refused(error)) => (error, true),
            };
            waiting.extend(message.aggregate);
            results.failed.push(Failure {
                row,
                text: error_chain(&*error),
                wait: self.policy.wait(message.attempts),
                is_final,
            });
        }
        Ok(results)
    }

    /// Deletes what was published and writes down what failed.
    async fn note(&self, pool: &PgPool, results: Results) -> Result<Pass, GuardError> {
        let mut pass = Pass {
            stopped: results.stopped,
            ..Pass::default()
        };
        if results.published.is_empty() && results.failed.is_empty() {
            return Ok(pass);
        }
        let mut tx = self.guard.begin(pool, &self.sealed).await?;
        if !results.published.is_empty() {
            let rows: Vec<_> = results.published.iter().map(ToString::to_string).collect();
            let rows = format!("ARRAY[{}]::bigint[]", rows.join(", "));
            let arguments = [name(&self.outbox), rows];
            let gone: i64 = tx.value("outbox_published", &arguments).await?;
            pass.published = u64::try_from(gone).unwrap_or_default();
        }
        for failure in &results.failed {
            match self.note_failure(&mut tx, failure).await? {
                Some(Verdict::Again) => pass.failed += 1,
                Some(Verdict::Dead) => pass.buried += 1,
                // Another pass of this grant has settled it.
                None => {}
            }
        }
        tx.commit().await?;
        metrics::published(STORE, Publish::Published, pass.published);
        metrics::published(STORE, Publish::Failed, pass.failed);
        metrics::published(STORE, Publish::Dead, pass.buried);
        Ok(pass)
    }

    async fn note_failure(
        &self,
        tx: &mut GuardedTx,
        failure: &Failure,
    ) -> Result<Option<Verdict>, GuardError> {
        let arguments = [
            name(&self.outbox),
            failure.row.to_string(),
            sql::literal(&failure.text),
            format!("interval '{} microseconds'", failure.wait.as_micros()),
            failure.is_final.to_string(),
            i32::try_from(self.policy.attempts)
                .unwrap_or(i32::MAX)
                .to_string(),
        ];
        let answer: String = tx.value("outbox_failed", &arguments).await?;
        match answer.as_str() {
            "gone" => Ok(None),
            answer => verdict(answer).map(Some),
        }
    }
}

fn fenced(grant: &Grant, fence: FencingToken) -> GuardError {
    let (resource, presented) = (grant.resource.clone(), grant.token);
    if fence == presented {
        return GuardError::Collision {
            resource,
            token: presented,
        };
    }
    GuardError::Stale {
        resource,
        presented,
        fence,
    }
}

impl<P> fmt::Debug for Relay<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Relay")
            .field("outbox", &self.outbox)
            .field("sealed", &self.sealed)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
