//! Generations and restores (I3, I9): what makes tokens grow when etcd's history does not.
//!
//! Modelled: one resource; a store that can be restored from a snapshot, or rebuilt from nothing, at any time: it is a
//! new process then, issues revisions again, and revives a lease that had been released. Two coordinators whose clocks
//! are apart, each with a connection that works once; a generation is read, made and compared in single steps; a grant
//! is under way until it is applied. Every write takes a microsecond at the least, and a restore as long as the clocks are
//! apart. The decisions are `Generation::after`, `Generation::token`, and a connection's own `Trust`.
//!
//! Left out: sessions and marks (see `retry.rs`), members that lag, terms, guards that are ahead.
//!
//! At depth 1 (seven microseconds, one restore): 350,714 states, 8 s of a debug build.

use palisade_coordinator::domain::{Generation, Nonce, Revision, Span, WallClock};
use stateright::{Model, Property};

use crate::check::{depth, holds, refuted};
use crate::etcd::small;
use crate::real::{Seen, is_regress};

/// A weaker form of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weaker {
    /// A connection that is opened again by itself keeps its trust.
    Reconnected,
    /// The same, and a grant compares when the generation was written, not what it is. All snapshots are from before the
    /// first generation, for which comparing the value would have been enough.
    WrittenCompared,
    /// As the form before, but the value is compared: what makes that one's difference.
    ValueCompared,
    /// What an earlier connection has read counts as read over this one.
    Cached,
    /// A generation counts from the revision of its own write.
    OwnWrite,
    /// Generations are made from seconds.
    Seconds,
    /// Clocks run backwards across a restore by more than it takes.
    ClocksFarApart,
    /// A regress is not looked for, and connections are opened again by themselves.
    RegressTold,
}

#[derive(Debug)]
struct Restored {
    time: u8,
    restores: u8,
    weaker: Option<Weaker>,
}

/// How far the second coordinator's clock is ahead of the first's.
const APART: u8 = 2;
/// Microseconds of a second, in the weaker form.
const SECOND: u8 = 4;
/// Where the clocks begin.
const BEGIN: u64 = WallClock::BUILT.0;

/// A generation, counted from [`BEGIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Made {
    by: u8,
    base: u8,
    since: u8,
}

impl From<Made> for Generation {
    fn from(made: Made) -> Self {
        Self {
            nonce: Nonce::from_bytes([made.by; 16]),
            base: BEGIN + u64::from(made.base),
            since_revision: Revision(made.since.into()),
        }
    }
}

