use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use palisade_token::{Grant, ResourceName};

use super::Durability;
use super::word::{CLOSED, LAST_EPOCH, MAX_PERMITS, NotEntered, Word};
use crate::GuardError;
use crate::decide::{self, Mark, Sealing};

/// Every opening of every slot of the process has an epoch of its own, so that what was sealed in one
/// table never fits another.
static EPOCHS: AtomicU64 = AtomicU64::new(CLOSED);

/// One resource. On cache lines of its own: writers of others do not slow it down. In the first of them is what
/// an entry needs.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Slot {
    word: Word,
    state: Mutex<State>,
    name: Name,
    /// The last writer has left, or a seal has ended.
    event: Event,
}

#[derive(Debug, Default)]
#[repr(C)]
struct State {
    /// The epoch of the fence, [`CLOSED`] until it is opened.
    epoch: u64,
    /// Where the fence is for those who enter.
    fence: Option<Mark>,
    /// The fence that was last opened: kept, with no earlier writer left.
    opened: Option<Mark>,
    is_sealing: bool,
}

impl Slot {
    pub(super) fn new(name: &ResourceName) -> Self {
        Self {
            word: Word::new(CLOSED),
            name: Name::new(name),
            state: Mutex::default(),
            event: Event::new(),
        }
    }

    pub(super) fn is_of(&self, name: &ResourceName) -> bool {
        self.name.as_bytes() == name.as_str().as_bytes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fence(&self) -> Option<Mark> {
        self.state().fence
    }

    /// Takes over a fence that was kept, before anybody enters.
    pub(super) fn recover(&self, fence: &Grant) -> Result<(), GuardError> {
        let mut state = self.state();
        match decide::seal(fence.into(), state.fence) {
            Sealing::Raise => {
                state.fence = Some(fence.into());
                self.open(&mut state)
            }
            Sealing::Already | Sealing::Stale { .. } => Ok(()),
            Sealing::Collision => Err(collision(fence)),
        }
    }

    /// The whole seal; the epoch of the grant.
    pub(super) async fn seal<D: Durability>(
        &self,
        grant: &Grant,
        durability: &D,
    ) -> Result<u64, GuardError> {
        if let Some(epoch) = self.raise(grant)? {
            return Ok(epoch);
        }
        let _turn = self.turn().await;
        // Another may have opened it meanwhile, or raised it further.
        if let Some(epoch) = self.raise(grant)? {
            return Ok(epoch);
        }
        durability.raise(grant).await.map_err(GuardError::Backend)?;
        self.emptied().await;
        let mut state = self.state();
        if let Sealing::Stale { fence } = decide::seal(grant.into(), state.fence) {
            return Err(stale(grant, fence));
        }
        self.open(&mut state)?;
        Ok(state.epoch)
    }

    /// Raises the fence for those who enter. The epoch, if the grant was sealed before.
    fn raise(&self, grant: &Grant) -> Result<Option<u64>, GuardError> {
        let mut state = self.state();
        match decide::seal(grant.into(), state.fence) {
            Sealing::Raise => {
                state.fence = Some(grant.into());
                state.epoch = CLOSED;
                self.word.close();
                Ok(None)
            }
            Sealing::Already => Ok(Some(state.epoch).filter(|epoch| *epoch != CLOSED)),
            Sealing::Stale { fence } => Err(stale(grant, fence)),
            Sealing::Collision => Err(collision(grant)),
        }
    }

    /// Lets the holder of the fence in. The slot is closed and empty.
    fn open(&self, state: &mut State) -> Result<(), GuardError> {
        let epoch = EPOCHS.fetch_add(1, Ordering::Relaxed) + 1;
        if epoch > LAST_EPOCH {
            return Err(GuardError::LimitReached {
                what: "seals of one process",
                limit: LAST_EPOCH,
            });
        }
        state.opened = state.fence;
        state.epoch = epoch;
        self.word.open(epoch);
        Ok(())
    }

    /// Waits until no other seal of this resource is under way.
    async fn turn(&self) -> Turn<'_> {
        self.wait_for(|| {
            let mut state = self.state();
            !std::mem::replace(&mut state.is_sealing, true)
        })
        .await;
        Turn(self)
    }

    /// Waits for those inside to leave. The slot is closed.
    async fn emptied(&self) {
        self.wait_for(|| self.word.is_empty()).await;
    }

    async fn wait_for(&self, is_so: impl Fn() -> bool) {
        while !is_so() {
            let listener = self.event.listen();
            // What happened before this was not heard.
            if is_so() {
                return;
            }
            listener.await;
        }
    }

    /// Goes in by epoch: the fast way.
    #[inline]
    pub(super) fn enter(&self, epoch: u64) -> Result<(), NotEntered> {
        self.word.enter(epoch)
    }

    /// Goes in by the decision on the grant itself.
    pub(super) fn admit(&self, grant: &Grant) -> Result<(), GuardError> {
        // Under the lock of the state: the epoch stays.
        let state = self.state();
        let epoch = state.epoch_of(grant)?;
        match self.word.enter(epoch) {
            Ok(()) => Ok(()),
            Err(NotEntered::Full) => Err(full()),
            Err(NotEntered::Elsewhere) => Err(unsealed(grant, state.opened)),
        }
    }

    pub(super) fn epoch_of(&self, grant: &Grant) -> Result<u64, GuardError> {
        self.state().epoch_of(grant)
    }

    #[inline]
    pub(super) fn leave(&self) {
        if self.word.leave() {
            self.event.notify(usize::MAX);
        }
    }
}

impl State {
    fn epoch_of(&self, grant: &Grant) -> Result<u64, GuardError> {
        let admission = decide::admit(grant.into(), self.fence);
        match decide::refusal(grant, admission) {
            Some(refusal) => Err(refusal),
            // Raised, but not kept yet.
            None if self.epoch == CLOSED => Err(unsealed(grant, self.opened)),
            None => Ok(self.epoch),
        }
    }
}

/// Most bytes of a name that is kept in the slot itself: elsewhere it would cost another cache miss.
const SHORT: usize = 30;

#[derive(Debug)]
enum Name {
    Short { length: u8, bytes: [u8; SHORT] },
    Long(ResourceName),
}

impl Name {
    fn new(name: &ResourceName) -> Self {
        let text = name.as_str().as_bytes();
        let mut bytes = [0; SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text);
                Self::Short { length, bytes }
            }
            _ => Self::Long(name.clone()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(name) => name.as_str().as_bytes(),
        }
    }
}

/// The right to seal; given back when dropped, also by a seal that is given up.
struct Turn<'a>(&'a Slot);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.state().is_sealing = false;
        self.0.event.notify(usize::MAX);
    }
}

pub(super) fn unsealed(grant: &Grant, fence: Option<Mark>) -> GuardError {
    GuardError::Unsealed {
        resource: grant.resource.clone(),
        presented: grant.token,
        fence: fence.map(|fence| fence.token),
    }
}

pub(super) fn full() -> GuardError {
    GuardError::LimitReached {
        what: "writes of one resource at once",
        limit: MAX_PERMITS,
    }
}

fn stale(grant: &Grant, fence: palisade_token::FencingToken) -> GuardError {
    GuardError::Stale {
        resource: grant.resource.clone(),
        presented: grant.token,
        fence,
    }
}

fn collision(grant: &Grant) -> GuardError {
    GuardError::Collision {
        resource: grant.resource.clone(),
        token: grant.token,
    }
}
