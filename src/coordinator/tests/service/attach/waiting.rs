//! Acquires that wait on a stream.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use palisade_api::v1::attach_release::Hold;
use palisade_api::v1::attach_response::Message as Told;
use palisade_api::v1::release_request;
use palisade_api::{ErrorReason, ReleaseOutcome};
use palisade_test_support::eventually;
use tonic::Code;

use super::support::{HOUR, Stream, again, cancel, close, known, reference, release, renew};
use crate::store::Switch;
use crate::support::{
    Client, Coordinator, LONG, acquire, acquiring, asking, get, memory, open, outcome,
    release as release_unary, releasing, settings, token as token_of,
};

const SHORT: Duration = Duration::from_millis(300);

async fn held(client: &Client) -> i64 {
    get(client, "x").await.lease.unwrap().token
}

#[tokio::test]
async fn a_request_is_queued_told_its_place_and_granted() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    let first = holder.granted("x", "r").await;
    let (mut stream, _) = Stream::open(client, "s").await;
    let seq = stream.acquire("x", "r", HOUR).await;
    match stream.told().await {
        (reply, Told::Queued(queued)) => {
            assert_eq!((reply, queued.ahead, queued.holder_token), (seq, 0, first));
            assert_eq!(
                (queued.resource, queued.request_id),
                ("x".into(), "r".into())
            );
            assert!(queued.wait_left_ms > 0);
        }
        other => panic!("{other:?}"),
    }
    holder.release("x", first).await;
    assert!(stream.hears_grant(seq).await > first);
    drop((holder, stream));
    coordinator.stop().await;
}

