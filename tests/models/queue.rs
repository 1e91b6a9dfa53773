//! Queues and promotion (I1, I5, I11), and steps that travel together (I12).
//!
//! Modelled: one resource that three sessions ask for once each, wait, hold and give back. Each decides on what it reads
//! and sends one transaction, which is applied at any later time; a promotion may be sent for anybody who waits, as a
//! coordinator may guess that nobody waits longer. Of `faults` altogether: a session ends with all its keys, a client stops
//! waiting for an answer and gives back (its stream raises the mark first), another generation is made. With `together`
//! any two transactions that write no key in common may be nested ones of one, as `store/etcd/batch.rs` packs them.
//! The decisions are `decide_acquire`, `decide_release` and `decide_promotion`.
//!
//! Left out: lock-delays, revocation, retries on several streams (see `retry.rs`), restores (see `restore.rs`), and that
//! releases compare the mark, too: what holds without holds with it.
//!
//! At depth 1 (one fault): 18,250 states, 2 s of a debug build; together (`batch.rs`) 22,514 states, 3 s.

use palisade_coordinator::domain::{
    Acquire, AcquireStep, Acquired, Caller, HoldName, PromoteStep, Release, ReleaseStep,
    decide_acquire, decide_promotion, decide_release,
};
use stateright::{Model, Property};

use crate::etcd::{
    Ask, Compare, Etcd, Mark, Queued, Refused, Txn, Write, caller, request, resource,
};

/// A defence that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Without {
    /// An enqueue compares the mark.
    EnqueueMark,
    /// An enqueue compares that there is something to wait for.
    EnqueueHeld,
    /// A grant compares that nobody waits.
    GrantQueue,
    /// A grant compares that the resource is vacant.
    GrantVacant,
    /// A promotion compares that nobody waits longer.
    PromotionOrder,
    /// A promotion compares that the place is still there.
    PromotionPlace,
    /// A promotion compares the generation.
    PromotionGeneration,
    /// A release compares that it is the lease that it means.
    ReleaseOfWhat,
    /// A release hands over in its own transaction.
    HandOver,
    /// No key is written twice in a transaction; nor does etcd look for it.
    OneWriteEach,
    /// An enqueue does not travel with the release that leaves the resource vacant.
    EnqueueApart,
    /// What a transaction was refused as a whole for is tried by each alone.
    EachAlone,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) faults: u8,
    pub(crate) together: bool,
    /// Whether etcd refuses what the last session asks for, with all that it came with.
    pub(crate) has_poison: bool,
    pub(crate) without: Option<Without>,
}

const RESOURCE: usize = 0;
const SESSIONS: usize = 3;

