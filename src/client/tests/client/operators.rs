//! What operators ask: tried again only where that is safe, and doubt is told.

use std::sync::Arc;
use std::time::Duration;

use palisade_client::{
    AdvanceOptions, Client, ClientError, DrainOptions, LeaseEnd, RevokeOptions, RevokeOutcome,
    StoreKind, TokenState, Unavailable,
};
use tonic::Code;

use crate::clock::ManualClock;
use crate::fake::{Fake, Method, Step, client_of, in_time, lost_reply, orders, refusal};

fn token(value: i64) -> palisade_client::FencingToken {
    value.try_into().unwrap()
}

fn why() -> RevokeOptions {
    RevokeOptions::because("it hangs", "somebody")
}

#[tokio::test]
async fn a_token_is_checked() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    for (given, state) in [
        (42, TokenState::Current),
        (41, TokenState::Stale),
        (43, TokenState::Ahead),
    ] {
        fake.next(Method::Check, lost_reply());
        let check = in_time(client.check_token(&orders(), token(given))).await;
        let check = check.unwrap();
        assert_eq!((check.state, check.revision), (state, 77));
        assert_eq!(check.current, Some(token(42)));
    }
}

#[tokio::test]
async fn a_revocation_says_why_and_who_and_what_ended_the_lease() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    let asked = why().ask_for(Duration::from_secs(30));
    let revoked = in_time(client.revoke_lease(&orders(), token(42), asked)).await;
    let revoked = revoked.unwrap();
    assert_eq!(revoked.outcome, RevokeOutcome::Revoked);
    assert_eq!((revoked.end, revoked.revision), (LeaseEnd::Revoked, 77));
    let calls = fake.calls(Method::Revoke);
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].token, calls[0].patience_ms), (42, 30_000));
    assert_eq!(
        (&*calls[0].reason, &*calls[0].actor),
        ("it hangs", "somebody")
    );

    fake.holds_nothing();
    let before = in_time(client.revoke_lease(&orders(), token(42), why())).await;
    assert_eq!(before.unwrap().outcome, RevokeOutcome::EndedBefore);
}

/// The first try may be what ended it: then it is not told that the lease had ended before.
#[tokio::test]
async fn who_ended_a_lease_is_not_known_after_a_lost_reply() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    fake.holds_nothing();
    fake.next(Method::Revoke, lost_reply());
    let revoked = in_time(client.revoke_lease(&orders(), token(42), why())).await;
    let revoked = revoked.unwrap();
    assert_eq!(revoked.outcome, RevokeOutcome::Unknown);
    assert_eq!(revoked.end, LeaseEnd::Revoked);

    let undone = [("mayHaveHappened", "false")];
    let undone = refusal(Code::Unavailable, "STORE_UNAVAILABLE", &undone);
    fake.next(Method::Revoke, undone);
    let before = in_time(client.revoke_lease(&orders(), token(42), why())).await;
    assert_eq!(before.unwrap().outcome, RevokeOutcome::EndedBefore);
}

/// A holder is not asked for longer because a reply was lost.
#[tokio::test]
async fn the_time_of_a_holder_runs_from_the_first_try_that_may_have_been_heard() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let client = Client::builder()
        .endpoint(&fake.address)
        .call_timeout(Duration::from_secs(1))
        .clock(Arc::<ManualClock>::clone(&clock))
        .connect()
        .unwrap();
    fake.next(Method::Revoke, Step::Hang);
    let asked = why().ask_for(Duration::from_secs(10));
    let resource = orders();
    let revoking = client.revoke_lease(&resource, token(42), asked);
    let time_passes = async {
        fake.saw(Method::Revoke, 1).await;
        clock.advance(Duration::from_secs(11));
        loop {
            clock.advance(Duration::from_millis(10));
            tokio::task::yield_now().await;
        }
    };
    let revoked = in_time(async {
        tokio::select! {
            revoked = revoking => revoked,
            () = time_passes => unreachable!("it goes on for ever"),
        }
    });
    assert_eq!(revoked.await.unwrap().outcome, RevokeOutcome::Revoked);
    let left: Vec<u64> = fake
        .calls(Method::Revoke)
        .iter()
        .map(|call| call.patience_ms)
        .collect();
    assert_eq!(left, [10_000, 0]);
}

