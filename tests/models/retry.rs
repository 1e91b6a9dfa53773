//! Grants that are tried again on streams (I4): unknown outcomes, delayed copies, coordinators that are paused or gone.
//!
//! Modelled: one session with one request for one resource, and another session that may take the resource once. The
//! client opens up to `streams` streams, each with a larger epoch, each perhaps at another coordinator; it asks, gives
//! up or releases, and listens to its newest stream only. What it sends may lie before a coordinator for any time, so
//! a delayed Attach with what was sent behind it is a stream that begins late. Each transaction is in etcd's hands from
//! when it is sent until it is applied, at any later time or never; up to `unknown` outcomes are lost, before or after.
//! A coordinator that crashed is one that does nothing any more. The decisions are `decide_attach`, `decide_raise`,
//! `decide_acquire`, `decide_release`, and the stream's own `Marks`.
//!
//! Left out: queues (see `queue.rs`), several requests of one session, renewals, restores, unary calls.
//!
//! At depth 1 (two streams, two unknown outcomes): 52,703 states, 4 s of a debug build.

use palisade_coordinator::domain::{
    Acquire, AcquireStep, Acquired, Caller, HoldName, Refusal, Release, ReleaseStep,
    decide_acquire, decide_attach, decide_raise, decide_release,
};
use stateright::{Model, Property};

use crate::check::{depth, holds, refuted};
use crate::etcd::{Ask, Compare, Etcd, Mark, Txn, Write, caller, request, resource};
use crate::real::{Before, before, has_raised};

/// A weaker form of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weaker {
    /// The mark's number is chosen by coordinators, above the one that they find.
    NumberOfCoordinators,
    /// The mark is raised from the one that is found.
    RaisedAfterReread,
    /// The mark is raised once the outcome was told.
    RaisedAfterTold,
    /// Grants do not compare the mark.
    MarkNotCompared,
}

#[derive(Debug)]
struct Retry {
    streams: u8,
    unknown: u8,
    weaker: Option<Weaker>,
}

const ASK: Ask = Ask {
    resource: 0,
    session: 0,
    request: 0,
};
const OTHERS: Ask = Ask { session: 1, ..ASK };

/// What the client sends on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Message {
    Acquire,
    /// Whatever the request has come to, give it back.
    Give,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// The coordinator has not looked at it yet.
    New,
    Attaching(Mark),
    Idle,
    Works(Work),
    Over,
}

/// What a stream does for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Work {
    of: Message,
    /// What may be under way was submitted under this mark.
    stale: Option<Mark>,
    sent: Option<Sent>,
    /// It was told already; only the mark is to be raised.
    is_told: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sent {
    Raise(Mark),
    Submitted(Mark),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Stream {
    epoch: u8,
    stage: Stage,
    behind: Vec<Message>,
    present: Mark,
    /// Its next mark may be written already.
    is_raising: bool,
}

/// A transaction that was sent, and what it came to once it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Flight {
    txn: Txn,
    /// Who still waits for the answer.
    of: Option<usize>,
    done: Option<Done>,
}

/// What a transaction came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Done {
    At(u8),
    Otherwise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Client {
    Asks,
    Holds,
    Gives,
    /// It was told how its request ended.
    Over,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    etcd: Etcd,
    flights: Vec<Flight>,
    streams: Vec<Stream>,
    client: Client,
    /// How often the other session has come or gone.
    others: u8,
    unknown: u8,
    /// What was told of the request.
    told: Option<u8>,
    is_told_twice: bool,
    grants: u8,
    is_late: bool,
    /// A grant that nobody waited for any more was overtaken by a raise.
    is_overtaken: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The client opens another stream.
    Opens,
    /// The client gives its request back.
    GivesBack,
    OtherTakes,
    OtherLeaves,
    /// A stream reads etcd, decides, and sends what comes of it.
    Goes(usize),
    /// etcd applies what was sent.
    Applies(usize),
    /// The answer arrives.
    Arrives(usize),
    /// Nobody waits for the answer any more.
    Unknown(usize),
}

impl State {
    fn send(&mut self, of: usize, txn: Txn) {
        let (of, done) = (Some(of), None);
        self.flights.push(Flight { txn, of, done });
    }

    fn newest(&self) -> usize {
        self.streams.len() - 1
    }

