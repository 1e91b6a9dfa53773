//! Streams that break, at any message, and coordinators that go away.

use std::collections::HashSet;
use std::time::Duration;

use palisade_api::AttachRequest;
use palisade_api::v1::attach_open;
use palisade_client::{
    ClientError, LostReason, Session, SessionOptions, SessionState, Unavailable,
};
use palisade_test_support::eventually;
use tonic::{Code, Status};

use super::world::{Asked, Fault, Host, Kind, Told, away, refusal, status};
use super::{builder, held, session_of, waiting};
use crate::fake::{PATIENCE, in_time, orders};

fn epoch(request: &AttachRequest) -> u64 {
    match &request.message {
        Some(Asked::Open(open)) => match open.owner.as_ref().unwrap() {
            attach_open::Owner::Session(session) => session.epoch,
            attach_open::Owner::Opening(opening) => opening.epoch,
        },
        other => panic!("{other:?}"),
    }
}

fn named(request: &AttachRequest) -> Vec<(String, i64)> {
    let open_requests = match &request.message {
        Some(Asked::Open(open)) => &open.open_requests,
        Some(Asked::Renew(renew)) => &renew.open_requests,
        other => panic!("{other:?}"),
    };
    let mut named: Vec<_> = open_requests
        .iter()
        .map(|request| (request.resource.clone(), request.token))
        .collect();
    named.sort();
    named
}

async fn opened(host: &Host, count: usize) {
    host.saw(Kind::Open, count).await;
}

