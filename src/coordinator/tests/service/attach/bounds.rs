//! What a stream may take, and when it has to go.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::ErrorReason;
use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::attach_response::Message as Told;
use palisade_coordinator::store::memory::MemoryStore;
use palisade_test_support::eventually;
use tonic::Code;

use super::support::{HOUR, Stream, acquire, known, open as opens, reference};
use crate::store::Switch;
use crate::support::{Coordinator, LONG, get, memory, opening, refused, settings};

const NOW: Duration = Duration::ZERO;

#[tokio::test]
async fn a_thousand_requests_are_open_on_one_stream_and_no_more() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let mut open = std::collections::HashMap::new();
    for number in 0..1000 {
        let name = format!("r{number}");
        open.insert(stream.acquire(&name, &name, NOW).await, name);
    }
    let mut held = Vec::new();
    while !open.is_empty() {
        match stream.told().await {
            (seq, Told::Granted(granted)) => {
                let name = open.remove(&seq).unwrap();
                held.push(known(&name, &name, super::support::token(&granted)));
            }
            other => panic!("{other:?}"),
        }
    }
    let seq = stream.acquire("one more", "r", NOW).await;
    let reason = ErrorReason::InvalidField;
    stream
        .hears_refusal(seq, Code::InvalidArgument, reason)
        .await;
    let seq = stream.acquire("one-more", "r", NOW).await;
    let reason = ErrorReason::LimitReached;
    let told = stream.hears_refusal(seq, Code::ResourceExhausted, reason);
    let told = told.await;
    assert_eq!(
        (told["limit"].as_str(), told["bound"].as_str()),
        ("openRequests", "1000")
    );
    stream.renew(held.clone()).await;
    drop(stream);

    let (mut stream, again) = Stream::resume(client, &reference(&opened, 2), held.clone()).await;
    assert_eq!(again.requests.len(), 1000);
    for (status, held) in again.requests.iter().zip(&held) {
        assert_eq!(status.request.as_ref(), Some(held));
    }
    stream.renew(held[..1].to_vec()).await;
    let last = held.last().unwrap().resource.clone();
    let given_back = async || get(client, &last).await.lease.is_none();
    eventually("the others are given back", LONG, given_back)
        .await
        .unwrap();
    drop(stream);
    coordinator.stop().await;
}

#[tokio::test]
async fn streams_are_bounded_and_leave_room_when_they_end() {
    let mut settings = settings();
    settings.limits.max_attach_streams = 2;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let (one, _) = Stream::open(client, "one").await;
    let (two, _) = Stream::open(client, "two").await;
    let third = client.clone().attach(futures::stream::pending()).await;
    let told = refused(
        &third.unwrap_err(),
        Code::ResourceExhausted,
        ErrorReason::LimitReached,
    );
    assert_eq!(
        (told["limit"].as_str(), told["bound"].as_str()),
        ("streams", "2")
    );
    drop(one);
    let opens_again = async || {
        client
            .clone()
            .attach(futures::stream::pending())
            .await
            .is_ok()
    };
    eventually("there is room again", LONG, opens_again)
        .await
        .unwrap();
    drop(two);
    coordinator.stop().await;
}

/// It ends alone: others go on meanwhile (I12).
#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let mut settings = settings();
    settings.limits.max_backlog_bytes = 16 * 1024;
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let (mut stream, _) = Stream::open(client, "s").await;
    for _ in 0..4000 {
        stream.send(acquire("bad//name", "r", NOW)).await;
    }
    let (mut other, _) = Stream::open(client, "other").await;
    other.granted("x", "r").await;
    let status = stream.end().await.unwrap_err();
    let told = refused(&status, Code::ResourceExhausted, ErrorReason::LimitReached);
    assert_eq!(
        (told["limit"].as_str(), told["bound"].as_str()),
        ("backlog", "16384")
    );
    other.renew(vec![known("x", "r", 0)]).await;
    drop(other);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_ends() {
    let mut settings = settings();
    settings.timeouts.default_call = Duration::from_millis(300);
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let mut stream = Stream::begin(&coordinator.client).await;
    let status = stream.end().await.unwrap_err();
    let told = refused(&status, Code::InvalidArgument, ErrorReason::InvalidField);
    assert_eq!(told["field"], "open");
    coordinator.stop().await;
}

/// Nothing is revoked: the session goes on through another coordinator.
#[tokio::test]
async fn a_coordinator_that_drains_sends_its_streams_elsewhere() {
    let memory = memory().await;
    let mut settings = settings();
    settings.timeouts.drain_limit = Duration::from_secs(3);
    let here = Coordinator::with(
        Switch::new(Arc::<MemoryStore>::clone(&memory)),
        settings.clone(),
    )
    .await;
    let there = Coordinator::with(Switch::new(memory), settings).await;
    let (mut holder, _) = Stream::open(&there.client, "holder").await;
    let busy = holder.granted("busy", "r").await;
    let (mut stream, opened) = Stream::open(&here.client, "s").await;
    let token = stream.granted("x", "r").await;
    stream.acquire("busy", "r", HOUR).await;
    there.waiting("busy", 1).await;

    here.shutdown.cancel();
    loop {
        match stream.told().await {
            (0, Told::Draining(draining)) => {
                assert!((1..3000).contains(&draining.deadline_ms));
                break;
            }
            (_, Told::Queued(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    let seq = stream.acquire("y", "r", NOW).await;
    let refusal = stream.hears_refusal(seq, Code::Unavailable, ErrorReason::Draining);
    assert_eq!(refusal.await["mayHaveHappened"], "false");
    stream
        .renew(vec![known("x", "r", token), known("busy", "r", 0)])
        .await;
    let status = stream.end().await.unwrap_err();
    refused(&status, Code::Unavailable, ErrorReason::Draining);

    let named = vec![known("x", "r", token), known("busy", "r", 0)];
    let (mut stream, again) = Stream::resume(&there.client, &reference(&opened, 2), named).await;
    let states: Vec<_> = again.requests.iter().map(|one| one.state).collect();
    assert_eq!(states, [1, 2], "held, and queued");
    let seq = stream.send(super::support::again("busy", "r", HOUR)).await;
    holder.release("busy", busy).await;
    stream.hears_grant(seq).await;
    drop((stream, holder));
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn a_coordinator_that_drains_opens_no_stream() {
    let mut settings = settings();
    settings.timeouts.drain_notice = Duration::from_secs(1);
    let coordinator = Coordinator::with(Switch::new(memory().await), settings).await;
    let client = &coordinator.client;
    let mut begun = Stream::begin(client).await;
    coordinator.shutdown.cancel();
    let refuses = async || {
        client
            .clone()
            .attach(futures::stream::pending())
            .await
            .is_err()
    };
    eventually("no stream begins", LONG, refuses).await.unwrap();
    begun
        .send(opens(Owner::Opening(opening("s")), Vec::new()))
        .await;
    let status = begun.end().await.unwrap_err();
    refused(&status, Code::Unavailable, ErrorReason::Draining);
    coordinator.stop().await;
}
