//! What nobody waits for any more is given back (I5).

use std::sync::Arc;
use std::time::Duration;

use palisade_client::{AcquireOptions, ClientError, Hold, LeaseEnd, LostReason, SessionState};
use palisade_test_support::eventually;
use tonic::{Code, Status};

use crate::clock::ManualClock;
use crate::fake::{
    Fake, Method, PATIENCE, Step, client_of, in_time, lost_reply, orders, refusal, session_of,
};

#[tokio::test]
async fn an_abandoned_acquire_is_given_back_by_its_request_above_its_epoch() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    fake.next(Method::Acquire, lost_reply());
    fake.next(Method::Acquire, Step::Hang);
    let resource = orders();
    let options = AcquireOptions::default().wait(Duration::from_secs(60));
    tokio::select! {
        lease = session.acquire(&resource, options) => panic!("{lease:?}"),
        _calls = fake.saw(Method::Acquire, 2) => {}
    }
    let releases = fake.saw(Method::Release, 1).await;
    let acquires = fake.calls(Method::Acquire);
    assert_eq!(releases[0].request_id, acquires[0].request_id);
    assert_eq!(releases[0].resource, "orders");
    assert!(
        releases[0].epoch > acquires[1].epoch,
        "{releases:?} {acquires:?}"
    );
}

/// A restore of the store brought it back.
#[tokio::test]
async fn what_a_renewal_tells_of_and_nobody_knows_is_given_back() {
    let fake = Fake::start().await;
    fake.ttl(Duration::from_secs(1));
    let session = session_of(&[&fake]).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let acquire = fake.calls(Method::Acquire).remove(0);
    fake.has(&[&acquire.request_id, "of before"]);
    let releases = fake.saw(Method::Release, 3).await;
    for release in &releases {
        assert_eq!(release.request_id, "of before");
        assert!(release.epoch > acquire.epoch, "{release:?}");
    }
    fake.has(&[]);
    assert!(lease.grant().is_ok());
}

/// Nothing is under way then: what an earlier try was granted is given back all the same.
#[tokio::test]
async fn an_acquire_abandoned_between_two_tries_is_given_back() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let client = palisade_client::Client::builder()
        .transport(palisade_client::Transport::Unary)
        .endpoint(&fake.address)
        .clock(Arc::<ManualClock>::clone(&clock))
        .connect()
        .unwrap();
    let session = in_time(client.open_session(Default::default()))
        .await
        .unwrap();
    fake.always(Method::Acquire, Some(lost_reply()));
    let longest_pause = Duration::from_millis(50);
    let pauses = async || clock.next_timer().is_some_and(|next| next <= longest_pause);
    let resource = orders();
    tokio::select! {
        lease = session.try_acquire(&resource) => panic!("{lease:?}"),
        paused = eventually("a pause", PATIENCE, pauses) => paused.unwrap(),
    }
    let releases = fake.saw(Method::Release, 1).await;
    let acquires = fake.calls(Method::Acquire);
    assert_eq!(acquires.len(), 1);
    assert_eq!(releases[0].request_id, acquires[0].request_id);
    assert!(releases[0].epoch > acquires[0].epoch);
}

#[tokio::test]
async fn an_acquire_whose_outcome_stays_unknown_is_given_back() {
    let fake = Fake::start().await;
    let client = palisade_client::Client::builder()
        .transport(palisade_client::Transport::Unary)
        .endpoint(&fake.address)
        .call_timeout(Duration::from_millis(500))
        .operation_timeout(Duration::from_millis(1500))
        .connect()
        .unwrap();
    let session = in_time(client.open_session(Default::default()))
        .await
        .unwrap();
    fake.always(Method::Acquire, Some(Step::Hang));
    let error = in_time(session.try_acquire(&orders())).await.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    let releases = fake.saw(Method::Release, 1).await;
    let acquires = fake.calls(Method::Acquire);
    assert_eq!(releases[0].request_id, acquires[0].request_id);
    assert!(
        acquires
            .iter()
            .all(|acquire| acquire.epoch < releases[0].epoch)
    );
}

