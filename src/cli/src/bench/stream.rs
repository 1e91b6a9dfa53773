//! A coordinator, over a session's stream.

mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use palisade_api::v1::attach_request::Message as Question;
use palisade_api::v1::{
    AttachAcquire, AttachClose, AttachOpen, AttachRelease, AttachRenew, attach_open,
    attach_release, attach_response,
};
use palisade_api::{AttachRequest, AttachResponse, ReleaseOutcome, SessionOpening};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status, Streaming};

use super::WAIT_MS;
use super::failure::{refused, refused_with};
use super::opening::{opening, renewal_interval};
use super::rig::Caller;
use crate::clock;
use crate::failure::Failure;
use table::{Answer, Ask, Table};

/// As many messages as can wait to be written: what is ready is written at once, in one piece.
const BACKLOG: usize = 256;

/// The other end of a session's stream, once the session stands.
pub(crate) struct Attached {
    pub(crate) answers: Streaming<AttachResponse>,
    pub(crate) ttl: Duration,
}

/// Opens a session; what follows on its stream begins with 2.
pub(crate) async fn attach(
    caller: &mut Caller,
    opening: SessionOpening,
    follows: impl Stream<Item = AttachRequest> + Send + 'static,
) -> Result<Attached, Status> {
    let open = AttachRequest {
        seq: 1,
        message: Some(Question::Open(AttachOpen {
            owner: Some(attach_open::Owner::Opening(opening)),
            open_requests: Vec::new(),
        })),
    };
    let questions = tokio_stream::once(open).chain(follows);
    let mut answers = caller.attach(questions).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        if let Some(attach_response::Message::Opened(opened)) = answer.message {
            let ttl = Duration::from_millis(opened.ttl_ms);
            return Ok(Attached { answers, ttl });
        }
    }
    Err(Status::aborted("the stream ended before the session stood"))
}

/// Says what is missing where it is the stream itself.
pub(crate) fn not_attached(status: &Status) -> Failure {
    if status.code() == Code::Unimplemented {
        return Failure::other(
            "this coordinator does not serve session streams; leave them out: --variants v3lock,unary",
        );
    }
    refused("no session was opened", status)
}

/// A session that its stream keeps alive; no longer once this is dropped.
#[derive(Debug)]
pub(crate) struct StreamSession {
    line: Line,
    tasks: JoinSet<()>,
}

impl StreamSession {
    /// Opens it, for holders with slots below `slots`.
    pub(crate) async fn open(
        mut caller: Caller,
        ttl: Duration,
        slots: usize,
    ) -> Result<Self, Failure> {
        let (line, questions) = Line::new(slots);
        let attached = attach(&mut caller, opening(ttl)?, questions).await;
        let Attached { answers, ttl } = attached.map_err(|status| not_attached(&status))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(read(answers, line.clone()));
        tasks.spawn(renew(line.clone(), slots, renewal_interval(ttl)));
        Ok(Self { line, tasks })
    }

    pub(crate) fn holder(&self, resource: String, slot: usize) -> StreamHolder {
        StreamHolder {
            line: self.line.clone(),
            resource,
            slot,
            turn: 0,
            token: 0,
        }
    }

    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        let closed = self.line.ask(0, Question::Close(AttachClose {})).await?;
        self.tasks.shutdown().await;
        match closed {
            Answer::Closed => Ok(()),
            other => Err(other.unexpected("a close")),
        }
    }
}

/// Both directions of a stream.
#[derive(Debug, Clone)]
struct Line {
    asks: mpsc::Sender<Ask>,
    table: Arc<Mutex<Table>>,
}

impl Line {
    /// A line, and what is to be sent on its stream. Messages are numbered as they are written, so that
    /// many tasks can ask and the numbers still grow.
    fn new(slots: usize) -> (Self, impl Stream<Item = AttachRequest> + Send + 'static) {
        let (asks, asked) = mpsc::channel(BACKLOG);
        let table = Arc::new(Mutex::new(Table::new(slots)));
        let line = Self {
            asks,
            table: Arc::clone(&table),
        };
        let questions = ReceiverStream::new(asked).map(move |ask| lock(&table).number(ask));
        (line, questions)
    }

    async fn ask(&self, slot: usize, question: Question) -> Result<Answer, Failure> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask {
            slot,
            question,
            answer,
        };
        if self.asks.send(ask).await.is_err() {
            return Err(self.ended());
        }
        answered.await.map_err(|_| self.ended())
    }

    fn ended(&self) -> Failure {
        let why = lock(&self.table).ended().cloned();
        why.map_or_else(
            || Failure::other("a session's stream has ended"),
            |status| refused("a session's stream has ended", &status),
        )
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(mut answers: impl Stream<Item = Result<AttachResponse, Status>> + Unpin, line: Line) {
    let why = loop {
        match answers.next().await {
            Some(Ok(answer)) => lock(&line.table).answered(answer),
            Some(Err(status)) => break status,
            None => break Status::ok("the stream is over"),
        }
    };
    lock(&line.table).end(why);
}

async fn renew(line: Line, slot: usize, interval: Duration) {
    loop {
        clock::pause(interval).await;
        // What is named is added as it is written.
        let renewal = Question::Renew(AttachRenew::default());
        match line.ask(slot, renewal).await {
            Ok(Answer::Renewed) => {}
            Ok(other) => tracing::warn!(?other, "a renewal was refused"),
            // Whoever holds sees it, too.
            Err(_) => return,
        }
    }
}

/// One resource, taken again and again.
#[derive(Debug)]
pub(crate) struct StreamHolder {
    line: Line,
    resource: String,
    slot: usize,
    turn: u64,
    token: i64,
}

impl StreamHolder {
    pub(crate) async fn acquire(&mut self) -> Result<(), Failure> {
        self.turn += 1;
        let acquire = AttachAcquire {
            request_id: format!("{}-{}", self.slot, self.turn),
            resource: self.resource.clone(),
            wait_ms: WAIT_MS,
            ..AttachAcquire::default()
        };
        match self.line.ask(self.slot, Question::Acquire(acquire)).await? {
            Answer::Granted { token } => {
                self.token = token;
                Ok(())
            }
            other => Err(other.unexpected("an acquire")),
        }
    }

    pub(crate) async fn release(&mut self) -> Result<(), Failure> {
        let release = AttachRelease {
            resource: self.resource.clone(),
            hold: Some(attach_release::Hold::Token(self.token)),
            refused_by_fence: 0,
        };
        match self.line.ask(self.slot, Question::Release(release)).await? {
            Answer::Released(ReleaseOutcome::Released) => Ok(()),
            Answer::Released(_) => Err(Failure::other("a lease ended before its release")),
            other => Err(other.unexpected("a release")),
        }
    }
}

impl Answer {
    fn unexpected(self, what: &str) -> Failure {
        match self {
            Self::Refused(refusal) => refused_with(
                format_args!("{what} was refused"),
                Code::from_i32(refusal.code),
                &refusal.message,
            ),
            other => Failure::other(format!("{what} was answered by {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests;
