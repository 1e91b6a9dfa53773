//! Many tasks on one session, whatever breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use palisade_client::{AcquireOptions, ClientError};
use palisade_test_support::eventually;
use tokio::task::JoinSet;

use super::session_of;
use super::world::{Fault, Host, Kind};
use crate::fake::{PATIENCE, in_time};

const TASKS: u64 = 64;
const ROUNDS: u64 = 40;

/// Resources are shared by two tasks each, which wait for each other.
fn resource(task: u64) -> palisade_client::ResourceName {
    format!("r/{}", task % (TASKS / 2)).parse().unwrap()
}

#[allow(clippy::disallowed_methods, reason = "a test's tasks, awaited by it")]
#[tokio::test]
async fn many_tasks_on_one_stream_each_get_their_turns_and_nothing_is_left() {
    let host = Host::start().await;
    let (one, other) = (session_of(&[&host]).await, session_of(&[&host]).await);
    let rounds = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        // The two tasks of one resource are of two sessions.
        let session = if task < TASKS / 2 {
            one.clone()
        } else {
            other.clone()
        };
        let rounds = Arc::clone(&rounds);
        tasks.spawn(async move {
            let mut last = None;
            for _round in 0..ROUNDS {
                let wait = AcquireOptions::default().wait(Duration::from_secs(60));
                let lease = session.acquire(&resource(task), wait).await.unwrap();
                assert!(Some(lease.token()) > last, "tokens grow");
                last = Some(lease.token());
                lease.release().await.unwrap();
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    in_time(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    })
    .await;
    assert_eq!(rounds.load(Ordering::Relaxed), TASKS * ROUNDS);
    assert!(host.world().held.is_empty());
    assert_eq!(host.seen(Kind::Open).len(), 2);
}

/// Streams are cut at all kinds of messages, before and after they are served, while tasks acquire, hold,
/// abandon and release.
#[allow(clippy::disallowed_methods, reason = "a test's tasks, awaited by it")]
#[tokio::test]
async fn however_often_streams_are_cut_each_request_has_one_outcome_and_nothing_is_left() {
    let (host, second) = Host::pair().await;
    let session = session_of(&[&host, &second]).await;
    let keep = super::held(&session, "kept").await;
    let mut tasks = JoinSet::new();
    for task in 0..TASKS / 2 {
        let session = session.clone();
        tasks.spawn(async move {
            let mut last = None;
            for round in 0..ROUNDS {
                let name = resource(task);
                if round % 5 == 0 {
                    let acquiring = session.try_acquire(&name);
                    tokio::select! {
                        biased;
                        lease = acquiring => drop(lease),
                        () = async { for _turn in 0..(round + task) % 7 { tokio::task::yield_now().await } } => {}
                    }
                    continue;
                }
                let wait = AcquireOptions::default().wait(Duration::from_secs(60));
                let lease = match session.acquire(&name, wait).await {
                    Ok(lease) => lease,
                    // What the abandoned one was granted is not released yet.
                    Err(ClientError::AlreadyHeld { .. }) => continue,
                    Err(error) => panic!("{error:?}"),
                };
                assert!(Some(lease.token()) > last, "tokens grow");
                last = Some(lease.token());
                assert!(lease.grant().is_ok(), "{:?}", lease.loss());
                lease.release().await.unwrap();
            }
        });
    }
    let faults = [
        (Kind::Acquire, Fault::Cut),
        (Kind::Release, Fault::ServeAndCut),
        (Kind::Acquire, Fault::ServeAndCut),
        (Kind::Open, Fault::LoseReply),
        (Kind::Release, Fault::Cut),
        (Kind::Cancel, Fault::ServeAndCut),
        (Kind::Open, Fault::ServeAndCut),
    ];
    for (number, (kind, fault)) in faults.iter().cycle().take(21).enumerate() {
        for host in [&host, &second] {
            host.nth(*kind, number * 7, fault.clone());
        }
    }
    in_time(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    })
    .await;
    assert!(keep.grant().is_ok());
    let only_the_kept = async || {
        let world = host.world();
        world.held.len() == 1 && world.queue.values().all(|queue| queue.is_empty())
    };
    eventually("all is given back", PATIENCE, only_the_kept)
        .await
        .unwrap();
    assert!(host.seen(Kind::Open).len() + second.seen(Kind::Open).len() > 5);
    assert_eq!(host.world().violations, Vec::<String>::new());
}
