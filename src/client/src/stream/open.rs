//! How a stream is opened.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use palisade_api::v1::attach_request::Message;
use palisade_api::v1::{AttachOpen, AttachOpened, attach_open, attach_response};
use palisade_api::{AttachRequest, AttachResponse, SessionOpening};
use tokio::sync::mpsc;
use tonic::{Request, Streaming};

use crate::calls::{Next, Shared, Tries};
use crate::clock::{Moment, within};
use crate::endpoints::Connected;
use crate::epoch::Epochs;
use crate::error::ClientError;
use crate::error::status::Failure;

use super::request::MAX_OPEN_REQUESTS;
use super::table::Garbage;

/// Messages that wait to be sent. An open request has at most an acquire and a cancel or release under way,
/// unanswered; the rest is for answers to news. A connection that does not take so many is broken.
const OUTGOING: usize = 4 * MAX_OPEN_REQUESTS;

/// An open stream.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) outgoing: mpsc::Sender<AttachRequest>,
    pub(super) incoming: Streaming<AttachResponse>,
    pub(super) used: Connected,
    /// It ended, or broke: nothing more comes.
    pub(super) over: bool,
}

/// A stream that was just opened.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) wire: Wire,
    pub(super) answer: AttachOpened,
    /// Read before the opening was sent.
    pub(super) sent: Moment,
}

/// The first stream of a session.
#[derive(Debug)]
pub(crate) struct First {
    pub(crate) session_id: String,
    pub(crate) ttl: Duration,
    pub(crate) ttl_left: Duration,
    pub(crate) sent: Moment,
    pub(super) wire: Wire,
}

#[derive(Debug)]
struct Outgoing(mpsc::Receiver<AttachRequest>);

impl Stream for Outgoing {
    type Item = AttachRequest;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<AttachRequest>> {
        self.0.poll_recv(context)
    }
}

/// Opens a session with its first stream, for as long as an operation may take.
pub(crate) async fn first(
    shared: &Shared,
    epochs: &Epochs,
    opening: SessionOpening,
) -> Result<First, ClientError> {
    let deadline = shared.clock.now().after(shared.operation_timeout);
    let mut tries = Tries::new(shared, epochs);
    loop {
        let limit = shared.clock.now().until(deadline).min(shared.call_timeout);
        let open = AttachOpen {
            owner: Some(attach_open::Owner::Opening(SessionOpening {
                epoch: tries.next_try().epoch,
                ..opening.clone()
            })),
            open_requests: Vec::new(),
        };
        let failure = match Box::pin(open_stream(shared, limit, open)).await {
            Ok(opened) => return Ok(First::of(opened)),
            Err(failure) => failure,
        };
        match tries.after(failure, deadline).await {
            Next::Retry => {}
            Next::GiveUp(error) => return Err(error),
        }
    }
}

impl First {
    fn of(opened: Opened) -> Self {
        let answer = opened.answer;
        Self {
            session_id: answer.session_id,
            ttl: Duration::from_millis(answer.ttl_ms),
            ttl_left: Duration::from_millis(answer.ttl_left_ms),
            sent: opened.sent,
            wire: opened.wire,
        }
    }
}

/// One try over one endpoint, for as long as `limit`.
pub(super) async fn open_stream(
    shared: &Shared,
    limit: Duration,
    open: AttachOpen,
) -> Result<Opened, Failure> {
    let used = shared.endpoints.connected(limit).await?;
    let sent = shared.clock.now();
    let opening = attach(used.stub.clone(), open);
    let failure = match within(&shared.clock, limit, opening).await {
        Some(Ok((outgoing, incoming, answer))) => {
            shared.endpoints.succeeded(&used);
            let wire = Wire {
                outgoing,
                incoming,
                used,
                over: false,
            };
            return Ok(Opened { wire, answer, sent });
        }
        Some(Err(failure)) => failure,
        None => Failure::no_answer(true),
    };
    if failure.endpoint_at_fault {
        shared.endpoints.failed(&used).await;
    }
    Err(failure)
}

type Attaching = (
    mpsc::Sender<AttachRequest>,
    Streaming<AttachResponse>,
    AttachOpened,
);

async fn attach(mut stub: crate::endpoints::Stub, open: AttachOpen) -> Result<Attaching, Failure> {
    let (outgoing, taken) = mpsc::channel(OUTGOING);
    let first = AttachRequest {
        seq: 1,
        message: Some(Message::Open(open)),
    };
    outgoing
        .try_send(first)
        .map_err(|_| Failure::no_answer(true))?;
    let mut incoming = stub
        .attach(Request::new(Outgoing(taken)))
        .await?
        .into_inner();
    let answer = incoming.message().await?;
    let answer = answer.ok_or_else(|| Failure::no_answer(true))?;
    match answer.message {
        Some(attach_response::Message::Opened(opened)) if answer.reply_to == 1 => {
            Ok((outgoing, incoming, opened))
        }
        _ => Err(Failure::garbled(Garbage("no opening"))),
    }
}

impl Wire {
    /// The next answer; a failure when there is none any more.
    pub(super) async fn next(&mut self) -> Result<AttachResponse, Failure> {
        let failure = match self.incoming.message().await {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => Failure::no_answer(true),
            Err(status) => Failure::from(status),
        };
        self.over = true;
        Err(failure)
    }
}

/// A future that shares what it needs, so that a session's task can hold it.
pub(super) async fn reopen(
    shared: Arc<Shared>,
    limit: Duration,
    open: AttachOpen,
) -> Result<Opened, Failure> {
    open_stream(&shared, limit, open).await
}
