//! What the stores that own their state have in common: a ledger, the deadlines of sessions, and one
//! lock that puts operations in order.
//!
//! An operation plans on the ledger, has the changes made durable, applies them, and only then answers.
//! Between "written" and "applied" the state is *in doubt*: whoever comes next, after a failure or after
//! a future that was dropped half-way, first reads back what is durable. While that fails, so does
//! everything (I9).

mod deadlines;
mod noted;
mod shell;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::DerefMut;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use palisade_token::ResourceName;
use tokio::sync::{Mutex, MutexGuard, Notify, broadcast};
use tracing::{info, warn};

use super::{Advance, Alive, Failure, Outcome, StoreError};
use crate::audit;
use crate::clock::{Clock, Moment};
use crate::domain::{
    Batch, Change, Event, Generation, GenerationError, LeaseEnd, Ledger, Plan, Refusal, Revision,
    Session, SessionId, Span,
};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

use deadlines::Deadlines;
use noted::Noted;

pub(super) use shell::Shell;

/// A renewal every third of it still comes in time on a machine that is busy.
pub(super) const LEAST_TTL: Duration = Duration::from_secs(1);

/// How many events a watcher may be behind before it is told to look at everything again: with the
/// largest metadata they take 4 MiB, once for all watchers.
const WATCH_BACKLOG: usize = 1024;

/// How many sessions end in one transaction: bounds how long one of them keeps the lock.
const SWEEP_BATCH: usize = 256;

/// How soon the end of sessions is tried again after it could not be written; a part of the second
/// that a takeover may take beyond the TTL (I6).
const SWEEP_RETRY: Duration = Duration::from_millis(250);

/// Where the changes of a ledger are made durable.
#[async_trait]
pub(super) trait Journal: Send + 'static {
    /// Writes changes, all or none, as those that lead up to a revision.
    async fn write(&mut self, revision: Revision, changes: &[Change]) -> Result<(), StoreError>;

    /// Reads back what is durable, on whatever it takes to be sure of it.
    async fn load(&mut self) -> Result<Ledger, StoreError>;

    /// Reads the revision of what is durable.
    async fn probe(&mut self) -> Result<Revision, StoreError>;
}

struct State<J> {
    ledger: Ledger,
    /// The last revision that was certainly durable.
    durable: Revision,
    deadlines: Deadlines<SessionId>,
    /// When resources that a lock-delay closes are open again.
    delays: Deadlines<ResourceName>,
    /// Sessions are not ended before; later than now only after that failed.
    next_sweep: Moment,
    journal: J,
    is_in_doubt: bool,
}

impl<J> State<J> {
    /// When something ends by itself next.
    fn nearest(&self) -> Option<Moment> {
        let ends = [self.deadlines.nearest(), self.delays.nearest()];
        ends.into_iter().flatten().min()
    }
}

struct Inner<J> {
    state: Mutex<State<J>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    events: broadcast::Sender<Batch>,
    /// Where what is done is counted, if anywhere.
    metrics: OnceLock<Metrics>,
    /// Wakes the expiry task: a session was opened, or the store is gone.
    changed: Arc<Notify>,
}

impl<J> Drop for Inner<J> {
    fn drop(&mut self) {
        self.changed.notify_one();
    }
}

/// The shell around a ledger. It ends sessions by itself for as long as it lives.
pub(super) struct Local<J> {
    inner: Arc<Inner<J>>,
}

impl<J> fmt::Debug for Local<J> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Local").finish_non_exhaustive()
    }
}

impl<J: Journal> Local<J> {
    /// Reads back what is durable, makes a generation, and starts to end sessions. Those that are there
    /// already have their full time to live.
    pub(super) async fn start(
        journal: J,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tasks: &Tasks,
    ) -> Result<Self, StoreError> {
        let inner = Arc::new(Inner {
            state: Mutex::new(State {
                ledger: Ledger::default(),
                durable: Revision::default(),
                deadlines: Deadlines::default(),
                delays: Deadlines::default(),
                next_sweep: Moment::default(),
                journal,
                is_in_doubt: true,
            }),
            clock: Arc::clone(&clock),
            entropy,
            events: broadcast::Sender::new(WATCH_BACKLOG),
            metrics: OnceLock::new(),
            changed: Arc::new(Notify::new()),
        });
        {
            let mut state = inner.state.lock().await;
            inner.reload(&mut state).await?;
            inner.new_generation(&mut state, Advance::default()).await?;
        }
        let changed = Arc::clone(&inner.changed);
        tasks.spawn("expiry", expire(Arc::downgrade(&inner), clock, changed));
        Ok(Self { inner })
    }

