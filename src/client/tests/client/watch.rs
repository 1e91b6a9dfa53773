//! Watches go on over broken streams, tell what they missed, and never stop without saying so.

use std::time::Duration;

use palisade_api::v1::LeaseEventType as Type;
use palisade_api::v1::watch_leases_request::Scope;
use palisade_client::{
    Client, ClientError, LeaseEnd, LeaseWatch, Unavailable, WatchEvent, WatchOptions, WatchScope,
};
use palisade_test_support::{eventually, within};
use tonic::{Code, Status};

use crate::fake::{Fake, PATIENCE, Step, Watching, client_of, event, in_time, orders, refusal};

fn all() -> WatchScope {
    WatchScope::Prefix(String::new())
}

fn watch(client: &Client) -> LeaseWatch {
    client.watch_leases(all(), WatchOptions::default()).unwrap()
}

async fn next(watch: &mut LeaseWatch) -> WatchEvent {
    in_time(watch.next()).await.unwrap()
}

fn status(code: Code, reason: &str) -> Status {
    match refusal(code, reason, &[]) {
        Step::Refuse(status) => status,
        other => panic!("{other:?}"),
    }
}

fn broken() -> Status {
    Status::unavailable("connection reset")
}

fn cause(event: &WatchEvent) -> Unavailable {
    match event {
        WatchEvent::Interrupted { cause, .. } => *cause,
        other => panic!("{other:?}"),
    }
}

/// The last of so many watches, while the client is asked for the next event.
async fn begun(fake: &Fake, watch: &mut LeaseWatch, count: usize) -> Watching {
    in_time(async {
        tokio::select! {
            event = watch.next() => panic!("{event:?}"),
            begun = fake.watched(count) => begun[count - 1].clone(),
        }
    })
    .await
}

/// A watch that was told a snapshot of one lease at revision 7.
async fn followed(fake: &Fake, client: &Client) -> (LeaseWatch, Watching) {
    let mut watch = watch(client);
    let told = begun(fake, &mut watch, fake.watch_count() + 1).await;
    told.tells(Type::Snapshot, 7, "orders");
    told.tells(Type::SnapshotEnd, 7, "");
    let stands = next(&mut watch).await;
    assert_eq!((stands.revision(), stands.token().unwrap().get()), (7, 7));
    assert_eq!(stands.resource(), Some(&orders()));
    assert_eq!(watch.position(), None, "the snapshot is not complete");
    let end = next(&mut watch).await;
    assert!(
        matches!(end, WatchEvent::SnapshotEnd { revision: 7, .. }),
        "{end:?}"
    );
    (watch, told)
}

#[tokio::test]
async fn a_snapshot_comes_first_and_then_what_changes() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let (mut watch, told) = followed(&fake, &client).await;
    assert_eq!(told.request.resume_revision, 0);
    assert_eq!(told.request.bookmark_interval_ms, 10_000);
    let mut revoked = event(Type::Revoked, 8, "orders");
    revoked.reason = "it hangs".to_owned();
    // Of some leases only token and label are known.
    revoked.lease.as_mut().unwrap().holder.clear();
    told.tell(vec![revoked, event(Type::Granted, 8, "orders")]);
    match next(&mut watch).await {
        WatchEvent::Ended {
            end,
            reason,
            token,
            label,
            lease,
            ..
        } => {
            assert_eq!(
                (end, &*reason, &*label),
                (LeaseEnd::Revoked, "it hangs", "worker-7")
            );
            assert_eq!((token.unwrap().get(), lease), (8, None));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        watch.position().unwrap().revision(),
        7,
        "a revision is told whole"
    );
    let granted = next(&mut watch).await;
    assert!(matches!(granted, WatchEvent::Granted { .. }));
    assert_eq!(granted.lease().unwrap().label, "worker-7");
    assert_eq!(watch.position().unwrap().revision(), 8);
    for (kind, end) in [
        (Type::Released, LeaseEnd::Released),
        (Type::Expired, LeaseEnd::Expired),
        (Type::Ended, LeaseEnd::Unknown),
    ] {
        let revision = watch.position().unwrap().revision() + 1;
        told.tells(kind, revision, "orders");
        let ended = next(&mut watch).await;
        assert!(matches!(ended, WatchEvent::Ended { end: told, .. } if told == end));
    }
    // A kind of a later version, and what follows it.
    let mut later = event(Type::Vacant, 20, "orders");
    later.r#type = 99;
    told.tell(vec![later, event(Type::Vacant, 20, "orders")]);
    assert!(matches!(
        next(&mut watch).await,
        WatchEvent::Vacant { revision: 20, .. }
    ));
    told.tells(Type::Bookmark, 25, "");
    assert!(matches!(
        next(&mut watch).await,
        WatchEvent::Bookmark { revision: 25, .. }
    ));
    assert_eq!(watch.position().unwrap().revision(), 25);
    drop(watch);
    eventually("the stream ends", PATIENCE, async || told.is_over())
        .await
        .unwrap();
}

