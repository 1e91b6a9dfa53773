//! What is heard on a stream.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::attach_response::Message;
use palisade_api::v1::{
    AttachGranted, AttachLost, AttachQueued, AttachRefused, AttachReleased, AttachRevokeRequested,
};
use palisade_api::{AttachResponse, ReleaseOutcome};
use palisade_token::{FencingToken, Grant};

use crate::acquire::{QueuePlace, is_decided};
use crate::clock::Moment;
use crate::error::ClientError;
use crate::error::status::{Failure, Verdict};
use crate::info::{LeaseInfo, PreviousLease};
use crate::lease::{LeaseLoss, RevokeRequest};
use crate::release::{self, Later, Released};
use crate::standing::LostReason;

use super::super::request::{Granted, Request, RequestKey, Return, Returning, Stage};
use super::{Garbage, InFlight, Table};

/// Refusals of one request in a row after which another coordinator may do better.
const PATIENCE: u32 = 2;

/// What a message on the stream means for the session.
#[derive(Debug)]
pub(in super::super) enum News {
    Nothing,
    /// A grant told what is left of the TTL, counted from `sent` or later.
    TtlLeft {
        sent: Moment,
        left: Duration,
    },
    Renewed {
        seq: u64,
        left: Duration,
    },
    RenewalRefused {
        seq: u64,
        failure: Failure,
    },
    Closed,
    CloseRefused(Failure),
    /// The coordinator goes away, or does badly.
    Leave {
        draining: Option<Duration>,
    },
    /// The session has ended.
    Ended(LostReason),
}

impl Table {
    /// # Errors
    /// No coordinator sends this: the stream is not to be trusted.
    pub(in super::super) fn heard(
        &mut self,
        now: Moment,
        answer: AttachResponse,
    ) -> Result<News, Garbage> {
        let seq = answer.reply_to;
        match answer.message {
            // A kind of a later version.
            None => Ok(News::Nothing),
            Some(Message::Opened(_)) => Err(Garbage("a second opening")),
            Some(Message::Renewed(renewed)) => {
                self.in_flight.remove(&seq);
                // What was lost by then has been told of.
                self.requests
                    .retain(|_, request| !matches!(request.stage, Stage::Gone(_)));
                let left = Duration::from_millis(renewed.ttl_left_ms);
                Ok(News::Renewed { seq, left })
            }
            Some(Message::Granted(granted)) => self.granted(seq, granted),
            Some(Message::Queued(queued)) => {
                self.queued(seq, &queued);
                Ok(News::Nothing)
            }
            Some(Message::Refused(refused)) => self.refused(now, seq, refused),
            Some(Message::Released(released)) => {
                self.released(seq, &released);
                Ok(News::Nothing)
            }
            Some(Message::Closed(_)) => Ok(News::Closed),
            Some(Message::Lost(lost)) => {
                self.lost(lost);
                Ok(News::Nothing)
            }
            Some(Message::RevokeRequested(wanted)) => {
                self.revoke_requested(now, wanted);
                Ok(News::Nothing)
            }
            Some(Message::Draining(draining)) => Ok(News::Leave {
                draining: Some(Duration::from_millis(draining.deadline_ms)),
            }),
        }
    }

