//! Calls are tried over the endpoints until they are answered, and a retry can never be taken for new.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use palisade_client::{AcquireOptions, Client, ClientError, Transport, Unavailable};
use palisade_test_support::eventually;
use tonic::Code;

use crate::clock::ManualClock;
use crate::fake::{
    Fake, Method, PATIENCE, Step, client_of, in_time, lost_reply, orders, refusal, session_of,
};

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_with_the_same_request_and_a_larger_epoch() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    fake.next(Method::Acquire, lost_reply());
    fake.next(Method::Acquire, Step::Hang);
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let calls = fake.calls(Method::Acquire);
    assert_eq!(calls.len(), 3, "{calls:?}");
    assert!(
        calls
            .iter()
            .all(|call| call.request_id == calls[0].request_id)
    );
    assert_eq!(
        calls.iter().map(|call| call.attempt).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(
        calls.windows(2).all(|pair| pair[0].epoch < pair[1].epoch),
        "{calls:?}"
    );
    assert_eq!(lease.token().get(), 42);
}

/// Clients that lost the same coordinator do not come back all at once, and one that is back is found soon.
#[tokio::test]
async fn retries_pause_for_a_random_part_of_a_time_that_doubles_up_to_its_bound() {
    const TICK: Duration = Duration::from_nanos(1);
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let client = Client::builder()
        .transport(Transport::Unary)
        .endpoint(&fake.address)
        .operation_timeout(Duration::from_secs(8))
        .clock(Arc::<ManualClock>::clone(&clock))
        .connect()
        .unwrap();
    let session = in_time(client.open_session(Default::default()))
        .await
        .unwrap();
    fake.always(Method::Acquire, Some(lost_reply()));
    let mut shares = BTreeSet::new();
    let resource = orders();
    let acquiring = session.try_acquire(&resource);
    let time_passes = async {
        for (tries, longest_ms) in [50, 100, 200, 400, 800, 1000, 1000, 1000]
            .iter()
            .enumerate()
        {
            let longest = Duration::from_millis(*longest_ms);
            fake.saw(Method::Acquire, tries + 1).await;
            // Renewals and deadlines are seconds away, and so is the end of a try.
            let pauses = async || clock.next_timer().is_some_and(|next| next <= longest);
            eventually("a pause", PATIENCE, pauses).await.unwrap();
            let pause = clock.next_timer().unwrap();
            assert!(pause >= longest / 2, "{pause:?} of {longest:?}");
            shares.insert(pause.as_micros() * 1000 / longest.as_micros());
            clock.advance(pause - TICK);
            tokio::task::yield_now().await;
            assert_eq!(fake.calls(Method::Acquire).len(), tries + 1);
            clock.advance(TICK);
        }
        fake.always(Method::Acquire, None);
        std::future::pending::<()>().await;
    };
    let lease = in_time(async {
        tokio::select! {
            lease = acquiring => lease.unwrap(),
            () = time_passes => unreachable!("it waits for ever"),
        }
    });
    assert!(lease.await.grant().is_ok());
    assert!(shares.len() > 1, "all the same: {shares:?}");
    let calls = fake.calls(Method::Acquire);
    assert!(
        calls
            .iter()
            .all(|call| call.request_id == calls[0].request_id)
    );
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_left_for_another() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let session = session_of(&[&one, &other]).await;
    let (first, second) = if one.calls(Method::Open).is_empty() {
        (&other, &one)
    } else {
        (&one, &other)
    };
    first.always(Method::Acquire, Some(Step::Hang));
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let (left, taken) = (first.calls(Method::Acquire), second.calls(Method::Acquire));
    assert_eq!((left.len(), taken.len()), (1, 1));
    assert_eq!(left[0].request_id, taken[0].request_id);
    assert_eq!(left[0].session_id, taken[0].session_id);
    assert!(left[0].epoch < taken[0].epoch);
    assert_eq!(taken[0].attempt, 2);
    in_time(lease.release()).await.unwrap();
    assert_eq!(
        first.calls(Method::Release),
        [],
        "the one that failed is left out for a while"
    );
}

#[tokio::test]
async fn what_was_not_sent_is_no_retry() {
    let (gone, fake) = (Fake::start().await, Fake::start().await);
    let address = gone.address.clone();
    drop(gone);
    for _client in 0..8 {
        // Each begins with one of the two, at random.
        let client = Client::builder()
            .transport(Transport::Unary)
            .endpoints([address.clone(), fake.address.clone()])
            .connect()
            .unwrap();
        let opening = client.open_session(palisade_client::SessionOptions::default());
        in_time(opening).await.unwrap();
    }
    let calls = fake.calls(Method::Open);
    assert_eq!(calls.len(), 8);
    assert!(calls.iter().all(|call| call.epoch == 1), "{calls:?}");
}