impl From<Generation> for Made {
    fn from(generation: Generation) -> Self {
        Self {
            by: generation.nonce.as_bytes()[0],
            base: small(generation.base - BEGIN),
            since: small(generation.since_revision.0),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Store {
    process: u8,
    revision: u8,
    generation: Option<(Made, u8)>,
    is_held: bool,
}

impl Store {
    fn write(&mut self, now: &mut u8) -> u8 {
        self.revision += 1;
        *now += 1;
        self.revision
    }

    fn made(&self) -> Option<Made> {
        self.generation.map(|(made, _)| made)
    }
}

/// What one connection has seen, as its `Trust` keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Link {
    process: u8,
    read: Option<Made>,
    is_trusted: bool,
    reached: u8,
    /// A generation that is being made: from this one, read at this revision, and the clock's time.
    making: Option<(Option<Made>, u8, u8)>,
    /// A grant that is under way: under this generation, written then, and what had been seen when it was sent.
    granting: Option<(Made, u8, u8)>,
}

impl Link {
    fn read(&mut self, found: Option<Made>, revision: u8) {
        let seen = Seen {
            read: self.read.map(Into::into),
            is_trusted: self.is_trusted,
            reached: Revision(self.reached.into()),
        };
        let seen = seen.after_read(found.map(Into::into), Revision(revision.into()));
        self.read = seen.read.map(Into::into);
        self.is_trusted = seen.is_trusted;
        self.reached = small(seen.reached.0);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Coordinator {
    link: Option<Link>,
    /// What its connections before have read last.
    cached: Option<Made>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    store: Store,
    snapshot: Store,
    processes: u8,
    coordinators: [Coordinator; 2],
    /// The greatest token so far.
    greatest: u8,
    is_backwards: bool,
    /// By whom, and in which process, grants were made.
    granted: [bool; 2],
    is_granted_after: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Passes,
    Ends,
    Snapshots,
    Restores,
    Rebuilds,
    Opens(usize),
    Breaks(usize),
    Reads(usize),
    Makes(usize),
    Sends(usize),
    Applies(usize),
}

impl Restored {
    fn is(&self, weaker: Weaker) -> bool {
        self.weaker == Some(weaker)
    }

    fn is_reconnecting(&self) -> bool {
        matches!(
            self.weaker,
            Some(
                Weaker::Reconnected
                    | Weaker::WrittenCompared
                    | Weaker::ValueCompared
                    | Weaker::RegressTold
            )
        )
    }

    fn has_old_snapshots(&self) -> bool {
        self.is(Weaker::WrittenCompared) || self.is(Weaker::ValueCompared)
    }

    fn clock(&self, now: u8, coordinator: usize) -> u8 {
        let ahead = match coordinator {
            0 => 0,
            _ => APART,
        };
        match self.is(Weaker::Seconds) {
            true => (now + ahead) / SECOND,
            false => now + ahead,
        }
    }

    fn restore(&self, state: &mut State, store: Store) {
        state.processes += 1;
        state.store = Store {
            process: state.processes,
            ..store
        };
        state.now += match self.is(Weaker::ClocksFarApart) {
            true => 1,
            false => APART,
        };
        if self.is_reconnecting() {
            let links = state.coordinators.iter_mut();
            for link in links.filter_map(|coordinator| coordinator.link.as_mut()) {
                link.process = state.processes;
                // What compares that there is no generation would be right by chance.
                link.making = link.making.filter(|_| !self.has_old_snapshots());
            }
        }
    }

    fn make(&self, state: &mut State, coordinator: usize) -> Option<()> {
        let link = state.coordinators[coordinator].link.as_mut()?;
        let (old, revision, clock) = link.making.take()?;
        if old != state.store.made() {
            link.read(state.store.made(), state.store.revision);
            return Some(());
        }
        let span = Span {
            revision: Revision(revision.into()),
            past: None,
            is_forced: false,
            nonce: Nonce::from_bytes([small(u64::try_from(coordinator).expect("few")); 16]),
        };
        let clock = WallClock(BEGIN + u64::from(clock));
        let old = old.map(Generation::from);
        let mut made = Made::from(Generation::after(old.as_ref(), span, clock).ok()?);
        let written = state.store.write(&mut state.now);
        if self.is(Weaker::OwnWrite) {
            made.since = written;
        }
        state.store.generation = Some((made, written));
        link.read = Some(made);
        link.is_trusted = true;
        link.reached = written;
        Some(())
    }

    fn grant(&self, state: &mut State, coordinator: usize) -> Option<()> {
        let link = state.coordinators[coordinator].link.as_mut()?;
        let (generation, written, reached) = link.granting.take()?;
        let is_same = match self.is(Weaker::WrittenCompared) {
            true => state.store.generation.is_some_and(|(_, at)| at == written),
            false => state.store.made() == Some(generation),
        };
        if state.store.is_held || !is_same {
            link.read(state.store.made(), state.store.revision);
            return Some(());
        }
        let revision = state.store.write(&mut state.now);
        let has_regressed = is_regress(Revision(reached.into()), Revision(revision.into()));
        let token = Generation::from(generation).token(Revision(revision.into()));
        let is_told = self.is(Weaker::RegressTold) || !has_regressed;
        let Some(token) = token.filter(|_| is_told) else {
            // It is given back, and the connection is given up.
            state.store.write(&mut state.now);
            state.coordinators[coordinator].link = None;
            return Some(());
        };
        link.reached = link.reached.max(revision);
        state.store.is_held = true;
        let token = small(token.get() - BEGIN);
        state.is_backwards |= token <= state.greatest;
        state.greatest = state.greatest.max(token);
        state.granted[coordinator] = true;
        state.is_granted_after |= state.store.process > 0;
        Some(())
    }
}

impl Model for Restored {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let store = Store {
            process: 0,
            revision: 1,
            generation: None,
            is_held: false,
        };
        vec![State {
            now: 0,
            store,
            snapshot: store,
            processes: 0,
            coordinators: [Coordinator::default(); 2],
            greatest: 0,
            is_backwards: false,
            granted: [false; 2],
            is_granted_after: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let has_time = state.now < self.time;
        if has_time {
            actions.push(Action::Passes);
            if state.store.is_held {
                actions.push(Action::Ends);
            }
            if state.processes < self.restores {
                actions.push(Action::Restores);
                actions.push(Action::Rebuilds);
            }
        }
        let is_new = Store {
            process: 0,
            ..state.store
        } != state.snapshot;
        if is_new && state.processes < self.restores && !self.has_old_snapshots() {
            actions.push(Action::Snapshots);
        }
        for (number, coordinator) in state.coordinators.iter().enumerate() {
            let Some(link) = &coordinator.link else {
                actions.push(Action::Opens(number));
                continue;
            };
            if link.process != state.store.process {
                actions.push(Action::Breaks(number));
                continue;
            }
            if link.making.is_none() && link.granting.is_none() {
                actions.push(Action::Reads(number));
                if link.is_trusted {
                    actions.push(Action::Sends(number));
                }
            }
            if link.making.is_some() && has_time {
                actions.push(Action::Makes(number));
            }
            if link.granting.is_some() && has_time {
                actions.push(Action::Applies(number));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Passes => state.now += 1,
            Action::Ends => {
                state.store.is_held = false;
                state.store.write(&mut state.now);
            }
            Action::Snapshots => {
                state.snapshot = Store {
                    process: 0,
                    ..state.store
                };
            }
            Action::Restores => {
                let snapshot = state.snapshot;
                self.restore(&mut state, snapshot);
            }
            Action::Rebuilds => {
                let nothing = Store {
                    process: 0,
                    revision: 1,
                    generation: None,
                    is_held: false,
                };
                self.restore(&mut state, nothing);
            }
            Action::Opens(number) => {
                let coordinator = &mut state.coordinators[number];
                let cached = coordinator.cached.filter(|_| self.is(Weaker::Cached));
                let mut link = Link {
                    process: state.store.process,
                    read: cached,
                    is_trusted: false,
                    reached: 0,
                    making: None,
                    granting: None,
                };
                link.read(state.store.made(), state.store.revision);
                coordinator.link = Some(link);
            }
            Action::Breaks(number) => {
                let coordinator = &mut state.coordinators[number];
                let link = coordinator.link.take()?;
                coordinator.cached = link.read.filter(|_| self.is(Weaker::Cached));
            }
            Action::Reads(number) => {
                let clock = self.clock(state.now, number);
                let link = state.coordinators[number].link.as_mut()?;
                link.read(state.store.made(), state.store.revision);
                if !link.is_trusted {
                    link.making = Some((state.store.made(), state.store.revision, clock));
                }
            }
            Action::Makes(number) => self.make(&mut state, number)?,
            Action::Sends(number) => {
                let link = state.coordinators[number].link.as_mut()?;
                let written = state.store.generation.map_or(0, |(_, written)| written);
                link.granting = Some((link.read?, written, link.reached));
            }
            Action::Applies(number) => self.grant(&mut state, number)?,
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(GROWS, |_, state| !state.is_backwards),
            Property::<Self>::sometimes("something is granted after a restore", |_, state| {
                state.is_granted_after
            }),
            Property::<Self>::sometimes("both grant in one process", |_, state| {
                state.granted == [true; 2] && state.processes == 0
            }),
        ]
    }
}

const GROWS: &str = "I3: every token is greater than those before";

fn restored(weaker: Option<Weaker>) -> Restored {
    Restored {
        time: 4 + 3 * depth(),
        restores: 1,
        weaker,
    }
}

#[test]
fn a_generation_made_or_seen_to_change_on_its_connection_holds() {
    holds("restore", restored(None));
}

#[test]
fn a_grant_over_a_silently_reconnected_channel_is_refuted() {
    refuted(
        "restore: reconnected",
        restored(Some(Weaker::Reconnected)),
        GROWS,
    );
}

#[test]
fn the_revision_of_the_generations_key_alone_is_refuted_where_its_value_holds() {
    let value = restored(Some(Weaker::ValueCompared));
    holds("restore: value compared", value);
    let written = restored(Some(Weaker::WrittenCompared));
    refuted("restore: revision compared", written, GROWS);
}

#[test]
fn a_value_cached_from_an_earlier_connection_is_refuted() {
    refuted("restore: cached", restored(Some(Weaker::Cached)), GROWS);
}

#[test]
fn a_generation_from_the_revision_of_its_own_write_is_refuted() {
    refuted(
        "restore: own write",
        restored(Some(Weaker::OwnWrite)),
        GROWS,
    );
}

#[test]
fn a_rebuild_within_the_second_is_refuted_for_seconds() {
    refuted("restore: seconds", restored(Some(Weaker::Seconds)), GROWS);
}

#[test]
fn clocks_that_run_back_by_more_than_a_restore_takes_are_refuted() {
    let weaker = Some(Weaker::ClocksFarApart);
    refuted("restore: clocks far apart", restored(weaker), GROWS);
}
