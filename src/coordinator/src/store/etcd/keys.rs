//! The names of what is kept in etcd.
//!
//! | key below the prefix | on the session's lease | value |
//! |---|---|---|
//! | `generation` | no | the current generation |
//! | `session/<id>` | yes | the session with its attach mark |
//! | `lease/<resource>` | yes | the hold; written once, so its `mod_revision` is the grant |
//! | `last/<resource>` | no | of a lease with a lock-delay: written by its grant, deleted by its release |
//! | `delay/<resource>` | one of its own | the lock-delay after an unclean end, for as long as it runs |
//! | `notice/<resource>` | yes | what the holder is told when its lease is wanted back |
//! | `look/<nonce>` | one of its own | nothing: somebody sees whether writes work |
//! | `revoked` | no | what the last revocation ended: news for those who watch |
//! | `queue/<resource>#<session>` | yes | a waiter; its `create_revision` is its place |
//! | `queue/<resource>#<session>#<request>` | yes | a further request of a session that waits already |
//!
//! `#` occurs in no resource name and no id, so no range of one resource meets another's keys.

use std::ops::Range;

use etcd_client::PutOptions;
use palisade_token::ResourceName;
use sha2::{Digest, Sha256};

use crate::domain::{Nonce, RequestId, SessionId};

/// What a session has by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owned {
    Lease,
    Place,
}

/// Names keys below one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    /// etcd's lease ids are known in all of etcd: two prefixes must not share them.
    lease_salt: u64,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = format!("{}/", prefix.trim_end_matches('/'));
        let mut salt = [0; 8];
        salt.copy_from_slice(&Sha256::digest(&prefix)[..8]);
        Self {
            prefix,
            lease_salt: u64::from_be_bytes(salt),
        }
    }

    /// The etcd lease of a session: positive.
    pub(super) fn lease_id(&self, session: SessionId) -> i64 {
        let mixed = (session.as_i64().unsigned_abs() ^ self.lease_salt) & i64::MAX.unsigned_abs();
        i64::try_from(mixed.max(1)).expect("63 bits are positive")
    }

    /// Puts a key on the lease of a session.
    pub(super) fn on_lease(&self, session: SessionId) -> PutOptions {
        PutOptions::new().with_lease(self.lease_id(session))
    }

    /// The key that is named by parts.
    fn below(&self, parts: &[&str]) -> Vec<u8> {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut key = Vec::with_capacity(self.prefix.len() + length);
        key.extend_from_slice(self.prefix.as_bytes());
        for part in parts {
            key.extend_from_slice(part.as_bytes());
        }
        key
    }

    /// A key that is never put.
    pub(super) fn nothing(&self) -> Vec<u8> {
        self.below(&["nothing"])
    }

    pub(super) fn generation(&self) -> Vec<u8> {
        self.below(&["generation"])
    }

    pub(super) fn session(&self, id: SessionId) -> Vec<u8> {
        self.below(&["session/", &id.to_string()])
    }

    pub(super) fn lease(&self, resource: &ResourceName) -> Vec<u8> {
        self.below(&["lease/", resource.as_str()])
    }

    /// All leases of resources whose names begin with a text.
    pub(super) fn leases(&self, name_prefix: &str) -> Range<Vec<u8>> {
        prefix_range(self.below(&["lease/", name_prefix]))
    }

    /// What a lease with a lock-delay leaves behind.
    pub(super) fn last(&self, resource: &ResourceName) -> Vec<u8> {
        self.below(&["last/", resource.as_str()])
    }

    /// All that leases with a lock-delay have left behind.
    pub(super) fn lasts(&self) -> Range<Vec<u8>> {
        prefix_range(self.below(&["last/"]))
    }

    /// A lock-delay that runs.
    pub(super) fn delay(&self, resource: &ResourceName) -> Vec<u8> {
        self.below(&["delay/", resource.as_str()])
    }

    /// All keys of this store.
    pub(super) fn all(&self) -> Range<Vec<u8>> {
        prefix_range(self.prefix.clone().into_bytes())
    }

    /// The notice to the holder of a resource.
    pub(super) fn notice(&self, resource: &ResourceName) -> Vec<u8> {
        self.below(&["notice/", resource.as_str()])
    }

    /// All notices.
    pub(super) fn notices(&self) -> Range<Vec<u8>> {
        prefix_range(self.below(&["notice/"]))
    }

    /// What is written to see whether writes work.
    pub(super) fn look(&self, nonce: Nonce) -> Vec<u8> {
        self.below(&["look/", &hex::encode(nonce.as_bytes())])
    }

    /// What the last revocation ended.
    pub(super) fn revoked(&self) -> Vec<u8> {
        self.below(&["revoked"])
    }

    /// What a key is about, for whoever watches all of them.
    pub(super) fn kind_of(&self, key: &[u8]) -> Kind {
        let Some(below) = key.strip_prefix(self.prefix.as_bytes()) else {
            return Kind::Other;
        };
        let name = |name: &[u8]| ResourceName::new(std::str::from_utf8(name).ok()?).ok();
        if let Some(rest) = below.strip_prefix(b"lease/") {
            return name(rest).map_or(Kind::Other, Kind::Lease);
        }
        if let Some(rest) = below.strip_prefix(b"last/") {
            return name(rest).map_or(Kind::Other, Kind::Last);
        }
        if let Some(rest) = below.strip_prefix(b"delay/") {
            return name(rest).map_or(Kind::Other, Kind::Delay);
        }
        if let Some(rest) = below.strip_prefix(b"notice/") {
            return name(rest).map_or(Kind::Other, Kind::Notice);
        }
        match below {
            b"generation" => Kind::Generation,
            b"revoked" => Kind::Revoked,
            other if other.starts_with(b"session/") => Kind::Session,
            _ => Kind::Other,
        }
    }

    /// The session whose etcd lease this is.
    pub(super) fn session_of(&self, lease: i64) -> Option<SessionId> {
        let mixed = (lease.unsigned_abs() ^ self.lease_salt) & i64::MAX.unsigned_abs();
        SessionId::try_from(i64::try_from(mixed).ok()?).ok()
    }

    /// The name in a lease's key.
    #[cfg(test)]
    pub(super) fn resource_of(&self, key: &[u8]) -> Option<ResourceName> {
        let text = std::str::from_utf8(key).ok()?;
        let name = text.strip_prefix(&self.prefix)?.strip_prefix("lease/")?;
        ResourceName::new(name).ok()
    }

    /// What a key on a session's lease is, if it is something that the session has.
    pub(super) fn owned(&self, key: &[u8]) -> Option<Owned> {
        let below = key.strip_prefix(self.prefix.as_bytes())?;
        if below.starts_with(b"lease/") {
            return Some(Owned::Lease);
        }
        below.starts_with(b"queue/").then_some(Owned::Place)
    }

    /// Where a session waits, whatever its request: etcd's index keeps a deleted key until it is compacted,
    /// and each range over the queue walks by all of them, so keys are used again.
    pub(super) fn place(&self, resource: &ResourceName, session: SessionId) -> Vec<u8> {
        self.below(&["queue/", resource.as_str(), "#", &session.to_string()])
    }

    /// Where a request waits whose session waits for the resource already.
    pub(super) fn further_place(
        &self,
        resource: &ResourceName,
        session: SessionId,
        request: &RequestId,
    ) -> Vec<u8> {
        let session = session.to_string();
        let (resource, request) = (resource.as_str(), request.as_str());
        self.below(&["queue/", resource, "#", &session, "#", request])
    }

    /// The whole queue of one resource.
    pub(super) fn queue(&self, resource: &ResourceName) -> Range<Vec<u8>> {
        prefix_range(self.below(&["queue/", resource.as_str(), "#"]))
    }
}

