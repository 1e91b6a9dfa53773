//! Whatever is asked of a ledger, in whatever order, its invariants hold.

use std::collections::{BTreeMap, BTreeSet};

use palisade_token::{FencingToken, ResourceName};
use proptest::prelude::*;

use super::*;
use crate::domain::{HoldName, Nonce, OpenId, Principal, SecretHash, Span};

const NOW: WallClock = WallClock::BUILT;
const SESSIONS: u8 = 4;
const RESOURCES: u8 = 3;
const REQUESTS: u8 = 6;

#[derive(Debug, Clone)]
enum Op {
    Open(u8),
    End(u8),
    Acquire {
        session: u8,
        resource: u8,
        request: u8,
        waits: bool,
        raises: bool,
        is_retry: bool,
    },
    ReleaseCurrent {
        session: u8,
        resource: u8,
    },
    ReleaseRequest {
        session: u8,
        resource: u8,
        request: u8,
    },
    Promote(u8),
    Advance(u16),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        2 => (0..SESSIONS).prop_map(Op::Open),
        1 => (0..SESSIONS).prop_map(Op::End),
        8 => (0..SESSIONS, 0..RESOURCES, 0..REQUESTS, any::<[bool; 3]>()).prop_map(
            |(session, resource, request, [waits, raises, is_retry])| Op::Acquire {
                session,
                resource,
                request,
                waits,
                raises,
                is_retry,
            }
        ),
        3 => (0..SESSIONS, 0..RESOURCES)
            .prop_map(|(session, resource)| Op::ReleaseCurrent { session, resource }),
        2 => (0..SESSIONS, 0..RESOURCES, 0..REQUESTS).prop_map(
            |(session, resource, request)| Op::ReleaseRequest {
                session,
                resource,
                request,
            }
        ),
        1 => (0..RESOURCES).prop_map(Op::Promote),
        1 => any::<u16>().prop_map(Op::Advance),
    ];
    prop::collection::vec(op, 1..200)
}

fn resource(number: u8) -> ResourceName {
    ResourceName::new(format!("r/{number}")).unwrap()
}

fn request(number: u8) -> RequestId {
    RequestId::new(&number.to_string()).unwrap()
}

fn opened(number: u8, opening: u8) -> Session {
    let principal = Principal::anonymous();
    let open_id = OpenId::new(&number.to_string()).unwrap();
    Session {
        id: SessionId::derive(&principal, &open_id),
        principal,
        secret: SecretHash::of(&[number]),
        label: String::new(),
        ttl_ms: 1000,
        opening: Nonce::from_bytes([opening; 16]),
        mark: AttachMark {
            epoch: 1,
            sub: 0,
            nonce: Nonce::from_bytes([0; 16]),
        },
    }
}

/// What was seen so far of one ledger.
#[derive(Debug, Default)]
struct Witness {
    ledger: Ledger,
    openings: u8,
    clock: u64,
    highest: BTreeMap<ResourceName, FencingToken>,
    /// In the order of their requests, by resource.
    waiting: BTreeMap<ResourceName, Vec<Claim>>,
}

impl Witness {
    fn new() -> Self {
        let mut witness = Self::default();
        witness.play(&Op::Advance(0));
        witness
    }

    fn caller(&self, number: u8, raises: bool, is_retry: bool) -> Caller {
        let session = opened(number, 0);
        let stored = self.ledger.session(session.id).map_or(1, |s| s.mark.epoch);
        Caller {
            session: session.id,
            principal: session.principal,
            secret: session.secret,
            epoch: stored + u64::from(raises),
            is_retry,
            process: Nonce::from_bytes([9; 16]),
            mark: None,
        }
    }

    /// Carries a plan out, change by change, and checks each.
    fn carry_out<T>(&mut self, plan: Plan<T>) -> T {
        let next = Revision(self.ledger.revision().0 + u64::from(!plan.changes.is_empty()));
        assert_eq!(plan.revision, next, "one plan is one revision");
        let mut holders = self.ledger.holds.clone();
        let mut gone = BTreeSet::new();
        for change in &plan.changes {
            match change {
                Change::DropHold(ending) => {
                    let resource = &ending.resource;
                    assert!(
                        holders.remove(resource).is_some(),
                        "ended twice: {resource}"
                    );
                }
                Change::PutHold(hold) => self.check_grant(hold, &mut holders, next),
                Change::PutPlace(place) => {
                    assert_eq!(place.since, next);
                    let queue = self
                        .waiting
                        .entry(place.claim.resource.clone())
                        .or_default();
                    queue.push(place.claim.clone());
                }
                Change::DropPlace(place) => {
                    assert!(gone.insert((place.claim.resource.clone(), place.since)));
                }
                Change::DropSession(id) => {
                    for queue in self.waiting.values_mut() {
                        queue.retain(|claim| claim.session != *id);
                    }
                }
                Change::PutSession(_)
                | Change::PutGeneration(_)
                | Change::PutDelay(..)
                | Change::DropDelay(_) => {}
            }
        }
        self.ledger.apply(plan.revision, &plan.changes);
        plan.answer
    }

