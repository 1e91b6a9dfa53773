//! The open requests of a session and what its stream carries for them: pure, every moment is given.
//!
//! Commands and answers go in, messages and outcomes come out. Each request has one outcome, whatever
//! happens to the streams: what was under way on one that broke is sent again on the next, as a retry, or
//! given back if nobody waits for it any more.

use std::collections::BTreeMap;
use std::time::Duration;

use palisade_api::AttachRequest;
use palisade_api::v1::attach_request::Message;
use palisade_api::v1::{AttachClose, AttachDrainAck, AttachRenew, OpenRequest};
use tokio_util::sync::CancellationToken;

use crate::clock::Moment;
use crate::error::{ClientError, Unavailable};
use crate::info::LeaseEnd;
use crate::lease::LeaseNews;
use crate::random::Random;
use crate::release::Released;

use super::messages;
use super::request::{Ask, Asking, Giving, Request, RequestKey, Return, Returning, Stage};

mod answers;

mod reopen;
#[cfg(test)]
mod tests;

pub(super) use self::answers::News;

/// The pause before what was refused for now is sent again, doubled with each further refusal...
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// ...up to this, so that it is not late by much.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What the stream takes at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// There is none.
    Nothing,
    /// All but acquires: another stream is being opened, and gives back what its opening did not name.
    NoAcquires,
    Everything,
}

/// What a message on this stream was, until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InFlight {
    Acquire(RequestKey),
    Return(RequestKey),
    Renewal,
    Close,
}

