//! A store that fails on purpose, for tests of whatever relies on one.
//!
//! The case that matters is the second: it *did happen*, and is reported as failed.
//!
//! | fate | happens | is told |
//! |---|---|---|
//! | done | yes | as it is |
//! | unheard | yes | as unknown |
//! | late | after some of the calls that follow | as unknown |
//! | lost | no | as unknown |
//! | turned away | no | as not applied |

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use palisade_token::{FencingToken, ResourceName};

use super::{
    Advance, Advanced, Alive, Events, Failure, Page, Pages, Standing, Status, Store, StoreError,
};
use crate::clock::Moment;
use crate::domain::{
    Acquire, Acquired, AskBack, AttachMark, Caller, Hold, Release, Released, RequestId, Revoke,
    Revoked, Session, SessionId,
};

/// How many calls may be on their way late at once; another one is lost.
const MOST_LATE: usize = 64;

/// How many calls a late one may be overtaken by.
const LATE_BY: u64 = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    Unheard,
    Late(u64),
    Lost,
    TurnedAway,
}

/// A write that is still on its way.
#[derive(Debug, Clone)]
enum Call {
    Open(Session),
    Renew(Caller),
    Close(Caller),
    Attach(Caller),
    Raise(Caller, AttachMark),
    Acquire(Acquire),
    Release(Release),
    Promote(ResourceName),
    Advance(Advance),
    Revoke(Revoke),
    AskBack(AskBack),
}

#[derive(Debug)]
struct Plot {
    random: u64,
    /// Of 1000 calls, how many fail in one way or another.
    faults: u64,
    /// How many calls until each of these arrives.
    late: VecDeque<(u64, Call)>,
}

impl Plot {
    /// `SplitMix64`: short, and the same for a seed on every machine.
    fn roll(&mut self, sides: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn fate(&mut self) -> Fate {
        if self.roll(1000) >= self.faults {
            return Fate::Done;
        }
        match self.roll(4) {
            0 => Fate::Unheard,
            1 if self.late.len() < MOST_LATE => Fate::Late(1 + self.roll(LATE_BY)),
            2 => Fate::TurnedAway,
            _ => Fate::Lost,
        }
    }

    /// Lets a call go by, and takes out those that arrive now.
    fn arrivals(&mut self) -> Vec<Call> {
        let mut arrived = Vec::new();
        for (left, call) in &mut self.late {
            *left -= 1;
            if *left == 0 {
                arrived.push(call.clone());
            }
        }
        self.late.retain(|(left, _)| *left > 0);
        arrived
    }
}

/// A store around another one, with faults that a seed decides.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Store>,
    plot: Mutex<Plot>,
}