#[tokio::test]
async fn a_refusal_after_an_unknown_outcome_does_not_end_the_request() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    fake.next(Method::Acquire, lost_reply());
    fake.next(
        Method::Acquire,
        refusal(Code::PermissionDenied, "PERMISSION_DENIED", &[]),
    );
    let error = in_time(session.try_acquire(&orders())).await.unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error:?}");
    assert!(
        error.may_have_happened(),
        "the first try is not forgotten: {error:?}"
    );
    let releases = fake.saw(Method::Release, 1).await;
    assert_eq!(
        releases[0].request_id,
        fake.calls(Method::Acquire)[0].request_id
    );
}

#[tokio::test]
async fn a_final_refusal_that_may_have_happened_all_the_same_is_given_back() {
    let may = [
        ("limit", "storeSpace"),
        ("bound", "0"),
        ("mayHaveHappened", "true"),
    ];
    for (what, step) in [
        (
            "a store out of space",
            refusal(Code::ResourceExhausted, "LIMIT_REACHED", &may),
        ),
        (
            "a connection reset with ENHANCE_YOUR_CALM",
            Step::Refuse(Status::resource_exhausted("")),
        ),
        (
            "a connection reset with INADEQUATE_SECURITY",
            Step::Refuse(Status::permission_denied("")),
        ),
    ] {
        let fake = Fake::start().await;
        let session = session_of(&[&fake]).await;
        fake.next(Method::Acquire, step);
        let error = in_time(session.try_acquire(&orders())).await.unwrap_err();
        assert!(error.may_have_happened(), "{what}: {error:?}");
        let acquires = fake.calls(Method::Acquire);
        assert_eq!(acquires.len(), 1, "{what}: final");
        let releases = fake.saw(Method::Release, 1).await;
        assert_eq!(releases[0].request_id, acquires[0].request_id, "{what}");
        assert!(releases[0].epoch > acquires[0].epoch, "{what}");
    }
}

#[tokio::test]
async fn what_the_coordinator_says_may_have_happened_counts_with_every_reason() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let held = [("resource", "orders"), ("mayHaveHappened", "true")];
    fake.next(
        Method::Acquire,
        refusal(Code::FailedPrecondition, "LEASE_HELD", &held),
    );
    let error = in_time(session.try_acquire(&orders())).await.unwrap_err();
    assert!(matches!(error, ClientError::Held { .. }), "{error:?}");
    let releases = fake.saw(Method::Release, 1).await;
    assert_eq!(
        releases[0].request_id,
        fake.calls(Method::Acquire)[0].request_id
    );
}

#[tokio::test]
async fn a_lease_that_is_dropped_is_released_and_then_its_session_closed() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let session = in_time(client.open_session(Default::default()))
        .await
        .unwrap();
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let lost = lease.lost();
    drop(session);
    assert!(lease.grant().is_ok(), "a lease keeps its session");
    fake.next(Method::Release, lost_reply());
    drop(lease);
    assert!(lost.is_cancelled(), "its work was told before");
    assert!(client.settled(PATIENCE).await);
    let releases = fake.calls(Method::Release);
    assert_eq!(releases.len(), 2, "tried until it is answered");
    assert_eq!(releases[0].token, 42);
    assert!(releases[0].epoch < releases[1].epoch);
    assert_eq!(fake.order().last(), Some(&Method::Close));
    assert_eq!(fake.calls(Method::Close).len(), 1);
}

#[tokio::test]
async fn a_lease_dropped_outside_the_runtime_is_released() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    std::thread::spawn(move || drop(lease)).join().unwrap();
    assert_eq!(fake.saw(Method::Release, 1).await[0].token, 42);
}

#[tokio::test]
async fn a_release_tells_what_it_did() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let released = in_time(lease.release()).await.unwrap();
    assert_eq!((released.ended_before, released.revision), (None, 77));

    fake.holds_nothing();
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let released = in_time(lease.release()).await.unwrap();
    assert_eq!(released.ended_before, Some(LeaseEnd::Revoked));
    assert_eq!(
        fake.calls(Method::Release).len(),
        2,
        "once each, also when they are dropped"
    );
}

#[tokio::test]
async fn a_fence_that_refused_the_token_travels_with_the_release() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let ahead = [("resource", "orders"), ("token", "42"), ("fence", "99")];
    fake.next(
        Method::Release,
        refusal(Code::FailedPrecondition, "FENCE_AHEAD", &ahead),
    );
    let error = in_time(lease.release_refused_by("99".parse().unwrap()))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::FenceAhead { fence: Some(fence) } if fence.get() == 99));
    assert_eq!(fake.calls(Method::Release)[0].fence, 99);
}

