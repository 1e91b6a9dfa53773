//! What each step rests on, case by case.

use palisade_token::{FencingToken, ResourceName};

use super::*;
use crate::domain::{Generation, GrantNote, OpenId, Revision};

const PROCESS: Nonce = Nonce::from_bytes([7; 16]);

fn session(name: &str) -> Session {
    let principal = Principal::anonymous();
    Session {
        id: SessionId::derive(&principal, &OpenId::new(name).unwrap()),
        principal,
        secret: SecretHash::of(name.as_bytes()),
        label: name.to_owned(),
        ttl_ms: 1000,
        opening: Nonce::from_bytes([1; 16]),
        mark: AttachMark {
            epoch: 5,
            sub: 3,
            nonce: Nonce::from_bytes([2; 16]),
        },
    }
}

fn caller(session: &Session, epoch: u64) -> Caller {
    Caller {
        session: session.id,
        principal: session.principal.clone(),
        secret: session.secret,
        epoch,
        is_retry: false,
        process: PROCESS,
        mark: None,
    }
}

fn request(id: &str) -> RequestId {
    RequestId::new(id).unwrap()
}

fn resource() -> ResourceName {
    ResourceName::new("r").unwrap()
}

fn claim_of(session: &Session, id: &str) -> Claim {
    Claim::new(session, resource(), request(id), Vec::new())
}

fn hold(session: &Session, id: &str) -> Hold {
    Hold {
        claim: claim_of(session, id),
        generation: Generation {
            nonce: Nonce::from_bytes([3; 16]),
            base: 1000,
            since_revision: Revision(10),
        },
        granted: Revision(20),
        note: GrantNote::default(),
    }
}

fn place(session: &Session, id: &str, since: u64) -> Place {
    Place {
        claim: claim_of(session, id),
        since: Revision(since),
    }
}

fn wish(session: &Session, id: &str, waits: bool) -> Acquire {
    Acquire {
        caller: caller(session, 5),
        resource: resource(),
        request: request(id),
        metadata: Vec::new(),
        waits,
        max_waiters: 2,
        previous: None,
        lock_delay_ms: 0,
    }
}

fn view(session: &Session) -> View {
    View {
        session: Some(session.clone()),
        ..View::default()
    }
}

fn by_token(session: &Session, token: u64) -> Release {
    Release {
        caller: caller(session, 5),
        resource: resource(),
        hold: HoldName::Token(FencingToken::new(token).unwrap()),
    }
}

fn by_request(session: &Session, id: &str) -> Release {
    Release {
        caller: caller(session, 5),
        resource: resource(),
        hold: HoldName::Request(request(id)),
    }
}

/// The epoch that is stored serves calls, not retries: those need a larger one.
#[test]
fn who_is_admitted() {
    let mine = session("mine");
    let id = mine.id;
    let mut thief = caller(&mine, 5);
    thief.secret = SecretHash::of(b"guessed");
    let mut namesake = caller(&mine, 5);
    namesake.principal = Principal::named("another");
    let retry = |epoch| Caller {
        is_retry: true,
        ..caller(&mine, epoch)
    };
    let stale = |given| Refusal::EpochStale { given, stored: 5 };
    let cases = [
        (caller(&mine, 5), None),
        (caller(&mine, 6), None),
        (retry(6), None),
        (retry(6).having_raised(), None),
        (caller(&mine, 4), Some(stale(4))),
        (retry(5), Some(stale(5))),
        (thief, Some(Refusal::NotYours { session: id })),
        (namesake, Some(Refusal::NotYours { session: id })),
    ];
    for (who, refused) in cases {
        assert_eq!(admit(Some(&mine), &who).err(), refused, "{who:?}");
    }
    let ended = Some(Refusal::SessionEnded { session: id });
    assert_eq!(admit(None, &caller(&mine, 5)).err(), ended);
}

/// Before anything else, a larger epoch goes into the mark, under the name of this process.
#[test]
fn a_larger_epoch_is_raised_first() {
    let mine = session("mine");
    let mark = AttachMark {
        epoch: 6,
        sub: 0,
        nonce: PROCESS,
    };
    let mut acquire = wish(&mine, "1", false);
    acquire.caller.epoch = 6;
    let mut seen = view(&mine);
    seen.hold = Some(hold(&mine, "1"));
    assert_eq!(
        decide_acquire(&seen, &acquire),
        Ok(AcquireStep::Raise(mark))
    );
    let mut release = by_request(&mine, "1");
    release.caller.epoch = 6;
    assert_eq!(
        decide_release(&seen, &release),
        Ok(ReleaseStep::Raise(mark))
    );
}