impl Faulty {
    /// Wraps a store. Of 1000 calls, `faults` fail in one way or another; equal seeds and equal calls
    /// give equal faults.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, seed: u64, faults: u64) -> Arc<Self> {
        Arc::new(Self {
            inner,
            plot: Mutex::new(Plot {
                random: seed,
                faults,
                late: VecDeque::new(),
            }),
        })
    }

    /// From now on nothing fails; what is late arrives now.
    pub async fn calm(&self) {
        let late = {
            let mut plot = self.plot();
            plot.faults = 0;
            std::mem::take(&mut plot.late)
        };
        for (_, call) in late {
            self.arrive(call).await;
        }
    }

    fn plot(&self) -> MutexGuard<'_, Plot> {
        self.plot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody hears what a late call came to.
    async fn arrive(&self, call: Call) {
        match call {
            Call::Open(session) => drop(self.inner.open_session(session).await),
            Call::Renew(caller) => drop(self.inner.renew_session(&caller).await),
            Call::Close(caller) => drop(self.inner.close_session(&caller).await),
            Call::Attach(caller) => drop(self.inner.attach(&caller).await),
            Call::Raise(caller, to) => drop(self.inner.raise(&caller, to).await),
            Call::Acquire(acquire) => drop(self.inner.acquire(&acquire).await),
            Call::Release(release) => drop(self.inner.release(&release).await),
            Call::Promote(resource) => drop(self.inner.promote(&resource).await),
            Call::Advance(advance) => drop(self.inner.advance_as(advance).await),
            Call::Revoke(revoke) => drop(self.inner.revoke(&revoke).await),
            Call::AskBack(ask) => drop(self.inner.ask_back(&ask).await),
        }
    }

    /// Does a write, or not, and tells of it, or not.
    async fn write<T>(
        &self,
        call: Call,
        done: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let (arrivals, fate) = {
            let mut plot = self.plot();
            let arrivals = plot.arrivals();
            let fate = plot.fate();
            if let Fate::Late(by) = fate {
                plot.late.push_back((by, call));
            }
            (arrivals, fate)
        };
        for late in arrivals {
            self.arrive(late).await;
        }
        match fate {
            Fate::Done => done.await,
            Fate::Unheard => {
                drop(done.await);
                Err(StoreError::unknown(Failure::Unavailable, "on purpose"))
            }
            Fate::Late(_) | Fate::Lost => {
                Err(StoreError::unknown(Failure::Unavailable, "on purpose"))
            }
            Fate::TurnedAway => Err(StoreError::not_applied(Failure::Unavailable)),
        }
    }

    /// A read has no effect to be in doubt about.
    fn read(&self) -> Result<(), StoreError> {
        let fate = self.plot().fate();
        match fate {
            Fate::Done => Ok(()),
            Fate::Unheard | Fate::Late(_) | Fate::Lost | Fate::TurnedAway => {
                Err(StoreError::not_applied(Failure::Unavailable))
            }
        }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn open_session(&self, session: Session) -> Result<Alive, StoreError> {
        let call = Call::Open(session.clone());
        self.write(call, self.inner.open_session(session)).await
    }

    async fn renew_session(&self, caller: &Caller) -> Result<Alive, StoreError> {
        let call = Call::Renew(caller.clone());
        self.write(call, self.inner.renew_session(caller)).await
    }

    async fn close_session(&self, caller: &Caller) -> Result<(), StoreError> {
        let call = Call::Close(caller.clone());
        self.write(call, self.inner.close_session(caller)).await
    }

    async fn attach(&self, caller: &Caller) -> Result<Session, StoreError> {
        let call = Call::Attach(caller.clone());
        self.write(call, self.inner.attach(caller)).await
    }

    async fn raise(&self, caller: &Caller, to: AttachMark) -> Result<(), StoreError> {
        let call = Call::Raise(caller.clone(), to);
        self.write(call, self.inner.raise(caller, to)).await
    }

    async fn holdings(&self, session: SessionId) -> Result<Vec<Acquired>, StoreError> {
        self.read()?;
        self.inner.holdings(session).await
    }

    async fn time_left(&self, session: SessionId) -> Result<Duration, StoreError> {
        self.read()?;
        self.inner.time_left(session).await
    }

    fn lives_until(&self, session: SessionId) -> Option<Moment> {
        self.inner.lives_until(session)
    }

    async fn acquire(&self, acquire: &Acquire) -> Result<Acquired, StoreError> {
        let call = Call::Acquire(acquire.clone());
        self.write(call, self.inner.acquire(acquire)).await
    }

    async fn standing(
        &self,
        session: SessionId,
        resource: &ResourceName,
        request: &RequestId,
    ) -> Result<Option<Acquired>, StoreError> {
        self.read()?;
        self.inner.standing(session, resource, request).await
    }

    async fn release(&self, release: &Release) -> Result<Released, StoreError> {
        let call = Call::Release(release.clone());
        self.write(call, self.inner.release(release)).await
    }

    async fn promote(&self, resource: &ResourceName) -> Result<Option<Hold>, StoreError> {
        let call = Call::Promote(resource.clone());
        self.write(call, self.inner.promote(resource)).await
    }

    async fn lease_and_queue(
        &self,
        resource: &ResourceName,
        queue_size: usize,
    ) -> Result<Standing, StoreError> {
        self.read()?;
        self.inner.lease_and_queue(resource, queue_size).await
    }

    async fn revoke(&self, revoke: &Revoke) -> Result<Revoked, StoreError> {
        let call = Call::Revoke(revoke.clone());
        self.write(call, self.inner.revoke(revoke)).await
    }

    async fn ask_back(&self, ask: &AskBack) -> Result<bool, StoreError> {
        let call = Call::AskBack(ask.clone());
        self.write(call, self.inner.ask_back(ask)).await
    }

    async fn decline(
        &self,
        resource: &ResourceName,
        token: FencingToken,
    ) -> Result<(), StoreError> {
        self.read()?;
        self.inner.decline(resource, token).await
    }

    async fn snapshot(&self, prefix: &str) -> Result<Pages, StoreError> {
        self.read()?;
        self.inner.snapshot(prefix).await
    }

    async fn leases(
        &self,
        prefix: &str,
        after: Option<&ResourceName>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.read()?;
        self.inner.leases(prefix, after, limit).await
    }

    async fn advance_as(&self, advance: Advance) -> Result<Advanced, StoreError> {
        self.write(Call::Advance(advance), self.inner.advance_as(advance))
            .await
    }

    async fn status(&self) -> Status {
        self.inner.status().await
    }

    async fn watch(&self) -> Result<Events, StoreError> {
        self.read()?;
        self.inner.watch().await
    }

    async fn leases_held(&self) -> Result<u64, StoreError> {
        self.read()?;
        self.inner.leases_held().await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.read()?;
        self.inner.ready().await
    }

    fn least_ttl(&self) -> Duration {
        self.inner.least_ttl()
    }
}
