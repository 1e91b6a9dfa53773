//! Seal and read at the guard (I2): a holder that was paused anywhere, and its successors.
//!
//! Modelled: one resource and one row. Each holder goes through acquire (done before), seal, read, and two writes, each
//! in as many steps as the store takes one by one: a seal waits for running writers, raises the fence and is over; a
//! write begins by taking the shared lock, is checked against the fence, and commits. Between any two of its steps a
//! holder may be paused for ever. Three grants: one token, a later one, and the later one by another hold. The
//! decisions are `palisade_guard::decide`.
//!
//! Left out: stripes, isolation levels but for what a stale snapshot does, savepoints, crashes of the store.
//!
//! At depth 1 (two writes each): 1,035 states, at once.

use palisade_guard::decide::{Admission, Mark, Sealing, admit, seal};
use palisade_token::{FencingToken, HolderId};
use stateright::{Model, Property};

use crate::check::{depth, holds, refuted};

/// A defence that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Without {
    /// The new holder reads before it seals.
    ReadAfterSeal,
    /// The check of a write takes no lock.
    Lock,
    /// A seal reads what it found when it was sent, before it waited for the lock.
    ReadOfItsOwn,
    /// The fence is seen as it was when the writing transaction began, before it had the lock.
    FreshFence,
    /// A write above the fence raises it on the quiet.
    Unsealed,
    /// Whose token it is is not looked at.
    Holder,
}

#[derive(Debug)]
struct Guarded {
    writes: u8,
    without: Option<Without>,
}

/// A grant: its token, and the number of its hold.
const GRANTS: [(u8, u8); 3] = [(1, 1), (2, 2), (2, 3)];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Begin,
    /// It has read first, and seals next.
    HasRead,
    /// The statement that seals has been sent, and has seen this.
    Sealing(u8),
    Sealed,
    Ready,
    /// Its writing transaction has begun, and has seen the fence so.
    Begun(Fence),
    /// It has the shared lock, where there is one, and was admitted.
    Admitted,
    /// It was refused, or has done all it wanted.
    Over,
}

type Fence = Option<(u8, u8)>;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Holder {
    at: At,
    /// The version that it has read, or written itself.
    knows: u8,
    written: u8,
    has_lock: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    fence: Fence,
    /// How often the row was written, and by which grant last.
    version: u8,
    last: Option<usize>,
    holders: Vec<Holder>,
    /// The greatest token whose seal has returned.
    sealed: u8,
    is_behind_seal: bool,
    is_backwards: bool,
    is_shared: bool,
    is_lost: bool,
}

fn mark((token, holder): (u8, u8)) -> Mark {
    Mark {
        token: FencingToken::new(token.into()).expect("a token"),
        holder: HolderId::from_bytes([holder; 16]),
    }
}

impl Guarded {
    fn lacks(&self, without: Without) -> bool {
        self.without == Some(without)
    }

    /// What a write with this grant meets.
    fn admission(&self, grant: (u8, u8), fence: Fence) -> Admission {
        let fence = match (self.lacks(Without::Holder), fence) {
            (true, Some((token, _))) => Some((token, grant.1)),
            (_, fence) => fence,
        };
        admit(mark(grant), fence.map(mark))
    }

    fn begin(&self, state: &mut State, holder: usize) {
        match self.lacks(Without::ReadAfterSeal) {
            true => {
                state.holders[holder].knows = state.version;
                state.holders[holder].at = At::HasRead;
            }
            false => state.holders[holder].at = At::Sealing(state.version),
        }
    }

    /// Has the exclusive lock: nobody writes.
    fn seal(&self, state: &mut State, holder: usize, seen: u8) {
        let grant = GRANTS[holder];
        match seal(mark(grant), state.fence.map(mark)) {
            Sealing::Raise => state.fence = Some(grant),
            Sealing::Already => {}
            Sealing::Stale { .. } | Sealing::Collision if self.lacks(Without::Holder) => {}
            Sealing::Stale { .. } | Sealing::Collision => {
                state.holders[holder].at = At::Over;
                return;
            }
        }
        state.sealed = state.sealed.max(grant.0);
        let has_read = match self.without {
            Some(Without::ReadAfterSeal) => true,
            Some(Without::ReadOfItsOwn) => {
                state.holders[holder].knows = seen;
                true
            }
            _ => false,
        };
        state.holders[holder].at = if has_read { At::Ready } else { At::Sealed };
    }

    fn check(&self, state: &mut State, holder: usize, seen: Fence) {
        let grant = GRANTS[holder];
        let fence = match self.lacks(Without::FreshFence) {
            true => seen,
            false => state.fence,
        };
        let admission = self.admission(grant, fence);
        let is_quiet =
            self.lacks(Without::Unsealed) && matches!(admission, Admission::Unsealed { .. });
        if is_quiet {
            state.fence = Some(grant);
        }
        if admission == Admission::Admitted || is_quiet {
            state.holders[holder].at = At::Admitted;
            state.holders[holder].has_lock = !self.lacks(Without::Lock);
        } else {
            state.holders[holder].at = At::Over;
        }
    }