    fn open(&mut self) {
        let epoch = u8::try_from(self.streams.len() + 1).expect("few");
        let behind = match self.client {
            Client::Asks => vec![Message::Acquire],
            Client::Gives => vec![Message::Give],
            Client::Holds | Client::Over => Vec::new(),
        };
        self.streams.push(Stream {
            epoch,
            stage: Stage::New,
            behind,
            present: Mark::default(),
            is_raising: false,
        });
    }

    fn ends(&mut self, stream: usize) {
        self.streams[stream].stage = Stage::Over;
        self.streams[stream].behind.clear();
    }

    /// What nobody waits for and can never hold again is as good as gone.
    fn forget(&mut self) {
        let etcd = &self.etcd;
        let is_dead = |compare: &Compare| match compare {
            Compare::Marked(session, written) => {
                etcd.sessions[*session].is_none_or(|now| now.written != *written)
            }
            _ => false,
        };
        let dead = self.flights.extract_if(.., |flight| {
            flight.of.is_none() && flight.txn.compares.iter().any(is_dead)
        });
        let grants = dead.filter(|flight| matches!(flight.txn.writes[0], Write::Hold { .. }));
        let is_overtaken = grants.count() > 0;
        self.is_overtaken |= is_overtaken;
        self.flights.sort();
    }

    fn tell_held(&mut self, stream: usize, token: u8) {
        self.is_told_twice |= self.told.is_some_and(|told| told != token);
        self.told = Some(token);
        if stream == self.newest() && self.client == Client::Asks {
            self.client = Client::Holds;
        }
    }

    fn tell_refused(&mut self, stream: usize) {
        if stream == self.newest() && self.client == Client::Asks {
            self.client = Client::Over;
        }
    }

    fn tell_given(&mut self, stream: usize) {
        if stream == self.newest() && self.client == Client::Gives {
            self.client = Client::Over;
        }
    }

    /// A message was answered.
    fn done(&mut self, stream: usize, work: Work, weaker: Option<Weaker>) {
        let is_settled = work.stale.is_none() || weaker != Some(Weaker::RaisedAfterTold);
        self.streams[stream].stage = match is_settled {
            true => Stage::Idle,
            false => Stage::Works(Work {
                is_told: true,
                sent: None,
                ..work
            }),
        };
    }
}

impl Retry {
    fn is(&self, weaker: Weaker) -> bool {
        self.weaker == Some(weaker)
    }

    /// A transaction that raises the session's mark from the one that was read.
    fn raise(etcd: &Etcd, to: Mark) -> Option<Txn> {
        let seen = etcd.sessions[ASK.session]?;
        Some(Txn {
            compares: vec![Compare::Marked(ASK.session, seen.written)],
            writes: vec![Write::Mark(ASK.session, to)],
        })
    }

    fn attach(&self, state: &mut State, stream: usize) {
        let nonce = u8::try_from(stream + 1).expect("few");
        let session = state.etcd.session(ASK.session);
        if self.is(Weaker::NumberOfCoordinators) {
            let found = session.as_ref().map_or(0, |session| session.mark.epoch);
            state.streams[stream].epoch = crate::etcd::small(found + 1);
        }
        let caller = caller(ASK.session, state.streams[stream].epoch, nonce);
        match decide_attach(session.as_ref(), &caller) {
            Ok(None) => {
                let found = session.map(|session| session.mark.into());
                state.streams[stream].present = found.unwrap_or_default();
                state.streams[stream].stage = Stage::Idle;
            }
            Ok(Some(mark)) => {
                state.streams[stream].stage = Stage::Attaching(mark.into());
                if let Some(txn) = Self::raise(&state.etcd, mark.into()) {
                    state.send(stream, txn);
                }
            }
            Err(_) => state.ends(stream),
        }
    }

