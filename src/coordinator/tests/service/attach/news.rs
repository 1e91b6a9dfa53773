//! What a stream hears that it did not ask for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_api::LeaseEnd;
use palisade_api::v1::AttachRevokeAck;
use palisade_api::v1::attach_request::Message as Ask;
use palisade_api::v1::attach_response::Message as Told;
use palisade_coordinator::domain::{AskBack, Principal, Revoke};
use palisade_coordinator::store::Store;
use palisade_test_support::eventually;
use tonic::Code;

use super::support::{HOUR, Stream, known, reference};
use crate::support::{Coordinator, LONG, acquire, asking, get};

fn revoking(token: i64) -> Revoke {
    Revoke {
        resource: "x".parse().unwrap(),
        token: token.try_into().unwrap(),
        reason: "maintenance".to_owned(),
        actor: "alice".to_owned(),
        principal: Principal::anonymous(),
    }
}

#[tokio::test]
async fn a_revoked_lease_is_lost_with_its_reason_and_its_heir() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, _) = Stream::open(client, "s").await;
    let token = stream.granted("x", "r").await;
    let (mut heir, _) = Stream::open(client, "heir").await;
    let asked = heir.acquire("x", "r", HOUR).await;
    coordinator.waiting("x", 1).await;
    coordinator.store.revoke(&revoking(token)).await.unwrap();
    let next = heir.hears_grant(asked).await;
    match stream.told().await {
        (0, Told::Lost(lost)) => {
            assert_eq!(
                (lost.resource.as_str(), lost.request_id.as_str()),
                ("x", "r")
            );
            assert_eq!((lost.token, lost.end()), (token, LeaseEnd::Revoked));
            assert_eq!(lost.reason, "maintenance");
            assert_eq!(lost.superseded_by_token, next);
            assert_eq!(lost.superseded_by_label, "a test");
        }
        other => panic!("{other:?}"),
    }
    // Once: a renewal that does not know yet is not told again.
    stream.renew(vec![known("x", "r", token)]).await;
    let seq = stream.acquire("x", "r2", Duration::ZERO).await;
    let reason = palisade_api::ErrorReason::LeaseHeld;
    stream
        .hears_refusal(seq, Code::FailedPrecondition, reason)
        .await;
    drop((stream, heir));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_holder_hears_that_its_lease_is_wanted_back_and_may_decline() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let token = stream.granted("x", "r").await;
    let ask = AskBack {
        revoke: revoking(token),
        left_ms: 60_000,
    };
    assert!(coordinator.store.ask_back(&ask).await.unwrap());
    let is_asked = |told: Told| match told {
        Told::RevokeRequested(asked) => {
            assert_eq!(
                (asked.resource.as_str(), asked.request_id.as_str()),
                ("x", "r")
            );
            assert_eq!((asked.token, asked.deadline_ms), (token, 60_000));
            assert_eq!(
                (asked.reason.as_str(), asked.actor.as_str()),
                ("maintenance", "alice")
            );
        }
        other => panic!("{other:?}"),
    };
    is_asked(stream.told().await.1);

    // Whoever takes the session over hears of it, too.
    let named = vec![known("x", "r", token)];
    let (mut next, _) = Stream::resume(client, &reference(&opened, 2), named).await;
    is_asked(next.told().await.1);
    let declines = |will_release| {
        Ask::RevokeAck(AttachRevokeAck {
            resource: "x".to_owned(),
            token,
            will_release,
        })
    };
    next.send(declines(true)).await;
    next.renew(vec![known("x", "r", token)]).await;
    assert_eq!(coordinator.store.declines.load(Ordering::Relaxed), 0);
    next.send(declines(false)).await;
    let declined = async || coordinator.store.declines.load(Ordering::Relaxed) == 1;
    eventually("it is declined", LONG, declined).await.unwrap();
    assert_eq!(get(client, "x").await.lease.unwrap().token, token);
    drop(next);
    coordinator.stop().await;
}

/// Tens of thousands of sessions only say that they live.
#[tokio::test]
async fn a_renewal_reads_what_a_session_has_only_where_it_may_differ() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let token = stream.granted("x", "r").await;
    let named = || vec![known("x", "r", token)];
    for _ in 0..2 {
        stream.renew(named()).await;
    }
    let before = coordinator.store.holdings.load(Ordering::Relaxed);
    for _ in 0..5 {
        stream.renew(named()).await;
    }
    let after = coordinator.store.holdings.load(Ordering::Relaxed);
    assert!(after <= before + 1, "{before} {after}");
    // A grant by a call, which nobody heard of.
    let unheard = asking(&reference(&opened, 1), "r2", "y", Duration::ZERO);
    acquire(client, unheard).await.unwrap();
    // News of it may be a moment behind; then it is the next renewal.
    let within = palisade_test_support::within("it is given back", LONG, async {
        while get(client, "y").await.lease.is_some() {
            stream.renew(named()).await;
        }
    });
    within.await.unwrap();
    drop(stream);
    coordinator.stop().await;
}

/// After a restore, a request whose lease is gone may wait again.
#[tokio::test]
async fn a_renewal_reads_what_a_session_has_once_a_release_found_nothing() {
    let coordinator = Coordinator::start().await;
    let (mut stream, _) = Stream::open(&coordinator.client, "s").await;
    let token = stream.granted("x", "r").await;
    let named = || vec![known("x", "r", token)];
    for _ in 0..3 {
        stream.renew(named()).await;
    }
    let reads = || coordinator.store.holdings.load(Ordering::Relaxed);
    let before = reads();
    stream.release("y", token).await;
    assert_eq!(reads(), before);
    stream.renew(named()).await;
    eventually("it is read", LONG, async || reads() > before)
        .await
        .unwrap();
    drop(stream);
    coordinator.stop().await;
}
