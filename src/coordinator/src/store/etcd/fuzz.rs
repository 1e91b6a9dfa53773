//! Keys and values in etcd that somebody else may have written.

use palisade_token::ResourceName;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec;
use super::keys::{Keys, Kind, Owned};
use super::revoke::Revoked;
use crate::domain::{Claim, Generation, Hold, Last, Previous, Revision, Session};

/// What is read is written so that the same is read.
fn goes_round<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    value: &[u8],
) -> Option<T> {
    let record: T = codec::decode(value, "a record").ok()?;
    let written = serde_json::to_vec(&record).expect("records can be written");
    let again: T = codec::decode(&written, "a record").expect("what is written is read");
    assert_eq!(again, record);
    Some(record)
}

/// A record of each kind, at a revision: its first 8 bytes.
pub(crate) fn records(input: &[u8]) {
    let Some((revision, value)) = input.split_first_chunk() else {
        return;
    };
    let revision = Revision(u64::from_le_bytes(*revision));
    if let Some(session) = goes_round::<Session>(value) {
        let key = Keys::new("/p").session(session.id);
        assert_eq!(Keys::new("/p").kind_of(&key), Kind::Session);
    }
    if let Some(generation) = goes_round::<Generation>(value) {
        let token = generation.token(revision);
        // Tokens grow with revisions, for as long as there are any.
        let next = generation.token(Revision(revision.0.saturating_add(1)));
        assert!(revision.0 == u64::MAX || token.is_none() || next.is_none() || next > token);
        let _order = generation.can_precede(&generation);
    }
    if let Some(claim) = goes_round::<Claim>(value) {
        assert!(claim.is_of(claim.session, &claim.request));
    }
    if let Some(last) = goes_round::<Last>(value) {
        let _written = last.written_at(revision);
    }
    let _revoked = goes_round::<Revoked>(value);
    // A notice is shown to a holder; nothing rests on it.
    let _notice: Option<codec::NoticeValue> = codec::decode(value, "a notice").ok();
    if let Some(hold) = codec::read_hold(value, revision) {
        holds(&hold, revision);
    }
}

fn holds(hold: &Hold, revision: Revision) {
    let again = codec::read_hold(&codec::hold_value(hold), revision);
    assert_eq!(again.as_ref(), Some(hold), "what is written is read");
    // A lease without a token is of unknown history: there is no grant to show.
    assert_eq!(hold.token().is_some(), hold.grant().is_some());
    if let Some(grant) = hold.grant() {
        assert_eq!(grant.to_string().parse().as_ref(), Ok(&grant));
    }
    let _last = Last::after(hold, crate::domain::LeaseEnd::Expired, "");
    let _previous = Previous::of(hold, crate::domain::LeaseEnd::Expired, "");
}

/// A key below our prefix, or not: what it names has that key and no other.
pub(crate) fn keys(input: &[u8]) {
    let keys = Keys::new("/palisade/v1");
    let key = |name: &ResourceName, kind: &Kind| match kind {
        Kind::Lease(_) => keys.lease(name),
        Kind::Notice(_) => keys.notice(name),
        Kind::Last(_) => keys.last(name),
        _ => keys.delay(name),
    };
    let kind = keys.kind_of(input);
    match &kind {
        Kind::Lease(name) | Kind::Notice(name) | Kind::Last(name) | Kind::Delay(name) => {
            assert_eq!(key(name, &kind), input);
        }
        Kind::Generation => assert_eq!(input, keys.generation()),
        Kind::Revoked => assert_eq!(input, keys.revoked()),
        Kind::Session | Kind::Other => {}
    }
    if matches!(kind, Kind::Lease(_)) {
        assert_eq!(keys.owned(input), Some(Owned::Lease));
    }
    assert!(kind == Kind::Other || keys.all().contains(&input.to_vec()));
    if let Some(bytes) = input.first_chunk() {
        let lease = i64::from_le_bytes(*bytes);
        if let Some(session) = keys.session_of(lease) {
            assert!(keys.lease_id(session) > 0);
        }
    }
}