    fn granted(&mut self, seq: u64, answer: AttachGranted) -> Result<News, Garbage> {
        let lease = answer.lease.ok_or(Garbage("a grant without a lease"))?;
        let info = LeaseInfo::try_from(lease).map_err(|_| Garbage("a grant of no lease"))?;
        let key = RequestKey::parse(&info.request_id)
            .ok_or(Garbage("a grant of a request that is not ours"))?;
        if let Some(asked) = self.in_flight.remove(&seq)
            && asked != InFlight::Acquire(key)
        {
            return Err(Garbage("a grant of another request"));
        }
        let news = Arc::new(self.new_news());
        let Some(request) = self.requests.get_mut(&key) else {
            self.give_back_unknown(key, info.grant);
            return Ok(News::Nothing);
        };
        if request.resource != info.grant.resource {
            return Err(Garbage("a grant of another resource"));
        }
        request.acquire = None;
        request.failures = 0;
        let token = info.grant.token;
        match &request.stage {
            Stage::Asking(_) => {}
            Stage::Held { token: held, .. } if *held != token => {
                return Err(Garbage("another token of one request"));
            }
            // Given up meanwhile, told again, or lost meanwhile: what was asked for since decides.
            Stage::Held { .. } | Stage::Returning(_) | Stage::Gone(_) => return Ok(News::Nothing),
        }
        let held = Stage::Held {
            token,
            news: Arc::clone(&news),
        };
        let Stage::Asking(asking) = std::mem::replace(&mut request.stage, held) else {
            return Ok(News::Nothing);
        };
        let sent = asking.sent_at;
        let granted = Granted {
            info,
            previous: answer.previous.map(PreviousLease::from),
            news,
        };
        // If nobody is there to take it, word of that is under way.
        drop(asking.reply.send(Ok(granted)));
        Ok(News::TtlLeft {
            sent,
            left: Duration::from_millis(answer.ttl_left_ms),
        })
    }

    /// Granted, and nobody knows the request any more.
    fn give_back_unknown(&mut self, key: RequestKey, grant: Grant) {
        let how = Return::Release {
            token: grant.token,
            refused_by_fence: None,
        };
        let request = Request {
            resource: grant.resource,
            stage: Stage::Returning(Returning::new(how)),
            order: self.next_order(),
            acquire: None,
            sent: true,
            named: false,
            failures: 0,
            retry_at: None,
            _slot: None,
        };
        self.requests.insert(key, request);
        self.send_return(key);
    }

    fn queued(&mut self, seq: u64, queued: &AttachQueued) {
        let Some(InFlight::Acquire(key)) = self.in_flight.get(&seq) else {
            return;
        };
        if let Some(Request {
            stage: Stage::Asking(asking),
            ..
        }) = self.requests.get(key)
            && let Some(progress) = &asking.progress
        {
            progress.send_replace(Some(QueuePlace {
                ahead: queued.ahead,
                wait_left: Duration::from_millis(queued.wait_left_ms),
                holder: FencingToken::try_from(queued.holder_token).ok(),
            }));
        }
    }

    fn refused(&mut self, now: Moment, seq: u64, refused: AttachRefused) -> Result<News, Garbage> {
        let refusal = refused
            .refusal
            .ok_or(Garbage("a refusal without a reason"))?;
        let failure = Failure::from(refusal);
        match self.in_flight.remove(&seq) {
            None => Ok(News::Nothing),
            Some(InFlight::Renewal) => Ok(News::RenewalRefused { seq, failure }),
            Some(InFlight::Close) => Ok(News::CloseRefused(failure)),
            Some(InFlight::Acquire(key)) => Ok(self.acquire_refused(now, key, failure)),
            Some(InFlight::Return(key)) => Ok(self.return_refused(now, key, failure)),
        }
    }

    fn acquire_refused(&mut self, now: Moment, key: RequestKey, failure: Failure) -> News {
        let Some(request) = self.requests.get_mut(&key) else {
            return News::Nothing;
        };
        request.acquire = None;
        let Stage::Asking(asking) = &mut request.stage else {
            return News::Nothing;
        };
        if let ClientError::SessionLost { reason } = failure.error {
            return News::Ended(reason);
        }
        asking.unknown |= failure.may_have_happened;
        let (unknown, is_try, give_up_at) = (asking.unknown, asking.is_try, asking.give_up_at);
        if failure.verdict != Verdict::Final {
            if failure.may_have_happened {
                asking.attempt = asking.attempt.saturating_add(1);
            }
            let leave = leave_after(&failure, request.failures);
            if self
                .retry_later(now, key)
                .is_none_or(|again| again >= give_up_at)
            {
                self.refuse(key, failure.error.after_tries(unknown), !unknown);
            }
            return leave;
        }
        let decided = !failure.may_have_happened && is_decided(&failure.error, unknown, is_try);
        let error = match failure.error.after_tries(unknown) {
            // The last tries of a request that waited do not wait any more: what they meet is the wait's end.
            ClientError::Held { resource, .. } if !is_try => ClientError::WaitExpired { resource },
            error => error,
        };
        self.refuse(key, error, decided);
        News::Nothing
    }