    /// The mark to submit under; `None` where it is being raised first, or the stream has ended.
    fn mark(&self, state: &mut State, stream: usize, work: Work) -> Option<Mark> {
        let Stream {
            present,
            is_raising,
            epoch,
            ..
        } = state.streams[stream];
        let stale = work
            .stale
            .filter(|_| work.is_told || !self.is(Weaker::RaisedAfterTold));
        let (from, to) = match before(present.into(), is_raising, stale.map(Into::into)) {
            Before::Nothing(mark) => return Some(mark.into()),
            Before::Raise { from, to } => (from, to),
        };
        state.streams[stream].is_raising = true;
        let session = state.etcd.session(ASK.session);
        let mut to = Mark::from(to);
        let mut caller = caller(ASK.session, epoch, present.nonce);
        caller.mark = Some(from);
        if self.is(Weaker::RaisedAfterReread)
            && let Some(session) = &session
            && session.mark != to.into()
        {
            let found = Mark::from(session.mark);
            caller.mark = Some(session.mark);
            let sub = found.sub + 1;
            let nonce = present.nonce;
            to = Mark {
                sub,
                nonce,
                ..found
            };
        }
        match decide_raise(session.as_ref(), &caller, to.into()) {
            Ok(false) => {
                state.streams[stream].present = to;
                state.streams[stream].is_raising = false;
            }
            Ok(true) => {
                let sent = Some(Sent::Raise(to));
                state.streams[stream].stage = Stage::Works(Work { sent, ..work });
                if let Some(txn) = Self::raise(&state.etcd, to) {
                    state.send(stream, txn);
                }
            }
            Err(_) => state.ends(stream),
        }
        None
    }

    fn work(&self, state: &mut State, stream: usize, work: Work) {
        let Some(mark) = self.mark(state, stream, work) else {
            return;
        };
        if work.is_told {
            state.streams[stream].stage = Stage::Idle;
            return;
        }
        let epoch = state.streams[stream].epoch;
        let mut caller = caller(ASK.session, epoch, mark.nonce);
        caller.mark = Some(mark.into());
        let submitted = match work.of {
            Message::Acquire => self.acquire(state, stream, work, caller),
            Message::Give => self.give(state, stream, work, caller),
        };
        match submitted {
            Ok(Some(txn)) => {
                let sent = Some(Sent::Submitted(mark));
                state.streams[stream].stage = Stage::Works(Work { sent, ..work });
                state.send(stream, txn);
            }
            Ok(None) => {}
            // Its own raise overtook it: it looks again.
            Err(Refusal::Superseded { stored, .. }) if has_raised(mark.into(), stored) => {}
            Err(
                Refusal::Superseded { .. }
                | Refusal::SessionEnded { .. }
                | Refusal::NotYours { .. }
                | Refusal::EpochStale { .. },
            ) => state.ends(stream),
            Err(_) => {
                state.tell_refused(stream);
                state.done(stream, work, self.weaker);
            }
        }
    }

    fn acquire(
        &self,
        state: &mut State,
        stream: usize,
        work: Work,
        caller: Caller,
    ) -> Result<Option<Txn>, Refusal> {
        let acquire = Acquire {
            caller,
            resource: resource(ASK.resource),
            request: request(ASK.request),
            metadata: Vec::new(),
            lock_delay_ms: 0,
            waits: false,
            max_waiters: 8,
            previous: None,
        };
        let step = decide_acquire(&state.etcd.view(ASK), &acquire)?;
        let written = state.etcd.sessions[ASK.session].map_or(0, |seen| seen.written);
        match step {
            AcquireStep::Grant { .. } => {
                let mut compares = vec![
                    Compare::Vacant(ASK.resource),
                    Compare::Marked(ASK.session, written),
                    Compare::NobodyWaits(ASK.resource),
                ];
                if self.is(Weaker::MarkNotCompared) {
                    compares.remove(1);
                }
                let generation = state.etcd.generation;
                let writes = vec![Write::Hold {
                    by: ASK,
                    generation,
                }];
                Ok(Some(Txn { compares, writes }))
            }
            AcquireStep::Answer(Acquired::Held(hold)) => {
                let token = hold.token().expect("a token");
                state.tell_held(stream, crate::etcd::small(token.get()));
                state.done(stream, work, self.weaker);
                Ok(None)
            }
            other => unreachable!("nobody waits: {other:?}"),
        }
    }

