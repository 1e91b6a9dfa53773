//! Streams come and go.

use std::collections::HashMap;

use palisade_api::v1::{OpenRequest, OpenRequestState, OpenRequestStatus};

use crate::clock::Moment;
use crate::error::Unavailable;

use super::super::request::{Request, RequestKey, Return, Returning, Stage};
use super::{Garbage, Table, Takes};

impl Table {
    /// Names all that is known, for the opening of another stream. Until that is decided nothing more is
    /// asked for on this one: the opening gives back what it does not name.
    pub(in super::super) fn begin_opening(&mut self) -> Vec<OpenRequest> {
        if self.takes == Takes::Everything {
            self.takes = Takes::NoAcquires;
        }
        for request in self.requests.values_mut() {
            request.named = request.known_as().is_some();
        }
        self.named(Request::known_as)
    }

    /// There is no stream, and the last opening met this.
    pub(in super::super) fn away(&mut self, cause: Unavailable) {
        self.away = cause;
    }

    /// The opening did nothing, and this stream goes on.
    pub(in super::super) fn opening_undone(&mut self, now: Moment) {
        if self.takes == Takes::NoAcquires {
            self.takes = Takes::Everything;
            self.send_waiting(now);
        }
    }

    /// The stream is no more: the outcome of all that was under way on it is unknown.
    pub(in super::super) fn cut(&mut self) {
        self.takes = Takes::Nothing;
        self.outbox.clear();
        self.in_flight.clear();
        for request in self.requests.values_mut() {
            request.retry_at = None;
            let under_way = request.acquire.take().is_some();
            match &mut request.stage {
                Stage::Asking(asking) if under_way => {
                    asking.unknown = true;
                    asking.attempt = asking.attempt.saturating_add(1);
                }
                Stage::Returning(returning) => returning.asked = None,
                Stage::Asking(_) | Stage::Held { .. } | Stage::Gone(_) => {}
            }
        }
    }

    /// There is a new stream, opened with what [`Table::begin_opening`] named. Its first message has been sent.
    ///
    /// # Errors
    /// The answer does not fit what was named: the stream is not to be used.
    pub(in super::super) fn opened(
        &mut self,
        now: Moment,
        statuses: Vec<OpenRequestStatus>,
    ) -> Result<(), Garbage> {
        let mut stands = HashMap::with_capacity(statuses.len());
        for status in statuses {
            let state = status.state();
            let request = status.request.ok_or(Garbage("a state of no request"))?;
            let key = RequestKey::parse(&request.request_id)
                .ok_or(Garbage("a state of an unknown request"))?;
            stands.insert(key, (state, request.token));
        }
        let answered = |key: &RequestKey| {
            let state = stands.get(key).map(|(state, _)| *state);
            state.is_some_and(|state| state != OpenRequestState::Unspecified)
        };
        let named = |request: &Request| request.named;
        let mut all = self.requests.iter();
        if all.any(|(key, request)| named(request) && !answered(key)) {
            return Err(Garbage("no state of a request that was named"));
        }
        self.cut();
        self.seq = 1;
        self.away = Unavailable::NoAnswer;
        self.takes = Takes::Everything;
        self.requests.retain(|key, request| match &request.stage {
            Stage::Held { token, news } => {
                let held = (OpenRequestState::Held, token.as_i64());
                if stands.get(key) == Some(&held) {
                    return true;
                }
                news.gone();
                request.stage = Stage::Gone(std::sync::Arc::clone(news));
                true
            }
            // Not named: given back by the opening.
            Stage::Returning(Returning {
                how: Return::Cancel,
                ..
            }) => request.named,
            Stage::Gone(_) => false,
            Stage::Asking(_) | Stage::Returning(_) => true,
        });
        for request in self.requests.values_mut() {
            request.named = false;
        }
        self.send_waiting(now);
        Ok(())
    }

    /// Sends all that is not under way, in the order in which it was first wished.
    fn send_waiting(&mut self, now: Moment) {
        let waits = self.requests.iter().filter(|(_, request)| {
            request.retry_at.is_none()
                && match &request.stage {
                    Stage::Asking(_) => request.acquire.is_none(),
                    Stage::Returning(returning) => returning.asked.is_none(),
                    Stage::Held { .. } | Stage::Gone(_) => false,
                }
        });
        let mut waiting: Vec<(u64, RequestKey)> =
            waits.map(|(key, request)| (request.order, *key)).collect();
        waiting.sort_unstable();
        for (_, key) in waiting {
            self.send_acquire(now, key);
            self.send_return(key);
        }
    }
}
