//! The messages of a stream.

use std::time::Duration;

use palisade_api::v1::attach_response::Message;
use palisade_api::v1::{
    AttachClosed, AttachDraining, AttachGranted, AttachLost, AttachOpened, AttachQueued,
    AttachRefused, AttachReleased, AttachRenewed, AttachRevokeRequested, OpenRequest,
    OpenRequestState, OpenRequestStatus,
};
use palisade_api::{AttachResponse, LeaseEnd, ReleaseOutcome};
use palisade_token::{FencingToken, ResourceName};

use super::heard::How;
use super::parse::Named;
use super::work::Shared;
use crate::domain::{Acquired, Hold, Notice, Released, RequestId};
use crate::service::error::{About, CallError};
use crate::service::lease::Living;
use crate::service::parse::millis;
use crate::service::{reply, status};
use crate::store::Standing;

fn answer(reply_to: u64, message: Message) -> AttachResponse {
    AttachResponse {
        reply_to,
        message: Some(message),
    }
}

pub(super) fn refused(seq: u64, about: &About, error: &CallError) -> AttachResponse {
    status::log(error, about);
    let text = |given: Option<&str>| given.unwrap_or_default().to_owned();
    let refused = AttachRefused {
        request_id: text(about.request.as_ref().map(RequestId::as_str)),
        resource: text(about.resource.as_ref().map(ResourceName::as_str)),
        refusal: Some(status::refusal(error, about)),
    };
    answer(seq, Message::Refused(refused))
}

pub(super) fn opened(
    (seq, living): (u64, &Living),
    resumed: bool,
    statuses: Vec<(Named, Option<Acquired>)>,
    shared: &Shared,
) -> AttachResponse {
    let requests = statuses.into_iter().map(standing).collect();
    let opened = AttachOpened {
        session_id: living.session.to_string(),
        ttl_ms: millis(living.ttl),
        ttl_left_ms: millis(shared.leases.left(living.until)),
        resumed,
        requests,
    };
    answer(seq, Message::Opened(opened))
}

fn standing((named, found): (Named, Option<Acquired>)) -> OpenRequestStatus {
    let (state, token) = match &found {
        Some(Acquired::Held(hold)) => (OpenRequestState::Held, hold.token()),
        Some(Acquired::Queued(_)) => (OpenRequestState::Queued, named.token),
        None => (OpenRequestState::Absent, named.token),
    };
    let request = OpenRequest {
        resource: named.resource.to_string(),
        request_id: named.request.to_string(),
        token: token.map_or(0, FencingToken::as_i64),
    };
    OpenRequestStatus {
        request: Some(request),
        state: state.into(),
    }
}

pub(super) fn renewed(seq: u64, ttl: Duration, left: Duration) -> AttachResponse {
    let renewed = AttachRenewed {
        ttl_ms: millis(ttl),
        ttl_left_ms: millis(left),
    };
    answer(seq, Message::Renewed(renewed))
}

/// `None` for a hold that cannot have been granted under its generation.
pub(super) fn granted(seq: u64, hold: &Hold, left: Duration) -> Option<AttachResponse> {
    let granted = AttachGranted {
        lease: Some(reply::lease(hold)?),
        ttl_left_ms: millis(left),
        previous: Some(reply::previous(hold.note.previous.as_ref())),
    };
    Some(answer(seq, Message::Granted(granted)))
}

pub(super) fn queued(
    seq: u64,
    (resource, request): (&ResourceName, &RequestId),
    (ahead, holder): (u32, i64),
    left: Duration,
) -> AttachResponse {
    let queued = AttachQueued {
        request_id: request.to_string(),
        resource: resource.to_string(),
        ahead,
        wait_left_ms: millis(left),
        holder_token: holder,
    };
    answer(seq, Message::Queued(queued))
}

pub(super) fn released(
    seq: u64,
    resource: &ResourceName,
    request: Option<&RequestId>,
    released: &Released,
) -> AttachResponse {
    let told = reply::released(released);
    let released = AttachReleased {
        resource: resource.to_string(),
        request_id: request.map_or_else(String::new, RequestId::to_string),
        outcome: told.outcome,
        // Of what this message released there is nothing more to say.
        end: match told.outcome() {
            ReleaseOutcome::NotHeld => told.end,
            _ => LeaseEnd::Released.into(),
        },
        queue_place_given_back: told.queue_place_given_back,
    };
    answer(seq, Message::Released(released))
}

/// A lease that ended: who has the resource now is told where it is known.
pub(super) fn lost(
    (resource, request, token): (&ResourceName, &RequestId, FencingToken),
    how: &How,
    now: Option<&Standing>,
) -> AttachResponse {
    let heir = how.successor.as_ref().and_then(|next| next.hold());
    let next = heir.or_else(|| now.and_then(|now| now.hold.as_ref()));
    let next = next.filter(|hold| hold.token().is_some_and(|other| other > token));
    let lost = AttachLost {
        resource: resource.to_string(),
        request_id: request.to_string(),
        token: token.as_i64(),
        end: how.end.into(),
        superseded_by_token: next.and_then(Hold::token).map_or(0, FencingToken::as_i64),
        superseded_by_label: next.map_or_else(String::new, |hold| hold.claim.label.clone()),
        reason: how.reason.clone(),
    };
    answer(0, Message::Lost(lost))
}

pub(super) fn revoke_requested(notice: &Notice) -> AttachResponse {
    let asked = AttachRevokeRequested {
        resource: notice.resource.to_string(),
        request_id: notice.request.to_string(),
        token: notice.token.as_i64(),
        deadline_ms: notice.left_ms,
        reason: notice.reason.clone(),
        actor: notice.actor.clone(),
    };
    answer(0, Message::RevokeRequested(asked))
}

pub(super) fn closed(seq: u64) -> AttachResponse {
    answer(seq, Message::Closed(AttachClosed {}))
}

pub(super) fn draining(left: Duration) -> AttachResponse {
    let draining = AttachDraining {
        deadline_ms: millis(left),
    };
    answer(0, Message::Draining(draining))
}
