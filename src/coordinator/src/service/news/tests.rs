//! What is told to whom.

use std::sync::Arc;

use futures::FutureExt;
use palisade_token::ResourceName;

use super::mailbox::Mailbox;
use super::state::State;
use super::{SessionNews, Subject, WatchNews};
use crate::domain::{
    Batch, Claim, Ended, Event, Generation, GrantNote, Granted, Hold, LeaseEnd, Nonce, Revision,
};
use crate::store::conformance::Client;

fn hold(name: &str, session: &str, revision: u64) -> Hold {
    let session = Client::session(session, std::time::Duration::from_secs(60));
    let request = crate::domain::RequestId::new("1").unwrap();
    Hold {
        claim: Claim::new(&session, resource(name), request, Vec::new()),
        generation: Generation {
            nonce: Nonce::from_bytes([1; 16]),
            base: 1000,
            since_revision: Revision(1),
        },
        granted: Revision(revision),
        note: GrantNote::default(),
    }
}

fn resource(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

fn granted(hold: &Hold) -> Event {
    Event::Granted(Arc::new(Granted::known(hold.clone())))
}

/// As etcd tells it: without the lease.
fn ended(name: &str, revision: u64) -> Event {
    Event::Ended(Ended {
        resource: resource(name),
        revision: Revision(revision),
        end: Some(LeaseEnd::Expired),
        reason: String::new(),
        actor: String::new(),
        lease: None,
        told: None,
    })
}

fn begun() -> State {
    let mut state = State::new();
    state.hear([Event::Resync].into());
    state.hear([Event::Bookmark(Revision(5))].into());
    state
}

fn next<T>(mailbox: &Mailbox<T>) -> Option<T> {
    mailbox.next().now_or_never().flatten()
}

#[test]
fn a_session_is_told_of_the_ends_of_what_it_holds() {
    let mut state = begun();
    let (own, heir) = (hold("r", "own", 6), hold("r", "heir", 8));
    let mailbox = Arc::new(Mailbox::new(10, Vec::new()));
    state.join_session(own.claim.session, &mailbox);
    state.hear([granted(&own)].into());
    state.hear([granted(&hold("other", "else", 7))].into());
    state.hear([ended("r", 8), granted(&heir)].into());
    match next(&mailbox) {
        Some(SessionNews::Ended { ended, successor }) => {
            assert_eq!(ended.token(), own.token());
            assert_eq!(ended.end, Some(LeaseEnd::Expired));
            let successor = successor.unwrap();
            assert_eq!(successor.hold(), Some(&heir));
        }
        other => panic!("an end was expected: {other:?}"),
    }
    // What the heir loses is not this session's.
    state.hear([ended("r", 9)].into());
    assert!(mailbox.is_empty());
    // What was granted before the stream came is followed where it is named.
    state.follow(own.claim.session, &resource("old"));
    state.hear([ended("old", 10)].into());
    assert!(matches!(next(&mailbox), Some(SessionNews::Ended { .. })));
    state.hear([Event::Resync].into());
    assert!(matches!(next(&mailbox), Some(SessionNews::Missed)));
    state.leave_session(own.claim.session, &mailbox);
}

/// I12, I13: who does not read is cut off, and only that one.
#[test]
fn a_slow_watcher_is_cut_off() {
    let mut state = begun();
    let all = Subject::Beginning(String::new());
    let slow = state.join_watch(&all, Revision(5), 3).unwrap();
    let quick = state.join_watch(&all, Revision(5), 3).unwrap();
    let beside = Subject::Resource(resource("s"));
    let beside = state.join_watch(&beside, Revision(5), 3).unwrap();
    for revision in 6..10 {
        state.hear([granted(&hold("r", "one", revision))].into());
        assert!(matches!(next(&quick), Some(WatchNews::Batch(_))));
    }
    assert!(
        matches!(slow.next().now_or_never(), Some(None)),
        "it goes on"
    );
    assert!(quick.next().now_or_never().is_none(), "it was cut off, too");
    assert!(beside.is_empty(), "it was told of another resource");
    // What was missed is shown to who comes later, however much it is.
    let late = state.join_watch(&all, Revision(5), 0).unwrap();
    for _ in 6..10 {
        assert!(matches!(next(&late), Some(WatchNews::Batch(_))));
    }
    assert!(state.join_watch(&all, Revision(4), 3).is_none());
}

#[test]
fn the_last_end_is_remembered_until_the_next_grant() {
    let mut state = begun();
    let first = hold("r", "one", 6);
    state.hear([granted(&first)].into());
    assert_eq!(state.memory.previous(&resource("r")), None);
    state.hear([ended("r", 7)].into());
    let previous = state.memory.previous(&resource("r")).unwrap();
    assert_eq!(
        (previous.end, previous.token),
        (LeaseEnd::Expired, first.token())
    );
    assert_eq!(previous.label, "one");
    // News of before, told late, changes nothing.
    state.memory.note_grant(&Arc::new(Granted::known(first)));
    assert!(state.memory.previous(&resource("r")).is_some());
    let batch: Batch = [ended("r", 8), granted(&hold("r", "two", 8))].into();
    state.hear(batch);
    assert_eq!(state.memory.previous(&resource("r")), None);
}