#[tokio::test]
async fn one_resource_is_watched_from_a_position() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let options = WatchOptions::default()
        .resume("41".parse().unwrap())
        .bookmarks(Duration::from_secs(2));
    let mut watch = client.watch_leases(orders(), options).unwrap();
    let told = begun(&fake, &mut watch, 1).await;
    assert_eq!(
        told.request.scope,
        Some(Scope::Resource("orders".to_owned()))
    );
    assert_eq!(told.request.resume_revision, 41);
    assert_eq!(told.request.bookmark_interval_ms, 2000);
    assert_eq!(watch.position().unwrap().to_string(), "41");
    let short = WatchOptions::default().bookmarks(Duration::from_millis(999));
    let error = client.watch_leases(all(), short).unwrap_err();
    assert!(matches!(error, ClientError::Invalid { field, .. } if field == "bookmarks"));
}

#[tokio::test]
async fn a_broken_stream_goes_on_elsewhere_from_where_it_was() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let client = client_of(&[&one, &other]);
    let mut watch = watch(&client);
    let (first, second) = in_time(async {
        tokio::select! {
            event = watch.next() => panic!("{event:?}"),
            _begun = one.watched(1) => (&one, &other),
            _begun = other.watched(1) => (&other, &one),
        }
    })
    .await;
    let told = first.watched(1).await.remove(0);
    told.tells(Type::SnapshotEnd, 7, "");
    next(&mut watch).await;
    told.tells(Type::Granted, 9, "orders");
    next(&mut watch).await;
    told.ends(broken());
    assert_eq!(cause(&next(&mut watch).await), Unavailable::NoAnswer);
    let goes_on = begun(second, &mut watch, 1).await;
    assert_eq!(goes_on.request.resume_revision, 9);
    // That one may repeat itself; what was told is not told again.
    goes_on.tells(Type::Granted, 9, "orders");
    goes_on.tells(Type::Released, 10, "orders");
    assert_eq!(next(&mut watch).await.revision(), 10);
}

#[tokio::test]
async fn however_a_stream_ends_it_is_told_once_and_goes_on() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let (mut watch, mut told) = followed(&fake, &client).await;
    let ends: [(Option<Status>, Unavailable); 4] = [
        (None, Unavailable::NoAnswer),
        (
            Some(status(Code::Unavailable, "DRAINING")),
            Unavailable::Draining,
        ),
        (
            Some(status(Code::ResourceExhausted, "LIMIT_REACHED")),
            Unavailable::Limit,
        ),
        (
            Some(status(Code::Unavailable, "STORE_UNAVAILABLE")),
            Unavailable::Store,
        ),
    ];
    for (round, (end, expected)) in ends.into_iter().enumerate() {
        fake.refuse_watch(status(Code::Unavailable, "STORE_UNAVAILABLE"));
        match end {
            Some(status) => told.ends(status),
            None => {
                drop(told);
                fake.forget_watches();
            }
        }
        assert_eq!(cause(&next(&mut watch).await), expected);
        // The refusal after it is not told.
        told = begun(&fake, &mut watch, round + 2).await;
        let revision = 10 + i64::try_from(round).unwrap();
        told.tells(Type::Granted, revision, "orders");
        assert_eq!(next(&mut watch).await.revision(), revision);
    }
}

