//! Calls that wait here for a resource. A grant that the store's log shows is told at once; any other news
//! only wakes them, and they are told what the store then says of their request, so news that was missed or
//! is late costs time and nothing else.

mod glance;
mod registry;

use std::sync::Arc;
use std::time::Duration;

use palisade_token::ResourceName;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use self::registry::{Key, Registry};
use super::backoff::{backoff, spread};
use super::deadline::{Deadline, Kind};
use super::error::CallError;
use crate::clock::{Clock, Moment, within};
use crate::domain::{
    Acquire, Acquired, Event, Hold, HoldName, Refusal, Release, RequestId, SessionId,
};
use crate::entropy::Entropy;
use crate::store::{Outcome, Store, StoreError};
use crate::tasks::Tasks;

pub(crate) use self::glance::Glance;
pub(crate) use self::registry::Seat;

/// Looks and promotions under way at a time: enough to keep the store busy, not enough to drown it when
/// everybody is woken at once.
const CONCURRENT_LOOKS: usize = 32;
/// How long a call has waited before its resource is looked after: most are served sooner, and looking costs a
/// read.
const FIRST_LOOK: Duration = Duration::from_millis(100);
/// How long one of them may take before it is tried again.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// A sweep wakes so many, then pauses: 200 a second beside all that is asked for.
const SWEEP_BURST: usize = 20;
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// The calls that wait at this coordinator.
#[derive(Debug, Clone)]
pub(crate) struct Waiters {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    tasks: Tasks,
    registry: Registry,
    looks: Semaphore,
    promotions: Semaphore,
}

impl Waiters {
    /// Starts to look after those who will wait.
    pub(crate) fn start(
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
        tasks: &Tasks,
        (bound, sweep): (usize, Duration),
    ) -> Self {
        let shared = Arc::new(Shared {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            entropy: Arc::clone(entropy),
            tasks: tasks.clone(),
            registry: Registry::new(bound),
            looks: Semaphore::new(CONCURRENT_LOOKS),
            promotions: Semaphore::new(CONCURRENT_LOOKS),
        });
        tasks.spawn("waiters: sweep", Shared::sweep(Arc::clone(&shared), sweep));
        Self { shared }
    }

    /// Takes a seat for a request, before it is sent to the store, so that no news of it is missed.
    pub(crate) fn seat(&self, acquire: &Acquire) -> Result<Seat, CallError> {
        let key = Key {
            session: acquire.caller.session,
            request: acquire.request.clone(),
        };
        self.shared.registry.seat(&acquire.resource, key)
    }

    /// Ends the waiting of calls for a request that another call gave back.
    pub(crate) fn cancel(&self, session: SessionId, resource: &ResourceName, request: &RequestId) {
        let request = request.clone();
        self.shared
            .registry
            .cancel(resource, &Key { session, request });
    }

    /// Tells those who wait for a request that it was granted, as a transaction that handed over has shown.
    pub(crate) fn granted(&self, hold: &Hold) {
        self.shared.registry.grant(hold);
    }

    /// What a request came to so far, as the store says.
    pub(crate) async fn look(&self, acquire: &Acquire) -> Result<Option<Acquired>, StoreError> {
        self.shared.look(acquire).await
    }

    /// The queue of a resource as it is at some moment from now on; `None` where it cannot be read then, or nobody
    /// waits for it here.
    pub(crate) async fn glance(&self, resource: &ResourceName) -> Option<Arc<Glance>> {
        self.shared.glance(resource).await
    }

    /// Has a resource looked after for which a request has waited a while: it may have become vacant while nobody
    /// of its queue waited anywhere.
    pub(crate) fn look_after(&self, resource: &ResourceName) {
        let shared = &self.shared;
        if shared.registry.begin_first_promotion(resource) {
            Shared::start_promotion(shared, resource);
        }
    }

    /// Wakes those whom news may concern. It costs little where nobody waits for what it is about.
    pub(crate) fn hear(&self, events: &[Event]) {
        let Shared { registry, .. } = &*self.shared;
        for event in events {
            match event {
                Event::Granted(granted) => registry.hear(granted),
                Event::Vacant { resource, .. } | Event::Reopened { resource, .. } => {
                    Shared::kick(&self.shared, resource);
                }
                // Also where nobody waits: its lock-delay begins now, not when somebody comes.
                Event::ToClose { resource, .. } => {
                    Shared::start_promotion(&self.shared, resource);
                }
                Event::Resync => registry.hosted().into_iter().for_each(|hosted| {
                    Shared::kick(&self.shared, &hosted.resource);
                    hosted.wakes.iter().for_each(|wake| wake.ring());
                }),
                Event::Ended(_) | Event::Asked(_) | Event::Declined { .. } | Event::Bookmark(_) => {
                }
            }
        }
    }

    /// How many calls wait.
    pub(crate) fn count(&self) -> usize {
        self.shared.registry.count()
    }

    /// Waits until a request that has its place ([`Seat::queued`]) is granted, the wait is over, the call's time is, or this coordinator
    /// drains.
    pub(crate) async fn wait(
        &self,
        seat: &Seat,
        acquire: &Acquire,
        (until, deadline): (Moment, &Deadline),
        draining: &CancellationToken,
    ) -> Result<Hold, CallError> {
        let shared = &self.shared;
        let end = until.min(deadline.at());
        let over = async {
            let time = shared.clock.now().until(end);
            shared.clock.sleep(time.min(FIRST_LOOK)).await;
            if time > FIRST_LOOK {
                self.look_after(&acquire.resource);
                let time = shared.clock.now().until(end);
                shared.clock.sleep(time).await;
            }
        };
        tokio::select! {
            biased;
            decided = shared.decided(seat, acquire) => return decided,
            () = draining.cancelled() => return Err(CallError::DrainingPlaceStands),
            () = over => {}
        }
        if deadline.at() <= until {
            return Err(CallError::WaitCutShort);
        }
        shared.leave(seat, acquire, deadline).await
    }
}

