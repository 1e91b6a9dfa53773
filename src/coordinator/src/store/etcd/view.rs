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
use super::known::Listed;
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

/// A place in a queue, with the key that it is under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) key: Vec<u8>,
}

/// What a session has in a queue.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// The place of the request that is asked about.
    pub(super) spot: Option<Spot>,
    /// Since when its first key is another request's.
    pub(super) taken: Option<Revision>,
}

impl Own {
    /// From what is under the first key of a session, and under that of a further request.
    pub(super) fn among(
        subject: Subject<'_>,
        [first, further]: [Option<Place>; 2],
        keys: &[Vec<u8>; 2],
    ) -> Self {
        let is_asked = |place: &Place| {
            let own = subject.session.zip(subject.request);
            own.is_some_and(|(session, request)| place.claim.is_of(session, request))
        };
        let at = |place, key: &Vec<u8>| {
            let key = key.clone();
            Spot { place, key }
        };
        match (first, further) {
            (Some(first), _) if is_asked(&first) => Self {
                spot: Some(at(first, &keys[0])),
                taken: None,
            },
            (first, further) => Self {
                spot: further.map(|further| at(further, &keys[1])),
                taken: first.map(|first| first.since),
            },
        }
    }
}

/// A view with what a transaction compares.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) source: Source,
    /// The revision at which it was so; none of a guess.
    pub(super) at: Revision,
    pub(super) view: View,
    pub(super) own: Own,
    pub(super) head: Option<Spot>,
    /// etcd's log has shown that nobody waits longer than the head: so it need not be compared again.
    pub(super) is_first: bool,
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
        let mut reads = Vec::with_capacity(8);
        reads.extend([
            get(keys.generation()),
            get(keys.lease(self.resource)),
            get_head(keys, self.resource),
            get(keys.last(self.resource)),
            get(keys.delay(self.resource)),
        ]);
        reads.extend(self.session.map(|session| get(keys.session(session))));
        reads.extend(self.own(keys).into_iter().flatten().map(get));
        reads
    }

    /// Where the request that is asked about may have its place: where any of its session has, or where a
    /// further one has.
    pub(super) fn own(&self, keys: &Keys) -> Option<[Vec<u8>; 2]> {
        let (session, request) = self.session.zip(self.request)?;
        Some([
            keys.place(self.resource, session),
            keys.further_place(self.resource, session, request),
        ])
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

/// How many of a queue are listed by a hand-over: so many go without comparing the queue.
const LISTED: i64 = 64;
/// How many wait where listing them is worth it: for fewer, comparing the queue costs no more.
const WORTH_LISTING: u64 = 3;

/// The first of a queue: since when they wait, and under which keys.
fn list(keys: &Keys, resource: &ResourceName) -> TxnOp {
    let queue = keys.queue(resource);
    let options = GetOptions::new()
        .with_range(queue.end)
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(LISTED)
        .with_keys_only();
    TxnOp::get(queue.start, Some(options))
}

/// What the reply to [`list`] shows.
pub(super) fn listed(replies: &[TxnOpResponse]) -> Result<Option<Listed>, StoreError> {
    let found = replies.iter().find_map(|reply| match reply {
        TxnOpResponse::Get(found) => Some(found),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    let Some(found) = found else {
        return Ok(None);
    };
    let of_key = |key: &KeyValue| {
        let since = codec::revision(key.create_revision())?;
        Ok::<_, StoreError>((since, key.key().to_vec()))
    };
    Ok(Some(Listed {
        places: found.kvs().iter().map(of_key).collect::<Result<_, _>>()?,
        are_more: found.more(),
    }))
}

impl Sight {
    /// A place that was seen, with its key. Any other is under a key where it is not.
    pub(super) fn spot(&self, keys: &Keys, place: &Place) -> Spot {
        let seen = [self.own.spot.as_ref(), self.head.as_ref()];
        let seen = seen.into_iter().flatten().find(|seen| seen.place == *place);
        seen.cloned().unwrap_or_else(|| Spot {
            key: keys.place(&place.claim.resource, place.claim.session),
            place: place.clone(),
        })
    }

    /// Whether nobody waits longer than a place, as etcd's log has shown (I11).
    pub(super) fn is_first(&self, spot: &Spot) -> bool {
        self.is_first && self.head.as_ref() == Some(spot)
    }

    /// Lists those who wait, where many do, so that the next hand-overs need not compare the queue.
    pub(super) fn list(&self, keys: &Keys, resource: &ResourceName) -> Option<TxnOp> {
        (self.view.waiters >= WORTH_LISTING).then(|| list(keys, resource))
    }

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
        let own = match subject.own(&link.context().keys) {
            Some(keys) => {
                let there = [
                    first(replies.next(), codec::place)?,
                    first(replies.next(), codec::place)?,
                ];
                Own::among(subject, there, &keys)
            }
            None => Own::default(),
        };
        let head = queue.kvs().first().map(codec::spot).transpose()?;
        let generation = match link.judge(found, header)? {
            Verdict::Trusted(generation) => Some(generation),
            Verdict::Untrusted => None,
        };
        let view = View {
            session: stored.as_ref().map(|stored| stored.record.clone()),
            hold: hold.as_ref().map(|hold| hold.record.clone()),
            own_place: own.spot.as_ref().map(|spot| spot.place.clone()),
            head: head.as_ref().map(|spot| spot.place.clone()),
            waiters: u64::try_from(queue.count()).unwrap_or(0),
            delay: left.as_ref().filter(|_| hold.is_none()).map(|left| Delay {
                last: left.last.clone(),
                is_running,
            }),
        };
        Ok(Self {
            source,
            at: codec::revision(header.revision())?,
            view,
            own,
            is_first: source == Source::Log && head.is_some(),
            head,
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
    let subject = Subject {
        resource,
        session: Some(session),
        request: Some(request),
    };
    let [first_key, further_key] = [
        keys.place(resource, session),
        keys.further_place(resource, session, request),
    ];
    let reads = vec![
        get(keys.lease(resource)),
        get(first_key.clone()),
        get(further_key.clone()),
    ];
    let mut replies = link.read(reads).await?.0.into_iter();
    let hold = first(replies.next(), codec::hold)?;
    let there = [
        first(replies.next(), codec::place)?,
        first(replies.next(), codec::place)?,
    ];
    let own = Own::among(subject, there, &[first_key, further_key]);
    let place = own.spot.map(|spot| spot.place);
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
pub(super) fn is_queued(spot: &Spot) -> Compare {
    Compare::create_revision(spot.key.clone(), CompareOp::Equal, as_i64(spot.place.since))
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