/// Each would ask for itself otherwise: the more wait, the slower what they wait for.
#[tokio::test]
async fn one_look_tells_many_of_their_places() {
    const WAITERS: u32 = 20;
    let mut settings = settings();
    settings.timeouts.sweep = HOUR;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    holder.granted("x", "r").await;
    let mut streams = Vec::new();
    for number in 0..WAITERS {
        streams.push(Stream::open(client, &format!("s{number}")).await.0);
    }
    for stream in &mut streams {
        stream.acquire("x", "r", HOUR).await;
    }
    let mut places = BTreeSet::new();
    for stream in &mut streams {
        match stream.told().await {
            (_, Told::Queued(queued)) => assert!(places.insert(queued.ahead)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(places, (0..WAITERS).collect());
    let looks = coordinator.store.queues_read.load(Ordering::Relaxed);
    assert!(looks <= 10, "{looks} looks at one queue");
    drop((holder, streams));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_grant_does_not_wait_for_news_of_the_queue() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let store = &coordinator.store;
    store.hides_queues.store(true, Ordering::Relaxed);
    let (mut holder, _) = Stream::open(client, "holder").await;
    let first = holder.granted("x", "r").await;
    let (mut stream, _) = Stream::open(client, "s").await;
    let seq = stream.acquire("x", "r", HOUR).await;
    eventually("somebody looks at the queue", LONG, async || {
        store.queues_read.load(Ordering::Relaxed) > 0
    })
    .await
    .unwrap();
    holder.release("x", first).await;
    assert!(stream.hears_grant(seq).await > first);
    drop((holder, stream));
    coordinator.stop().await;
}

/// I11, however each of them asks.
#[tokio::test]
async fn waiters_are_served_in_order_whether_they_stream_or_call() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    let first = holder.granted("x", "r").await;
    let (mut one, _) = Stream::open(client, "one").await;
    let one_asked = one.acquire("x", "r", HOUR).await;
    coordinator.waiting("x", 1).await;
    let two = open(client, "two").await;
    let two_asks = acquiring(client, asking(&two, "r", "x", HOUR));
    coordinator.waiting("x", 2).await;
    let (mut three, _) = Stream::open(client, "three").await;
    let three_asked = three.acquire("x", "r", HOUR).await;
    coordinator.waiting("x", 3).await;

    holder.release("x", first).await;
    let second = one.hears_grant(one_asked).await;
    assert_eq!(held(client).await, second);
    one.release("x", second).await;
    let third = token_of(&outcome(two_asks).await.unwrap());
    assert_eq!(held(client).await, third);
    release_unary(client, &two, "x", third).await;
    let fourth = three.hears_grant(three_asked).await;
    assert!(first < second && second < third && third < fourth);
    drop((holder, one, three));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_wait_that_is_over_leaves_no_place() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    let first = holder.granted("x", "r").await;
    let (mut stream, _) = Stream::open(client, "s").await;
    let seq = stream.acquire("x", "r", SHORT).await;
    let told = stream.hears_refusal(seq, Code::Aborted, ErrorReason::WaitExpired);
    let told = told.await;
    assert_eq!(
        (told["resource"].as_str(), told["requestId"].as_str()),
        ("x", "r")
    );
    holder.release("x", first).await;
    assert_eq!(get(client, "x").await.lease, None);
    drop((holder, stream));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_try_is_refused_at_once() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    let first = holder.granted("x", "r").await;
    let (mut stream, _) = Stream::open(client, "s").await;
    let seq = stream.acquire("x", "r", Duration::ZERO).await;
    let refusal = stream.hears_refusal(seq, Code::FailedPrecondition, ErrorReason::LeaseHeld);
    assert_eq!(refusal.await["token"], first.to_string());
    let seq = holder.acquire("x", "r2", Duration::ZERO).await;
    let refusal = holder.hears_refusal(seq, Code::FailedPrecondition, ErrorReason::AlreadyHeld);
    assert_eq!(refusal.await["requestId"], "r");
    drop((holder, stream));
    coordinator.stop().await;
}

/// The acquire is answered before what ended it.
#[tokio::test]
async fn a_cancel_ends_the_wait_and_gives_the_place_back() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    let first = holder.granted("x", "r").await;
    let (mut stream, _) = Stream::open(client, "s").await;
    for (request, take_back) in [
        ("r1", cancel("x", "r1")),
        ("r2", release("x", Hold::RequestId("r2".to_owned()))),
    ] {
        let asked = stream.acquire("x", request, HOUR).await;
        let seq = stream.send(take_back).await;
        let reason = ErrorReason::RequestCancelled;
        stream.hears_refusal(asked, Code::Aborted, reason).await;
        let released = stream.hears_release(seq).await;
        assert!(released.queue_place_given_back);
        assert_eq!(released.request_id, request);
        assert_eq!(released.outcome(), ReleaseOutcome::NotHeld);
    }
    assert_eq!(get(client, "x").await.waiters, 0);
    holder.release("x", first).await;
    assert_eq!(get(client, "x").await.lease, None, "nobody waits any more");

    // A cancel that comes too late releases.
    let token = stream.granted("x", "r3").await;
    let seq = stream.send(cancel("x", "r3")).await;
    let released = stream.hears_release(seq).await;
    assert_eq!(released.outcome(), ReleaseOutcome::Released);
    assert!(token > first);
    // One that nobody asked for finds nothing.
    let seq = stream.send(cancel("x", "r4")).await;
    let released = stream.hears_release(seq).await;
    assert_eq!(released.outcome(), ReleaseOutcome::NotHeld);
    drop((holder, stream));
    coordinator.stop().await;
}

#[tokio::test]
async fn a_call_that_gives_the_request_back_ends_the_wait() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    holder.granted("x", "r").await;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let asked = stream.acquire("x", "r", HOUR).await;
    coordinator.waiting("x", 1).await;
    let hold = release_request::Hold::RequestId("r".to_owned());
    let give_back = releasing(&reference(&opened, 1), "x", hold);
    client.clone().release(give_back).await.unwrap();
    let reason = ErrorReason::RequestCancelled;
    stream.hears_refusal(asked, Code::Aborted, reason).await;
    stream.renew(Vec::new()).await;
    drop((holder, stream));
    coordinator.stop().await;
}

