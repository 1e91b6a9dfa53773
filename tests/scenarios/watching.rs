//! What the client library tells operators and watchers, on real coordinators and real etcd.

use std::time::Duration;

use palisade_client::{
    AdvanceOptions, Client, ClientError, DrainOptions, FencingToken, Lease, LeaseEnd, LeaseWatch,
    RevokeOptions, RevokeOutcome, Session, StoreKind, TokenState, WatchEvent, WatchOptions,
    WatchScope,
};
use palisade_test_support::{Etcd, within};

use crate::setup::{LIMIT, acquired, client_of, coordinator, name, open, waiting};

/// So far above a token no store can have issued one.
const NEVER: u64 = 1 << 40;

/// The next event but bookmarks, which come whenever it is quiet.
async fn next(watch: &mut LeaseWatch) -> WatchEvent {
    loop {
        let event = within("news", LIMIT, watch.next()).await.unwrap().unwrap();
        if !matches!(event, WatchEvent::Bookmark { .. }) {
            return event;
        }
    }
}

/// The next event that is no interruption: after one, and where a coordinator starts, there may be some.
async fn news(watch: &mut LeaseWatch) -> WatchEvent {
    loop {
        let event = next(watch).await;
        if !matches!(event, WatchEvent::Interrupted { .. }) {
            return event;
        }
    }
}

/// Revoked, for the reason told; once more there is nothing to revoke.
async fn revokes(client: &Client, watch: &mut LeaseWatch, token: FencingToken) {
    let why = || RevokeOptions::because("it hangs", "somebody");
    let resource = name("a/r");
    let revoked = client.revoke_lease(&resource, token, why()).await.unwrap();
    assert_eq!(revoked.outcome, RevokeOutcome::Revoked);
    match next(watch).await {
        WatchEvent::Ended {
            end,
            reason,
            token: ended,
            revision,
            ..
        } => {
            assert_eq!((end, &*reason), (LeaseEnd::Revoked, "it hangs"));
            assert_eq!((ended, revision), (Some(token), revoked.revision));
        }
        other => panic!("{other:?}"),
    }
    let vacant = next(watch).await;
    assert!(matches!(vacant, WatchEvent::Vacant { .. }), "{vacant:?}");
    let seen = client.get_lease(&resource, 10).await.unwrap();
    let previous = seen.previous.unwrap();
    assert_eq!((seen.lease, previous.token), (None, Some(token)));
    let again = client.revoke_lease(&resource, token, why()).await.unwrap();
    assert_eq!(again.outcome, RevokeOutcome::EndedBefore);
}

fn later(token: FencingToken, by: u64) -> FencingToken {
    (token.get() + by).to_string().parse().unwrap()
}

/// That of before, that of now, and one of never.
async fn checks(client: &Client, before: FencingToken, now: FencingToken) {
    let resource = name("a/r");
    let check = async |token| client.check_token(&resource, token).await.unwrap();
    assert_eq!(check(before).await.state, TokenState::Stale);
    let current = check(now).await;
    assert_eq!(current.state, TokenState::Current);
    assert_eq!(current.current, Some(now));
    assert_eq!(check(later(now, NEVER)).await.state, TokenState::Ahead);
}

/// All later tokens are above the one given; a day ahead only by force.
async fn advances(client: &Client, session: &Session, last: Lease) {
    let why = || AdvanceOptions::because("a wrong clock", "somebody");
    let past = later(last.token(), 1_000_000);
    let change = client.advance_generation(why().past(past)).await.unwrap();
    assert!(change.generation.base > past.as_i64(), "{change:?}");
    let never = later(past, NEVER);
    last.release().await.unwrap();
    let next = session.acquire(&name("a/r"), waiting(LIMIT)).await.unwrap();
    assert!(next.token() > past);
    let error = client.advance_generation(why().past(never)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ClientError::ForceRequired { past: Some(told), .. } if told == never));
}

/// Releases and acquires, of which the watch tells.
async fn changes_hands(session: &Session, watch: &mut LeaseWatch, last: Lease) -> Lease {
    let before = last.token();
    last.release().await.unwrap();
    let next = session.acquire(&name("a/r"), waiting(LIMIT)).await.unwrap();
    let ended = news(watch).await;
    assert_eq!(ended.token(), Some(before), "{ended:?}");
    let vacant = news(watch).await;
    assert!(matches!(vacant, WatchEvent::Vacant { .. }), "{vacant:?}");
    let granted = news(watch).await;
    assert_eq!(granted.token(), Some(next.token()), "{granted:?}");
    next
}

/// All that the client asks is served, and a watch misses nothing while its coordinators are drained and
/// killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_while_coordinators_come_and_go() {
    let etcd = Etcd::start().await.unwrap();
    let mut one = coordinator(&etcd.endpoints()).await;
    let mut other = coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&one, &other]);
    let first = acquired(&client, "a/r").await.unwrap();
    let _beyond = acquired(&client, "b/r").await.unwrap();
    let scope = || WatchScope::Prefix("a/".to_owned());
    let options = || WatchOptions::default().bookmarks(Duration::from_secs(1));
    let mut watch = client.watch_leases(scope(), options()).unwrap();
    let stands = next(&mut watch).await;
    assert!(matches!(stands, WatchEvent::Stands { .. }), "{stands:?}");
    assert_eq!(stands.lease().unwrap().grant, first.grant().unwrap());
    let end = next(&mut watch).await;
    assert!(matches!(end, WatchEvent::SnapshotEnd { .. }), "{end:?}");

    revokes(&client, &mut watch, first.token()).await;
    let session = open(&client).await;
    let resource = name("a/r");
    let mut last = session.acquire(&resource, waiting(LIMIT)).await.unwrap();
    assert_eq!(next(&mut watch).await.token(), Some(last.token()));
    checks(&client, first.token(), last.token()).await;

    // Each is drained in its turn: the watch goes on at the other, and misses nothing.
    let position = watch.position().unwrap();
    for drained in [&mut one, &mut other] {
        let why = DrainOptions::because("an upgrade", "somebody").within(Duration::from_secs(5));
        client.drain(&drained.addr(), why).await.unwrap();
        assert!(client.status_of(&drained.addr()).await.unwrap().draining);
        last = changes_hands(&session, &mut watch, last).await;
        drained.kill().unwrap();
        drained.start_again().await.unwrap();
        // From here on it remembers what happens, and a watch that has come so far can go on there.
        let there = client_of(&[&*drained]);
        let mut begins = there.watch_leases(scope(), options()).unwrap();
        while !matches!(news(&mut begins).await, WatchEvent::SnapshotEnd { .. }) {}
        last = changes_hands(&session, &mut watch, last).await;
    }
    for one in client.statuses().await {
        let status = one.status.unwrap();
        assert!(status.ready, "{status:?}");
        assert_eq!(status.store, Some(StoreKind::Etcd));
        assert!(status.generation.is_some() && !status.store_endpoints.is_empty());
    }

    // They have forgotten what was before: so it is told, not passed over.
    let options = options().resume(position);
    let mut resumed = client.watch_leases(scope(), options).unwrap();
    let resync = news(&mut resumed).await;
    assert!(matches!(resync, WatchEvent::Resync { .. }), "{resync:?}");
    assert_eq!(news(&mut resumed).await.token(), Some(last.token()));
    advances(&client, &session, last).await;
}