fn ask(session: usize) -> Ask {
    Ask {
        resource: RESOURCE,
        session,
        request: 0,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    New,
    Asks,
    Waits,
    Holds,
    Gives,
    /// It was told how its request ended.
    Over,
    Dead,
}

/// A transaction under way, of a session or of nobody in particular, and the lease that it means to end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Flight {
    of: Option<usize>,
    txn: Txn,
    ends: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct State {
    etcd: Etcd,
    flights: Vec<Flight>,
    clients: [Client; SESSIONS],
    faults: u8,
    /// A session has ended, or a generation was made: then somebody may wait for what is vacant until he is promoted.
    is_disturbed: bool,
    is_stolen: bool,
    is_overtaken: bool,
    is_ghost: bool,
    is_untrusted: bool,
    /// A step failed for another one's sake.
    is_infected: bool,
    has_handed_over: bool,
    has_split: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Asks(usize),
    GivesBack(usize),
    GivesUp(usize),
    Ends(usize),
    OtherGeneration,
    Goes(usize),
    Promotes(usize),
    Applies(usize),
    ApplyTogether(usize, usize),
}

impl State {
    fn send(&mut self, of: Option<usize>, txn: Txn, ends: Option<u8>) {
        self.flights.push(Flight { of, txn, ends });
    }

    fn is_busy(&self, of: Option<usize>) -> bool {
        self.flights.iter().any(|flight| flight.of == of)
    }

    /// Takes note of what one transaction does, before it does it.
    fn judge(&mut self, flight: &Flight) {
        let lease = self.etcd.leases[RESOURCE];
        for write in &flight.txn.writes {
            let is_end = lease.is_some_and(|held| Some(held.granted) != flight.ends);
            match *write {
                Write::Hold { by, generation } => {
                    let own = self.etcd.queue.iter().find(|queued| queued.by == by);
                    let since = own.map_or(u8::MAX, |own| own.since);
                    self.is_stolen |= is_end;
                    self.is_overtaken |= self.etcd.queue.iter().any(|queued| queued.since < since);
                    self.is_ghost |= self.clients[by.session] == Client::Over;
                    self.is_untrusted |= generation != self.etcd.generation;
                    self.has_handed_over |= lease.is_some();
                }
                Write::Vacate(_) => self.is_stolen |= is_end,
                Write::Queue(by) => self.is_ghost |= self.clients[by.session] == Client::Over,
                Write::Leave(_) | Write::Mark(..) => {}
            }
        }
    }

    /// What its transaction was to whom waits for it.
    fn arrive(&mut self, flight: &Flight, is_done: bool) {
        let Some(session) = flight.of.filter(|of| is_done && *of < SESSIONS) else {
            return;
        };
        self.clients[session] = match (self.clients[session], flight.txn.writes[0]) {
            (Client::Asks, Write::Hold { .. }) => Client::Holds,
            (Client::Asks, Write::Queue(_)) => Client::Waits,
            (Client::Gives, _) => Client::Over,
            (as_it_was, _) => as_it_was,
        };
    }
}

impl Queue {
    fn lacks(&self, without: Without) -> bool {
        self.without == Some(without)
    }

    /// The transaction without what is taken out.
    fn weakened(&self, mut txn: Txn) -> Txn {
        let is_promotion = txn.writes.len() == 2;
        let writes = txn.writes[0];
        txn.compares
            .retain(|compare| match (self.without, compare) {
                (Some(Without::EnqueueMark), Compare::Marked(..)) => {
                    !matches!(writes, Write::Queue(_))
                }
                (Some(Without::EnqueueHeld), Compare::Held(_))
                | (Some(Without::ReleaseOfWhat), Compare::HeldSince(..))
                | (Some(Without::PromotionOrder), Compare::NobodyWaitsLonger(..)) => false,
                (Some(Without::GrantQueue), Compare::NobodyWaits(_))
                | (Some(Without::GrantVacant), Compare::Vacant(_)) => {
                    !matches!(writes, Write::Hold { .. })
                }
                (Some(Without::PromotionPlace), Compare::Queued(_))
                | (Some(Without::PromotionGeneration), Compare::Generation(_)) => !is_promotion,
                _ => true,
            });
        txn
    }

    fn caller(state: &State, session: usize) -> Caller {
        let mark = state.etcd.sessions[session].map(|marked| marked.mark);
        let mut caller = caller(session, 0, 0);
        caller.mark = mark.map(Into::into);
        caller
    }

    fn acquire(&self, state: &mut State, session: usize) {
        let by = ask(session);
        let etcd = &state.etcd;
        let acquire = Acquire {
            caller: Self::caller(state, session),
            resource: resource(RESOURCE),
            request: request(0),
            metadata: Vec::new(),
            lock_delay_ms: 0,
            waits: true,
            max_waiters: 8,
            previous: None,
        };
        let written = etcd.sessions[session].map_or(0, |marked| marked.written);
        let marked = Compare::Marked(session, written);
        let generation = etcd.generation;
        let own = etcd.queue.iter().find(|queued| queued.by == by).copied();
        let txn = match decide_acquire(&etcd.view(by), &acquire) {
            Err(_) => {
                state.clients[session] = Client::Over;
                return;
            }
            Ok(AcquireStep::Answer(Acquired::Held(_))) => {
                state.clients[session] = Client::Holds;
                return;
            }
            Ok(AcquireStep::Answer(Acquired::Queued(_))) => {
                state.clients[session] = Client::Waits;
                return;
            }
            Ok(AcquireStep::Grant { place, .. }) => {
                let mut txn = Txn {
                    compares: vec![
                        Compare::Vacant(RESOURCE),
                        marked,
                        Compare::Generation(generation),
                    ],
                    writes: vec![Write::Hold { by, generation }],
                };
                match own.filter(|_| place.is_some()) {
                    Some(own) => take_out(&mut txn, own),
                    None => txn.compares.push(Compare::NobodyWaits(RESOURCE)),
                }
                txn
            }
            Ok(AcquireStep::Enqueue(_)) => {
                let waits_for = match (etcd.leases[RESOURCE], etcd.head(RESOURCE)) {
                    (Some(_), _) => Some(Compare::Held(RESOURCE)),
                    (None, head) => head.map(Compare::Queued),
                };
                let mut compares = vec![marked, Compare::NoPlace(by)];
                compares.extend(waits_for);
                let writes = vec![Write::Queue(by)];
                Txn { compares, writes }
            }
            Ok(other) => unreachable!("no such step here: {other:?}"),
        };
        let txn = self.weakened(txn);
        state.send(Some(session), txn, None);
    }

    fn give(&self, state: &mut State, session: usize) {
        let by = ask(session);
        let etcd = &state.etcd;
        let release = Release {
            caller: Self::caller(state, session),
            resource: resource(RESOURCE),
            hold: HoldName::Request(request(0)),
        };
        let generation = etcd.generation;
        let own = etcd.queue.iter().find(|queued| queued.by == by).copied();
        let (txn, ends) = match decide_release(&etcd.view(by), &release) {
            Err(_) | Ok(ReleaseStep::Answer(_)) => {
                state.clients[session] = Client::Over;
                return;
            }
            Ok(ReleaseStep::Leave(_)) => {
                let compares = own.map(Compare::Queued).into_iter().collect();
                let writes = vec![Write::Leave(by)];
                (Txn { compares, writes }, None)
            }
            Ok(ReleaseStep::End { successor, .. }) => {
                let granted = etcd.leases[RESOURCE].map_or(0, |held| held.granted);
                let mut compares = vec![Compare::HeldSince(RESOURCE, granted)];
                let heir = etcd.head(RESOURCE).filter(|_| successor.is_some());
                let txn = match heir.filter(|_| !self.lacks(Without::HandOver)) {
                    Some(heir) => {
                        compares.push(Compare::Generation(generation));
                        let by = heir.by;
                        let writes = vec![Write::Hold { by, generation }];
                        let mut txn = Txn { compares, writes };
                        take_out(&mut txn, heir);
                        txn
                    }
                    None => {
                        compares.extend(heir.is_none().then_some(Compare::NobodyWaits(RESOURCE)));
                        let writes = vec![Write::Vacate(RESOURCE)];
                        Txn { compares, writes }
                    }
                };
                (txn, Some(granted))
            }
            Ok(other) => unreachable!("no such step here: {other:?}"),
        };
        let txn = self.weakened(txn);
        state.send(Some(session), txn, ends);
    }

    fn go(&self, state: &mut State, session: usize) {
        match state.clients[session] {
            Client::Asks => self.acquire(state, session),
            Client::Gives => self.give(state, session),
            // Woken, it looks what its request came to.
            Client::Waits => {
                let lease = state.etcd.leases[RESOURCE];
                if lease.is_some_and(|held| held.by == ask(session)) {
                    state.clients[session] = Client::Holds;
                }
            }
            Client::New | Client::Holds | Client::Over | Client::Dead => {}
        }
    }

    /// Grants a vacant resource to one who waits: the head, or one that is taken for it.
    fn promote(&self, state: &mut State, at: usize) {
        let guessed = state.etcd.queue[at];
        let mut view = state.etcd.view(guessed.by);
        view.head = view.own_place.clone();
        if !matches!(decide_promotion(&view), PromoteStep::Grant(_)) {
            return;
        }
        let generation = state.etcd.generation;
        let by = guessed.by;
        let mut txn = Txn {
            compares: vec![Compare::Vacant(RESOURCE), Compare::Generation(generation)],
            writes: vec![Write::Hold { by, generation }],
        };
        take_out(&mut txn, guessed);
        let txn = self.weakened(txn);
        state.send(None, txn, None);
    }

    fn is_poison(&self, flight: &Flight) -> bool {
        self.has_poison
            && flight.of == Some(SESSIONS - 1)
            && matches!(flight.txn.writes[0], Write::Hold { .. } | Write::Queue(_))
    }

    fn apply(&self, state: &mut State, at: usize) {
        let flight = state.flights.remove(at);
        if self.is_poison(&flight) {
            // It is told so, which is its outcome.
            state.clients[SESSIONS - 1] = Client::Over;
            return;
        }
        let before = state.clone();
        let applied = state.etcd.apply(std::slice::from_ref(&flight.txn));
        let is_done = applied.is_ok_and(|done| done[0]);
        Self::settle(state, before, &[(flight, is_done)]);
    }

    fn settle(state: &mut State, mut before: State, done: &[(Flight, bool)]) {
        for (flight, is_done) in done {
            if *is_done {
                before.judge(flight);
            }
        }
        let etcd = state.etcd.clone();
        *state = State { etcd, ..before };
        for (flight, is_done) in done {
            state.arrive(flight, *is_done);
        }
    }

    fn apply_together(&self, state: &mut State, one: usize, other: usize) {
        let second = state.flights.remove(other);
        let first = state.flights.remove(one);
        let before = state.clone();
        let txns = [first.txn.clone(), second.txn.clone()];
        let is_poisoned = self.is_poison(&first) || self.is_poison(&second);
        let applied = match self.lacks(Without::OneWriteEach) {
            _ if is_poisoned => Err(Refused),
            true => Ok(state.etcd.apply_unchecked(&txns)),
            false => state.etcd.apply(&txns),
        };
        match applied {
            Ok(done) => {
                // Two that hold the same resource: the second takes it from the first.
                let is_twice = done == [true, true] && first.txn.shares_key(&second.txn);
                let done = [(first, done[0]), (second, done[1])];
                Self::settle(state, before, &done);
                state.is_stolen |= is_twice;
            }
            Err(_) if self.lacks(Without::EachAlone) => {
                let others = [first, second]
                    .into_iter()
                    .filter(|one| !self.is_poison(one));
                for flight in others {
                    let alone = before.etcd.clone().apply(std::slice::from_ref(&flight.txn));
                    state.is_infected |= alone.is_ok_and(|done| done[0]);
                }
            }
            Err(_) => {
                *state = before;
                state.has_split = true;
                state.flights.extend([first, second]);
                // They go on alone, in any order.
                self.apply(state, state.flights.len() - 1);
                self.apply(state, state.flights.len() - 1);
            }
        }
    }

    fn may_travel_together(&self, one: &Flight, other: &Flight) -> bool {
        let generation = |flight: &Flight| {
            let mut compares = flight.txn.compares.iter();
            compares
                .find(|compare| matches!(compare, Compare::Generation(_)))
                .copied()
        };
        let is_under_one = match (generation(one), generation(other)) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let is_vacated = |one: &Flight, other: &Flight| {
            matches!(one.txn.writes[0], Write::Vacate(_))
                && matches!(other.txn.writes[0], Write::Queue(_))
        };
        let is_skew = is_vacated(one, other) || is_vacated(other, one);
        if is_skew && !self.lacks(Without::EnqueueApart) {
            return false;
        }
        is_under_one && (self.lacks(Without::OneWriteEach) || !one.txn.shares_key(&other.txn))
    }
}

/// Takes out a place of which nobody waits longer.
fn take_out(txn: &mut Txn, queued: Queued) {
    txn.compares.push(Compare::Queued(queued));
    txn.compares
        .push(Compare::NobodyWaitsLonger(RESOURCE, queued.since));
    txn.writes.push(Write::Leave(queued.by));
}

impl Model for Queue {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            etcd: Etcd::new(1, SESSIONS),
            flights: Vec::new(),
            clients: [Client::New; SESSIONS],
            faults: 0,
            is_disturbed: false,
            is_stolen: false,
            is_overtaken: false,
            is_ghost: false,
            is_untrusted: false,
            is_infected: false,
            has_handed_over: false,
            has_split: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let may_fail = state.faults < self.faults;
        for (session, client) in state.clients.iter().enumerate() {
            let is_busy = state.is_busy(Some(session));
            match client {
                // They are alike: they come in the order of their numbers.
                Client::New => {
                    let is_next = session == 0 || state.clients[session - 1] != Client::New;
                    if is_next {
                        actions.push(Action::Asks(session));
                    }
                }
                Client::Asks | Client::Gives if !is_busy => actions.push(Action::Goes(session)),
                Client::Asks if may_fail => actions.push(Action::GivesUp(session)),
                Client::Waits => {
                    actions.push(Action::Goes(session));
                    actions.push(Action::GivesBack(session));
                }
                Client::Holds => actions.push(Action::GivesBack(session)),
                Client::Asks | Client::Gives | Client::Over | Client::Dead => {}
            }
            if may_fail && !matches!(client, Client::New | Client::Over | Client::Dead) {
                actions.push(Action::Ends(session));
            }
        }
        if may_fail {
            actions.push(Action::OtherGeneration);
        }
        if !state.is_busy(None) && state.etcd.leases[RESOURCE].is_none() {
            actions.extend((0..state.etcd.queue.len()).map(Action::Promotes));
        }
        for one in 0..state.flights.len() {
            actions.push(Action::Applies(one));
            for other in one + 1..state.flights.len() {
                let (first, second) = (&state.flights[one], &state.flights[other]);
                if self.together && self.may_travel_together(first, second) {
                    actions.push(Action::ApplyTogether(one, other));
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Asks(session) => state.clients[session] = Client::Asks,
            Action::GivesBack(session) => state.clients[session] = Client::Gives,
            Action::GivesUp(session) => {
                state.faults += 1;
                state.clients[session] = Client::Gives;
                let flights = state.flights.iter_mut();
                for flight in flights.filter(|flight| flight.of == Some(session)) {
                    // Nobody's: whoever it is told does not know of it.
                    flight.of = Some(SESSIONS);
                }
                let mark = state.etcd.sessions[session]?.mark;
                let sub = mark.sub + 1;
                let raised = Write::Mark(session, Mark { sub, ..mark });
                let (compares, writes) = (Vec::new(), vec![raised]);
                state.etcd.apply(&[Txn { compares, writes }]).ok()?;
            }
            Action::Ends(session) => {
                state.faults += 1;
                state.is_disturbed = true;
                state.clients[session] = Client::Dead;
                state.etcd.end(session);
            }
            Action::OtherGeneration => {
                state.faults += 1;
                state.is_disturbed = true;
                state.etcd.generation += 1;
                state.etcd.revision += 1;
            }
            Action::Goes(session) => self.go(&mut state, session),
            Action::Promotes(at) => self.promote(&mut state, at),
            Action::Applies(at) => self.apply(&mut state, at),
            Action::ApplyTogether(one, other) => self.apply_together(&mut state, one, other),
        }
        state.flights.sort();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(DISJOINT, |_, state| !state.is_stolen),
            Property::<Self>::always(IN_ORDER, |_, state| !state.is_overtaken),
            Property::<Self>::always(NO_GHOST, |_, state| !state.is_ghost),
            Property::<Self>::always(TRUSTED, |_, state| !state.is_untrusted),
            Property::<Self>::always(NOT_INFECTED, |_, state| !state.is_infected),
            Property::<Self>::always(NO_ORPHAN, |_, state| {
                let is_over =
                    |by: Ask| matches!(state.clients[by.session], Client::Over | Client::Dead);
                let lease = state.etcd.leases[RESOURCE];
                !lease.is_some_and(|held| is_over(held.by))
                    && !state.etcd.queue.iter().any(|queued| is_over(queued.by))
            }),
            Property::<Self>::always(NOT_STRANDED, |_, state| {
                let is_vacant = state.etcd.leases[RESOURCE].is_none();
                state.is_disturbed || !is_vacant || state.etcd.queue.is_empty()
            }),
            Property::<Self>::sometimes(
                "a transaction is split, where there is poison",
                |model, state| state.has_split || !model.has_poison || !model.together,
            ),
            Property::<Self>::sometimes("a release hands over", |_, state| state.has_handed_over),
            Property::<Self>::sometimes("all are served", |_, state| {
                state.clients == [Client::Over; SESSIONS] && state.faults == 0
            }),
        ]
    }
}

pub(crate) const DISJOINT: &str = "I1: no lease is taken from its holder";
pub(crate) const IN_ORDER: &str = "I11: nobody is served before who waits longer";
pub(crate) const NO_GHOST: &str = "I4: nothing is granted or queued after the outcome was told";
pub(crate) const NO_ORPHAN: &str = "I5: whoever is over or dead has neither lease nor place";
pub(crate) const NOT_STRANDED: &str = "I6: undisturbed, nobody waits for what is vacant";
pub(crate) const NOT_INFECTED: &str = "I12: no step fails for another's sake";
pub(crate) const TRUSTED: &str = "I9: nothing is granted under another generation";

#[cfg(test)]
mod tests {
    use super::{DISJOINT, IN_ORDER, NO_GHOST, NOT_STRANDED, Queue, TRUSTED, Without};
    use crate::check::{depth, holds, refuted};

    fn queue(without: Option<Without>) -> Queue {
        Queue {
            faults: depth(),
            together: false,
            has_poison: false,
            without,
        }
    }

    fn is_refuted(without: Without, property: &'static str) {
        refuted(
            &format!("queue: {without:?}"),
            queue(Some(without)),
            property,
        );
    }

    #[test]
    fn queues_and_hand_overs_hold() {
        holds("queue", queue(None));
    }

    #[test]
    fn a_late_enqueue_that_does_not_compare_the_mark_is_refuted() {
        is_refuted(Without::EnqueueMark, NO_GHOST);
    }

    #[test]
    fn an_enqueue_behind_nothing_is_refuted() {
        is_refuted(Without::EnqueueHeld, NOT_STRANDED);
    }

    #[test]
    fn a_grant_past_the_queue_is_refuted() {
        is_refuted(Without::GrantQueue, IN_ORDER);
    }

    #[test]
    fn a_grant_of_what_is_held_is_refuted() {
        is_refuted(Without::GrantVacant, DISJOINT);
    }

    #[test]
    fn a_promotion_past_who_waits_longer_is_refuted() {
        is_refuted(Without::PromotionOrder, IN_ORDER);
    }

    #[test]
    fn a_promotion_of_who_has_left_is_refuted() {
        is_refuted(Without::PromotionPlace, NO_GHOST);
    }

    #[test]
    fn a_promotion_under_another_generation_is_refuted() {
        is_refuted(Without::PromotionGeneration, TRUSTED);
    }

    #[test]
    fn a_release_of_whatever_is_held_is_refuted() {
        is_refuted(Without::ReleaseOfWhat, DISJOINT);
    }

    #[test]
    fn a_hand_over_in_two_transactions_is_refuted() {
        is_refuted(Without::HandOver, NOT_STRANDED);
    }
}