#[tokio::test]
async fn what_was_missed_is_told_and_a_snapshot_follows() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let (mut watch, told) = followed(&fake, &client).await;
    told.ends(broken());
    cause(&next(&mut watch).await);
    let told = begun(&fake, &mut watch, 2).await;
    assert_eq!(told.request.resume_revision, 7);
    told.tells(Type::Resync, 3, "");
    told.tells(Type::Snapshot, 3, "orders");
    assert!(matches!(next(&mut watch).await, WatchEvent::Resync { .. }));
    assert_eq!(watch.position(), None);
    assert!(matches!(
        next(&mut watch).await,
        WatchEvent::Stands { revision: 3, .. }
    ));
    // A snapshot that breaks off is not completed by another one.
    told.ends(broken());
    cause(&next(&mut watch).await);
    // Whatever comes next means that a coordinator tells again.
    let told = begun(&fake, &mut watch, 3).await;
    assert_eq!(told.request.resume_revision, 0);
    told.tells(Type::SnapshotEnd, 4, "");
    assert!(matches!(next(&mut watch).await, WatchEvent::Resync { .. }));
    assert_eq!(watch.position(), None);
    next(&mut watch).await;
    assert_eq!(watch.position().unwrap().revision(), 4);
}

#[tokio::test]
async fn a_refusal_is_an_error_and_the_next_call_goes_on() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let (mut watch, told) = followed(&fake, &client).await;
    fake.refuse_watch(status(Code::PermissionDenied, "PERMISSION_DENIED"));
    told.ends(broken());
    cause(&next(&mut watch).await);
    let error = in_time(watch.next()).await.unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error:?}");
    let told = begun(&fake, &mut watch, 2).await;
    assert_eq!(told.request.resume_revision, 7);
}

/// The future of the next event is dropped all the time, as by a program that draws in between.
#[tokio::test]
async fn nothing_is_lost_by_whoever_stops_waiting() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let mut watch = watch(&client);
    let feed = async {
        let told = fake.watched(1).await.remove(0);
        told.tells(Type::SnapshotEnd, 1, "");
        for revision in 2..200 {
            told.tells(Type::Granted, revision, "orders");
            tokio::task::yield_now().await;
            if revision == 100 {
                told.ends(broken());
                break;
            }
        }
        let told = fake.watched(2).await.remove(1);
        let from = told.request.resume_revision;
        for revision in from + 1..200 {
            told.tells(Type::Granted, revision, "orders");
        }
    };
    let mut seen = Vec::new();
    let take = async {
        while seen.last() != Some(&199) {
            tokio::select! {
                biased;
                event = watch.next() => {
                    let revision = event.unwrap().revision();
                    if revision > 0 {
                        seen.push(revision);
                    }
                }
                () = tokio::task::yield_now() => {}
            }
        }
    };
    in_time(async { tokio::join!(feed, take) }).await;
    assert_eq!(seen, (1..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_unreachable_coordinator_is_told_and_found_once_it_is_there() {
    let fake = Fake::start().await;
    let (gone, client) = (Fake::start().await, client_of(&[&fake]));
    let address = gone.address.clone();
    drop(gone);
    let mut nowhere = watch(&Client::connect(address).unwrap());
    assert_eq!(cause(&next(&mut nowhere).await), Unavailable::Unreachable);
    let quiet = within("nothing", Duration::from_millis(300), nowhere.next());
    assert!(quiet.await.is_err(), "told once");
    drop(followed(&fake, &client).await);
}

/// A coordinator that has lost its store may keep the stream and say nothing: another one is asked.
#[tokio::test]
async fn silence_is_an_end_too() {
    use crate::clock::ManualClock;
    use std::sync::Arc;

    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let client = Client::builder()
        .endpoint(&fake.address)
        .clock(Arc::<ManualClock>::clone(&clock))
        .connect()
        .unwrap();
    let (mut watch, told) = followed(&fake, &client).await;
    // Two bookmarks and a call.
    let silence = Duration::from_secs(25);
    clock.advance(silence - Duration::from_millis(1));
    told.tells(Type::Bookmark, 8, "");
    assert_eq!(next(&mut watch).await.revision(), 8);
    clock.advance(silence - Duration::from_millis(1));
    let quiet = within("nothing", Duration::from_millis(50), watch.next());
    assert!(quiet.await.is_err());
    clock.advance(Duration::from_millis(1));
    assert_eq!(cause(&next(&mut watch).await), Unavailable::NoAnswer);
    let found = async {
        loop {
            clock.advance(Duration::from_millis(50));
            tokio::select! {
                event = watch.next() => panic!("{event:?}"),
                () = tokio::task::yield_now() => {}
            }
            if fake.watch_count() == 2 {
                return;
            }
        }
    };
    in_time(found).await;
    eventually("the old stream is let go", PATIENCE, async || {
        told.is_over()
    })
    .await
    .unwrap();
}
