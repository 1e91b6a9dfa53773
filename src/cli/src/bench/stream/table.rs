//! What was asked on a stream and is not answered yet, and what its session knows of.

use std::collections::HashMap;

use palisade_api::v1::attach_request::Message as Question;
use palisade_api::v1::{OpenRequest, attach_response};
use palisade_api::{AttachRequest, AttachResponse, Refusal, ReleaseOutcome};
use tokio::sync::oneshot;
use tonic::Status;

/// A message to be sent, and who waits for its last answer.
#[derive(Debug)]
pub(super) struct Ask {
    /// Whose it is. One slot asks for one resource at a time.
    pub(super) slot: usize,
    pub(super) question: Question,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// A last answer.
#[derive(Debug)]
pub(super) enum Answer {
    Granted { token: i64 },
    Released(ReleaseOutcome),
    Renewed,
    Closed,
    Refused(Box<Refusal>),
}

#[derive(Debug)]
pub(super) struct Table {
    last_seq: u64,
    waiting: HashMap<u64, (usize, oneshot::Sender<Answer>)>,
    /// By slot: what the session holds or has asked for. A renewal names it, or it is given back.
    open: Vec<Option<OpenRequest>>,
    ended: Option<Status>,
}

impl Table {
    /// The first message, which opens the session, is sent already.
    pub(super) fn new(slots: usize) -> Self {
        Self {
            last_seq: 1,
            waiting: HashMap::new(),
            open: vec![None; slots],
            ended: None,
        }
    }

    /// The next message on the stream.
    pub(super) fn number(&mut self, ask: Ask) -> AttachRequest {
        let Ask {
            slot,
            mut question,
            answer,
        } = ask;
        self.last_seq += 1;
        match &mut question {
            Question::Acquire(acquire) => self.set_open(
                slot,
                Some(OpenRequest {
                    resource: acquire.resource.clone(),
                    request_id: acquire.request_id.clone(),
                    token: 0,
                }),
            ),
            // A renewal takes effect after it.
            Question::Release(_) => self.set_open(slot, None),
            Question::Renew(renew) => {
                renew.open_requests = self.open.iter().flatten().cloned().collect();
            }
            _ => {}
        }
        // Once the stream has ended nobody answers.
        if self.ended.is_none() {
            self.waiting.insert(self.last_seq, (slot, answer));
        }
        AttachRequest {
            seq: self.last_seq,
            message: Some(question),
        }
    }

    /// Tells whoever waits for it. News, and places in a queue, end no waiting.
    pub(super) fn answered(&mut self, response: AttachResponse) {
        let answer = match response.message {
            Some(attach_response::Message::Granted(granted)) => Answer::Granted {
                token: granted.lease.map_or(0, |lease| lease.token),
            },
            Some(attach_response::Message::Released(released)) => {
                Answer::Released(released.outcome())
            }
            Some(attach_response::Message::Renewed(_)) => Answer::Renewed,
            Some(attach_response::Message::Closed(_)) => Answer::Closed,
            Some(attach_response::Message::Refused(refused)) => {
                Answer::Refused(Box::new(refused.refusal.unwrap_or_default()))
            }
            _ => return,
        };
        let Some((slot, waiting)) = self.waiting.remove(&response.reply_to) else {
            return;
        };
        if let (Answer::Granted { token }, Some(Some(open))) = (&answer, self.open.get_mut(slot)) {
            open.token = *token;
        }
        // Who has gone does not ask any more.
        drop(waiting.send(answer));
    }

    /// The stream is over: nobody gets an answer any more.
    pub(super) fn end(&mut self, why: Status) {
        self.ended = Some(why);
        self.waiting.clear();
    }

    pub(super) fn ended(&self) -> Option<&Status> {
        self.ended.as_ref()
    }

    fn set_open(&mut self, slot: usize, request: Option<OpenRequest>) {
        if let Some(open) = self.open.get_mut(slot) {
            *open = request;
        }
    }
}