    fn check_grant(
        &mut self,
        hold: &Hold,
        holders: &mut BTreeMap<ResourceName, Hold>,
        revision: Revision,
    ) {
        let name = hold.claim.resource.clone();
        assert_eq!(hold.granted, revision);
        let token = hold.token().expect("what is granted has a token");
        let highest = self.highest.insert(name.clone(), token);
        assert!(Some(token) > highest, "I3: {token} after {highest:?}");
        let other = holders.insert(name.clone(), hold.clone());
        assert_eq!(other, None, "I1: granted over a lease");
        let queue = self.waiting.entry(name).or_default();
        if !queue.is_empty() {
            assert_eq!(queue.remove(0), hold.claim, "I11: out of turn");
        }
    }

    fn check(&self) {
        let ledger = &self.ledger;
        let lives = |claim: &Claim| ledger.session(claim.session).is_some();
        for hold in ledger.holds.values() {
            assert!(lives(&hold.claim), "I5: a lease of an ended session");
        }
        for (name, queue) in &ledger.queues {
            assert!(!queue.is_empty(), "I13: an empty queue is kept");
            assert!(ledger.holds.contains_key(name), "vacant, and awaited");
            let claims: Vec<_> = queue.values().map(|place| place.claim.clone()).collect();
            assert!(claims.iter().all(lives), "I5: a place of an ended session");
            assert_eq!(Some(&claims), self.waiting.get(name), "I11");
            let mut requests = BTreeSet::new();
            for claim in &claims {
                let is_new = requests.insert((claim.session, claim.request.clone()));
                assert!(is_new, "I4: two places of one request");
            }
        }
        assert_eq!(*ledger, copy(ledger), "what is written can be read back");
    }

    fn play(&mut self, op: &Op) {
        match *op {
            Op::Open(number) => {
                self.openings = self.openings.wrapping_add(1);
                let session = opened(number, self.openings);
                let plan = self.ledger.plan_open(&session).unwrap();
                let open = self.carry_out(plan);
                assert_eq!(self.ledger.session(session.id), Some(&open));
            }
            Op::End(number) => {
                let plan =
                    self.ledger
                        .plan_end_session(opened(number, 0).id, LeaseEnd::Expired, NOW);
                self.carry_out(plan);
            }
            Op::Acquire {
                session,
                resource: name,
                request: id,
                waits,
                raises,
                is_retry,
            } => {
                let wish = Acquire {
                    caller: self.caller(session, raises, is_retry),
                    resource: resource(name),
                    request: request(id),
                    metadata: Vec::new(),
                    waits,
                    max_waiters: 3,
                    previous: None,
                    lock_delay_ms: 0,
                };
                self.acquire(&wish);
            }
            Op::ReleaseCurrent {
                session,
                resource: name,
            } => {
                let current = self.ledger.lease(&resource(name)).0.and_then(Hold::token);
                if let Some(token) = current {
                    self.release(session, name, HoldName::Token(token));
                }
            }
            Op::ReleaseRequest {
                session,
                resource: name,
                request: id,
            } => self.release(session, name, HoldName::Request(request(id))),
            Op::Promote(name) => {
                let plan = self.ledger.plan_promotion(&resource(name), NOW);
                assert_eq!(plan.changes, [], "every end hands over already");
                self.carry_out(plan);
            }
            Op::Advance(later) => {
                self.clock += u64::from(later);
                let span = Span {
                    revision: self.ledger.revision(),
                    past: None,
                    is_forced: false,
                    nonce: Nonce::from_bytes([4; 16]),
                };
                let clock = WallClock(WallClock::BUILT.0 + self.clock);
                let old = self.ledger.generation();
                let made = Generation::after(old.as_ref(), span, clock).unwrap();
                let plan = self.ledger.plan_generation(made);
                self.carry_out(plan);
            }
        }
    }