impl Shared {
    /// Looks whenever woken, until the request is granted or its place has ended.
    async fn decided(&self, seat: &Seat, acquire: &Acquire) -> Result<Hold, CallError> {
        let mut failures = 0;
        loop {
            match failures {
                0 => seat.woken().await,
                _ => self.clock.sleep(backoff(&*self.entropy, failures)).await,
            }
            if let Some(hold) = seat.granted() {
                return Ok(hold);
            }
            match self.look(acquire).await {
                Ok(Some(Acquired::Held(hold))) => return Ok(hold),
                Ok(Some(Acquired::Queued(_))) => failures = 0,
                Ok(None) => return Err(self.why_gone(seat, acquire.caller.session).await),
                Err(StoreError::Refused(refusal)) => return Err(refusal.into()),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    debug!(%error, failures, "could not look after a waiting request");
                }
            }
        }
    }

    async fn look(&self, acquire: &Acquire) -> Result<Option<Acquired>, StoreError> {
        let _permit = self.looks.acquire().await;
        let session = acquire.caller.session;
        let asked = self
            .store
            .standing(session, &acquire.resource, &acquire.request);
        match within(&self.clock, LOOK_LIMIT, asked).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(StoreError::unknown(
                crate::store::Failure::Unavailable,
                elapsed,
            )),
        }
    }

    /// A place ends with its session, or because the client gave it back: it is not asked for again here, as
    /// that could grant what the client was told is given back (I4). Unless this coordinator gave it back,
    /// it is not told as decided either: that there is no place is only what a read says.
    async fn why_gone(&self, seat: &Seat, session: SessionId) -> CallError {
        match within(&self.clock, LOOK_LIMIT, self.store.time_left(session)).await {
            Ok(Ok(_)) if seat.is_cancelled() => CallError::Cancelled,
            Ok(Ok(_)) => CallError::Superseded,
            Ok(Err(error)) => may_stand(error.into()),
            Err(_) => CallError::StoreSlow(Outcome::Unknown),
        }
    }

    /// Gives the place back when the wait is over, or finds that it was granted just before.
    async fn leave(
        &self,
        seat: &Seat,
        acquire: &Acquire,
        deadline: &Deadline,
    ) -> Result<Hold, CallError> {
        let session = acquire.caller.session;
        let standing = self
            .store
            .standing(session, &acquire.resource, &acquire.request);
        match deadline.run(Kind::Read, standing).await {
            Ok(Some(Acquired::Held(hold))) => return Ok(hold),
            Ok(Some(Acquired::Queued(_))) => {}
            Ok(None) => return Err(self.why_gone(seat, session).await),
            Err(error) => return Err(may_stand(error)),
        }
        let release = Release {
            caller: acquire.caller.having_raised(),
            resource: acquire.resource.clone(),
            hold: HoldName::Request(acquire.request.clone()),
        };
        match deadline
            .run(Kind::Write, self.store.release(&release))
            .await
        {
            // Also if it was granted in between: that lease has ended again.
            Ok(_) => Err(Refusal::WaitExpired.into()),
            Err(CallError::Store(StoreError::Refused(Refusal::EpochStale { .. }))) => {
                Err(CallError::Superseded)
            }
            Err(error) => Err(may_stand(error)),
        }
    }

    /// Wakes everybody now and then, at a bounded pace: for news that was missed, sessions that ended
    /// and resources that nobody promoted.
    async fn sweep(shared: Arc<Self>, every: Duration) {
        loop {
            shared.clock.sleep(spread(&*shared.entropy, every)).await;
            let mut burst = 0;
            for hosted in shared.registry.hosted() {
                Self::kick(&shared, &hosted.resource);
                for wake in &hosted.wakes {
                    wake.ring();
                    burst += 1;
                    if burst == SWEEP_BURST {
                        burst = 0;
                        shared.clock.sleep(SWEEP_PAUSE).await;
                    }
                }
            }
        }
    }

    /// Sees to it that a vacant resource is granted to whoever waits first, if somebody waits here.
    fn kick(shared: &Arc<Self>, resource: &ResourceName) {
        if shared.registry.has_queued(resource) && shared.registry.begin_promotion(resource) {
            Self::start_promotion(shared, resource);
        }
    }

    fn start_promotion(shared: &Arc<Self>, resource: &ResourceName) {
        let work = Self::promote(Arc::clone(shared), resource.clone());
        shared.tasks.spawn("waiters: promote", work);
    }

    async fn promote(shared: Arc<Self>, resource: ResourceName) {
        let mut failures = 0;
        loop {
            let permit = shared.promotions.acquire().await;
            let asked = shared.store.promote(&resource);
            let done = within(&shared.clock, LOOK_LIMIT, asked).await;
            drop(permit);
            match done {
                Ok(Ok(granted)) => {
                    failures = 0;
                    if let Some(hold) = granted {
                        shared.registry.grant(&hold);
                    }
                }
                Ok(Err(error)) => {
                    failures += 1;
                    debug!(%error, %resource, failures, "could not promote");
                }
                Err(_) => failures += 1,
            }
            if !shared.registry.promotes_again(&resource, failures > 0) {
                return;
            }
            if failures > 0 {
                shared
                    .clock
                    .sleep(backoff(&*shared.entropy, failures))
                    .await;
            }
        }
    }
}

/// A failure that leaves a place standing is never told as if nothing could come of the request.
fn may_stand(error: CallError) -> CallError {
    match error {
        CallError::TooLate => CallError::WaitCutShort,
        other => other.or_happened(),
    }
}
