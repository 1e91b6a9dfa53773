//! What the client library tells operators and watchers, on real coordinators and real etcd.

use std::time::Duration;

use palisade_client::{
    AdvanceOptions, ClientError, DrainOptions, LeaseEnd, LeaseWatch, RevokeOptions, RevokeOutcome,
    StoreKind, TokenState, WatchEvent, WatchOptions, WatchScope,
};
use palisade_test_support::{Etcd, within};

use crate::setup::{LIMIT, acquired, client_of, coordinator, name, open, waiting};

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

/// All that the client asks is served, and a watch misses nothing while its coordinators are drained and
/// killed.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_while_coordinators_come_and_go() {
    let etcd = Etcd::start().await.unwrap();
    let mut one = coordinator(&etcd.endpoints()).await;
    let mut other = coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&one, &other]);
    let first = acquired(&client, "a/r").await.unwrap();
    let beyond = acquired(&client, "b/r").await.unwrap();
    let scope = || WatchScope::Prefix("a/".to_owned());
    let options = || WatchOptions::default().bookmarks(Duration::from_secs(1));
    let mut watch = client.watch_leases(scope(), options()).unwrap();
    let stands = next(&mut watch).await;
    assert!(matches!(stands, WatchEvent::Stands { .. }), "{stands:?}");
    assert_eq!(stands.token(), Some(first.token()));
    assert_eq!(stands.lease().unwrap().grant, first.grant().unwrap());
    let end = next(&mut watch).await;
    assert!(matches!(end, WatchEvent::SnapshotEnd { .. }), "{end:?}");

    // Revoked, for the reason told.
    let token = first.token();
    let why = RevokeOptions::because("it hangs", "somebody");
    let revoked = client.revoke_lease(&name("a/r"), token, why).await.unwrap();
    assert_eq!(revoked.outcome, RevokeOutcome::Revoked);
    match next(&mut watch).await {
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
    let vacant = next(&mut watch).await;
    assert!(matches!(vacant, WatchEvent::Vacant { .. }), "{vacant:?}");
    let seen = client.get_lease(&name("a/r"), 10).await.unwrap();
    let previous = seen.previous.unwrap();
    assert_eq!((seen.lease, previous.token), (None, Some(token)));
    let again = RevokeOptions::because("again", "somebody");
    let again = client
        .revoke_lease(&name("a/r"), token, again)
        .await
        .unwrap();
    assert_eq!(again.outcome, RevokeOutcome::EndedBefore);

    // Tokens: that of before, that of now, and one of never.
    let session = open(&client).await;
    let second = session.acquire(&name("a/r"), waiting(LIMIT)).await.unwrap();
    assert_eq!(next(&mut watch).await.token(), Some(second.token()));
    let check = async |token| client.check_token(&name("a/r"), token).await.unwrap();
    assert_eq!(check(token).await.state, TokenState::Stale);
    let current = check(second.token()).await;
    assert_eq!(
        (current.state, current.current),
        (TokenState::Current, Some(second.token()))
    );
    let never = second.token().get() + (1 << 40);
    let never = never.to_string().parse().unwrap();
    assert_eq!(check(never).await.state, TokenState::Ahead);

    // Each is drained in its turn: the watch goes on at the other, and misses nothing.
    let position = watch.position().unwrap();
    let mut last = second;
    for drained in [&mut one, &mut other] {
        let why = DrainOptions::because("an upgrade", "somebody").within(Duration::from_secs(5));
        client.drain(&drained.addr(), why).await.unwrap();
        assert!(client.status_of(&drained.addr()).await.unwrap().draining);
        let before = last.token();
        last.release().await.unwrap();
        last = session.acquire(&name("a/r"), waiting(LIMIT)).await.unwrap();
        let ended = news(&mut watch).await;
        assert_eq!(ended.token(), Some(before), "{ended:?}");
        assert!(matches!(news(&mut watch).await, WatchEvent::Vacant { .. }));
        let granted = news(&mut watch).await;
        assert_eq!(granted.token(), Some(last.token()), "{granted:?}");
        drained.kill().unwrap();
        drained.start_again().await.unwrap();
    }
    for status in client.statuses().await {
        let status = status.status.unwrap();
        assert!(
            status.ready && status.store == Some(StoreKind::Etcd),
            "{status:?}"
        );
        assert!(status.generation.is_some() && !status.store_endpoints.is_empty());
    }

    // They have forgotten what was before: so it is told, not passed over.
    let mut resumed = client
        .watch_leases(scope(), options().resume(position))
        .unwrap();
    let resync = news(&mut resumed).await;
    assert!(matches!(resync, WatchEvent::Resync { .. }), "{resync:?}");
    assert_eq!(news(&mut resumed).await.token(), Some(last.token()));

    // All later tokens are above the one given; a day ahead only by force.
    let past = last.token().get() + 1_000_000;
    let past = past.to_string().parse().unwrap();
    let why = || AdvanceOptions::because("a wrong clock", "somebody");
    let change = client.advance_generation(why().past(past)).await.unwrap();
    assert!(change.generation.base > past.as_i64(), "{change:?}");
    last.release().await.unwrap();
    last = session.acquire(&name("a/r"), waiting(LIMIT)).await.unwrap();
    assert!(last.token() > past);
    let error = client
        .advance_generation(why().past(never))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::ForceRequired { past: Some(told), .. } if told == never));
    drop(beyond);
}
