//! What is told of what happens, and operators who end leases.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;

use super::client::{held, resource, token};
use super::sessions::refusal;
use super::{Fixture, TAKEOVER};
use crate::clock::{Clock, within};
use crate::domain::{
    AskBack, Batch, Ended, Event, Hold, HoldName, LeaseEnd, Notice, Previous, Principal, Refusal,
    Revision, Revoke, Revoked,
};
use crate::store::{Events, Store};

/// Somebody who watches, and sees to it that what is shown is in order.
struct Watcher {
    events: Events,
    clock: Arc<dyn Clock>,
    last: Revision,
    ready: VecDeque<Batch>,
}

fn rank(event: &Event) -> u8 {
    match event {
        Event::Ended(_) => 0,
        Event::Granted(_) => 1,
        Event::Vacant { .. } => 2,
        _ => 3,
    }
}

impl Watcher {
    async fn new(fixture: &Fixture, store: &Arc<dyn Store>) -> Self {
        let mut watcher = Self {
            events: store.watch().await.unwrap(),
            clock: Arc::clone(&fixture.clock),
            last: Revision::default(),
            ready: VecDeque::new(),
        };
        assert_eq!(*watcher.read().await, [Event::Resync]);
        let next = watcher.read().await;
        let [Event::Bookmark(revision)] = *next else {
            panic!("it is not told from where on: {next:?}");
        };
        watcher.last = revision;
        watcher
    }

    async fn read(&mut self) -> Batch {
        let read = within(&self.clock, TAKEOVER * 20, self.events.next());
        read.await
            .expect("events come")
            .expect("the watch goes on")
            .expect("the watch does not fail")
    }

    /// All of the next revision.
    async fn next(&mut self) -> Vec<Event> {
        if let Some(ready) = self.ready.pop_front() {
            return ready.to_vec();
        }
        let batch = self.read().await;
        let revision = batch[0].revision().expect("nothing was missed");
        let of_one = batch.iter().all(|event| event.revision() == Some(revision));
        assert!(of_one, "one revision at a time: {batch:?}");
        let is_notice = matches!(batch[0], Event::Asked(_) | Event::Declined { .. });
        assert!(revision > self.last || is_notice, "shown twice: {batch:?}");
        self.last = self.last.max(revision);
        assert!(batch.is_sorted_by_key(rank), "out of order: {batch:?}");
        batch.to_vec()
    }

    async fn sees_grant(&mut self, hold: &Hold) {
        let [Event::Granted(granted)] = &self.next().await[..] else {
            panic!("a grant was expected");
        };
        assert_eq!(granted.hold(), Some(hold));
        assert_eq!(granted.session(), hold.claim.session);
    }

    /// The end of a lease that nobody got after it.
    async fn sees_end(&mut self, name: &str) -> Ended {
        let events = self.next().await;
        let [Event::Ended(ended), Event::Vacant { resource, revision }] = &events[..] else {
            panic!("an end was expected: {events:?}");
        };
        assert_eq!((resource.as_str(), *revision), (name, ended.revision));
        assert_eq!(ended.resource.as_str(), name);
        ended.clone()
    }

    /// The end of a lease, and who got the resource.
    async fn sees_hand_over(&mut self, name: &str) -> (Ended, Hold) {
        let events = self.next().await;
        let [Event::Ended(ended), Event::Granted(granted)] = &events[..] else {
            panic!("a hand-over was expected: {events:?}");
        };
        assert_eq!(ended.resource.as_str(), name);
        let hold = granted.hold().expect("it can be read");
        assert_eq!(hold.granted, ended.revision);
        (ended.clone(), hold.clone())
    }

    async fn sees_notice(&mut self) -> Notice {
        match &self.next().await[..] {
            [Event::Asked(notice)] => notice.clone(),
            other => panic!("a notice was expected: {other:?}"),
        }
    }
}

