//! The messages of a stream.

use palisade_api::v1::attach_request::Message;
use palisade_api::v1::{
    AttachAcquire, AttachCancel, AttachRelease, AttachRevokeAck, attach_release,
};
use palisade_token::{FencingToken, ResourceName};

use crate::clock::Moment;
use crate::session::milliseconds;

use super::request::{Asking, RequestKey, Return};

pub(super) fn acquire(
    key: RequestKey,
    resource: &ResourceName,
    asking: &Asking,
    now: Moment,
) -> Message {
    let wait = now.until(asking.wait_end);
    Message::Acquire(AttachAcquire {
        request_id: key.to_string(),
        resource: resource.to_string(),
        // What does not fit is refused by its bound.
        wait_ms: milliseconds("wait", wait).unwrap_or(u64::MAX),
        lock_delay_ms: asking.lock_delay_ms,
        metadata: asking.metadata.clone(),
        attempt: asking.attempt,
    })
}

pub(super) fn give_back(key: RequestKey, resource: &ResourceName, how: Return) -> Message {
    match how {
        Return::Cancel => Message::Cancel(AttachCancel {
            request_id: key.to_string(),
            resource: resource.to_string(),
        }),
        Return::Release {
            token,
            refused_by_fence,
        } => Message::Release(AttachRelease {
            resource: resource.to_string(),
            hold: Some(attach_release::Hold::Token(token.as_i64())),
            refused_by_fence: refused_by_fence.map_or(0, FencingToken::as_i64),
        }),
    }
}

pub(super) fn revoke_answer(
    resource: &ResourceName,
    token: FencingToken,
    will_release: bool,
) -> Message {
    Message::RevokeAck(AttachRevokeAck {
        resource: resource.to_string(),
        token: token.as_i64(),
        will_release,
    })
}