/// What a key is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The lease of a resource.
    Lease(ResourceName),
    /// The notice to the holder of a resource.
    Notice(ResourceName),
    /// What a lease with a lock-delay left behind.
    Last(ResourceName),
    /// A lock-delay.
    Delay(ResourceName),
    /// A session.
    Session,
    /// The generation.
    Generation,
    /// The last revocation.
    Revoked,
    /// A place in a queue, or nothing of ours.
    Other,
}

/// All keys that begin with a text of ASCII: its last byte can always be raised by one.
fn prefix_range(start: Vec<u8>) -> Range<Vec<u8>> {
    let mut end = start.clone();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    start..end
}

#[cfg(test)]
mod tests {
    use palisade_token::ResourceName;

    use super::Keys;
    use crate::domain::{OpenId, Principal, RequestId, SessionId};

    #[test]
    fn a_queue_holds_no_other_resources_places() {
        let keys = Keys::new("/palisade/v1");
        let session = SessionId::derive(&Principal::anonymous(), &OpenId::new("o").unwrap());
        let request = RequestId::new("r").unwrap();
        let name = |text| ResourceName::new(text).unwrap();
        let queue = keys.queue(&name("a"));
        let places = |name: &ResourceName| {
            let further = keys.further_place(name, session, &request);
            [keys.place(name, session), further]
        };
        assert!(places(&name("a")).iter().all(|key| queue.contains(key)));
        for other in ["a/b", "a.b", "ab", "a-b", "A", "b"] {
            let mut others = places(&name(other)).into_iter();
            assert!(!others.any(|key| queue.contains(&key)), "{other}");
        }
    }

    #[test]
    fn one_session_under_two_prefixes_is_two_leases() {
        let session = SessionId::derive(&Principal::anonymous(), &OpenId::new("o").unwrap());
        let (one, other) = (Keys::new("/a"), Keys::new("/b"));
        assert!(one.lease_id(session) > 0 && other.lease_id(session) > 0);
        assert_ne!(one.lease_id(session), other.lease_id(session));
        assert_eq!(one.lease_id(session), Keys::new("/a/").lease_id(session));
        assert_eq!(one.session_of(one.lease_id(session)), Some(session));
    }

    #[test]
    fn a_lease_key_names_its_resource() {
        let keys = Keys::new("/p/");
        let name = ResourceName::new("a/b").unwrap();
        assert_eq!(keys.resource_of(&keys.lease(&name)), Some(name.clone()));
        assert_eq!(keys.resource_of(&keys.generation()), None);
        assert!(keys.leases("a").contains(&keys.lease(&name)));
        assert!(!keys.leases("a/b/").contains(&keys.lease(&name)));
    }
}
