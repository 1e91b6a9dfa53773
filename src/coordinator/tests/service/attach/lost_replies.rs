//! A store whose answers get lost: what happened is reported as failed, or happens much later.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::OpenRequest;
use palisade_api::v1::attach_open::Owner;
use palisade_api::v1::attach_release::Hold;
use palisade_api::v1::attach_request::Message as Ask;
use palisade_api::v1::attach_response::Message as Told;
use palisade_api::{ErrorReason, ReleaseOutcome, SessionRef};
use palisade_coordinator::store::faulty::Faulty;
use palisade_coordinator::store::memory::MemoryStore;
use palisade_test_support::eventually;
use tonic::Code;

use super::support::{HOUR, Stream, again, close, known, open as opens, reference, release, token};
use crate::store::{Mode, Switch, Write};
use crate::support::{Client, Coordinator, LONG, get, memory, opening, settings};

const NOW: Duration = Duration::ZERO;

fn journal(coordinator: &Coordinator) -> Vec<(Write, u64)> {
    std::mem::take(&mut *coordinator.store.journal.lock().unwrap())
}

fn count(coordinator: &Coordinator, of: Write) -> usize {
    let journal = coordinator.store.journal.lock().unwrap();
    journal.iter().filter(|(write, _)| *write == of).count()
}

/// I4: the outcome is told only of a try that no copy of an earlier one can follow.
#[tokio::test]
async fn after_an_unknown_outcome_the_mark_is_raised_before_the_same_is_tried_again() {
    let coordinator = Coordinator::start().await;
    let (mut stream, _) = Stream::open(&coordinator.client, "s").await;
    let cases = [
        (Mode::LosesAcquires, Write::Acquire),
        (Mode::LosesReleases, Write::Release),
    ];
    let mut held = 0;
    for (mode, write) in cases {
        journal(&coordinator);
        coordinator.store.mode.send_replace(mode);
        let seq = match write {
            Write::Acquire => stream.acquire("x", "r", NOW).await,
            _ => stream.send(release("x", Hold::Token(held))).await,
        };
        let tried = async || count(&coordinator, write) >= 3;
        eventually("it is tried again", LONG, tried).await.unwrap();
        coordinator.store.mode.send_replace(Mode::Up);
        match write {
            Write::Acquire => held = stream.hears_grant(seq).await,
            _ => {
                let released = stream.hears_release(seq).await;
                // By the first of them, as nobody can know.
                assert_eq!(released.outcome(), ReleaseOutcome::NotHeld);
            }
        }
        let journal = journal(&coordinator);
        let mut subs = journal.iter().filter(|(what, _)| *what == write);
        let mut last = subs.next().unwrap().1;
        for (_, sub) in subs {
            assert_eq!(*sub, last + 1, "{journal:?}");
            last = *sub;
        }
        for pair in journal.windows(2) {
            let is_raised = pair[0].0 == Write::Raise && pair[0].1 == pair[1].1;
            assert!(is_raised || pair[1].0 == Write::Raise, "{journal:?}");
        }
    }
    drop(stream);
    coordinator.stop().await;
}

#[tokio::test]
async fn what_did_not_happen_for_certain_is_tried_again_under_the_same_mark() {
    let coordinator = Coordinator::start().await;
    let (mut stream, _) = Stream::open(&coordinator.client, "s").await;
    coordinator.store.mode.send_replace(Mode::Away);
    let seq = stream.acquire("x", "r", NOW).await;
    let tried = async || {
        let acquires = &coordinator.store.acquires;
        acquires.load(std::sync::atomic::Ordering::Relaxed) >= 3
    };
    eventually("it is tried again", LONG, tried).await.unwrap();
    coordinator.store.mode.send_replace(Mode::Up);
    stream.hears_grant(seq).await;
    assert_eq!(journal(&coordinator), [(Write::Acquire, 0)]);
    drop(stream);
    coordinator.stop().await;
}

#[tokio::test]
async fn one_raise_does_for_all_that_was_sent_once_more_before_it() {
    let coordinator = Coordinator::start().await;
    let (mut stream, _) = Stream::open(&coordinator.client, "s").await;
    stream.granted("first", "r").await;
    coordinator.store.mode.send_replace(Mode::Hangs);
    let mut open = Vec::new();
    for number in 0..20 {
        open.push(stream.send(again(&format!("x{number}"), "r", NOW)).await);
    }
    // What comes meanwhile is submitted under the raised mark, too.
    open.push(stream.acquire("y", "r", NOW).await);
    // This one is refused without the store, so all before it have been taken in.
    let bad = stream.acquire("a//b", "r", NOW).await;
    let reason = ErrorReason::InvalidField;
    stream
        .hears_refusal(bad, Code::InvalidArgument, reason)
        .await;
    journal(&coordinator);
    coordinator.store.mode.send_replace(Mode::Up);
    while !open.is_empty() {
        match stream.told().await {
            (seq, Told::Granted(_)) => open.retain(|asked| *asked != seq),
            other => panic!("{other:?}"),
        }
    }
    let journal = journal(&coordinator);
    let raises = journal.iter().filter(|(what, _)| *what == Write::Raise);
    assert_eq!(raises.count(), 1, "{journal:?}");
    assert_eq!(journal[0], (Write::Raise, 1), "{journal:?}");
    assert!(journal[1..].iter().all(|one| *one == (Write::Acquire, 1)));
    drop(stream);
    coordinator.stop().await;
}

