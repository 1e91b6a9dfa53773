//! What etcd shows of one resource and one session, in one linearizable read.

use std::sync::Arc;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, ResponseHeader, SortOrder, SortTarget,
    TxnOp, TxnOpResponse,
};
use palisade_token::ResourceName;

use super::codec::{self, SeenSession, Stored, as_i64};
use super::delay::Left;
use super::keys::Keys;
use super::link::Link;
use super::trust::Verdict;
use crate::domain::{Delay, Generation, Hold, Place, RequestId, Revision, SessionId, View};
use crate::store::{Failure, StoreError};

/// Where a sight comes from, and so what may be decided by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From what this coordinator remembers: only steps that etcd compares.
    Guess,
    /// From a read, which may be stale.
    Read,
    /// From etcd's log.
    Log,
}

/// A view with the bytes that a transaction compares.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) source: Source,
    pub(super) view: View,
    pub(super) session: Option<Arc<SeenSession>>,
    pub(super) hold: Option<Stored<Hold>>,
    /// What the last lease of a vacant resource left behind.
    pub(super) left: Option<Left>,
    /// The generation, where this connection may grant under it.
    pub(super) generation: Option<Stored<Generation>>,
}

/// What to look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) resource: &'a ResourceName,
    pub(super) session: Option<SessionId>,
    pub(super) request: Option<&'a RequestId>,
}

impl Subject<'_> {
    /// The reads that show it.
    pub(super) fn looks(&self, keys: &Keys) -> Vec<TxnOp> {
        let mut reads = Vec::with_capacity(7);
        reads.extend([
            get(keys.generation()),
            get(keys.lease(self.resource)),
            get_head(keys, self.resource),
            get(keys.last(self.resource)),
            get(keys.delay(self.resource)),
        ]);
        reads.extend(self.session.map(|session| get(keys.session(session))));
        let own = self.session.zip(self.request);
        reads.extend(own.map(|(id, request)| get(keys.place(self.resource, id, request))));
        reads
    }
}

fn get(key: Vec<u8>) -> TxnOp {
    TxnOp::get(key, None)
}

fn keys_of(reply: Option<TxnOpResponse>) -> Result<GetResponse, StoreError> {
    match reply {
        Some(TxnOpResponse::Get(get)) => Ok(get),
        _ => Err(StoreError::not_applied(Failure::Damaged(
            "a reply of another kind",
        ))),
    }
}

fn first<T>(
    reply: Option<TxnOpResponse>,
    decode: impl Fn(&KeyValue) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    keys_of(reply)?.kvs().first().map(decode).transpose()
}

/// The first in a queue; the reply's count says how many wait.
pub(super) fn get_head(keys: &Keys, resource: &ResourceName) -> TxnOp {
    let queue = keys.queue(resource);
    let options = GetOptions::new()
        .with_range(queue.end)
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(1);
    TxnOp::get(queue.start, Some(options))
}

impl Sight {
    pub(super) async fn of(link: &Link, subject: Subject<'_>) -> Result<Self, StoreError> {
        let (replies, header) = link.read(subject.looks(&link.context().keys)).await?;
        Self::from(link, subject, Source::Read, replies, &header)
    }

    /// What the replies to [`Subject::looks`] show.
    pub(super) fn from(
        link: &Link,
        subject: Subject<'_>,
        source: Source,
        replies: Vec<TxnOpResponse>,
        header: &ResponseHeader,
    ) -> Result<Self, StoreError> {
        let session = subject.session;
        let own = session.zip(subject.request);
        let mut replies = replies.into_iter();
        let found = first(replies.next(), codec::generation)?;
        let hold = first(replies.next(), codec::hold)?;
        let queue = keys_of(replies.next())?;
        let left = first(replies.next(), codec::last)?;
        let is_running = !keys_of(replies.next())?.kvs().is_empty();
        let stored = match session {
            Some(_) => first(replies.next(), codec::session)?,
            None => None,
        };
        let own_place = match own {
            Some(_) => first(replies.next(), codec::place)?,
            None => None,
        };
        let generation = match link.judge(found, header)? {
            Verdict::Trusted(generation) => Some(generation),
            Verdict::Untrusted => None,
        };
        let view = View {
            session: stored.as_ref().map(|stored| stored.record.clone()),
            hold: hold.as_ref().map(|hold| hold.record.clone()),
            own_place,
            head: queue.kvs().first().map(codec::place).transpose()?,
            waiters: u64::try_from(queue.count()).unwrap_or(0),
            delay: left.as_ref().filter(|_| hold.is_none()).map(|left| Delay {
                last: left.last.clone(),
                is_running,
            }),
        };
        Ok(Self {
            source,
            view,
            session: stored.map(Arc::new),
            left: left.filter(|_| hold.is_none()),
            hold,
            generation,
        })
    }
}

