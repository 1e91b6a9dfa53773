//! Records to values and back. Values are JSON, so that an operator can read them with `etcdctl`.

use std::sync::Arc;

use etcd_client::KeyValue;
use palisade_token::{FencingToken, ResourceName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::delay::Left;
use super::revoke::Revoked;
use super::view::Spot;
use crate::domain::{
    Claim, Generation, GrantNote, Hold, Last, Notice, Place, RequestId, Revision, Session,
    SessionId,
};
use crate::store::{Failure, StoreError};

/// A record with the bytes it was read from: transactions compare those, not what they mean.
#[derive(Debug, Clone)]
pub(super) struct Stored<T> {
    pub(super) record: T,
    pub(super) raw: Arc<[u8]>,
}

/// A session, and when its key was last written: a transaction over the same connection compares that, since within
/// one history of etcd's it names the mark.
#[derive(Debug)]
pub(super) struct SeenSession {
    pub(super) record: Session,
    pub(super) written: Revision,
}

/// The value of a lease's key. Its revision is not in it: etcd keeps that.
#[derive(Serialize, Deserialize)]
struct HoldValue {
    #[serde(flatten)]
    claim: Claim,
    generation: Generation,
    #[serde(flatten)]
    note: GrantNote,
}

fn damaged(what: &'static str) -> StoreError {
    StoreError::not_applied(Failure::Damaged(what))
}

pub(super) fn decode<T: DeserializeOwned>(
    value: &[u8],
    what: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_slice(value).map_err(|_| damaged(what))
}

fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have text keys and cannot fail to serialise")
}

pub(super) fn revision(number: i64) -> Result<Revision, StoreError> {
    u64::try_from(number)
        .map(Revision)
        .map_err(|_| damaged("a negative revision"))
}

/// The number as etcd has it.
pub(super) fn as_i64(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub(super) fn generation(key: &KeyValue) -> Result<Stored<Generation>, StoreError> {
    Ok(Stored {
        record: decode(key.value(), "the generation")?,
        raw: key.value().into(),
    })
}

pub(super) fn generation_value(generation: &Generation) -> Vec<u8> {
    encode(generation)
}

pub(super) fn session(key: &KeyValue) -> Result<SeenSession, StoreError> {
    Ok(SeenSession {
        record: decode(key.value(), "a session")?,
        written: revision(key.mod_revision())?,
    })
}

pub(super) fn session_value(session: &Session) -> Vec<u8> {
    encode(session)
}

pub(super) fn hold(key: &KeyValue) -> Result<Stored<Hold>, StoreError> {
    let HoldValue {
        claim,
        generation,
        note,
    } = decode(key.value(), "a lease")?;
    let record = Hold {
        claim,
        generation,
        granted: revision(key.mod_revision())?,
        note,
    };
    Ok(Stored {
        record,
        raw: key.value().into(),
    })
}

/// The same for writing, which is done for each grant.
#[derive(Serialize)]
struct HoldText<'a> {
    #[serde(flatten)]
    claim: &'a Claim,
    generation: Generation,
    #[serde(flatten)]
    note: &'a GrantNote,
}

/// The value of a lease that is about to be granted, or was: its revision is not in it.
pub(super) fn hold_value(hold: &Hold) -> Vec<u8> {
    encode(&HoldText {
        claim: &hold.claim,
        generation: hold.generation,
        note: &hold.note,
    })
}

/// A lease's value as a watch shows it; `None` where it cannot be read.
pub(super) fn read_hold(value: &[u8], granted: Revision) -> Option<Hold> {
    let HoldValue {
        claim,
        generation,
        note,
    } = serde_json::from_slice(value).ok()?;
    Some(Hold {
        claim,
        generation,
        granted,
        note,
    })
}

/// The value of a notice's key.
#[derive(Serialize, Deserialize)]
pub(super) struct NoticeValue {
    resource: ResourceName,
    token: FencingToken,
    session: SessionId,
    request: RequestId,
    left_ms: u64,
    reason: String,
    actor: String,
}

/// A notice; `None` where it cannot be read, since nothing rests on it.
pub(super) fn notice(key: &KeyValue) -> Option<Notice> {
    let value: NoticeValue = serde_json::from_slice(key.value()).ok()?;
    Some(Notice {
        resource: value.resource,
        token: value.token,
        session: value.session,
        request: value.request,
        left_ms: value.left_ms,
        reason: value.reason,
        actor: value.actor,
        revision: revision(key.mod_revision()).ok()?,
    })
}

pub(super) fn notice_value(notice: &Notice) -> Vec<u8> {
    let notice = notice.clone();
    encode(&NoticeValue {
        resource: notice.resource,
        token: notice.token,
        session: notice.session,
        request: notice.request,
        left_ms: notice.left_ms,
        reason: notice.reason,
        actor: notice.actor,
    })
}

/// News of a revocation; `None` where it cannot be read, since nothing rests on it.
pub(super) fn revoked(key: &KeyValue) -> Option<Revoked> {
    serde_json::from_slice(key.value()).ok()
}

pub(super) fn revoked_value(revoked: &Revoked) -> Vec<u8> {
    encode(revoked)
}

/// What a lease with a lock-delay left behind.
pub(super) fn last(key: &KeyValue) -> Result<Left, StoreError> {
    let seen = revision(key.mod_revision())?;
    let last: Last = decode(key.value(), "what a lease left behind")?;
    Ok(Left {
        last: last.written_at(seen),
        seen,
    })
}

pub(super) fn last_value(last: &Last) -> Vec<u8> {
    encode(last)
}

pub(super) fn place(key: &KeyValue) -> Result<Place, StoreError> {
    Ok(Place {
        claim: decode(key.value(), "a queue place")?,
        since: revision(key.create_revision())?,
    })
}

pub(super) fn spot(key: &KeyValue) -> Result<Spot, StoreError> {
    Ok(Spot {
        place: place(key)?,
        key: key.key().to_vec(),
    })
}

pub(super) fn place_value(claim: &Claim) -> Vec<u8> {
    encode(claim)
}