    /// Counts from now on what is done, and the generation that the start made.
    pub(super) fn count_in(&self, metrics: &Metrics) {
        self.inner.metrics.get_or_init(|| {
            metrics.generation_made();
            metrics.clone()
        });
    }

    /// Runs something on the journal, with all operations held up meanwhile.
    pub(super) async fn journal(&self) -> impl DerefMut<Target = J> {
        MutexGuard::map(self.inner.state.lock().await, |state| &mut state.journal)
    }
}

/// Ends sessions when they are due, for as long as the store lives.
async fn expire<J: Journal>(inner: Weak<Inner<J>>, clock: Arc<dyn Clock>, changed: Arc<Notify>) {
    loop {
        let Some(strong) = inner.upgrade() else {
            return;
        };
        let wait = match strong.enter().await {
            Ok(state) => state
                .nearest()
                .map(|nearest| clock.now().until(nearest.max(state.next_sweep))),
            Err(error) => {
                warn!(%error, "the store cannot be read; trying again");
                Some(SWEEP_RETRY)
            }
        };
        drop(strong);
        match wait {
            Some(wait) => tokio::select! {
                biased;
                () = changed.notified() => {}
                () = clock.sleep(wait) => {}
            },
            None => changed.notified().await,
        }
    }
}

impl<J: Journal> Inner<J> {
    /// Takes the lock on a state that is not in doubt, and ends the sessions that are due. If that
    /// cannot be written, the others go on (I12); the next one tries again.
    async fn enter(&self) -> Result<MutexGuard<'_, State<J>>, StoreError> {
        let mut state = self.state.lock().await;
        self.settle(&mut state).await?;
        if self.clock.now() >= state.next_sweep
            && let Err(error) = self.sweep(&mut state).await
        {
            warn!(%error, "sessions that are due could not be ended; trying again");
            state.next_sweep = self.clock.now().after(SWEEP_RETRY);
            self.settle(&mut state).await?;
        }
        Ok(state)
    }

    /// Like [`Inner::enter`], for a session that is not over.
    async fn enter_as(&self, session: SessionId) -> Result<MutexGuard<'_, State<J>>, StoreError> {
        let state = self.enter().await?;
        if state.deadlines.is_over(&session, self.clock.now()) {
            return Err(Refusal::SessionEnded { session }.into());
        }
        Ok(state)
    }

    async fn settle(&self, state: &mut State<J>) -> Result<(), StoreError> {
        if !state.is_in_doubt {
            return Ok(());
        }
        self.reload(state).await?;
        if state.ledger.revision() < state.durable {
            warn!("the store's history went backwards; making a new generation");
            state.is_in_doubt = true;
            self.new_generation(state, Advance::default())
                .await
                .map_err(before_the_operation)?;
        }
        state.durable = state.ledger.revision();
        Ok(())
    }

    async fn reload(&self, state: &mut State<J>) -> Result<(), StoreError> {
        state.ledger = state.journal.load().await.map_err(before_the_operation)?;
        let now = self.clock.now();
        let sessions = state.ledger.sessions();
        let sessions = sessions.map(|session| (session.id, ttl(session)));
        state.deadlines.follow(sessions, now);
        let closed = state.ledger.closed();
        let closed = closed.map(|(resource, while_)| (resource.clone(), while_));
        state.delays.follow(closed, now);
        state.is_in_doubt = false;
        self.tell(vec![Event::Resync]);
        self.changed.notify_one();
        Ok(())
    }

    async fn new_generation(
        &self,
        state: &mut State<J>,
        advance: Advance,
    ) -> Result<Generation, StoreError> {
        let span = Span {
            revision: state.ledger.revision(),
            past: advance.past,
            is_forced: advance.is_forced,
            nonce: self.entropy.nonce(),
        };
        let old = state.ledger.generation();
        let generation = Generation::after(old.as_ref(), span, self.clock.wall()).map_err(
            |error| match error {
                GenerationError::FarAhead { .. } => Refusal::FenceAhead(error).into(),
                GenerationError::Clock { .. } | GenerationError::Exhausted { .. } => {
                    StoreError::not_applied(Failure::Generation(error))
                }
            },
        )?;
        let plan = state.ledger.plan_generation(generation);
        let generation = self.commit(state, plan).await?;
        audit::generation(&generation, advance.past);
        if let Some(metrics) = self.metrics.get() {
            metrics.generation_made();
        }
        Ok(generation)
    }

    /// Ends sessions and lock-delays that are due, each as one revision and a batch of them as one transaction.
    /// Whoever comes next ends the next batch: between them the lock is free for others (I12).
    async fn sweep(&self, state: &mut State<J>) -> Result<(), StoreError> {
        let due = state.deadlines.due(self.clock.now(), SWEEP_BATCH);
        let open_again = state.delays.due(self.clock.now(), SWEEP_BATCH);
        if due.is_empty() && open_again.is_empty() {
            return Ok(());
        }
        let mut changes = Vec::new();
        let mut events = Vec::new();
        let mut noted = Vec::new();
        let now = self.clock.wall();
        // Nobody sees these until they are durable: the lock is held, and then the doubt.
        state.is_in_doubt = true;
        for &id in &due {
            let plan = state.ledger.plan_end_session(id, LeaseEnd::Expired, now);
            noted.extend(Noted::of(&state.ledger, &plan));
            events.push(state.ledger.apply(plan.revision, &plan.changes));
            changes.extend(plan.changes);
        }
        for resource in &open_again {
            let plan = state.ledger.plan_reopen(resource, now);
            noted.extend(Noted::of(&state.ledger, &plan));
            events.push(state.ledger.apply(plan.revision, &plan.changes));
            changes.extend(plan.changes);
        }
        let revision = state.ledger.revision();
        state.journal.write(revision, &changes).await?;
        state.is_in_doubt = false;
        state.durable = revision;
        self.note(noted);
        self.keep_time(state, &changes);
        for id in due {
            info!(session = %id, "session expired");
        }
        events.into_iter().for_each(|events| self.tell(events));
        Ok(())
    }

    /// Makes a plan durable, then true, then known.
    async fn commit<T>(&self, state: &mut State<J>, plan: Plan<T>) -> Result<T, StoreError> {
        if plan.changes.is_empty() {
            return Ok(plan.answer);
        }
        state.is_in_doubt = true;
        state.journal.write(plan.revision, &plan.changes).await?;
        state.is_in_doubt = false;
        state.durable = plan.revision;
        self.note(Noted::of(&state.ledger, &plan));
        let events = state.ledger.apply(plan.revision, &plan.changes);
        self.keep_time(state, &plan.changes);
        self.tell(events);
        Ok(plan.answer)
    }

    /// Counts what is durable now, and writes it down for later.
    fn note(&self, noted: impl IntoIterator<Item = Noted>) {
        for what in noted {
            what.note(self.metrics.get());
        }
    }

    /// Sets the deadlines that changes bring with them.
    fn keep_time(&self, state: &mut State<J>, changes: &[Change]) {
        for change in changes {
            match change {
                Change::DropSession(id) => state.deadlines.remove(id),
                Change::PutDelay(resource, delay) if delay.is_running => {
                    let over = self.clock.now().after(delay.last.lock_delay());
                    state.delays.set(resource.clone(), over);
                    self.changed.notify_one();
                }
                Change::PutDelay(resource, _) | Change::DropDelay(resource) => {
                    state.delays.remove(resource);
                }
                Change::PutSession(_)
                | Change::PutHold(_)
                | Change::DropHold(_)
                | Change::PutPlace(_)
                | Change::DropPlace(_)
                | Change::PutGeneration(_) => {}
            }
        }
    }

    /// Tells what happened at one revision.
    fn tell(&self, events: Vec<Event>) {
        if !events.is_empty() {
            // It fails where nobody watches, which is no failure.
            drop(self.events.send(events.into()));
        }
    }

    fn live_on(&self, state: &mut State<J>, session: &Session) -> Alive {
        let ttl = ttl(session);
        let deadline = self.clock.now().after(ttl);
        state.deadlines.set(session.id, deadline);
        Alive {
            session: session.id,
            ttl,
        }
    }

    /// Tells what is nowhere written down.
    fn tell_of(&self, event: Event) {
        self.tell(vec![event]);
    }

    fn left(&self, state: &State<J>, session: SessionId) -> Option<Duration> {
        let deadline: Moment = state.deadlines.get(&session)?;
        Some(self.clock.now().until(deadline))
    }
}

/// What failed was not yet the operation that was asked for.
fn before_the_operation(error: StoreError) -> StoreError {
    match error {
        StoreError::Refused(_) => error,
        StoreError::Failed {
            failure, source, ..
        } => StoreError::Failed {
            failure,
            outcome: Outcome::NotApplied,
            source,
        },
    }
}

fn ttl(session: &Session) -> Duration {
    Duration::from_millis(session.ttl_ms)
}
