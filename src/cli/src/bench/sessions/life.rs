//! One session, from its opening to its end.

use std::time::Duration;

use palisade_api::v1::attach_request::Message as Question;
use palisade_api::v1::{AttachClose, AttachRenew, Refusal, attach_response};
use palisade_api::{AttachRequest, AttachResponse};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use crate::args::SessionVariant;
use crate::bench::failure::unreachable;
use crate::bench::opening::{opening, renewal_interval};
use crate::bench::rig::Caller;
use crate::bench::stream::{Attached, attach, not_attached};
use crate::bench::unary::UnarySession;
use crate::clock::{self, Stopwatch};
use crate::failure::Failure;

/// Renewals of sessions that are opened together are spread over this many steps of their interval.
const PHASES: u32 = 1_000;
/// From one session's step to the next one's: prime to the number of steps, so that all are used, and so far
/// that a few sessions are spread, too.
const STRIDE: u32 = 617;
/// A renewal that was refused for now is tried again after this part of the interval.
const AGAIN: u32 = 10;
/// Longer no opening takes on an etcd that is well, however many there are at once.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// What an etcd needs to get its breath again.
const OPEN_AGAIN: Duration = Duration::from_millis(500);

/// What became of a session.
#[derive(Debug)]
pub(super) enum Fate {
    Lived,
    /// It ended, though it was renewed; or a renewal was not answered within the TTL, which is the same to
    /// its client.
    Expired,
    /// Its stream was cut; it may live on.
    Cut(Status),
}

/// When a renewal was answered, and how long that took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    pub(super) at: Duration,
    pub(super) took: Duration,
}

#[derive(Debug)]
pub(super) struct Life {
    pub(super) fate: Fate,
    pub(super) renewals: Vec<Renewal>,
}

/// How a session is kept alive.
#[derive(Debug)]
pub(super) enum Session {
    Stream(Box<Stream>),
    Unary(Box<UnarySession>),
}

#[derive(Debug)]
pub(super) struct Stream {
    asks: mpsc::Sender<AttachRequest>,
    answers: Streaming<AttachResponse>,
    last_seq: u64,
}

impl Session {
    pub(super) async fn open(
        mut caller: Caller,
        variant: SessionVariant,
        ttl: Duration,
    ) -> Result<Self, Failure> {
        let mut opening = opening(ttl)?;
        let work = async {
            match variant {
                SessionVariant::Unary => {
                    let session = UnarySession::open(caller, ttl).await?;
                    Ok(Self::Unary(Box::new(session)))
                }
                SessionVariant::Stream => {
                    // As clients do: what is too much for the moment is asked for again, above all that
                    // may still be under way.
                    let (asks, Attached { answers, .. }) = loop {
                        let (asks, asked) = mpsc::channel(1);
                        let follows = ReceiverStream::new(asked);
                        match attach(&mut caller, opening.clone(), follows).await {
                            Ok(attached) => break (asks, attached),
                            Err(status) if status.code() == Code::Unavailable => {
                                opening.epoch += 1;
                                clock::pause(OPEN_AGAIN).await;
                            }
                            Err(status) => return Err(not_attached(&status)),
                        }
                    };
                    Ok(Self::Stream(Box::new(Stream {
                        asks,
                        answers,
                        last_seq: 1,
                    })))
                }
            }
        };
        let opened = clock::within(OPEN_LIMIT, Box::pin(work)).await;
        opened.unwrap_or_else(|| Err(unreachable("a session was not opened in time")))
    }

    async fn renew(&mut self) -> Result<(), Ended> {
        match self {
            Self::Unary(session) => session.renew().await.map_err(Ended::from),
            Self::Stream(stream) => stream.ask(Question::Renew(AttachRenew::default())).await,
        }
    }

    async fn close(self) {
        let closed = match self {
            Self::Unary(session) => session.close().await.is_ok(),
            Self::Stream(mut stream) => stream.ask(Question::Close(AttachClose {})).await.is_ok(),
        };
        if !closed {
            tracing::debug!("a session was not closed; it ends with its TTL");
        }
    }
}

/// Why a renewal failed.
#[derive(Debug)]
enum Ended {
    /// The session stands no more.
    Session,
    /// Trying again may help.
    NotNow,
    /// The stream is over.
    Stream(Status),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        match status.code() {
            // Of sessions, nothing else is ever not found.
            Code::NotFound => Self::Session,
            _ => Self::Stream(status),
        }
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        match Code::from_i32(refusal.code) {
            Code::NotFound => Self::Session,
            _ => Self::NotNow,
        }
    }
}

impl Stream {
    async fn ask(&mut self, question: Question) -> Result<(), Ended> {
        self.last_seq += 1;
        let asked = AttachRequest {
            seq: self.last_seq,
            message: Some(question),
        };
        // Why it is over is told by the answers.
        drop(self.asks.send(asked).await);
        while let Some(answer) = self.answers.message().await? {
            if answer.reply_to != self.last_seq {
                continue;
            }
            return match answer.message {
                Some(attach_response::Message::Refused(refused)) => {
                    Err(refused.refusal.unwrap_or_default().into())
                }
                _ => Ok(()),
            };
        }
        Err(Ended::Stream(Status::ok("the stream is over")))
    }
}

/// What all sessions share.
#[derive(Debug)]
pub(super) struct Times {
    pub(super) clock: Stopwatch,
    pub(super) ttl: Duration,
    pub(super) stop: CancellationToken,
    /// So many sessions at once are opened, or ended.
    pub(super) gate: Semaphore,
}

impl Times {
    /// When the session with this number is renewed for the first time, after its opening.
    fn phase(&self, index: u32) -> Duration {
        renewal_interval(self.ttl) * (index.wrapping_mul(STRIDE) % PHASES) / PHASES
    }

    /// A turn at the gate, which is never closed.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.gate.acquire().await.ok()
    }

    /// A turn at the gate once all are to stop.
    async fn last_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.stop.cancelled().await;
        self.turn().await
    }
}

/// Renews a session until it ends, or all are to stop; then once more, which proves that it lives.
pub(super) async fn live(mut session: Session, index: u32, times: &Times) -> Life {
    let mut renewals = Vec::new();
    let mut renewed = times.clock.elapsed();
    let mut next = renewed + times.phase(index);
    loop {
        let wait = next.saturating_sub(times.clock.elapsed());
        // Those that wait for their turn to end are renewed meanwhile.
        let turn = tokio::select! {
            () = clock::pause(wait) => None,
            turn = times.last_turn() => turn,
        };
        let last = turn.is_some();
        let began = times.clock.elapsed();
        let left = (renewed + times.ttl).saturating_sub(began);
        let fate = match clock::within(left, session.renew()).await {
            Some(Ok(())) if last => Fate::Lived,
            Some(Ok(())) => {
                let at = times.clock.elapsed();
                let took = at.saturating_sub(began);
                renewals.push(Renewal { at, took });
                renewed = began;
                next = began + renewal_interval(times.ttl);
                continue;
            }
            Some(Err(Ended::NotNow)) => {
                next = times.clock.elapsed() + renewal_interval(times.ttl) / AGAIN;
                clock::pause(next.saturating_sub(times.clock.elapsed())).await;
                continue;
            }
            Some(Err(Ended::Stream(status))) => Fate::Cut(status),
            Some(Err(Ended::Session)) | None => Fate::Expired,
        };
        if matches!(fate, Fate::Lived) {
            session.close().await;
        }
        drop(turn);
        return Life { fate, renewals };
    }
}