/// Every grant and every end is shown once, in the order of the log, with how it ended.
pub(super) async fn a_watch_shows_what_happens(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let client = fixture.client("client").await;
    let heir = fixture.client("heir").await;
    let mut watcher = Watcher::new(&fixture, &another).await;
    let first = client.take("r", "1").await;
    watcher.sees_grant(&first).await;
    client.give_back(&first).await;
    assert_eq!(watcher.sees_end("r").await.end, Some(LeaseEnd::Released));
    let second = client.take("r", "2").await;
    watcher.sees_grant(&second).await;
    heir.queue("r", "1").await;
    client.give_back(&second).await;
    let (ended, third) = watcher.sees_hand_over("r").await;
    assert_eq!(ended.end, Some(LeaseEnd::Released));
    assert_eq!(held(heir.acquire("r", "1").await.unwrap()), third);
    assert!(token(&third) > token(&second));
    // What a queue does is nobody else's news: the next thing seen is the next end.
    client.queue("r", "3").await;
    let left = HoldName::Request(super::client::request("3"));
    client.release("r", left).await.unwrap();
    heir.give_back(&third).await;
    watcher.sees_end("r").await;
    // A session that is closed releases what it holds.
    let last = heir.take("r", "2").await;
    watcher.sees_grant(&last).await;
    heir.close().await.unwrap();
    assert_eq!(watcher.sees_end("r").await.end, Some(LeaseEnd::Released));
}

/// An heir knows for certain how the lease before ended.
pub(super) async fn a_hand_over_tells_how_the_lease_before_ended(fixture: Fixture) {
    let (holder, heir) = (fixture.client("holder").await, fixture.client("heir").await);
    let hold = holder.take("r", "1").await;
    assert_eq!(hold.note.previous, None);
    assert!(hold.note.granted_unix_ms > 0);
    heir.queue("r", "1").await;
    holder.give_back(&hold).await;
    let next = held(heir.acquire("r", "1").await.unwrap());
    let previous = Previous {
        end: LeaseEnd::Released,
        token: Some(token(&hold)),
        reason: String::new(),
        label: hold.claim.label.clone(),
    };
    assert_eq!(next.note.previous, Some(previous.clone()));
    heir.give_back(&next).await;
    let mut told = holder.wish("r", "2", false);
    told.previous = Some(previous);
    let told = held(fixture.store.acquire(&told).await.unwrap());
    assert_eq!(
        told.note.previous.as_ref().unwrap().token,
        Some(token(&hold))
    );
    // Asked again, it is the same answer, whatever is known by then.
    assert_eq!(holder.take("r", "2").await, told);
}

/// I5, I6: what ends with its session is shown as expired, through whichever coordinator.
pub(super) async fn a_watch_tells_the_dead_from_the_released(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let dead = fixture.short_lived("dead").await;
    let alive = fixture.client("alive").await;
    let mut watcher = Watcher::new(&fixture, &another).await;
    let mut hold = dead.take("r", "1").await;
    watcher.sees_grant(&hold).await;
    let mut released = 0;
    // Others go on meanwhile: their ends are not taken for that of the dead.
    let ended = loop {
        let busy = alive.take("busy", &released.to_string()).await;
        alive.give_back(&busy).await;
        released += 1;
        let mut ended = None;
        loop {
            let events = watcher.next().await;
            let Event::Ended(end) = &events[0] else {
                continue;
            };
            if end.resource == resource("r") {
                ended = Some(end.clone());
            } else {
                assert_eq!(end.end, Some(LeaseEnd::Released));
                break;
            }
        }
        if let Some(ended) = ended {
            break ended;
        }
    };
    assert_eq!(ended.end, Some(LeaseEnd::Expired));
    hold = alive.take("r", "1").await;
    assert!(hold.granted > ended.revision);
}

fn revoke(hold: &Hold) -> Revoke {
    Revoke {
        resource: hold.claim.resource.clone(),
        token: token(hold),
        reason: "it hangs".to_owned(),
        actor: "an operator".to_owned(),
        principal: Principal::anonymous(),
    }
}

