use std::pin::Pin;

use palisade_api::v1::attach_request::Message as Question;
use palisade_api::v1::{
    AttachGranted, AttachQueued, AttachRefused, AttachReleased, AttachRenew, AttachRenewed,
    attach_response::Message,
};
use palisade_api::{AttachRequest, AttachResponse, Lease, Refusal, ReleaseOutcome};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

use super::{Line, StreamHolder, read};
use crate::failure::{Failure, Kind};

/// The coordinator's end of a line.
struct Far {
    questions: Pin<Box<dyn Stream<Item = AttachRequest> + Send>>,
    answers: mpsc::Sender<Result<AttachResponse, Status>>,
}

impl Far {
    async fn hears(&mut self) -> (u64, Question) {
        let asked = self.questions.next().await.unwrap();
        (asked.seq, asked.message.unwrap())
    }

    async fn says(&self, reply_to: u64, message: Message) {
        let message = Some(message);
        let answer = AttachResponse { reply_to, message };
        self.answers.send(Ok(answer)).await.unwrap();
    }
}

/// A line with two slots; its reader runs as long as the tasks are kept.
fn line() -> (Line, Far, JoinSet<()>) {
    let (line, questions) = Line::new(2);
    let (answers, answered) = mpsc::channel(8);
    let mut tasks = JoinSet::new();
    tasks.spawn(read(ReceiverStream::new(answered), line.clone()));
    let questions = Box::pin(questions);
    (line, Far { questions, answers }, tasks)
}

fn holder(line: &Line, slot: usize) -> StreamHolder {
    StreamHolder {
        line: line.clone(),
        resource: format!("r{slot}"),
        slot,
        turn: 0,
        token: 0,
    }
}

fn granted(token: i64) -> Message {
    Message::Granted(AttachGranted {
        lease: Some(Lease {
            token,
            ..Lease::default()
        }),
        ..AttachGranted::default()
    })
}

fn released(outcome: ReleaseOutcome) -> Message {
    Message::Released(AttachReleased {
        outcome: outcome.into(),
        ..AttachReleased::default()
    })
}

/// Both work at once: one asks, and the other does what a test says.
async fn both<T>(asks: impl Future<Output = T>, does: impl Future<Output = ()>) -> T {
    tokio::join!(asks, does).0
}

#[tokio::test]
async fn an_acquire_waits_through_the_queue_and_a_release_names_its_token() {
    let (line, mut far, _tasks) = line();
    let mut holder = holder(&line, 0);
    let got = both(holder.acquire(), async {
        let (seq, question) = far.hears().await;
        assert!(seq > 1, "1 is the opening's");
        assert!(matches!(&question, Question::Acquire(asked) if asked.resource == "r0"));
        far.says(seq, Message::Queued(AttachQueued::default()))
            .await;
        far.says(seq, granted(42)).await;
    });
    got.await.unwrap();
    let gave_back = both(holder.release(), async {
        let (seq, question) = far.hears().await;
        let Question::Release(release) = question else {
            panic!("another question")
        };
        let hold = palisade_api::v1::attach_release::Hold::Token(42);
        assert_eq!(release.hold, Some(hold));
        far.says(seq, released(ReleaseOutcome::Released)).await;
    });
    gave_back.await.unwrap();
}

#[tokio::test]
async fn answers_find_who_asked_in_whatever_order_they_come() {
    let (line, mut far, _tasks) = line();
    let (mut one, mut other) = (holder(&line, 0), holder(&line, 1));
    let got = both(
        async { tokio::join!(one.acquire(), other.acquire()) },
        async {
            let ((first, asked), (second, _)) = (far.hears().await, far.hears().await);
            assert!(first < second);
            let Question::Acquire(asked) = asked else {
                panic!("another question")
            };
            let tokens = if asked.resource == "r0" {
                (1, 2)
            } else {
                (2, 1)
            };
            far.says(second, granted(tokens.1)).await;
            far.says(first, granted(tokens.0)).await;
        },
    );
    let (one_got, other_got) = got.await;
    one_got.and(other_got).unwrap();
    assert_eq!((one.token, other.token), (1, 2));
}

#[tokio::test]
async fn a_renewal_names_what_is_held_or_asked_for_and_nothing_else() {
    let (line, mut far, _tasks) = line();
    let mut held = holder(&line, 0);
    both(held.acquire(), async {
        let (seq, _) = far.hears().await;
        far.says(seq, granted(7)).await;
    })
    .await
    .unwrap();
    let mut given_back = holder(&line, 1);
    both(given_back.acquire(), async {
        let (seq, _) = far.hears().await;
        far.says(seq, granted(8)).await;
    })
    .await
    .unwrap();
    both(given_back.release(), async {
        let (seq, _) = far.hears().await;
        far.says(seq, released(ReleaseOutcome::Released)).await;
    })
    .await
    .unwrap();
    let renewal = line.ask(2, Question::Renew(AttachRenew::default()));
    let renewed = both(renewal, async {
        let (seq, question) = far.hears().await;
        let Question::Renew(renew) = question else {
            panic!("another question")
        };
        let named: Vec<(&str, i64)> = renew
            .open_requests
            .iter()
            .map(|open| (open.resource.as_str(), open.token))
            .collect();
        assert_eq!(named, [("r0", 7)]);
        far.says(seq, Message::Renewed(AttachRenewed::default()))
            .await;
    });
    renewed.await.unwrap();
}

#[tokio::test]
async fn a_lease_that_ended_by_itself_fails_the_bench() {
    let (line, mut far, _tasks) = line();
    let mut holder = holder(&line, 0);
    let failed = both(holder.release(), async {
        let (seq, _) = far.hears().await;
        far.says(seq, released(ReleaseOutcome::NotHeld)).await;
    });
    assert!(failed.await.is_err());
}

#[tokio::test]
async fn a_refusal_is_told_with_its_kind() {
    let (line, mut far, _tasks) = line();
    let mut holder = holder(&line, 0);
    let refusal = Refusal {
        code: Code::Unavailable.into(),
        message: "the store is away".to_owned(),
        ..Refusal::default()
    };
    let failed = both(holder.acquire(), async {
        let (seq, _) = far.hears().await;
        let refusal = Some(refusal);
        let refused = AttachRefused {
            refusal,
            ..AttachRefused::default()
        };
        far.says(seq, Message::Refused(refused)).await;
    });
    assert_failed(failed.await, Kind::Unreachable, "the store is away");
}

#[tokio::test]
async fn everybody_hears_that_the_stream_has_ended_and_why() {
    let (line, mut far, _tasks) = line();
    let (mut one, mut other) = (holder(&line, 0), holder(&line, 1));
    let failed = both(one.acquire(), async {
        far.hears().await;
        let status = Status::unavailable("draining");
        far.answers.send(Err(status)).await.unwrap();
    });
    assert_failed(failed.await, Kind::Unreachable, "draining");
    let late = both(other.acquire(), async {
        far.hears().await;
    });
    assert_failed(late.await, Kind::Unreachable, "draining");
}

fn assert_failed(result: Result<(), Failure>, kind: Kind, says: &str) {
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, kind);
    assert!(failure.to_string().contains(says), "{failure}");
}