#[tokio::test]
async fn a_stream_waits_for_a_store_that_is_away_and_its_heartbeats_say_so() {
    let coordinator = Coordinator::start().await;
    let client = &coordinator.client;
    let mut short = opening("s");
    short.ttl_ms = 5_000;
    let (mut stream, _) = Stream::with(client, Owner::Opening(short), Vec::new()).await;
    let token = stream.granted("x", "r").await;
    coordinator.store.mode.send_replace(Mode::Away);
    let releasing = stream.send(release("x", Hold::Token(token))).await;
    let renewing = stream
        .send(super::support::renew(vec![known("x", "r", token)]))
        .await;
    // A third of its TTL later.
    let reason = ErrorReason::StoreUnavailable;
    stream
        .hears_refusal(renewing, Code::Unavailable, reason)
        .await;
    coordinator.store.mode.send_replace(Mode::Up);
    let released = stream.hears_release(releasing).await;
    assert_eq!(released.outcome(), ReleaseOutcome::Released);
    stream.renew(Vec::new()).await;
    drop(stream);
    coordinator.stop().await;
}

/// A client that goes on, whatever becomes of its stream.
struct Stubborn<'a> {
    client: &'a Client,
    name: String,
    epoch: u64,
    session: Option<SessionRef>,
    stream: Option<Stream>,
}

impl<'a> Stubborn<'a> {
    fn new(client: &'a Client, name: String) -> Self {
        let (epoch, session, stream) = (0, None, None);
        Self {
            client,
            name,
            epoch,
            session,
            stream,
        }
    }

    async fn attached(&mut self, known: &[OpenRequest]) -> &mut Stream {
        while self.stream.is_none() {
            self.epoch += 1;
            let owner = match &self.session {
                Some(session) => Owner::Session(SessionRef {
                    epoch: self.epoch,
                    ..session.clone()
                }),
                None => {
                    let mut opening = opening(&self.name);
                    opening.epoch = self.epoch;
                    Owner::Opening(opening)
                }
            };
            let mut stream = Stream::begin(self.client).await;
            stream.send(opens(owner, known.to_vec())).await;
            if let Ok(Some(told)) = stream.next().await
                && let Some(Told::Opened(opened)) = told.message
            {
                self.session = Some(reference(&opened, self.epoch));
                self.stream = Some(stream);
            }
        }
        self.stream.as_mut().unwrap()
    }

    /// Sends until it is answered.
    async fn ask(&mut self, known: &[OpenRequest], first: Ask, next: Ask) -> Told {
        let mut message = first;
        loop {
            let stream = self.attached(known).await;
            let seq = stream.send(message).await;
            loop {
                match stream.next().await {
                    Ok(Some(told)) => match told.message.unwrap() {
                        Told::Queued(_) | Told::Renewed(_) => {}
                        answer if told.reply_to == seq => return answer,
                        Told::Lost(lost) => panic!("{lost:?}"),
                        _ => {}
                    },
                    Ok(None) => panic!("nobody ended it"),
                    Err(_) => break,
                }
            }
            self.stream = None;
            message = next.clone();
        }
    }
}

/// I1, I3, I4, I5 over a store of which a third of the calls fail in one way or another, some of them late.
#[tokio::test]
async fn every_request_has_one_outcome_and_nothing_is_left_over() {
    for seed in 0..4 {
        let memory = memory().await;
        let faulty = Faulty::new(Arc::<MemoryStore>::clone(&memory), seed, 300);
        let mut store = Switch::new(memory);
        store.inner = Arc::<Faulty>::clone(&faulty);
        let coordinator = Coordinator::with(store, settings()).await;
        let client = &coordinator.client;
        let tokens = std::sync::Mutex::new(Vec::new());
        let work = async |name: String| {
            let mut stubborn = Stubborn::new(client, name.clone());
            for round in 0..10 {
                let request = format!("{name}-{round}");
                let named = [known("x", &request, 0)];
                let first = super::support::acquire("x", &request, HOUR);
                let granted = stubborn
                    .ask(&named, first, again("x", &request, HOUR))
                    .await;
                let Told::Granted(granted) = granted else {
                    panic!("seed {seed}: {granted:?}");
                };
                let held = token(&granted);
                tokens.lock().unwrap().push(held);
                let giving = || release("x", Hold::Token(held));
                let named = [known("x", &request, held)];
                let released = stubborn.ask(&named, giving(), giving()).await;
                assert!(
                    matches!(released, Told::Released(_)),
                    "seed {seed}: {released:?}"
                );
            }
            stubborn
        };
        let names = ["a", "b", "c"].map(|name| work(name.to_owned()));
        let mut stubborn = futures::future::join_all(names).await;
        faulty.calm().await;
        assert_eq!(get(client, "x").await.lease, None, "seed {seed}");
        assert_eq!(get(client, "x").await.waiters, 0, "seed {seed}");
        let tokens = tokens.into_inner().unwrap();
        assert!(
            tokens.windows(2).all(|two| two[0] < two[1]),
            "seed {seed}: {tokens:?}"
        );
        for one in &mut stubborn {
            let closed = one.ask(&[], close(), close()).await;
            assert!(matches!(closed, Told::Closed(_)));
        }
        drop(stubborn);
        coordinator.stop().await;
    }
}