/// A place stands while nobody waits, and is taken up by the next stream.
#[tokio::test]
async fn a_place_outlives_its_stream_and_is_taken_up_again() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    let first = holder.granted("x", "r").await;
    let (mut stream, opened) = Stream::open(client, "s").await;
    stream.acquire("x", "r", HOUR).await;
    coordinator.waiting("x", 1).await;
    drop(stream);
    let behind = open(client, "behind").await;
    let behind_asks = acquiring(client, asking(&behind, "r", "x", HOUR));
    coordinator.waiting("x", 2).await;

    let named = vec![known("x", "r", 0)];
    let (mut back, _) = Stream::resume(client, &reference(&opened, 2), named).await;
    let seq = back.send(again("x", "r", HOUR)).await;
    holder.release("x", first).await;
    let token = back.hears_grant(seq).await;
    assert_eq!(
        get(client, "x").await.lease.unwrap().session_id,
        opened.session_id
    );
    // Once more, it is the same lease (I4).
    let seq = back.send(again("x", "r", HOUR)).await;
    assert_eq!(back.hears_grant(seq).await, token);
    back.release("x", token).await;
    outcome(behind_asks).await.unwrap();
    drop((holder, back));
    coordinator.stop().await;
}

/// Both are answered with the one lease that they are about.
#[tokio::test]
async fn a_request_that_is_asked_for_again_while_it_waits_is_granted_to_both() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    let first = holder.granted("x", "r").await;
    let (mut stream, _) = Stream::open(client, "s").await;
    let mut open_asks = vec![stream.acquire("x", "r", SHORT).await];
    open_asks.push(stream.send(again("x", "r", HOUR)).await);
    // The first wait would be over by now, were there not the second.
    let (mut later, _) = Stream::open(client, "later").await;
    let seq = later.acquire("x", "r", SHORT * 2).await;
    later
        .hears_refusal(seq, Code::Aborted, ErrorReason::WaitExpired)
        .await;
    holder.release("x", first).await;
    while !open_asks.is_empty() {
        match stream.told().await {
            (seq, Told::Granted(_)) => open_asks.retain(|asked| *asked != seq),
            (_, Told::Queued(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    drop((holder, stream, later));
    coordinator.stop().await;
}

#[tokio::test]
async fn closing_answers_those_that_wait_first() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    holder.granted("x", "r").await;
    let (mut stream, _) = Stream::open(client, "s").await;
    let asked = stream.acquire("x", "r", HOUR).await;
    coordinator.waiting("x", 1).await;
    let closing = stream.send(close()).await;
    let reason = ErrorReason::RequestCancelled;
    stream.hears_refusal(asked, Code::Aborted, reason).await;
    assert!(matches!(stream.told().await, (seq, Told::Closed(_)) if seq == closing));
    stream.end().await.unwrap();
    assert_eq!(get(client, "x").await.waiters, 0);
    drop(holder);
    coordinator.stop().await;
}

/// I5: a renewal that does not name a request gives it back, but not one that was sent after it.
#[tokio::test]
async fn a_renewal_gives_back_what_it_does_not_name() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut holder, _) = Stream::open(client, "holder").await;
    holder.granted("busy", "r").await;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let kept = stream.granted("kept", "r1").await;
    let dropped = stream.granted("dropped", "r2").await;
    let asked = stream.acquire("busy", "r3", HOUR).await;
    coordinator.waiting("busy", 1).await;
    // One that the stream knows nothing of.
    let session = reference(&opened, 1);
    let unheard = asking(&session, "r4", "unheard", Duration::ZERO);
    acquire(client, unheard).await.unwrap();

    let renewing = stream.send(renew(vec![known("kept", "r1", kept)])).await;
    let after = stream.acquire("after", "r5", Duration::ZERO).await;
    let (mut is_renewed, mut is_granted, mut is_lost, mut is_cancelled) =
        (false, false, false, false);
    while !(is_renewed && is_granted && is_lost && is_cancelled) {
        match stream.told().await {
            (seq, Told::Renewed(_)) => is_renewed = seq == renewing,
            (seq, Told::Granted(_)) => is_granted = seq == after,
            (0, Told::Lost(lost)) => is_lost = lost.token == dropped,
            (seq, Told::Refused(_)) => is_cancelled = seq == asked,
            (_, Told::Queued(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let unheard = async || get(client, "unheard").await.lease.is_none();
    eventually("the unheard one is given back", LONG, unheard)
        .await
        .unwrap();
    assert!(get(client, "after").await.lease.is_some());
    assert!(get(client, "kept").await.lease.is_some());
    assert!(get(client, "dropped").await.lease.is_none());
    assert_eq!(get(client, "busy").await.waiters, 0);
    drop((holder, stream));
    coordinator.stop().await;
}