    fn give(
        &self,
        state: &mut State,
        stream: usize,
        work: Work,
        caller: Caller,
    ) -> Result<Option<Txn>, Refusal> {
        let release = Release {
            caller,
            resource: resource(ASK.resource),
            hold: HoldName::Request(request(ASK.request)),
        };
        match decide_release(&state.etcd.view(ASK), &release)? {
            ReleaseStep::End { .. } => {
                let granted = state.etcd.leases[ASK.resource].map_or(0, |held| held.granted);
                let written = state.etcd.sessions[ASK.session].map_or(0, |seen| seen.written);
                Ok(Some(Txn {
                    compares: vec![
                        Compare::HeldSince(ASK.resource, granted),
                        Compare::Marked(ASK.session, written),
                        Compare::NobodyWaits(ASK.resource),
                    ],
                    writes: vec![Write::Vacate(ASK.resource)],
                }))
            }
            ReleaseStep::Answer(_) => {
                state.tell_given(stream);
                state.done(stream, work, self.weaker);
                Ok(None)
            }
            other => unreachable!("nobody waits: {other:?}"),
        }
    }

    fn go(&self, state: &mut State, stream: usize) {
        match state.streams[stream].stage {
            Stage::New => self.attach(state, stream),
            Stage::Idle => {
                let of = state.streams[stream].behind.remove(0);
                let work = Work {
                    of,
                    stale: None,
                    sent: None,
                    is_told: false,
                };
                state.streams[stream].stage = Stage::Works(work);
                self.work(state, stream, work);
            }
            Stage::Works(work) => self.work(state, stream, work),
            Stage::Attaching(_) | Stage::Over => {}
        }
    }

    fn apply(state: &mut State, flight: usize) {
        let txn = state.flights[flight].txn.clone();
        let applied = state.etcd.apply(std::slice::from_ref(&txn));
        let is_done = applied.is_ok_and(|done| done[0]);
        if is_done && matches!(txn.writes[0], Write::Hold { .. }) {
            state.grants += 1;
            state.is_late |= state.client == Client::Over;
        }
        match state.flights[flight].of {
            Some(_) => {
                state.flights[flight].done = Some(match is_done {
                    true => Done::At(state.etcd.revision),
                    false => Done::Otherwise,
                });
            }
            None => {
                state.flights.remove(flight);
            }
        }
    }

    fn arrive(&self, state: &mut State, flight: usize) {
        let Flight { of, done, .. } = state.flights.remove(flight);
        let (Some(stream), Some(done)) = (of, done) else {
            return;
        };
        match state.streams[stream].stage {
            Stage::Attaching(mark) if done != Done::Otherwise => {
                state.streams[stream].present = mark;
                state.streams[stream].stage = Stage::Idle;
            }
            Stage::Attaching(_) => state.streams[stream].stage = Stage::New,
            Stage::Works(work) => {
                let sent = work.sent;
                let work = Work { sent: None, ..work };
                state.streams[stream].stage = Stage::Works(work);
                match (sent, done) {
                    (Some(Sent::Raise(to)), Done::At(_)) => {
                        state.streams[stream].present = to;
                        state.streams[stream].is_raising = false;
                    }
                    (Some(Sent::Submitted(_)), Done::At(revision)) => {
                        self.committed(state, stream, work, revision);
                    }
                    (_, Done::Otherwise) | (None, _) => {}
                }
            }
            Stage::New | Stage::Idle | Stage::Over => {}
        }
    }

    fn committed(&self, state: &mut State, stream: usize, work: Work, revision: u8) {
        match work.of {
            // Tokens count from revision 0 here, with a base of 1.
            Message::Acquire => state.tell_held(stream, revision + 1),
            Message::Give => state.tell_given(stream),
        }
        state.done(stream, work, self.weaker);
    }

    fn unknown(state: &mut State, flight: usize) {
        state.unknown += 1;
        let Some(stream) = state.flights[flight].of.take() else {
            return;
        };
        if state.flights[flight].done.is_some() {
            state.flights.remove(flight);
        }
        match state.streams[stream].stage {
            Stage::Attaching(_) => state.streams[stream].stage = Stage::New,
            Stage::Works(work) => {
                let stale = match work.sent {
                    Some(Sent::Submitted(mark)) => Some(mark),
                    Some(Sent::Raise(_)) | None => work.stale,
                };
                let sent = None;
                state.streams[stream].stage = Stage::Works(Work {
                    stale,
                    sent,
                    ..work
                });
            }
            Stage::New | Stage::Idle | Stage::Over => {}
        }
    }
}

