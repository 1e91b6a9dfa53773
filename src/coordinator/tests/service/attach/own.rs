//! Whose a session is: one stream's at a time.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::ErrorReason;
use palisade_api::v1::OpenRequestState;
use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::attach_response::Message as Told;
use palisade_coordinator::store::memory::MemoryStore;
use tonic::Code;

use super::support::{HOUR, Stream, again, known, open as opens, reference, release, renew};
use crate::store::Switch;
use crate::support::{Coordinator, acquire, asking, get, memory, refused, settings};

/// Two coordinators side by side on one store.
async fn two() -> (Coordinator, Coordinator) {
    let memory = memory().await;
    let one = Switch::new(Arc::<MemoryStore>::clone(&memory));
    let one = Coordinator::with(one, settings()).await;
    let other = Coordinator::with(Switch::new(memory), settings()).await;
    (one, other)
}

async fn is_superseded(stream: &mut Stream, session: &str) {
    let status = stream.end().await.unwrap_err();
    let told = refused(&status, Code::Aborted, ErrorReason::Superseded);
    assert_eq!(told["sessionId"], session);
}

#[tokio::test]
async fn a_second_stream_takes_the_session_over_at_once() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut first, opened) = Stream::open(client, "s").await;
    let token = first.granted("x", "r").await;
    let named = vec![known("x", "r", token)];
    let (mut second, again) = Stream::resume(client, &reference(&opened, 2), named).await;
    assert_eq!(again.requests[0].state(), OpenRequestState::Held);
    is_superseded(&mut first, &opened.session_id).await;
    second.release("x", token).await;
    drop(second);
    coordinator.stop().await;
}

/// Wherever it is served: the older one finds out with its next write, which does nothing.
#[tokio::test]
async fn a_stream_elsewhere_is_superseded_with_its_next_write() {
    let (here, there) = two().await;
    let writes: [fn() -> palisade_api::v1::attach_request::Message; 4] = [
        || super::support::acquire("y", "r2", Duration::ZERO),
        || again("x", "r", HOUR),
        || renew(Vec::new()),
        || {
            let hold = "r".to_owned();
            release("x", palisade_api::v1::attach_release::Hold::RequestId(hold))
        },
    ];
    for (number, write) in writes.into_iter().enumerate() {
        let (mut first, opened) = Stream::open(&here.client, &format!("s{number}")).await;
        let token = first.granted("x", "r").await;
        let named = vec![known("x", "r", token)];
        let (mut second, _) =
            Stream::resume(&there.client, &reference(&opened, 2), named.clone()).await;
        first.send(write()).await;
        is_superseded(&mut first, &opened.session_id).await;
        second.renew(named).await;
        let lease = get(&there.client, "x").await.lease.unwrap();
        assert_eq!(lease.token, token, "write {number} did nothing");
        assert_eq!(get(&there.client, "y").await.lease, None);
        second.release("x", token).await;
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn an_epoch_that_is_not_above_the_stored_one_opens_nothing() {
    let (here, there) = two().await;
    let (mut first, opened) = Stream::open(&here.client, "s").await;
    let token = first.granted("x", "r").await;
    for (epoch, client) in [(1, &here.client), (1, &there.client)] {
        let mut second = Stream::begin(client).await;
        let owner = Owner::Session(reference(&opened, epoch));
        second.send(opens(owner, Vec::new())).await;
        let status = second.end().await.unwrap_err();
        let told = refused(&status, Code::Aborted, ErrorReason::EpochStale);
        assert_eq!(told["storedEpoch"], "1");
    }
    first.renew(vec![known("x", "r", token)]).await;
    drop(first);
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn of_two_streams_that_race_one_wins() {
    let (here, there) = two().await;
    let (stream, opened) = Stream::open(&here.client, "s").await;
    drop(stream);
    for epoch in 2..12 {
        let mut ends = Vec::new();
        // On two coordinators, and on one.
        let second = if epoch % 2 == 0 { &there } else { &here };
        let mut one = Stream::begin(&here.client).await;
        let mut other = Stream::begin(&second.client).await;
        let owner = || Owner::Session(reference(&opened, epoch));
        one.send(opens(owner(), Vec::new())).await;
        other.send(opens(owner(), Vec::new())).await;
        for mut stream in [one, other] {
            match stream.next().await {
                Ok(told) => {
                    let told = told.unwrap().message.unwrap();
                    assert!(matches!(told, Told::Opened(_)), "{told:?}");
                    stream.renew(Vec::new()).await;
                    ends.push(true);
                }
                Err(status) => {
                    refused(&status, Code::Aborted, ErrorReason::EpochStale);
                    ends.push(false);
                }
            }
        }
        ends.sort_unstable();
        assert_eq!(ends, [false, true], "epoch {epoch}");
    }
    here.stop().await;
    there.stop().await;
}

/// A call with a larger epoch is a later word of the client's.
#[tokio::test]
async fn a_call_with_a_larger_epoch_supersedes_the_stream() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let (mut stream, opened) = Stream::open(client, "s").await;
    let session = reference(&opened, 1);
    acquire(client, asking(&session, "r1", "x", Duration::ZERO))
        .await
        .unwrap();
    stream.renew(vec![known("x", "r1", 0)]).await;
    let session = reference(&opened, 2);
    acquire(client, asking(&session, "r2", "y", Duration::ZERO))
        .await
        .unwrap();
    stream.send(renew(Vec::new())).await;
    is_superseded(&mut stream, &opened.session_id).await;
    assert!(get(client, "x").await.lease.is_some());
    assert!(get(client, "y").await.lease.is_some());
    coordinator.stop().await;
}
