//! What waits for what on a stream.

use std::time::Duration;

use palisade_api::v1::attach_release::Hold;
use palisade_api::v1::attach_response::Message as Told;
use palisade_api::{ErrorReason, LeaseEnd, ReleaseOutcome};
use palisade_test_support::eventually;
use tonic::Code;

use super::support::{HOUR, Stream, acquire, cancel, close, known, reference, release, renew};
use crate::support::{Coordinator, LONG, asking, get};

const NOW: Duration = Duration::ZERO;

fn by(request: &str) -> Hold {
    Hold::RequestId(request.to_owned())
}

#[tokio::test]
async fn messages_for_one_resource_take_effect_in_order() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, _) = Stream::open(client, "s").await;
    let mut last = 0;
    for round in 0..20 {
        let (first, second) = (format!("a{round}"), format!("b{round}"));
        // Without a pause: had they not this order, the second acquire would meet the first lease.
        let one = stream.send(acquire("x", &first, NOW)).await;
        let two = stream.send(release("x", by(&first))).await;
        let three = stream.send(acquire("x", &second, NOW)).await;
        let four = stream.send(cancel("x", &second)).await;
        for (acquired, given) in [(one, two), (three, four)] {
            let token = stream.hears_grant(acquired).await;
            assert!(token > last);
            last = token;
            let released = stream.hears_release(given).await;
            assert_eq!(released.outcome(), ReleaseOutcome::Released);
        }
    }
    drop(stream);
    coordinator.stop().await;
}

#[tokio::test]
async fn resources_and_heartbeats_do_not_wait_for_one_that_is_slow() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, _) = Stream::open(client, "s").await;
    coordinator
        .store
        .stuck
        .send_replace(Some("slow".to_owned()));
    let slow = stream.send(acquire("slow", "r", NOW)).await;
    let behind = stream.send(release("slow", by("r"))).await;
    let token = stream.granted("fast", "r").await;
    stream
        .renew(vec![known("fast", "r", token), known("slow", "r", 0)])
        .await;
    coordinator.store.stuck.send_replace(None);
    stream.hears_grant(slow).await;
    stream.hears_release(behind).await;
    drop(stream);
    coordinator.stop().await;
}

/// What came before a renewal is answered before the renewal gives anything back, and what came after it is
/// not meant.
#[tokio::test]
async fn a_renewal_gives_back_nothing_that_is_still_in_progress() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let unheard = asking(&reference(&opened, 1), "r", "unheard", NOW);
    crate::support::acquire(client, unheard).await.unwrap();
    coordinator
        .store
        .stuck
        .send_replace(Some("slow".to_owned()));
    let slow = stream.send(acquire("slow", "r", NOW)).await;
    stream.renew(vec![known("slow", "r", 0)]).await;
    let after = stream.granted("after", "r").await;
    assert!(
        get(client, "unheard").await.lease.is_some(),
        "the renewal still waits for what was before it"
    );
    coordinator.store.stuck.send_replace(None);
    stream.hears_grant(slow).await;
    let given_back = async || get(client, "unheard").await.lease.is_none();
    eventually("what was not named is given back", LONG, given_back)
        .await
        .unwrap();
    for resource in ["slow", "after"] {
        assert!(get(client, resource).await.lease.is_some(), "{resource}");
    }
    stream.release("after", after).await;
    drop(stream);
    coordinator.stop().await;
}

/// The client has not heard of the release yet when it names the lease once more.
#[tokio::test]
async fn a_release_that_crosses_a_renewal_is_no_loss() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, _) = Stream::open(client, "s").await;
    for round in 0..50 {
        let request = format!("r{round}");
        let token = stream.granted("x", &request).await;
        let renewing = stream.send(renew(vec![known("x", &request, token)])).await;
        let releasing = stream.send(release("x", Hold::Token(token))).await;
        let late = stream.send(renew(vec![known("x", &request, token)])).await;
        let mut open = vec![renewing, releasing, late];
        while !open.is_empty() {
            let (seq, told) = stream.told().await;
            assert!(!matches!(told, Told::Lost(_)), "{told:?}");
            open.retain(|asked| *asked != seq);
        }
    }
    drop(stream);
    coordinator.stop().await;
}

/// Ended by a call, it is gone without the stream's doing.
#[tokio::test]
async fn a_lease_that_ended_elsewhere_is_told_as_lost_once() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let token = stream.granted("x", "r").await;
    crate::support::release(client, &reference(&opened, 1), "x", token).await;
    let (mut other, _) = Stream::open(client, "other").await;
    let next = other.granted("x", "r").await;

    let renewing = stream.send(renew(vec![known("x", "r", token)])).await;
    let (mut is_renewed, mut is_lost) = (false, false);
    while !(is_renewed && is_lost) {
        match stream.told().await {
            (seq, Told::Renewed(_)) => is_renewed = seq == renewing,
            (0, Told::Lost(lost)) => {
                assert_eq!((lost.resource.as_str(), lost.token), ("x", token));
                assert_eq!(lost.end(), LeaseEnd::Released);
                // Known by the time that it is told, or not yet.
                assert!([0, next].contains(&lost.superseded_by_token));
                is_lost = true;
            }
            other => panic!("{other:?}"),
        }
    }
    stream.renew(vec![known("x", "r", token)]).await;
    stream.granted("y", "r").await;
    stream.renew(Vec::new()).await;
    drop((stream, other));
    coordinator.stop().await;
}

#[tokio::test]
async fn closing_comes_after_all_that_was_asked_before() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    holder.granted("busy", "r").await;
    let (mut stream, _) = Stream::open(client, "s").await;
    coordinator
        .store
        .stuck
        .send_replace(Some("slow".to_owned()));
    let slow = stream.send(acquire("slow", "r", NOW)).await;
    let waits = stream.send(acquire("busy", "r", HOUR)).await;
    let closing = stream.send(close()).await;
    let fast = get(client, "slow").await;
    assert_eq!(fast.lease, None);
    coordinator.store.stuck.send_replace(None);
    stream.hears_grant(slow).await;
    let reason = ErrorReason::RequestCancelled;
    stream.hears_refusal(waits, Code::Aborted, reason).await;
    assert!(matches!(stream.told().await, (seq, Told::Closed(_)) if seq == closing));
    stream.end().await.unwrap();
    assert_eq!(get(client, "slow").await.lease, None);
    drop(holder);
    coordinator.stop().await;
}