#[test]
fn what_is_free_is_granted() {
    let mine = session("mine");
    let grant = |place| {
        Ok(AcquireStep::Grant {
            claim: claim_of(&mine, "1"),
            place,
        })
    };
    assert_eq!(
        decide_acquire(&view(&mine), &wish(&mine, "1", false)),
        grant(None)
    );
    assert_eq!(
        decide_acquire(&view(&mine), &wish(&mine, "1", true)),
        grant(None)
    );
    // I11: with a queue, only to its head.
    let own = place(&mine, "1", 11);
    let mut seen = view(&mine);
    seen.waiters = 1;
    seen.own_place = Some(own.clone());
    seen.head = Some(own.clone());
    for waits in [false, true] {
        let step = decide_acquire(&seen, &wish(&mine, "1", waits));
        assert_eq!(step, grant(Some(own.clone())));
    }
    let other = session("other");
    seen.head = Some(place(&other, "1", 10));
    let step = decide_acquire(&seen, &wish(&mine, "1", true));
    assert_eq!(step, Ok(AcquireStep::Answer(Acquired::Queued(own.clone()))));
    let step = decide_acquire(&seen, &wish(&mine, "1", false));
    assert_eq!(step, Ok(AcquireStep::Leave(own)));
    seen.own_place = None;
    let step = decide_acquire(&seen, &wish(&mine, "1", true));
    assert_eq!(step, Ok(AcquireStep::Enqueue(claim_of(&mine, "1"))));
    let step = decide_acquire(&seen, &wish(&mine, "1", false));
    assert_eq!(step, Err(Refusal::LeaseHeld { token: None }));
}

#[test]
fn what_is_held_is_not_granted() {
    let mine = session("mine");
    let other = session("other");
    let others = hold(&other, "1");
    let token = others.token();
    let mut seen = view(&mine);
    seen.hold = Some(others);
    // The other session's request of the same id is another request.
    let step = decide_acquire(&seen, &wish(&mine, "1", false));
    assert_eq!(step, Err(Refusal::LeaseHeld { token }));
    let step = decide_acquire(&seen, &wish(&mine, "1", true));
    assert_eq!(step, Ok(AcquireStep::Enqueue(claim_of(&mine, "1"))));
    seen.waiters = 2;
    let limit = Refusal::LimitReached {
        limit: "waiters per resource",
        bound: 2,
    };
    assert_eq!(decide_acquire(&seen, &wish(&mine, "1", true)), Err(limit));
    seen.own_place = Some(place(&mine, "1", 12));
    let queued = Acquired::Queued(place(&mine, "1", 12));
    let step = decide_acquire(&seen, &wish(&mine, "1", true));
    assert_eq!(step, Ok(AcquireStep::Answer(queued)));
}

#[test]
fn what_is_mine_is_said_again() {
    let mine = session("mine");
    let own = hold(&mine, "1");
    let mut seen = view(&mine);
    seen.hold = Some(own.clone());
    let step = decide_acquire(&seen, &wish(&mine, "1", false));
    assert_eq!(step, Ok(AcquireStep::Answer(Acquired::Held(own.clone()))));
    let already = Refusal::AlreadyHeld {
        request: request("1"),
        token: own.token().unwrap(),
    };
    assert_eq!(decide_acquire(&seen, &wish(&mine, "2", true)), Err(already));
    // A request that waits beside it is over, so that it is not served after it was refused (I4).
    seen.own_place = Some(place(&mine, "2", 30));
    for waits in [false, true] {
        let step = decide_acquire(&seen, &wish(&mine, "2", waits));
        assert_eq!(step, Ok(AcquireStep::Leave(place(&mine, "2", 30))));
    }
    seen.own_place = None;
    let mut other = wish(&mine, "1", false);
    other.metadata = b"other".to_vec();
    let mismatch = Refusal::RequestMismatch {
        request: request("1"),
        field: "metadata",
    };
    assert_eq!(decide_acquire(&seen, &other), Err(mismatch));
}