#[tokio::test]
async fn a_release_nobody_waits_for_goes_on() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    fake.next(Method::Release, Step::Hang);
    tokio::select! {
        released = lease.release() => panic!("{released:?}"),
        _calls = fake.saw(Method::Release, 1) => {}
    }
    let calls = fake.saw(Method::Release, 2).await;
    assert!(calls[0].epoch < calls[1].epoch, "{calls:?}");
}

#[tokio::test]
async fn odd_refusals_do_not_stop_a_give_back() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    fake.next(Method::Acquire, Step::Hang);
    for step in [
        refusal(Code::PermissionDenied, "PERMISSION_DENIED", &[]),
        refusal(Code::FailedPrecondition, "FROM_THE_FUTURE", &[]),
        refusal(Code::Unimplemented, "NOT_SERVED", &[]),
        refusal(
            Code::ResourceExhausted,
            "LIMIT_REACHED",
            &[("limit", "rate")],
        ),
    ] {
        fake.next(Method::Release, step);
    }
    let resource = orders();
    tokio::select! {
        lease = session.try_acquire(&resource) => panic!("{lease:?}"),
        _calls = fake.saw(Method::Acquire, 1) => {}
    }
    let releases = fake.saw(Method::Release, 5).await;
    assert!(
        releases.windows(2).all(|two| two[0].epoch < two[1].epoch),
        "{releases:?}"
    );
    in_time(session.close()).await.unwrap();
    assert_eq!(fake.calls(Method::Release).len(), 5, "until it is done");
}

#[tokio::test]
async fn who_waits_for_a_release_is_told_of_its_refusal_and_it_goes_on() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let denied = refusal(Code::PermissionDenied, "PERMISSION_DENIED", &[]);
    fake.next(Method::Release, denied);
    let error = in_time(lease.release()).await.unwrap_err();
    assert!(matches!(error, ClientError::Denied { .. }), "{error:?}");
    fake.saw(Method::Release, 2).await;
}

#[tokio::test]
async fn what_cannot_be_given_back_does_not_keep_a_session_that_nobody_uses() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let session = in_time(client.open_session(Default::default()))
        .await
        .unwrap();
    let denied = refusal(Code::PermissionDenied, "PERMISSION_DENIED", &[]);
    fake.always(Method::Release, Some(denied));
    drop(in_time(session.try_acquire(&orders())).await.unwrap());
    fake.saw(Method::Release, 2).await;
    assert!(session.state().is_held(), "the others go on");
    assert_eq!(fake.calls(Method::Close), []);
    drop(session);
    assert!(client.settled(PATIENCE).await);
    assert_eq!(fake.calls(Method::Close).len(), 1);
}

#[tokio::test]
async fn a_detached_session_is_left_alone_and_released_with_its_credentials() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let session = in_time(client.open_session(Default::default()))
        .await
        .unwrap();
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let token = lease.token();
    let states = session.watch();
    let credentials = session.detach().unwrap();
    assert!(
        lease.grant().is_err(),
        "this process holds nothing any more"
    );
    assert_eq!(*states.borrow(), SessionState::Lost(LostReason::Detached));
    drop(lease);
    assert!(client.settled(PATIENCE).await);
    assert_eq!(fake.calls(Method::Release), []);
    assert_eq!(fake.calls(Method::Close), []);

    let used = credentials.epoch;
    let other = client_of(&[&fake]).detached(credentials);
    in_time(other.release(&orders(), Hold::Token(token), None))
        .await
        .unwrap();
    let released = fake.calls(Method::Release);
    assert_eq!(released[0].secret, fake.calls(Method::Open)[0].secret);
    assert!(released[0].epoch > used);
    in_time(other.renew()).await.unwrap();
    in_time(other.close()).await.unwrap();
    assert_eq!(fake.calls(Method::Close).len(), 1);
}

#[tokio::test]
async fn closing_an_ended_session_is_no_error_and_a_clone_closes_once() {
    let fake = Fake::start().await;
    let session = session_of(&[&fake]).await;
    let clone = session.clone();
    fake.next(Method::Close, refusal(Code::NotFound, "SESSION_ENDED", &[]));
    in_time(session.close()).await.unwrap();
    in_time(clone.close()).await.unwrap();
    eventually("closed once", PATIENCE, async || {
        fake.calls(Method::Close).len() == 1
    })
    .await
    .unwrap();
}