    fn return_refused(&mut self, now: Moment, key: RequestKey, failure: Failure) -> News {
        let Some(request) = self.requests.get_mut(&key) else {
            return News::Nothing;
        };
        let Stage::Returning(returning) = &mut request.stage else {
            return News::Nothing;
        };
        returning.asked = None;
        if let ClientError::SessionLost { reason } = failure.error {
            return News::Ended(reason);
        }
        let leave = leave_after(&failure, request.failures);
        match release::after(&failure.error) {
            Later::Over => {
                tracing::debug!(error = %failure.error, "nothing to give back");
                returning.tell(Err(failure.error));
                self.forget(key);
                return News::Nothing;
            }
            Later::Soon => {}
            Later::Perhaps => {
                tracing::warn!(error = %failure.error, resource = %request.resource, "not given back yet");
                returning.tell_by = None;
                returning.tell(Err(failure.error));
            }
        }
        self.retry_later(now, key);
        leave
    }

    fn forget(&mut self, key: RequestKey) {
        if let Some(request) = self.requests.remove(&key)
            && let Some(seq) = request.acquire
        {
            self.in_flight.remove(&seq);
        }
    }

    fn released(&mut self, seq: u64, answer: &AttachReleased) {
        let Some(InFlight::Return(key)) = self.in_flight.remove(&seq) else {
            return;
        };
        let by_this = answer.outcome() == ReleaseOutcome::Released;
        let released = Released {
            ended_before: (!by_this).then(|| answer.end().into()),
            queue_place_given_back: answer.queue_place_given_back,
            revision: 0,
        };
        if let Some(Request {
            stage: Stage::Returning(returning),
            ..
        }) = self.requests.get_mut(&key)
        {
            returning.tell(Ok(released));
            self.forget(key);
        }
    }

    fn lost(&mut self, lost: AttachLost) {
        let Some(key) = RequestKey::parse(&lost.request_id) else {
            return;
        };
        let loss = LeaseLoss {
            end: lost.end().into(),
            successor: FencingToken::try_from(lost.superseded_by_token).ok(),
            successor_label: lost.superseded_by_label,
            reason: lost.reason,
        };
        let news = match self.requests.get(&key).map(|request| &request.stage) {
            Some(Stage::Held { token, news }) if token.as_i64() == lost.token => Arc::clone(news),
            Some(Stage::Gone(news)) => Arc::clone(news),
            _ => return,
        };
        tracing::warn!(resource = %lost.resource, token = lost.token, end = ?loss.end, "lease lost");
        news.lost(loss);
        self.forget(key);
    }

    fn revoke_requested(&mut self, now: Moment, wanted: AttachRevokeRequested) {
        let Some(key) = RequestKey::parse(&wanted.request_id) else {
            return;
        };
        if let Some(Stage::Held { token, news }) = self.requests.get(&key).map(|held| &held.stage)
            && token.as_i64() == wanted.token
        {
            news.revoke_requested(RevokeRequest {
                deadline: now.after(Duration::from_millis(wanted.deadline_ms)),
                reason: wanted.reason,
                actor: wanted.actor,
            });
        }
    }
}

/// Whether another coordinator may do better, after so many refusals before this one.
fn leave_after(failure: &Failure, before: u32) -> News {
    let draining = matches!(
        failure.error,
        ClientError::Unavailable {
            cause: crate::error::Unavailable::Draining,
            ..
        }
    );
    if draining || (failure.endpoint_at_fault && before + 1 >= PATIENCE) {
        let draining = draining.then_some(Duration::ZERO);
        News::Leave { draining }
    } else {
        News::Nothing
    }
}