#[tokio::test]
async fn an_opening_is_tried_until_it_is_answered_and_is_one_session() {
    for fault in [
        Fault::Cut,
        Fault::LoseReply,
        Fault::ServeAndCut,
        Fault::Mute,
        Fault::Answer(Told::Closed(palisade_api::v1::AttachClosed {})),
        Fault::End(status(Code::Unavailable, "STORE_UNAVAILABLE", &[])),
    ] {
        let host = Host::start().await;
        host.next(Kind::Open, fault.clone());
        let session = session_of(&[&host]).await;
        let opens = host.seen(Kind::Open);
        assert_eq!(opens.len(), 2, "{fault:?}");
        assert!(epoch(&opens[0]) < epoch(&opens[1]), "{fault:?}");
        let ids: HashSet<_> = opens
            .iter()
            .map(|request| match &request.message {
                Some(Asked::Open(open)) => match open.owner.clone().unwrap() {
                    attach_open::Owner::Opening(opening) => opening.open_id,
                    other @ attach_open::Owner::Session(_) => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(ids.len(), 1, "{fault:?}");
        assert!(session.state().is_held());
    }
}

#[tokio::test]
async fn after_a_cut_all_goes_on_over_another_stream_with_a_larger_epoch() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    let token = lease.token();
    host.cut();
    opened(&host, 2).await;
    let opens = host.seen(Kind::Open);
    assert!(epoch(&opens[1]) > epoch(&opens[0]));
    assert_eq!(named(&opens[1]), [("orders".to_owned(), 101)]);
    assert_eq!(held(&session, "other").await.token().get(), 102);
    assert_eq!(lease.grant().unwrap().token, token);
    assert!(lease.state().is_held());
}

/// Whatever breaks at an acquire: it is granted once, with one token.
#[tokio::test]
async fn an_acquire_whose_answer_was_lost_with_the_stream_is_asked_again_as_a_retry() {
    for fault in [Fault::Cut, Fault::ServeAndCut] {
        let host = Host::start().await;
        let session = session_of(&[&host]).await;
        host.next(Kind::Acquire, fault.clone());
        let lease = held(&session, "orders").await;
        assert_eq!(lease.token().get(), 101, "{fault:?}");
        let asked: Vec<_> = host
            .seen(Kind::Acquire)
            .into_iter()
            .map(|request| match request.message {
                Some(Asked::Acquire(acquire)) => (acquire.request_id, acquire.attempt),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(asked.len(), 2);
        assert_eq!((&asked[0].0, asked[0].1, asked[1].1), (&asked[1].0, 1, 2));
        let opens = host.seen(Kind::Open);
        assert_eq!(
            named(&opens[1]),
            [("orders".to_owned(), 0)],
            "its outcome is unknown"
        );
        assert_eq!(host.world().violations, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_release_whose_answer_was_lost_is_asked_again() {
    for (fault, before) in [(Fault::Cut, false), (Fault::ServeAndCut, true)] {
        let host = Host::start().await;
        let session = session_of(&[&host]).await;
        let lease = held(&session, "orders").await;
        host.next(Kind::Release, fault);
        let released = in_time(lease.release()).await.unwrap();
        assert_eq!(released.ended_before.is_some(), before);
        assert!(host.world().held.is_empty());
    }
}

#[tokio::test]
async fn what_was_cancelled_is_not_named_again() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    host.next(Kind::Acquire, Fault::LoseReply);
    host.next(Kind::Cancel, Fault::Cut);
    let resource = orders();
    tokio::select! {
        lease = session.acquire(&resource, waiting()) => panic!("{lease:?}"),
        _seen = host.saw(Kind::Acquire, 1) => {}
    }
    opened(&host, 2).await;
    assert_eq!(named(&host.seen(Kind::Open)[1]), []);
    eventually("given back", PATIENCE, async || {
        host.world().held.is_empty()
    })
    .await
    .unwrap();
}

/// One waits in the queue when the stream breaks, one is asked for when there is none: both are dropped before
/// there is another.
#[tokio::test]
async fn what_is_abandoned_while_there_is_no_stream_is_neither_kept_nor_asked_for() {
    let host = Host::start().await;
    let (one, other) = (session_of(&[&host]).await, session_of(&[&host]).await);
    let first = held(&one, "orders").await;
    let (queued, late) = (orders(), "late".parse().unwrap());
    let failing = async |opens: usize| {
        host.saw(Kind::Open, opens).await;
    };
    tokio::select! {
        lease = other.acquire(&queued, waiting()) => panic!("{lease:?}"),
        () = async {
            host.saw(Kind::Acquire, 2).await;
            host.always(Kind::Open, Some(Fault::Cut));
            host.cut();
            failing(4).await;
        } => {}
    }
    assert_eq!(host.world().queue["orders"].len(), 1);
    let opens = host.seen(Kind::Open).len();
    tokio::select! {
        lease = other.acquire(&late, waiting()) => panic!("{lease:?}"),
        () = failing(opens + 2) => {}
    }
    host.always(Kind::Open, None);
    let given_back = async || host.world().queue["orders"].is_empty();
    eventually("its place is given back", PATIENCE, given_back)
        .await
        .unwrap();
    drop(held(&other, "another").await);
    in_time(first.release()).await.unwrap();
    assert_eq!(held(&other, "orders").await.token().get(), 103);
    let for_late = host.seen(Kind::Acquire).into_iter().filter(|request| {
        matches!(&request.message, Some(Asked::Acquire(asked)) if asked.resource == "late")
    });
    assert_eq!(for_late.count(), 0);
}

#[tokio::test]
async fn a_place_in_the_queue_survives_a_cut() {
    let host = Host::start().await;
    let (one, other) = (session_of(&[&host]).await, session_of(&[&host]).await);
    let first = held(&one, "orders").await;
    let resource = orders();
    let waiter = other.acquire(&resource, waiting());
    let breaking = async {
        host.saw(Kind::Acquire, 2).await;
        host.cut();
        host.saw(Kind::Acquire, 3).await;
        assert_eq!(host.world().queue["orders"].len(), 1);
        first.release().await.unwrap();
    };
    let (second, ()) = in_time(async { tokio::join!(waiter, breaking) }).await;
    assert_eq!(second.unwrap().token().get(), 102);
}

#[tokio::test]
async fn another_coordinator_takes_over_where_one_is_deaf_or_gone() {
    for mute in [true, false] {
        let (one, other) = Host::pair().await;
        one.ttl(Duration::from_secs(3));
        let session = session_of(&[&one, &other]).await;
        let (first, second) = if one.seen(Kind::Open).is_empty() {
            (other, one)
        } else {
            (one, other)
        };
        let lease = held(&session, "orders").await;
        first.always(Kind::Open, Some(Fault::Mute));
        first.always(Kind::Renew, Some(Fault::Mute));
        if !mute {
            first.cut();
        }
        second.saw(Kind::Renew, 2).await;
        assert!(session.state().is_held(), "{:?}", session.state());
        assert!(lease.grant().is_ok());
        assert_eq!(
            first.seen(Kind::Open).len(),
            1,
            "it is not tried again at once"
        );
        assert_eq!(second.world().held.len(), 1);
        assert_eq!(held(&session, "other").await.token().get(), 102);
    }
}

#[tokio::test]
async fn a_coordinator_that_drains_is_left_and_nothing_is_lost() {
    let (one, other) = Host::pair().await;
    let session = session_of(&[&one, &other]).await;
    let (first, second) = if one.seen(Kind::Open).is_empty() {
        (&other, &one)
    } else {
        (&one, &other)
    };
    let lease = held(&session, "orders").await;
    let draining = Told::Draining(palisade_api::v1::AttachDraining { deadline_ms: 1000 });
    let refused = status(Code::Unavailable, "DRAINING", &[]);
    first.always(Kind::Open, Some(Fault::End(refused)));
    first.tell(&draining);
    opened(second, 1).await;
    assert_eq!(held(&session, "other").await.token().get(), 102);
    assert_eq!(first.seen(Kind::DrainAck).len(), 1);
    assert_eq!(session.state(), SessionState::Held);
    assert!(lease.grant().is_ok());
    assert_eq!(first.seen(Kind::Acquire).len(), 1, "no new ones there");
    in_time(lease.release()).await.unwrap();
}

#[tokio::test]
async fn where_there_is_no_other_a_coordinator_that_drains_serves_to_its_end() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    let refused = status(Code::Unavailable, "DRAINING", &[]);
    host.always(Kind::Open, Some(Fault::End(refused.clone())));
    let draining = Told::Draining(palisade_api::v1::AttachDraining { deadline_ms: 1 });
    host.tell(&draining);
    host.saw(Kind::DrainAck, 1).await;
    host.saw(Kind::Open, 3).await;
    in_time(lease.release()).await.unwrap();
    let resource = "other".parse().unwrap();
    let acquiring = session.try_acquire(&resource);
    let restart = async {
        host.end(&refused);
        host.always(Kind::Open, None);
    };
    let (lease, ()) = in_time(async { tokio::join!(acquiring, restart) }).await;
    assert!(lease.unwrap().grant().is_ok());
}

#[tokio::test]
async fn a_refused_renewal_makes_it_suspect_and_another_coordinator_is_tried() {
    let (one, other) = Host::pair().await;
    one.ttl(Duration::from_secs(3));
    let session = session_of(&[&one, &other]).await;
    let (first, second) = if one.seen(Kind::Open).is_empty() {
        (&other, &one)
    } else {
        (&one, &other)
    };
    let lease = held(&session, "orders").await;
    first.always(Kind::Renew, Some(Fault::Refuse(away())));
    second.saw(Kind::Renew, 1).await;
    eventually("held", PATIENCE, async || {
        session.state() == SessionState::Held
    })
    .await
    .unwrap();
    assert!(lease.grant().is_ok());
}

async fn until_lost(session: &Session) -> SessionState {
    in_time(session.lost().cancelled()).await;
    session.state()
}

#[tokio::test]
async fn a_session_that_another_process_goes_on_with_is_lost_for_good() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    let stale = status(Code::Aborted, "EPOCH_STALE", &[("storedEpoch", "2")]);
    host.next(Kind::Open, Fault::End(stale));
    host.end(&status(Code::Aborted, "SUPERSEDED", &[]));
    let superseded = SessionState::Lost(LostReason::Superseded);
    assert_eq!(until_lost(&session).await, superseded);
    assert!(lease.grant().is_err());
    let error = in_time(session.try_acquire(&"other".parse().unwrap())).await;
    assert!(
        matches!(
            error,
            Err(ClientError::SessionLost {
                reason: LostReason::Superseded
            })
        ),
        "{error:?}"
    );
    drop((lease, session));
    assert_eq!(host.seen(Kind::Open).len(), 2);
}

#[tokio::test]
async fn a_coordinator_that_lost_track_of_its_stream_costs_nothing() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    host.end(&status(Code::Aborted, "SUPERSEDED", &[]));
    opened(&host, 2).await;
    assert_eq!(held(&session, "other").await.token().get(), 102);
    assert!(lease.grant().is_ok());
}

#[tokio::test]
async fn the_coordinators_word_that_the_session_ended_is_final() {
    let ended = || status(Code::NotFound, "SESSION_ENDED", &[]);
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    host.end(&ended());
    assert_eq!(
        until_lost(&session).await,
        SessionState::Lost(LostReason::Ended)
    );

    let session = session_of(&[&host]).await;
    host.next(Kind::Open, Fault::End(ended()));
    host.cut();
    assert_eq!(
        until_lost(&session).await,
        SessionState::Lost(LostReason::Ended)
    );

    let session = session_of(&[&host]).await;
    let refused = refusal(Code::NotFound, "SESSION_ENDED", &[]);
    host.next(Kind::Acquire, Fault::Refuse(refused));
    let error = in_time(session.try_acquire(&orders())).await.unwrap_err();
    assert!(
        matches!(error, ClientError::SessionLost { .. }),
        "{error:?}"
    );
    assert_eq!(
        until_lost(&session).await,
        SessionState::Lost(LostReason::Ended)
    );
}

#[tokio::test]
async fn garbage_ends_the_stream_and_nothing_else() {
    use palisade_api::v1;
    for garbage in [
        Told::Granted(v1::AttachGranted::default()),
        Told::Granted(v1::AttachGranted {
            lease: Some(palisade_api::Lease {
                resource: "another".into(),
                token: 7,
                holder: vec![1; 16],
                request_id: "not ours".into(),
                ..palisade_api::Lease::default()
            }),
            ..v1::AttachGranted::default()
        }),
        Told::Opened(v1::AttachOpened::default()),
        Told::Refused(v1::AttachRefused::default()),
    ] {
        let host = Host::start().await;
        let session = session_of(&[&host]).await;
        let lease = held(&session, "orders").await;
        host.next(Kind::Acquire, Fault::Answer(garbage.clone()));
        let other = held(&session, "other").await;
        assert_eq!(other.token().get(), 102, "{garbage:?}");
        assert_eq!(host.seen(Kind::Open).len(), 2, "{garbage:?}");
        assert!(lease.grant().is_ok());
    }
}

#[tokio::test]
async fn an_acquire_that_is_never_answered_is_given_up_and_given_back() {
    let host = Host::start().await;
    let client = builder(&[&host])
        .operation_timeout(Duration::from_millis(500))
        .connect()
        .unwrap();
    let session = in_time(client.open_session(SessionOptions::default()))
        .await
        .unwrap();
    host.always(Kind::Acquire, Some(Fault::LoseReply));
    let error = in_time(session.try_acquire(&orders())).await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    host.saw(Kind::Cancel, 1).await;
    eventually("given back", PATIENCE, async || {
        host.world().held.is_empty()
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn without_a_coordinator_an_acquire_tells_what_is_wrong_and_that_it_did_not_happen() {
    let host = Host::start().await;
    let client = builder(&[&host]).operation_timeout(Duration::from_secs(1));
    let client = client.connect().unwrap();
    let session = in_time(client.open_session(SessionOptions::default()))
        .await
        .unwrap();
    let regressed = status(Code::Unavailable, "HISTORY_REGRESSED", &[]);
    host.always(Kind::Open, Some(Fault::End(regressed)));
    host.cut();
    opened(&host, 2).await;
    match in_time(session.try_acquire(&orders())).await.unwrap_err() {
        ClientError::Unavailable {
            cause,
            may_have_happened,
            ..
        } => {
            assert_eq!(cause, Unavailable::HistoryRegressed);
            assert!(!may_have_happened, "it was not sent");
        }
        error => panic!("{error:?}"),
    }
    assert_eq!(host.seen(Kind::Acquire).len(), 0);
}

#[tokio::test]
async fn closing_gets_through_though_the_stream_is_deaf() {
    for fault in [Fault::Mute, Fault::Cut, Fault::Refuse(away())] {
        let host = Host::start().await;
        let session = session_of(&[&host]).await;
        let _lease = held(&session, "orders").await;
        host.next(Kind::Close, fault.clone());
        in_time(session.close()).await.unwrap();
        assert!(host.world().held.is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_transport_error_is_no_verdict() {
    let host = Host::start().await;
    let session = session_of(&[&host]).await;
    let lease = held(&session, "orders").await;
    host.next(Kind::Open, Fault::End(Status::permission_denied("")));
    host.next(Kind::Open, Fault::End(Status::unimplemented("")));
    host.cut();
    opened(&host, 4).await;
    assert!(lease.grant().is_ok());
    eventually("held", PATIENCE, async || {
        session.state() == SessionState::Held
    })
    .await
    .unwrap();
}
