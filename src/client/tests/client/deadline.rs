//! The local deadline (I8), on a clock that the test moves.

use std::sync::Arc;
use std::time::Duration;

use palisade_client::{
    Client, Clock, LeaseError, LostReason, Moment, Session, SessionOptions, SessionState,
};
use palisade_test_support::eventually;
use tokio::sync::Notify;
use tonic::Code;

use crate::clock::ManualClock;
use crate::fake::{Fake, Method, PATIENCE, Step, in_time, lost_reply, orders, refusal};

/// 15 s less 1 % and less a tenth.
const BELIEVED: Duration = Duration::from_millis(13_350);
/// A third of the TTL: the next renewal is sent no later.
const INTERVAL: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_nanos(1);

async fn open(fake: &Fake, clock: &Arc<ManualClock>) -> (Session, Moment) {
    let client = Client::builder()
        .transport(palisade_client::Transport::Unary)
        .endpoint(&fake.address)
        .clock(Arc::<ManualClock>::clone(clock));
    let client = client.connect().unwrap();
    let sent = clock.now();
    let opening = client.open_session(SessionOptions::default());
    (in_time(opening).await.unwrap(), sent)
}

async fn until_state(session: &Session, state: SessionState) {
    let what = format!("{state:?}");
    eventually(&what, PATIENCE, async || session.state() == state)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_suspend_past_the_deadline_is_seen_at_the_first_look() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let (session, sent) = open(&fake, &clock).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let lost = lease.lost();
    assert_eq!(session.deadline(), sent.after(BELIEVED));

    clock.jump(BELIEVED - TICK);
    assert!(lease.grant().is_ok());
    assert!(!lost.is_cancelled());
    clock.jump(TICK);
    assert_eq!(lease.grant(), Err(LeaseError::Expired));
    assert!(lost.is_cancelled(), "whoever looks first tells the others");
    assert_eq!(*session.watch().borrow(), SessionState::Expired);
    assert_eq!(lease.time_left(), Duration::ZERO);
    assert_eq!(
        fake.calls(Method::Release),
        [],
        "an expired lease is left to expire"
    );
}

#[tokio::test]
async fn drift_and_margin_are_what_they_are_set_to() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let client = Client::builder()
        .transport(palisade_client::Transport::Unary)
        .endpoint(&fake.address)
        .clock(Arc::<ManualClock>::clone(&clock));
    let client = client.connect().unwrap();
    for (drift_ppm, margin, believed) in [
        (0, Duration::ZERO, Duration::from_secs(15)),
        (0, Duration::from_secs(2), Duration::from_secs(13)),
        (100_000, Duration::ZERO, Duration::from_millis(13_500)),
        (
            50_000,
            Duration::from_secs(2),
            Duration::from_millis(12_250),
        ),
    ] {
        let sent = clock.now();
        let options = SessionOptions::default()
            .drift_ppm(drift_ppm)
            .margin(margin);
        let session = in_time(client.open_session(options)).await.unwrap();
        assert_eq!(session.deadline(), sent.after(believed));
    }
}

#[tokio::test]
async fn an_answer_that_another_endpoints_overtook_moves_nothing() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let clock = ManualClock::shared();
    let client = Client::builder()
        .transport(palisade_client::Transport::Unary)
        .endpoints([&one.address, &other.address])
        .clock(Arc::<ManualClock>::clone(&clock));
    let client = client.connect().unwrap();
    let session = in_time(client.open_session(SessionOptions::default()))
        .await
        .unwrap();
    let (first, second) = if one.calls(Method::Open).is_empty() {
        (&other, &one)
    } else {
        (&one, &other)
    };
    let gate = Arc::new(Notify::new());
    first.next(Method::Renew, Step::Gate(Arc::clone(&gate)));
    clock.advance(INTERVAL);
    first.saw(Method::Renew, 1).await;
    // The end of the try, and then a pause.
    clock.advance(Duration::from_millis(2500));
    until_state(&session, SessionState::Suspect).await;
    let sent = async || {
        clock.advance(Duration::from_millis(10));
        session.state() == SessionState::Held
    };
    eventually("renewed elsewhere", PATIENCE, sent)
        .await
        .unwrap();
    let deadline = session.deadline();
    assert!(deadline <= clock.now().after(BELIEVED));
    assert_eq!(second.calls(Method::Renew).len(), 1);
    gate.notify_one();
    let _lease = in_time(session.try_acquire(&orders())).await.unwrap();
    assert_eq!(session.deadline(), deadline);
    clock.jump(clock.now().until(deadline));
    assert_eq!(session.state(), SessionState::Expired);
}

#[tokio::test]
async fn without_a_look_the_timer_tells() {
    let fake = Fake::start().await;
    fake.ttl(Duration::from_secs(300));
    fake.always(Method::Renew, Some(Step::Hang));
    let clock = ManualClock::shared();
    let client = Client::builder()
        .transport(palisade_client::Transport::Unary)
        .endpoint(&fake.address)
        .call_timeout(Duration::from_secs(300))
        .clock(Arc::<ManualClock>::clone(&clock))
        .connect()
        .unwrap();
    let session = in_time(client.open_session(SessionOptions::default()))
        .await
        .unwrap();
    let lost = session.lost();
    clock.advance(Duration::from_secs(100));
    fake.saw(Method::Renew, 1).await;
    clock.advance(Duration::from_secs(167) - TICK);
    // The end of a renewal would be a look: now the next one is seconds away.
    until_state(&session, SessionState::Suspect).await;
    assert!(!lost.is_cancelled());
    clock.advance(TICK);
    in_time(lost.cancelled()).await;
    assert_eq!(session.state(), SessionState::Expired);
}