#[tokio::test]
async fn a_revocation_without_an_answer_says_that_it_may_have_happened() {
    let fake = Fake::start().await;
    let client = Client::builder()
        .endpoint(&fake.address)
        .operation_timeout(Duration::from_millis(200))
        .connect()
        .unwrap();
    fake.always(Method::Revoke, Some(lost_reply()));
    let error = in_time(client.revoke_lease(&orders(), token(42), why())).await;
    let error = error.unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");

    let (field, reason) = (("token", "43"), "STALE_TOKEN");
    let stale = refusal(
        Code::FailedPrecondition,
        reason,
        &[field, ("currentToken", "42")],
    );
    fake.always(Method::Revoke, Some(stale));
    let error = in_time(client.revoke_lease(&orders(), token(43), why())).await;
    let error = error.unwrap_err();
    assert!(matches!(error, ClientError::StaleToken { .. }), "{error:?}");
    assert!(error.to_string().contains("token 43"), "{error}");
}

#[tokio::test]
async fn a_generation_is_made_and_a_day_ahead_needs_force() {
    let fake = Fake::start().await;
    let client = client_of(&[&fake]);
    fake.next(Method::Advance, lost_reply());
    let why = || AdvanceOptions::because("a wrong clock", "somebody").past(token(1000));
    let change = in_time(client.advance_generation(why())).await.unwrap();
    assert_eq!(change.generation.base, 1001);
    assert_eq!(change.generation.nonce, "07".repeat(16));
    assert_eq!(fake.calls(Method::Advance).len(), 2);

    let bound = [("past", "1000"), ("bound", "900")];
    let far = refusal(Code::FailedPrecondition, "FORCE_REQUIRED", &bound);
    fake.next(Method::Advance, far);
    let error = in_time(client.advance_generation(why())).await.unwrap_err();
    let ClientError::ForceRequired {
        past,
        clock_unix_micros,
    } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!((past, clock_unix_micros), (Some(token(1000)), Some(900)));
}

#[tokio::test]
async fn each_endpoint_is_asked_how_it_stands() {
    let (one, other, gone) = (
        Fake::start().await,
        Fake::start().await,
        Fake::start().await,
    );
    let client = client_of(&[&one, &gone, &other]);
    let address = gone.address.clone();
    drop(gone);
    other.next(Method::Status, lost_reply());
    let all = in_time(client.statuses()).await;
    let names: Vec<&str> = all.iter().map(|one| one.endpoint.as_str()).collect();
    assert_eq!(names, [&one.address, &address, &other.address]);
    let status = all[0].status.as_ref().unwrap();
    assert_eq!(status.store, Some(StoreKind::Etcd));
    assert!(status.store_endpoints[0].healthy && !status.ready);
    assert_eq!(status.not_ready_reasons, ["STORE_UNAVAILABLE"]);
    assert_eq!(status.uptime, Duration::from_millis(1500));
    let unreachable = |error: &ClientError| {
        let cause = Unavailable::Unreachable;
        matches!(error, ClientError::Unavailable { cause: met, .. } if *met == cause)
    };
    assert!(unreachable(all[1].status.as_ref().unwrap_err()));
    assert!(all[2].status.is_err(), "one try each: {:?}", all[2]);
    assert_eq!(other.calls(Method::Status).len(), 1);

    assert!(in_time(client.status_of(&other.address)).await.is_ok());
    assert!(in_time(client.status()).await.is_ok());
    let unknown = in_time(client.status_of("http://127.0.0.1:1")).await;
    assert!(matches!(unknown, Err(ClientError::Invalid { field, .. }) if field == "endpoint"));
}

#[tokio::test]
async fn one_coordinator_is_drained_and_no_other_and_not_twice() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let client = client_of(&[&one, &other]);
    let why = || DrainOptions::because("an upgrade", "somebody");
    for drained in [&one, &other, &one] {
        let before = drained.calls(Method::Drain).len();
        let options = why().within(Duration::from_secs(5));
        assert_eq!(
            in_time(client.drain(&drained.address, options))
                .await
                .unwrap(),
            3
        );
        let calls = drained.calls(Method::Drain);
        assert_eq!(calls.len(), before + 1);
        assert_eq!(calls[before].patience_ms, 5000);
        assert_eq!(
            (&*calls[0].reason, &*calls[0].actor),
            ("an upgrade", "somebody")
        );
    }
    one.next(Method::Drain, lost_reply());
    let error = in_time(client.drain(&one.address, why()))
        .await
        .unwrap_err();
    assert!(error.may_have_happened(), "{error:?}");
    assert_eq!(one.calls(Method::Drain).len(), 3, "not sent again");
    let unknown = in_time(client.drain("http://127.0.0.1:1", why())).await;
    assert!(matches!(unknown, Err(ClientError::Invalid { .. })));
}