#[test]
fn a_release_by_token_ends_that_lease_only() {
    let mine = session("mine");
    let other = session("other");
    let next = place(&other, "9", 21);
    let own = hold(&mine, "1");
    let current = own.token().unwrap();
    assert_eq!(current.get(), 1010);
    let mut seen = view(&mine);
    let not_held = Ok(ReleaseStep::Answer(Released::NotHeld(None)));
    assert_eq!(decide_release(&seen, &by_token(&mine, 1010)), not_held);
    seen.hold = Some(own.clone());
    for successor in [None, Some(next)] {
        seen.head = successor.clone();
        let end = ReleaseStep::End {
            hold: own.clone(),
            successor,
        };
        assert_eq!(decide_release(&seen, &by_token(&mine, 1010)), Ok(end));
    }
    assert_eq!(decide_release(&seen, &by_token(&mine, 1009)), not_held);
    let stale = |given| {
        Err(Refusal::StaleToken {
            given: FencingToken::new(given).unwrap(),
            current: Some(current),
        })
    };
    assert_eq!(decide_release(&seen, &by_token(&mine, 1011)), stale(1011));
    let mut others = seen;
    others.session = Some(other.clone());
    assert_eq!(
        decide_release(&others, &by_token(&other, 1010)),
        stale(1010)
    );
    assert_eq!(decide_release(&others, &by_token(&other, 1009)), not_held);
}

#[test]
fn a_release_by_request_ends_what_it_came_to() {
    let mine = session("mine");
    let other = session("other");
    let mut seen = view(&mine);
    let not_held = Ok(ReleaseStep::Answer(Released::NotHeld(None)));
    assert_eq!(decide_release(&seen, &by_request(&mine, "1")), not_held);
    seen.hold = Some(hold(&other, "1"));
    assert_eq!(decide_release(&seen, &by_request(&mine, "1")), not_held);
    seen.own_place = Some(place(&mine, "1", 30));
    let leave = ReleaseStep::Leave(place(&mine, "1", 30));
    assert_eq!(decide_release(&seen, &by_request(&mine, "1")), Ok(leave));
    seen.own_place = None;
    seen.hold = Some(hold(&mine, "1"));
    let end = ReleaseStep::End {
        hold: hold(&mine, "1"),
        successor: None,
    };
    assert_eq!(decide_release(&seen, &by_request(&mine, "1")), Ok(end));
    assert_eq!(decide_release(&seen, &by_request(&mine, "2")), not_held);
}

#[test]
fn only_what_is_vacant_and_awaited_is_promoted() {
    let mine = session("mine");
    let head = place(&mine, "1", 30);
    let mut seen = View::default();
    assert_eq!(decide_promotion(&seen), PromoteStep::Nothing);
    seen.head = Some(head.clone());
    assert_eq!(decide_promotion(&seen), PromoteStep::Grant(&head));
    seen.hold = Some(hold(&mine, "2"));
    assert_eq!(decide_promotion(&seen), PromoteStep::Nothing);
}

#[test]
fn an_unclean_end_is_closed_before_anybody_is_granted_anything() {
    let (dead, mine) = (session("dead"), session("mine"));
    let mut ended = hold(&dead, "1");
    ended.claim.lock_delay_ms = 1000;
    let last = Last::of(&ended).unwrap();
    let mut seen = View {
        session: Some(mine.clone()),
        delay: Some(Delay {
            last: last.clone(),
            is_running: false,
        }),
        ..View::default()
    };
    let (tries, waits) = (wish(&mine, "2", false), wish(&mine, "2", true));
    let begins = Ok(AcquireStep::BeginDelay(last.clone()));
    assert_eq!(decide_acquire(&seen, &tries), begins);
    assert_eq!(decide_promotion(&seen), PromoteStep::BeginDelay(&last));

    let begun = last.begun();
    assert_eq!(
        begun.end,
        Some(LeaseEnd::Expired),
        "nobody wrote down another end"
    );
    seen.delay = Some(Delay {
        last: begun.clone(),
        is_running: true,
    });
    let refused = Err(Refusal::LeaseHeld { token: None });
    assert_eq!(decide_acquire(&seen, &tries), refused);
    let step = decide_acquire(&seen, &waits);
    assert!(matches!(step, Ok(AcquireStep::Enqueue(_))), "{step:?}");
    seen.head = Some(place(&mine, "3", 30));
    assert_eq!(decide_promotion(&seen), PromoteStep::Nothing);

    seen.head = None;
    seen.delay = Some(Delay {
        last: begun,
        is_running: false,
    });
    let step = decide_acquire(&seen, &tries);
    assert!(matches!(step, Ok(AcquireStep::Grant { .. })), "{step:?}");
}