    fn acquire(&mut self, wish: &Acquire) {
        let session = wish.caller.session;
        let before = self.ledger.standing(session, &wish.resource, &wish.request);
        let plan = self.ledger.plan_acquire(wish, NOW).unwrap();
        let answer = self.carry_out(plan);
        let now = self.ledger.standing(session, &wish.resource, &wish.request);
        match answer {
            Ok(told) => {
                assert_eq!(now, Some(told.clone()), "what is told is so");
                if before.is_some() {
                    assert_eq!(before, Some(told), "I4: asked again, and another answer");
                }
                // I4: a copy at the same epoch changes nothing more.
                let mut copy = wish.clone();
                copy.caller.is_retry = false;
                let again = self.ledger.plan_acquire(&copy, NOW).unwrap();
                assert_eq!(again.changes, []);
                assert_eq!(again.answer.ok(), now);
            }
            Err(Refusal::EpochStale { .. }) => {
                assert!(wish.caller.is_retry, "the epoch was not too low");
                assert_eq!(now, before, "refused, and yet it changed something");
            }
            Err(_) => {
                // I4: what was told as refused comes to nothing later.
                assert_eq!(now, None, "refused, and yet it holds or waits");
                self.waited_no_more(&wish.resource, session, &wish.request);
            }
        }
    }

    fn release(&mut self, number: u8, name: u8, hold: HoldName) {
        let release = Release {
            caller: self.caller(number, false, false),
            resource: resource(name),
            hold,
        };
        let session = release.caller.session;
        let before = self.ledger.lease(&release.resource).0.cloned();
        let plan = self.ledger.plan_release(&release, NOW);
        if let (Ok(Released::Place { .. }), HoldName::Request(request)) =
            (&plan.answer, &release.hold)
        {
            self.waited_no_more(&release.resource, session, request);
        }
        match self.carry_out(plan) {
            Ok(Released::Lease { hold: ended, .. }) => {
                assert_eq!(ended.claim.session, session);
                assert_eq!(Some(ended), before);
            }
            Ok(Released::Place { .. } | Released::NotHeld(_)) | Err(_) => {
                let now = self.ledger.lease(&release.resource).0.cloned();
                assert_eq!(now, before, "nothing was released, and yet it ended");
            }
        }
    }

    fn waited_no_more(&mut self, name: &ResourceName, session: SessionId, request: &RequestId) {
        if let Some(queue) = self.waiting.get_mut(name) {
            queue.retain(|claim| !claim.is_of(session, request));
        }
    }
}

/// The same ledger, made of what a store would have written.
fn copy(ledger: &Ledger) -> Ledger {
    let mut changes: Vec<_> = ledger
        .generation
        .map(Change::PutGeneration)
        .into_iter()
        .collect();
    changes.extend(ledger.sessions().cloned().map(Change::PutSession));
    changes.extend(ledger.holds.values().cloned().map(Change::PutHold));
    let places = ledger.queues.values().flat_map(BTreeMap::values);
    changes.extend(places.cloned().map(Change::PutPlace));
    let mut copy = Ledger::at(ledger.revision());
    copy.apply(ledger.revision(), &changes);
    copy
}

proptest! {
    /// I1, I3, I4, I5, I11, I13.
    #[test]
    fn the_invariants_hold_in_any_order(ops in ops()) {
        let mut witness = Witness::new();
        for op in &ops {
            witness.play(op);
            witness.check();
        }
    }
}

/// I9: without a generation nothing is granted, and what ends is given back all the same.
#[test]
fn nothing_is_granted_without_a_generation() {
    let mut ledger = Ledger::default();
    let session = opened(1, 1);
    let plan = ledger.plan_open(&session).unwrap();
    ledger.apply(plan.revision, &plan.changes);
    let wish = Acquire {
        caller: Caller {
            session: session.id,
            principal: session.principal,
            secret: session.secret,
            epoch: 1,
            is_retry: false,
            process: Nonce::from_bytes([9; 16]),
            mark: None,
        },
        resource: resource(1),
        request: request(1),
        metadata: Vec::new(),
        waits: true,
        max_waiters: 3,
        previous: None,
        lock_delay_ms: 0,
    };
    assert_eq!(ledger.plan_acquire(&wish, NOW), None);
}