#[tokio::test]
async fn failing_renewals_make_it_suspect_then_expired_and_never_held_again() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let (session, sent) = open(&fake, &clock).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    let away = refusal(
        Code::Unavailable,
        "STORE_UNAVAILABLE",
        &[("mayHaveHappened", "true")],
    );
    fake.always(Method::Renew, Some(away));
    clock.advance(INTERVAL);
    until_state(&session, SessionState::Suspect).await;
    assert!(lease.grant().is_ok(), "the deadline lies ahead");
    assert_eq!(
        session.deadline(),
        sent.after(BELIEVED),
        "no failure moves it"
    );

    clock.advance(BELIEVED - INTERVAL);
    assert_eq!(session.state(), SessionState::Expired);
    fake.always(Method::Renew, None);
    clock.advance(INTERVAL);
    assert_eq!(session.state(), SessionState::Expired);
    assert_eq!(lease.grant(), Err(LeaseError::Expired));
}

#[tokio::test]
async fn a_renewal_counts_from_before_it_was_sent() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let (session, _sent) = open(&fake, &clock).await;
    let gate = Arc::new(Notify::new());
    fake.next(Method::Renew, Step::Gate(Arc::clone(&gate)));
    let _lease = in_time(session.try_acquire(&orders())).await.unwrap();
    clock.advance(INTERVAL);
    let renewed_at = clock.now();
    fake.saw(Method::Renew, 1).await;
    // On its way for two seconds: shorter than a try may take.
    clock.jump(Duration::from_secs(2));
    gate.notify_one();
    let extended = renewed_at.after(BELIEVED);
    eventually("renewed", PATIENCE, async || session.deadline() == extended)
        .await
        .unwrap();
    assert_eq!(session.state(), SessionState::Held);
}

#[tokio::test]
async fn a_reply_after_the_deadline_revives_nothing() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let (session, _sent) = open(&fake, &clock).await;
    let gate = Arc::new(Notify::new());
    fake.next(Method::Renew, Step::Gate(Arc::clone(&gate)));
    let _lease = in_time(session.try_acquire(&orders())).await.unwrap();
    clock.advance(INTERVAL);
    fake.saw(Method::Renew, 1).await;
    // Nobody looks while the machine is suspended; then the reply is the first thing to arrive.
    clock.jump(BELIEVED);
    gate.notify_one();
    in_time(session.lost().cancelled()).await;
    assert_eq!(session.state(), SessionState::Expired);
}

#[tokio::test]
async fn a_renewal_that_gets_no_answer_is_sent_again_and_makes_it_held() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let (session, _sent) = open(&fake, &clock).await;
    fake.next(Method::Renew, Step::Hang);
    fake.next(Method::Renew, lost_reply());
    let _lease = in_time(session.try_acquire(&orders())).await.unwrap();
    clock.advance(INTERVAL);
    fake.saw(Method::Renew, 1).await;
    clock.advance(Duration::from_millis(2500));
    until_state(&session, SessionState::Suspect).await;
    // Both pauses and their jitter.
    clock.advance(Duration::from_millis(300));
    fake.saw(Method::Renew, 2).await;
    until_state(&session, SessionState::Suspect).await;
    eventually("held", PATIENCE, async || {
        clock.advance(Duration::from_millis(10));
        session.state() == SessionState::Held
    })
    .await
    .unwrap();
    let calls = fake.calls(Method::Renew);
    assert!(
        calls.iter().all(|call| call.epoch == 1),
        "a renewal is no retry: {calls:?}"
    );
}

#[tokio::test]
async fn the_coordinators_word_that_it_ended_is_final() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let (session, _sent) = open(&fake, &clock).await;
    let lease = in_time(session.try_acquire(&orders())).await.unwrap();
    fake.next(Method::Renew, refusal(Code::NotFound, "SESSION_ENDED", &[]));
    clock.advance(INTERVAL);
    in_time(lease.lost().cancelled()).await;
    assert_eq!(session.state(), SessionState::Lost(LostReason::Ended));
    assert_eq!(lease.grant(), Err(LeaseError::Lost(LostReason::Ended)));
    drop((lease, session));
    assert_eq!(fake.calls(Method::Release), []);
    assert_eq!(fake.calls(Method::Close), []);
}

#[tokio::test]
async fn a_stale_epoch_does_not_cost_the_session() {
    let fake = Fake::start().await;
    let clock = ManualClock::shared();
    let (session, _sent) = open(&fake, &clock).await;
    let stale = refusal(Code::Aborted, "EPOCH_STALE", &[("storedEpoch", "4")]);
    fake.next(Method::Renew, stale);
    let _lease = in_time(session.try_acquire(&orders())).await.unwrap();
    clock.advance(INTERVAL);
    let renewed_at = clock.now();
    eventually("renewed", PATIENCE, async || {
        clock.advance(Duration::from_millis(10));
        session.deadline() > renewed_at.after(BELIEVED)
    })
    .await
    .unwrap();
    assert_eq!(fake.calls(Method::Renew)[1].epoch, 5);
}