/// An operator ends the lease that is named and no other; the next in the queue gets the resource in the same
/// transaction, and all are told why.
pub(super) async fn an_operator_ends_a_lease(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let (holder, heir) = (fixture.client("holder").await, fixture.client("heir").await);
    let before = holder.take("r", "0").await;
    holder.give_back(&before).await;
    let hold = holder.take("r", "1").await;
    let old = fixture.store.revoke(&revoke(&before)).await.unwrap();
    assert_eq!(old, Revoked::NotHeld);
    heir.queue("r", "1").await;
    let mut watcher = Watcher::new(&fixture, &another).await;
    let ended = another.revoke(&revoke(&hold)).await.unwrap();
    let Revoked::Lease { hold: gone, ended } = ended else {
        panic!("it was held, and yet: {ended:?}");
    };
    assert_eq!(gone, hold);
    let (shown, next) = watcher.sees_hand_over("r").await;
    assert_eq!(
        (shown.end, shown.revision),
        (Some(LeaseEnd::Revoked), ended)
    );
    assert_eq!(
        (shown.reason.as_str(), shown.actor.as_str()),
        ("it hangs", "an operator")
    );
    assert_eq!(shown.token(), Some(token(&hold)));
    let previous = Previous::of(&hold, LeaseEnd::Revoked, "it hangs");
    assert_eq!(shown.previous(), Some(previous.clone()));
    assert_eq!(next.note.previous, Some(previous));
    assert_eq!(held(heir.acquire("r", "1").await.unwrap()), next);
    let late = holder.release("r", HoldName::Token(token(&hold))).await;
    assert!(
        matches!(late, Ok(crate::domain::Released::NotHeld(_))),
        "{late:?}"
    );
    // Its session lives on.
    holder.renew().await.unwrap();
    let again = fixture.store.revoke(&revoke(&hold)).await.unwrap();
    assert_eq!(again, Revoked::NotHeld);
    let ended = fixture.store.revoke(&revoke(&next)).await.unwrap();
    assert!(matches!(ended, Revoked::Lease { .. }));
    assert_eq!(watcher.sees_end("r").await.end, Some(LeaseEnd::Revoked));
    let last = holder.take("r", "2").await;
    watcher.sees_grant(&last).await;
    let never = Revoke {
        token: palisade_token::FencingToken::new(token(&last).get() + 1).unwrap(),
        ..revoke(&last)
    };
    let stale = Refusal::StaleToken {
        given: never.token,
        current: Some(token(&last)),
    };
    assert_eq!(refusal(fixture.store.revoke(&never).await), stale);
    holder.give_back(&last).await;
    assert_eq!(
        fixture.store.revoke(&never).await.unwrap(),
        Revoked::NotHeld
    );
    // A release after a revocation is a release.
    assert_eq!(watcher.sees_end("r").await.end, Some(LeaseEnd::Released));
}

/// A holder is told that its lease is wanted back, whichever coordinator asks, and may say no.
pub(super) async fn a_holder_is_asked_for_its_lease(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let holder = fixture.client("holder").await;
    let hold = holder.take("r", "1").await;
    let mut watcher = Watcher::new(&fixture, &another).await;
    let ask = AskBack {
        revoke: revoke(&hold),
        left_ms: 5000,
    };
    assert!(fixture.store.ask_back(&ask).await.unwrap());
    let notice = watcher.sees_notice().await;
    assert_eq!(notice, ask.notice(&hold, notice.revision));
    let (name, asked) = (resource("r"), token(&hold));
    let other = palisade_token::FencingToken::new(asked.get() + 1).unwrap();
    fixture.store.decline(&name, other).await.unwrap();
    fixture.store.decline(&name, asked).await.unwrap();
    match &watcher.next().await[..] {
        [Event::Declined { resource, .. }] => assert_eq!(*resource, name),
        other => panic!("a refusal was expected: {other:?}"),
    }
    // Asked again, it gives the lease back: an end is no refusal.
    assert!(another.ask_back(&ask).await.unwrap());
    assert_eq!(watcher.sees_notice().await.token, asked);
    holder.give_back(&hold).await;
    assert_eq!(watcher.sees_end("r").await.end, Some(LeaseEnd::Released));
    assert!(!fixture.store.ask_back(&ask).await.unwrap());
    let next = holder.take("r", "2").await;
    watcher.sees_grant(&next).await;
    assert!(!another.ask_back(&ask).await.unwrap());
    let ask = AskBack {
        revoke: revoke(&next),
        left_ms: 1,
    };
    assert!(another.ask_back(&ask).await.unwrap());
    assert_eq!(watcher.sees_notice().await.token, token(&next));
    fixture.store.revoke(&ask.revoke).await.unwrap();
    assert_eq!(watcher.sees_end("r").await.end, Some(LeaseEnd::Revoked));
}