#[tokio::test]
async fn draining_and_what_surely_did_not_happen_are_no_retries_either() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    fake.next(Method::Acquire, refusal(Code::Unavailable, "DRAINING", &[]));
    let undone = [("mayHaveHappened", "false")];
    fake.next(
        Method::Acquire,
        refusal(Code::Unavailable, "STORE_UNAVAILABLE", &undone),
    );
    let _lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let calls = fake.calls(Method::Acquire);
    assert!(
        calls
            .iter()
            .all(|call| (call.attempt, call.epoch) == (1, 1)),
        "{calls:?}"
    );
}

#[tokio::test]
async fn a_stale_epoch_goes_on_above_the_stored_one() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    fake.next(
        Method::Acquire,
        refusal(Code::Aborted, "EPOCH_STALE", &[("storedEpoch", "7")]),
    );
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let calls = fake.calls(Method::Acquire);
    assert_eq!(
        calls.iter().map(|call| call.epoch).collect::<Vec<_>>(),
        [1, 8]
    );
    assert_eq!(calls[1].attempt, 1, "nothing was done");
    in_time(lease.release()).await.unwrap();
    assert_eq!(
        fake.calls(Method::Release)[0].epoch,
        8,
        "all further calls follow"
    );
}

#[tokio::test]
async fn a_superseded_call_is_a_retry() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    fake.next(Method::Acquire, refusal(Code::Aborted, "SUPERSEDED", &[]));
    let _lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let calls = fake.calls(Method::Acquire);
    assert_eq!((calls[1].attempt, calls[1].epoch), (2, 2));
}

#[tokio::test]
async fn an_opening_that_is_tried_again_is_the_same_opening() {
    let fake = Fake::start().await;
    fake.next(Method::Open, lost_reply());
    let _session = session_of(&[&fake]).await;
    let calls = fake.calls(Method::Open);
    assert_eq!(calls.len(), 2);
    assert_eq!(
        (&calls[0].open_id, &calls[0].secret),
        (&calls[1].open_id, &calls[1].secret)
    );
    assert!(calls[0].epoch < calls[1].epoch);
    assert_eq!(calls[0].secret.len(), 32);
}

#[tokio::test]
async fn when_nobody_answers_it_is_said_whether_it_may_have_happened() {
    let (fake, gone) = (Fake::start().await, Fake::start().await);
    let impatient = |fake: &Fake| {
        Client::builder()
            .transport(Transport::Unary)
            .endpoint(&fake.address)
            .call_timeout(Duration::from_millis(100))
            .operation_timeout(Duration::from_millis(300))
            .connect()
            .unwrap()
    };
    fake.next(Method::Open, Step::Hang);
    let undone = [("mayHaveHappened", "false")];
    let away = refusal(Code::Unavailable, "STORE_UNAVAILABLE", &undone);
    fake.always(Method::Open, Some(away));
    let options = palisade_client::SessionOptions::default;
    let opening = in_time(impatient(&fake).open_session(options())).await;
    let error = opening.unwrap_err();
    assert!(
        error.may_have_happened(),
        "the first try is not forgotten: {error:?}"
    );

    let client = impatient(&gone);
    drop(gone);
    let error = in_time(client.open_session(options())).await.unwrap_err();
    assert!(!error.may_have_happened(), "{error:?}");
    let is_unreachable = |error: &ClientError| {
        matches!(
            error,
            ClientError::Unavailable {
                cause: Unavailable::Unreachable,
                ..
            }
        )
    };
    assert!(is_unreachable(&error), "{error:?}");
}

#[tokio::test]
async fn many_waiters_of_one_session_do_not_supersede_each_other_for_ever() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let waiters = 10;
    for _waiter in 0..waiters {
        fake.next(Method::Acquire, refusal(Code::Aborted, "SUPERSEDED", &[]));
    }
    let resources: Vec<_> = (0..waiters)
        .map(|n| format!("r/{n}").parse().unwrap())
        .collect();
    let waiting = resources.iter().map(|resource| {
        let options = AcquireOptions::default().wait(Duration::from_secs(10));
        session.acquire(resource, options)
    });
    let leases = in_time(futures::future::try_join_all(waiting))
        .await
        .unwrap();
    assert_eq!(leases.len(), waiters);
    let calls = fake.calls(Method::Acquire);
    assert!(calls.len() <= waiters * 5, "{} calls", calls.len());
}

#[tokio::test]
async fn reads_are_tried_again_and_pages_follow_each_other() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    fake.next(Method::Get, lost_reply());
    let occupancy = in_time(client.get_lease(&orders(), 5)).await.unwrap();
    assert_eq!(
        (occupancy.lease, occupancy.waiters, occupancy.revision),
        (None, 3, 77)
    );
    let page = in_time(client.list_leases("a/", 0, None)).await.unwrap();
    assert_eq!(page.leases[0].grant.resource.as_str(), "a/1");
    let page = in_time(client.list_leases("a/", 0, page.next.as_deref()))
        .await
        .unwrap();
    assert_eq!(page.leases[0].grant.token.get(), 2);
    assert_eq!(page.next, None);
}