/// A session goes over to a new stream only by a larger epoch: a delayed copy of an older Attach takes nothing (I4).
#[test]
fn only_a_larger_epoch_makes_a_stream_the_sessions_own() {
    let mine = session("mine");
    let to = |epoch| AttachMark {
        epoch,
        sub: 0,
        nonce: PROCESS,
    };
    let stale = |given| Refusal::EpochStale { given, stored: 5 };
    let cases = [
        (6, Ok(Some(to(6)))),
        (5, Err(stale(5))),
        (4, Err(stale(4))),
        (0, Err(stale(0))),
    ];
    for (epoch, expected) in cases {
        let decided = decide_attach(Some(&mine), &caller(&mine, epoch));
        assert_eq!(decided, expected, "{epoch}");
    }
    // Its own first try has raised it.
    let raised = Session {
        mark: to(5),
        ..mine.clone()
    };
    assert_eq!(decide_attach(Some(&raised), &caller(&mine, 5)), Ok(None));
    let thief = Caller {
        secret: SecretHash::of(b"guessed"),
        ..caller(&mine, 6)
    };
    let not_yours = Refusal::NotYours { session: mine.id };
    assert_eq!(decide_attach(Some(&mine), &thief), Err(not_yours));
}

/// A stream goes on from the mark that it wrote last, and from no other, however large its epoch is (I4).
#[test]
fn a_stream_raises_from_its_own_mark_and_writes_under_it_alone() {
    let mine = session("mine");
    let own = mine.mark;
    let next = AttachMark { sub: 4, ..own };
    let another = AttachMark {
        nonce: PROCESS,
        ..own
    };
    let of_stream = |mark| Caller {
        mark: Some(mark),
        ..caller(&mine, 5)
    };
    let superseded = Refusal::Superseded {
        session: mine.id,
        stored: own,
    };
    let raise = |mark, to| decide_raise(Some(&mine), &of_stream(mark), to);
    assert_eq!(raise(own, next), Ok(true));
    assert_eq!(raise(own, own), Ok(false), "it is done");
    assert_eq!(raise(another, next), Err(superseded.clone()));
    assert_eq!(raise(next, another), Err(superseded.clone()));

    assert_eq!(admit(Some(&mine), &of_stream(own)).err(), None);
    for mark in [another, next, AttachMark { epoch: 6, ..own }] {
        let refused = admit(Some(&mine), &of_stream(mark)).err();
        assert_eq!(refused, Some(superseded.clone()), "{mark:?}");
    }
    // Its writes compare its mark: they never raise one.
    let late = Caller {
        epoch: 6,
        ..of_stream(own)
    };
    let acquire = Acquire {
        caller: late.clone(),
        ..wish(&mine, "1", false)
    };
    let step = decide_acquire(&view(&mine), &acquire);
    assert!(matches!(step, Ok(AcquireStep::Grant { .. })), "{step:?}");
    let release = Release {
        caller: late,
        ..by_request(&mine, "1")
    };
    let nothing = Ok(ReleaseStep::Answer(Released::NotHeld(None)));
    assert_eq!(decide_release(&view(&mine), &release), nothing);
    // A release is admitted by the same rules.
    let release = Release {
        caller: of_stream(another),
        ..by_request(&mine, "1")
    };
    assert_eq!(decide_release(&view(&mine), &release), Err(superseded));
}

/// Another try asks for the same: a request is named once. How long it waits may differ, and another request asks
/// for what it likes.
#[test]
fn another_try_of_a_request_asks_for_the_same() {
    let mine = session("mine");
    let mut held = view(&mine);
    held.hold = Some(hold(&mine, "1"));
    let mut queued = view(&mine);
    queued.hold = Some(hold(&session("other"), "9"));
    queued.own_place = Some(place(&mine, "1", 30));
    let of_metadata = Acquire {
        metadata: b"other".to_vec(),
        ..wish(&mine, "1", true)
    };
    let of_delay = Acquire {
        lock_delay_ms: 1,
        ..wish(&mine, "1", true)
    };
    for seen in [&held, &queued] {
        for (acquire, field) in [(&of_metadata, "metadata"), (&of_delay, "lock_delay_ms")] {
            let request = request("1");
            let mismatch = Refusal::RequestMismatch { request, field };
            assert_eq!(decide_acquire(seen, acquire), Err(mismatch));
        }
        let again = decide_acquire(seen, &wish(&mine, "1", true));
        assert!(matches!(again, Ok(AcquireStep::Answer(_))), "{again:?}");
    }
    let others = Acquire {
        request: request("2"),
        ..of_metadata
    };
    queued.own_place = None;
    let claim = claim_of(&mine, "2");
    let claim = Claim {
        metadata: b"other".to_vec(),
        ..claim
    };
    let step = decide_acquire(&queued, &others);
    assert_eq!(step, Ok(AcquireStep::Enqueue(claim)));
    // What is asked for is what is granted.
    let step = decide_acquire(&view(&mine), &of_delay);
    let claim = claim_of(&mine, "1").with_lock_delay(1);
    assert_eq!(step, Ok(AcquireStep::Grant { claim, place: None }));
}