/// An answer that no coordinator sends: the stream is not to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream carries {0}")]
pub(super) struct Garbage(pub(super) &'static str);

#[derive(Debug)]
pub(super) struct Table {
    requests: BTreeMap<RequestKey, Request>,
    in_flight: BTreeMap<u64, InFlight>,
    takes: Takes,
    seq: u64,
    order: u64,
    outbox: Vec<AttachRequest>,
    /// Not after the first moment at which there is something to do.
    wake_at: Option<Moment>,
    /// What the last opening met, while there is no stream.
    away: Unavailable,
    session_ended: CancellationToken,
    random: Random,
}

impl Table {
    pub(super) fn new(session_ended: CancellationToken, random: Random) -> Self {
        Self {
            requests: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            takes: Takes::Nothing,
            seq: 0,
            order: 0,
            outbox: Vec::new(),
            wake_at: None,
            away: Unavailable::NoAnswer,
            session_ended,
            random,
        }
    }

    /// What is to be sent, in this order, on the present stream.
    pub(super) fn outbox(&mut self) -> &mut Vec<AttachRequest> {
        &mut self.outbox
    }

    /// When [`Table::tick`] is due.
    pub(super) fn wake_at(&self) -> Option<Moment> {
        self.wake_at
    }

    fn wake_by(&mut self, at: Moment) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    fn send(&mut self, message: Message, what: Option<InFlight>) -> u64 {
        self.seq += 1;
        if let Some(what) = what {
            self.in_flight.insert(self.seq, what);
        }
        self.outbox.push(AttachRequest {
            seq: self.seq,
            message: Some(message),
        });
        self.seq
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    pub(super) fn acquire(&mut self, now: Moment, ask: Ask) {
        let order = self.next_order();
        self.wake_by(ask.give_up_at);
        let asking = Asking {
            is_try: ask.is_try,
            wait_end: ask.wait_end,
            give_up_at: ask.give_up_at,
            lock_delay_ms: ask.lock_delay_ms,
            metadata: ask.metadata,
            progress: ask.progress,
            reply: ask.reply,
            attempt: 1,
            unknown: false,
            sent_at: now,
        };
        let request = Request {
            resource: ask.resource,
            stage: Stage::Asking(Box::new(asking)),
            order,
            acquire: None,
            sent: false,
            named: false,
            failures: 0,
            retry_at: None,
            _slot: Some(ask.slot),
        };
        self.requests.insert(ask.key, request);
        self.send_acquire(now, ask.key);
    }

    /// Sends an acquire if the stream takes it; else that is done when one does.
    fn send_acquire(&mut self, now: Moment, key: RequestKey) {
        if self.takes != Takes::Everything {
            return;
        }
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        let Stage::Asking(asking) = &mut request.stage else {
            return;
        };
        asking.sent_at = now;
        request.sent = true;
        request.retry_at = None;
        let message = messages::acquire(key, &request.resource, asking, now);
        let seq = self.send(message, Some(InFlight::Acquire(key)));
        if let Some(request) = self.requests.get_mut(&key) {
            request.acquire = Some(seq);
        }
    }

    /// Nobody waits for the request any more: whatever it came to is given back (I5).
    pub(super) fn cancel(&mut self, key: RequestKey) {
        match self.requests.get(&key) {
            Some(request) if !request.sent => drop(self.requests.remove(&key)),
            Some(Request {
                stage: Stage::Asking(_) | Stage::Held { .. },
                ..
            }) => self.give_back(key, Returning::new(Return::Cancel)),
            _ => {}
        }
    }

    pub(super) fn release(&mut self, giving: Giving) {
        let token = match self.requests.get(&giving.key).map(|held| &held.stage) {
            Some(Stage::Held { token, .. }) => *token,
            _ => {
                let ended = giving
                    .news
                    .loss()
                    .map_or(LeaseEnd::Unknown, |loss| loss.end);
                drop(
                    giving
                        .reply
                        .map(|reply| reply.send(Ok(Released::before(ended)))),
                );
                return;
            }
        };
        if giving.reply.is_some() {
            self.wake_by(giving.tell_by);
        }
        let how = Return::Release {
            token,
            refused_by_fence: giving.refused_by_fence,
        };
        let returning = Returning {
            tell_by: giving.reply.is_some().then_some(giving.tell_by),
            reply: giving.reply,
            ..Returning::new(how)
        };
        self.give_back(giving.key, returning);
    }

    fn give_back(&mut self, key: RequestKey, returning: Returning) {
        let order = self.next_order();
        if let Some(request) = self.requests.get_mut(&key) {
            request.order = order;
            request.failures = 0;
            request.retry_at = None;
            request.stage = Stage::Returning(returning);
            self.send_return(key);
        }
    }

    fn send_return(&mut self, key: RequestKey) {
        if self.takes == Takes::Nothing {
            return;
        }
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        let Stage::Returning(returning) = &request.stage else {
            return;
        };
        request.retry_at = None;
        let message = messages::give_back(key, &request.resource, returning.how);
        let seq = self.send(message, Some(InFlight::Return(key)));
        if let Some(Request {
            stage: Stage::Returning(returning),
            ..
        }) = self.requests.get_mut(&key)
        {
            returning.asked = Some(seq);
        }
    }

    /// Answers an operator's wish to have a lease back.
    pub(super) fn answer_revoke(&mut self, key: RequestKey, will_release: bool) {
        let Some(request) = self.requests.get(&key) else {
            return;
        };
        // To a coordinator that did not ask it says nothing: after a new stream it asks again.
        if let (Stage::Held { token, .. }, true) = (&request.stage, self.takes != Takes::Nothing) {
            let message = messages::revoke_answer(&request.resource, *token, will_release);
            self.send(message, None);
        }
    }

    /// Names all that is known, and renews the session.
    pub(super) fn renew(&mut self) -> u64 {
        let open_requests = self.named(Request::known_in_renewal);
        let renew = AttachRenew { open_requests };
        self.send(Message::Renew(renew), Some(InFlight::Renewal))
    }

    pub(super) fn heard_draining(&mut self) {
        self.send(Message::DrainAck(AttachDrainAck {}), None);
    }

    pub(super) fn close(&mut self) -> u64 {
        self.send(Message::Close(AttachClose {}), Some(InFlight::Close))
    }

    fn named(&self, known_as: fn(&Request) -> Option<i64>) -> Vec<OpenRequest> {
        let known = self.requests.iter().filter_map(|(key, request)| {
            known_as(request).map(|token| OpenRequest {
                resource: request.resource.to_string(),
                request_id: key.to_string(),
                token,
            })
        });
        known.collect()
    }

    /// Sends again what is due, and gives up on answers that did not come in time.
    pub(super) fn tick(&mut self, now: Moment) {
        if self.wake_at.is_none_or(|at| at > now) {
            return;
        }
        self.wake_at = None;
        let mut due: Vec<(u64, RequestKey)> = Vec::new();
        let mut late: Vec<RequestKey> = Vec::new();
        let mut next: Option<Moment> = None;
        for (key, request) in &mut self.requests {
            if request.gives_up(now) {
                late.push(*key);
                continue;
            }
            match request.retry_at {
                Some(at) if at <= now => due.push((request.order, *key)),
                _ => {}
            }
            let later = request.retry_at.filter(|at| *at > now);
            for at in [later, request.limit()].into_iter().flatten() {
                next = Some(next.map_or(at, |before| before.min(at)));
            }
        }
        self.wake_at = next;
        for key in late {
            self.give_up(key);
        }
        due.sort_unstable();
        for (_, key) in due {
            if let Some(request) = self.requests.get_mut(&key) {
                request.retry_at = None;
            }
            self.send_acquire(now, key);
            self.send_return(key);
        }
    }

    /// No answer in time: whoever waits is told so, and it is given back.
    fn give_up(&mut self, key: RequestKey) {
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        let cause = self.away;
        let no_answer = |may_have_happened| ClientError::Unavailable {
            cause,
            may_have_happened,
            retry_after: None,
            source: None,
        };
        match &mut request.stage {
            Stage::Asking(_) => {
                let unknown = request.sent;
                self.refuse(key, no_answer(unknown), !unknown);
            }
            Stage::Returning(returning) => {
                returning.tell_by = None;
                returning.tell(Err(no_answer(true)));
            }
            Stage::Held { .. } | Stage::Gone(_) => {}
        }
    }

    /// The request's outcome. One that is not decided is given back: it may still be granted, or wait.
    fn refuse(&mut self, key: RequestKey, error: ClientError, decided: bool) {
        let Some(request) = self.requests.get_mut(&key) else {
            return;
        };
        let nothing = Stage::Returning(Returning::new(Return::Cancel));
        if let Stage::Asking(asking) = std::mem::replace(&mut request.stage, nothing) {
            drop(asking.reply.send(Err(error)));
        }
        if decided {
            self.requests.remove(&key);
        } else {
            self.give_back(key, Returning::new(Return::Cancel));
        }
    }

    /// When what was refused for now is sent again.
    fn retry_later(&mut self, now: Moment, key: RequestKey) -> Option<Moment> {
        let request = self.requests.get_mut(&key)?;
        let doubled = FIRST_PAUSE * (1 << request.failures.min(10));
        let at = now.after(self.random.jittered(doubled.min(LONGEST_PAUSE), 500));
        request.failures = request.failures.saturating_add(1);
        request.retry_at = Some(at);
        self.wake_by(at);
        Some(at)
    }

    /// The session has ended: all that is open ends with it.
    pub(super) fn end(&mut self, error: impl Fn() -> ClientError) {
        self.cut();
        for (_, request) in std::mem::take(&mut self.requests) {
            match request.stage {
                Stage::Asking(asking) => drop(asking.reply.send(Err(error()))),
                Stage::Returning(mut returning) => returning.tell(Err(error())),
                Stage::Held { .. } | Stage::Gone(_) => {}
            }
        }
    }

    fn new_news(&self) -> LeaseNews {
        LeaseNews::of_session(&self.session_ended)
    }
}