/// The hold of a resource and the place of a request. It does not look at the queue, so that it costs the
/// same however many wait.
pub(super) async fn standing(
    link: &Link,
    resource: &ResourceName,
    session: SessionId,
    request: &RequestId,
) -> Result<(Option<Hold>, Option<Place>), StoreError> {
    let keys = &link.context().keys;
    let reads = vec![
        get(keys.lease(resource)),
        get(keys.place(resource, session, request)),
    ];
    let mut replies = link.read(reads).await?.0.into_iter();
    let hold = first(replies.next(), codec::hold)?;
    let place = first(replies.next(), codec::place)?;
    Ok((hold.map(|stored| stored.record), place))
}

/// The resource is vacant. Compared first: etcd stops at the first compare that fails.
pub(super) fn is_vacant(keys: &Keys, resource: &ResourceName) -> Compare {
    Compare::create_revision(keys.lease(resource), CompareOp::Equal, 0)
}

/// The lease is the very one that was seen: by revision, and by value, since revisions come again after
/// a restore.
pub(super) fn is_held_as(keys: &Keys, hold: &Stored<Hold>) -> [Compare; 2] {
    let key = keys.lease(&hold.record.claim.resource);
    [
        Compare::mod_revision(key.clone(), CompareOp::Equal, as_i64(hold.record.granted)),
        Compare::value(key, CompareOp::Equal, &*hold.raw),
    ]
}

/// The lease is the very one that was seen over the same connection: by revision alone, since within one history
/// of etcd's that names it.
pub(super) fn is_held_since(keys: &Keys, hold: &Stored<Hold>) -> Compare {
    let key = keys.lease(&hold.record.claim.resource);
    Compare::mod_revision(key, CompareOp::Equal, as_i64(hold.record.granted))
}

/// The session lives and its mark is the one that was written then.
pub(super) fn is_marked_at(keys: &Keys, session: SessionId, written: Revision) -> Compare {
    Compare::mod_revision(keys.session(session), CompareOp::Equal, as_i64(written))
}

/// The generation is the one that the token will be made of.
pub(super) fn is_generation(keys: &Keys, generation: &[u8]) -> Compare {
    Compare::value(keys.generation(), CompareOp::Equal, generation)
}

/// The place is still there.
pub(super) fn is_queued(key: Vec<u8>, since: Revision) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, as_i64(since))
}

/// Nobody waits. Compared last: it reads a range.
pub(super) fn nobody_waits(keys: &Keys, resource: &ResourceName) -> Compare {
    let queue = keys.queue(resource);
    Compare::create_revision(queue.start, CompareOp::Equal, 0).with_range(queue.end)
}

/// Nobody has waited longer than the place. Compared last: it reads a range.
pub(super) fn nobody_waits_longer(keys: &Keys, place: &Place) -> Compare {
    let queue = keys.queue(&place.claim.resource);
    let before = as_i64(place.since).saturating_sub(1);
    Compare::create_revision(queue.start, CompareOp::Greater, before).with_range(queue.end)
}

/// The key of a place.
pub(super) fn place_key(keys: &Keys, place: &Place) -> Vec<u8> {
    keys.place(
        &place.claim.resource,
        place.claim.session,
        &place.claim.request,
    )
}