    fn commit(&self, state: &mut State, holder: usize) {
        let (token, hold) = GRANTS[holder];
        if let Some(last) = state.last {
            let (before, by) = GRANTS[last];
            state.is_backwards |= before > token;
            state.is_shared |= before == token && by != hold;
        }
        state.is_behind_seal |= token < state.sealed;
        state.is_lost |= state.holders[holder].knows != state.version;
        state.version += 1;
        state.last = Some(holder);
        let done = &mut state.holders[holder];
        done.knows = state.version;
        done.written += 1;
        done.has_lock = false;
        done.at = match done.written < self.writes {
            true => At::Ready,
            false => At::Over,
        };
    }
}

impl Model for Guarded {
    type State = State;
    /// The holder that does its next step.
    type Action = usize;

    fn init_states(&self) -> Vec<State> {
        let holder = Holder {
            at: At::Begin,
            knows: 0,
            written: 0,
            has_lock: false,
        };
        vec![State {
            fence: None,
            version: 0,
            last: None,
            holders: vec![holder; GRANTS.len()],
            sealed: 0,
            is_behind_seal: false,
            is_backwards: false,
            is_shared: false,
            is_lost: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<usize>) {
        let is_written = state.holders.iter().any(|holder| holder.has_lock);
        for (number, holder) in state.holders.iter().enumerate() {
            let waits = match holder.at {
                At::Over => true,
                At::Sealing(_) => is_written,
                _ => false,
            };
            if !waits {
                actions.push(number);
            }
        }
    }

    fn next_state(&self, last: &State, holder: usize) -> Option<State> {
        let mut state = last.clone();
        match last.holders[holder].at {
            At::Begin if self.lacks(Without::Unsealed) => {
                // Its seal is left to its first write.
                state.holders[holder].at = At::Sealed;
            }
            At::Begin => self.begin(&mut state, holder),
            At::HasRead => state.holders[holder].at = At::Sealing(state.version),
            At::Sealing(seen) => self.seal(&mut state, holder, seen),
            At::Sealed => {
                state.holders[holder].knows = state.version;
                state.holders[holder].at = At::Ready;
            }
            At::Ready => state.holders[holder].at = At::Begun(state.fence),
            At::Begun(seen) => self.check(&mut state, holder, seen),
            At::Admitted => self.commit(&mut state, holder),
            At::Over => return None,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(TOKENS, |_, state| !state.is_backwards),
            Property::<Self>::always(HOLDERS, |_, state| !state.is_shared),
            Property::<Self>::always(SEALED, |_, state| !state.is_behind_seal),
            Property::<Self>::always(READ, |_, state| !state.is_lost),
            Property::<Self>::sometimes(
                "the older holder writes, then the later one",
                |_, state| state.holders[0].written > 0 && state.holders[1].written > 0,
            ),
            Property::<Self>::sometimes("a stale write is refused", |model, state| {
                let old = &state.holders[0];
                old.at == At::Over && old.written < model.writes && state.sealed == 2
            }),
        ]
    }
}

const TOKENS: &str = "I2: the tokens of accepted writes never decrease";
const HOLDERS: &str = "I2: equal tokens belong to one holder";
const SEALED: &str = "I2: behind a seal that has returned no older token commits";
const READ: &str = "I2: what was read after the seal stays as it was but for its reader";

fn guarded(without: Option<Without>) -> Guarded {
    let writes = depth().saturating_add(1);
    Guarded { writes, without }
}

#[test]
fn acquire_seal_read_write_holds() {
    holds("seal", guarded(None));
}

#[test]
fn a_read_before_the_seal_is_refuted() {
    refuted("seal", guarded(Some(Without::ReadAfterSeal)), READ);
}

#[test]
fn a_check_before_the_write_without_a_lock_is_refuted() {
    refuted("seal", guarded(Some(Without::Lock)), SEALED);
}

#[test]
fn seal_and_read_in_one_statement_is_refuted() {
    refuted("seal", guarded(Some(Without::ReadOfItsOwn)), READ);
}

#[test]
fn a_fence_from_a_snapshot_before_the_lock_is_refuted() {
    refuted("seal", guarded(Some(Without::FreshFence)), SEALED);
}

#[test]
fn a_fence_that_a_write_raises_on_the_quiet_is_refuted() {
    refuted("seal", guarded(Some(Without::Unsealed)), READ);
}

#[test]
fn a_token_without_its_holder_is_refuted() {
    refuted("seal", guarded(Some(Without::Holder)), HOLDERS);
}
