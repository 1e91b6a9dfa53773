//! Records to values and back. Values are JSON, so that an operator can read them with `etcdctl`.

use etcd_client::KeyValue;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::domain::{Claim, Generation, GrantNote, Hold, Place, Revision, Session};
use crate::store::{Failure, StoreError};

/// A record with the bytes it was read from: transactions compare those, not what they mean.
#[derive(Debug, Clone)]
pub(super) struct Stored<T> {
    pub(super) record: T,
    pub(super) raw: Vec<u8>,
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

fn decode<T: DeserializeOwned>(key: &KeyValue, what: &'static str) -> Result<T, StoreError> {
    serde_json::from_slice(key.value()).map_err(|_| damaged(what))
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
        record: decode(key, "the generation")?,
        raw: key.value().to_vec(),
    })
}

pub(super) fn generation_value(generation: &Generation) -> Vec<u8> {
    encode(generation)
}

pub(super) fn session(key: &KeyValue) -> Result<Stored<Session>, StoreError> {
    Ok(Stored {
        record: decode(key, "a session")?,
        raw: key.value().to_vec(),
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
    } = decode(key, "a lease")?;
    let record = Hold {
        claim,
        generation,
        granted: revision(key.mod_revision())?,
        note,
    };
    Ok(Stored {
        record,
        raw: key.value().to_vec(),
    })
}

/// The value of a lease that is about to be granted, or was: its revision is not in it.
pub(super) fn hold_value(hold: &Hold) -> Vec<u8> {
    encode(&HoldValue {
        claim: hold.claim.clone(),
        generation: hold.generation,
        note: hold.note.clone(),
    })
}

pub(super) fn place(key: &KeyValue) -> Result<Place, StoreError> {
    Ok(Place {
        claim: decode(key, "a queue place")?,
        since: revision(key.create_revision())?,
    })
}

pub(super) fn place_value(claim: &Claim) -> Vec<u8> {
    encode(claim)
}
