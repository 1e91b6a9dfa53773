//! The local deadline over a stream (I8), on a clock that the test moves.

use std::time::Duration;

use palisade_api::v1::AttachRenewed;
use palisade_client::{Clock, LeaseError, LostReason, Session, SessionState};
use palisade_test_support::eventually;

use super::world::{Fault, Host, Kind, Told, away};
use super::{held, with_clock};
use crate::clock::ManualClock;
use crate::fake::{PATIENCE, in_time};

/// 15 s less 1 % and less a tenth.
const BELIEVED: Duration = Duration::from_millis(13_350);
/// A third of the TTL: the next renewal is sent no later.
const INTERVAL: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(10);

async fn until_state(session: &Session, state: SessionState) {
    let what = format!("{state:?}");
    eventually(&what, PATIENCE, async || session.state() == state)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_renewal_counts_from_before_it_was_sent_and_a_suspend_is_seen_at_the_first_look() {
    let (host, clock) = (Host::start().await, ManualClock::shared());
    let sent = clock.now();
    let session = with_clock(&[&host], &clock).await;
    let lease = held(&session, "orders").await;
    assert_eq!(session.deadline(), sent.after(BELIEVED));
    clock.advance(INTERVAL);
    let renewed = clock.now();
    let moved = async || session.deadline() == renewed.after(BELIEVED);
    eventually("renewed", PATIENCE, moved).await.unwrap();
    assert_eq!(host.seen(Kind::Renew).len(), 1);
    clock.jump(BELIEVED);
    assert_eq!(lease.grant(), Err(LeaseError::Expired));
    assert!(lease.lost().is_cancelled());
    in_time(session.lost().cancelled()).await;
    clock.advance(STEP);
    assert_eq!(session.state(), SessionState::Expired);
}

/// A renewal that was served, and its answer as it would have been.
async fn renewal_under_way(host: &Host, clock: &ManualClock) -> (u64, Told) {
    host.next(Kind::Renew, Fault::LoseReply);
    clock.advance(INTERVAL);
    let renewals = host.saw(Kind::Renew, 1).await;
    let renewed = AttachRenewed {
        ttl_ms: 15_000,
        ttl_left_ms: 15_000,
    };
    (renewals[0].seq, Told::Renewed(renewed))
}

#[tokio::test]
async fn the_time_that_an_answer_takes_is_not_counted_in() {
    let (host, clock) = (Host::start().await, ManualClock::shared());
    let session = with_clock(&[&host], &clock).await;
    let (seq, renewed) = renewal_under_way(&host, &clock).await;
    let sent = clock.now();
    clock.jump(Duration::from_secs(1));
    host.answer(seq, &renewed);
    let moved = async || session.deadline() == sent.after(BELIEVED);
    eventually("renewed", PATIENCE, moved).await.unwrap();
    host.answer(seq, &renewed);
    drop(held(&session, "orders").await);
    let believed = sent.after(Duration::from_secs(1)).after(BELIEVED);
    assert!(session.deadline() <= believed, "twice is no more than once");
}

#[tokio::test]
async fn an_answer_after_the_deadline_revives_nothing() {
    let (host, clock) = (Host::start().await, ManualClock::shared());
    let session = with_clock(&[&host], &clock).await;
    let lease = held(&session, "orders").await;
    let (seq, renewed) = renewal_under_way(&host, &clock).await;
    // Nobody looks while the machine is suspended; then the answer is the first thing to arrive.
    clock.jump(BELIEVED);
    host.answer(seq, &renewed);
    in_time(session.lost().cancelled()).await;
    assert_eq!(session.state(), SessionState::Expired);
    assert_eq!(lease.grant(), Err(LeaseError::Expired));
}

#[tokio::test]
async fn a_silent_stream_is_given_up_well_before_the_deadline() {
    let (host, clock) = (Host::start().await, ManualClock::shared());
    let session = with_clock(&[&host], &clock).await;
    let lease = held(&session, "orders").await;
    let born = session.deadline();
    host.next(Kind::Renew, Fault::Mute);
    clock.advance(INTERVAL);
    host.saw(Kind::Renew, 1).await;
    assert_eq!(host.seen(Kind::Open).len(), 1);
    // What an answer may take: the smaller of the call's limit and a sixth of the TTL.
    clock.advance(Duration::from_secs(2));
    until_state(&session, SessionState::Suspect).await;
    let reopened = async || {
        clock.advance(STEP);
        host.seen(Kind::Open).len() == 2 && session.state() == SessionState::Held
    };
    eventually("another stream", PATIENCE, reopened)
        .await
        .unwrap();
    assert!(clock.now() < born, "well before");
    assert!(lease.grant().is_ok());
    assert!(session.deadline() > born);
}

/// The first coordinator was only slow: its answer comes once another one serves.
#[tokio::test]
async fn an_answer_that_comes_after_the_failover_moves_nothing() {
    let ((one, other), clock) = (Host::pair().await, ManualClock::shared());
    let session = with_clock(&[&one, &other], &clock).await;
    let lease = held(&session, "orders").await;
    let (first, second) = if one.seen(Kind::Open).is_empty() {
        (&other, &one)
    } else {
        (&one, &other)
    };
    let (seq, renewed) = renewal_under_way(first, &clock).await;
    clock.advance(Duration::from_secs(2));
    until_state(&session, SessionState::Suspect).await;
    let taken_over = async || {
        clock.advance(STEP);
        session.state() == SessionState::Held
    };
    eventually("another coordinator", PATIENCE, taken_over)
        .await
        .unwrap();
    assert_eq!(second.seen(Kind::Open).len(), 1);
    let deadline = session.deadline();
    first.answer(seq, &renewed);
    second.answer(seq, &renewed);
    drop(held(&session, "other").await);
    assert!(session.deadline() <= clock.now().after(BELIEVED));
    clock.jump(clock.now().until(deadline.max(session.deadline())));
    assert_eq!(lease.grant(), Err(LeaseError::Expired));
}

#[tokio::test]
async fn without_a_coordinator_it_is_suspect_then_expired_and_never_held_again() {
    let (host, clock) = (Host::start().await, ManualClock::shared());
    let sent = clock.now();
    let session = with_clock(&[&host], &clock).await;
    let lease = held(&session, "orders").await;
    host.always(Kind::Open, Some(Fault::Cut));
    host.cut();
    let suspect = async || {
        clock.advance(STEP);
        session.state() == SessionState::Suspect
    };
    eventually("suspect", PATIENCE, suspect).await.unwrap();
    assert!(lease.grant().is_ok(), "the deadline lies ahead");
    assert_eq!(session.deadline(), sent.after(BELIEVED));
    host.always(Kind::Open, None);
    clock.jump(BELIEVED);
    assert_eq!(session.state(), SessionState::Expired);
    for _round in 0..10 {
        clock.advance(INTERVAL);
        tokio::task::yield_now().await;
        assert_eq!(lease.grant(), Err(LeaseError::Expired));
    }
    in_time(session.close()).await.unwrap();
    assert!(
        host.world().held.is_empty(),
        "what may still stand there is closed"
    );
}

#[tokio::test]
async fn a_refused_renewal_moves_nothing_and_is_sent_again() {
    let (host, clock) = (Host::start().await, ManualClock::shared());
    let sent = clock.now();
    let session = with_clock(&[&host], &clock).await;
    let _lease = held(&session, "orders").await;
    host.next(Kind::Renew, Fault::Refuse(away()));
    host.always(Kind::Open, Some(Fault::Cut));
    clock.advance(INTERVAL);
    until_state(&session, SessionState::Suspect).await;
    assert_eq!(session.deadline(), sent.after(BELIEVED));
    host.always(Kind::Open, None);
    let held_again = async || {
        clock.advance(STEP);
        session.state() == SessionState::Held
    };
    eventually("held", PATIENCE, held_again).await.unwrap();
    assert!(session.deadline() > sent.after(BELIEVED));
}

#[tokio::test]
async fn waiters_end_with_the_deadline() {
    let (host, clock) = (Host::start().await, ManualClock::shared());
    let session = with_clock(&[&host], &clock).await;
    let other = with_clock(&[&host], &ManualClock::shared()).await;
    let _held = held(&other, "orders").await;
    let resource = "orders".parse().unwrap();
    let waiter = session.acquire(&resource, super::waiting());
    let passing = async {
        host.saw(Kind::Acquire, 2).await;
        host.always(Kind::Renew, Some(Fault::Mute));
        host.always(Kind::Open, Some(Fault::Cut));
        clock.advance(BELIEVED);
    };
    let (error, ()) = in_time(async { tokio::join!(waiter, passing) }).await;
    match error.unwrap_err() {
        palisade_client::ClientError::SessionLost { reason } => {
            assert_eq!(reason, LostReason::Expired);
        }
        error => panic!("{error:?}"),
    }
}