impl Model for Retry {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            etcd: Etcd::new(1, 2),
            flights: Vec::new(),
            streams: Vec::new(),
            client: Client::Asks,
            others: 0,
            unknown: 0,
            told: None,
            is_told_twice: false,
            grants: 0,
            is_late: false,
            is_overtaken: false,
        };
        state.open();
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.client != Client::Over && state.streams.len() < usize::from(self.streams) {
            actions.push(Action::Opens);
        }
        if matches!(state.client, Client::Asks | Client::Holds) {
            actions.push(Action::GivesBack);
        }
        let lease = state.etcd.leases[ASK.resource];
        match (state.others, lease) {
            (0, None) => actions.push(Action::OtherTakes),
            (1, Some(held)) if held.by == OTHERS => actions.push(Action::OtherLeaves),
            _ => {}
        }
        for (number, stream) in state.streams.iter().enumerate() {
            let goes = match stream.stage {
                Stage::New => true,
                Stage::Idle => !stream.behind.is_empty(),
                Stage::Works(work) => work.sent.is_none(),
                Stage::Attaching(_) | Stage::Over => false,
            };
            if goes {
                actions.push(Action::Goes(number));
            }
        }
        for (number, flight) in state.flights.iter().enumerate() {
            match flight.done {
                None => actions.push(Action::Applies(number)),
                Some(_) => actions.push(Action::Arrives(number)),
            }
            if flight.of.is_some() && state.unknown < self.unknown {
                actions.push(Action::Unknown(number));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Opens => state.open(),
            Action::GivesBack => {
                state.client = Client::Gives;
                let newest = state.newest();
                if state.streams[newest].stage != Stage::Over {
                    state.streams[newest].behind.push(Message::Give);
                }
            }
            Action::OtherTakes | Action::OtherLeaves => {
                state.others += 1;
                let writes = match action {
                    Action::OtherTakes => vec![Write::Hold {
                        by: OTHERS,
                        generation: 1,
                    }],
                    _ => vec![Write::Vacate(ASK.resource)],
                };
                let compares = Vec::new();
                state.etcd.apply(&[Txn { compares, writes }]).ok()?;
            }
            Action::Goes(stream) => self.go(&mut state, stream),
            Action::Applies(flight) => Self::apply(&mut state, flight),
            Action::Arrives(flight) => self.arrive(&mut state, flight),
            Action::Unknown(flight) => Self::unknown(&mut state, flight),
        }
        state.forget();
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(ONE_TOKEN, |_, state| !state.is_told_twice),
            Property::<Self>::always(NOT_LATE, |_, state| !state.is_late),
            Property::<Self>::always(ONE_GRANT, |_, state| state.grants <= 1),
            Property::<Self>::sometimes("a grant is told on a later stream", |_, state| {
                state.streams.len() > 1 && state.told.is_some() && state.client == Client::Over
            }),
            Property::<Self>::sometimes("a delayed copy is overtaken by a raise", |_, state| {
                state.client == Client::Over && state.is_overtaken
            }),
            Property::<Self>::sometimes("it is granted after an unknown outcome", |_, state| {
                state.unknown > 0 && state.client == Client::Holds
            }),
        ]
    }
}

const ONE_TOKEN: &str = "I4: all that is told of one request is one token";
const NOT_LATE: &str = "I4: nothing is granted after the outcome was told";
const ONE_GRANT: &str = "I4: one request is granted once";

fn retry(weaker: Option<Weaker>) -> Retry {
    Retry {
        streams: depth().saturating_add(1),
        unknown: depth().saturating_add(1),
        weaker,
    }
}

#[test]
fn a_raise_from_the_mark_written_last_holds() {
    holds("retry", retry(None));
}

#[test]
fn a_number_that_coordinators_choose_is_refuted() {
    let weaker = Some(Weaker::NumberOfCoordinators);
    refuted("retry: number of coordinators", retry(weaker), NOT_LATE);
}

#[test]
fn a_raise_after_a_reread_is_refuted() {
    let weaker = Some(Weaker::RaisedAfterReread);
    refuted("retry: raised after re-read", retry(weaker), NOT_LATE);
}

#[test]
fn a_raise_after_the_outcome_was_told_is_refuted() {
    let weaker = Some(Weaker::RaisedAfterTold);
    refuted("retry: raised after told", retry(weaker), NOT_LATE);
}

#[test]
fn a_grant_that_does_not_compare_the_mark_is_refuted() {
    let weaker = Some(Weaker::MarkNotCompared);
    refuted("retry: mark not compared", retry(weaker), NOT_LATE);
}
