//! Events from one watch on all of the store's keys: hints that wake and inform, never proof of anything.
//!
//! One watch and not several, since only that shows all of a revision together. A watch that breaks off is
//! resumed where it was if the history that is found then is still the same, else everything is to be looked
//! at again.

mod told;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use etcd_client::{
    Event as EtcdEvent, EventType, GetOptions, TxnOp, TxnOpResponse, WatchOptions,
    WatchRequestSender, WatchResponse, WatchResponseStream,
};
use futures::stream::{self, StreamExt, TryStreamExt};
use palisade_token::ResourceName;
use tracing::{debug, info};

use self::told::Told;
use super::EtcdStore;
use super::codec::{as_i64, revision};
use super::fault::Fault;
use super::keys::Kind;
use super::link::Link;
use super::links::Links;
use super::notice;
use crate::audit;
use crate::clock::within;
use crate::domain::{Batch, Event, LeaseEnd, Revision};
use crate::metrics::Metrics;
use crate::store::{Events, Failure, StoreError};

/// How long a watch may be silent before it is asked for a sign of life.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);
/// How many signs of life may fail to come before the watch is given up. A half-open connection shows
/// nothing else.
const MISSED_SIGNS: u32 = 2;
/// How long a watch that broke off is tried to be resumed before its followers hear of it: an election, or
/// the restart of a member.
const RESUME_LIMIT: Duration = Duration::from_secs(15);
/// How often that is tried.
const RESUME_PAUSE: Duration = Duration::from_millis(200);

/// One stream of events, over one connection after another.
struct Watch {
    links: Weak<Links>,
    open: Open,
    /// Told up to here.
    last: Revision,
    /// The generation as of then: what tells one history from another.
    generation: Option<Vec<u8>>,
    /// What happened at that very revision, once anything was told: what tells a history under the same generation.
    trail: Option<Trail>,
    /// The resources whose last lease had a lock-delay and was not released in order, or stands.
    delayed: BTreeSet<ResourceName>,
    ready: VecDeque<Batch>,
}

/// A watch on one connection.
struct Open {
    link: Arc<Link>,
    requests: WatchRequestSender,
    replies: WatchResponseStream,
    /// What follows is later than this.
    after: Revision,
}

/// One thing that happened at a revision: a key that was put, or deleted.
struct Trail {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

/// Why no more comes over a connection.
enum Broken {
    /// The connection: another one may go on.
    Off(StoreError),
    /// What follows is gone from etcd.
    Compacted,
}

fn lost(what: &'static str) -> StoreError {
    StoreError::unknown(Failure::Unavailable, what)
}

impl EtcdStore {
    pub(super) async fn do_watch(&self) -> Result<Events, StoreError> {
        let link = self.links.get().await?;
        let metrics = self.metrics.clone();
        let watch = Watch::start(Arc::downgrade(&self.links), link).await?;
        let batches = stream::unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match Box::pin(watch.next()).await {
                Ok(batch) => Some((Ok(batch), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let noted = batches.inspect_ok(move |batch| note_expired(&metrics, batch));
        Ok(noted.boxed())
    }
}

/// The end of a session is no coordinator's transaction: it is noted by all that see it.
fn note_expired(metrics: &Metrics, batch: &Batch) {
    for event in batch.iter() {
        if let Event::Ended(ended) = event
            && ended.end == Some(LeaseEnd::Expired)
        {
            metrics.ended(LeaseEnd::Expired.into());
            audit::expired(&ended.resource, ended.revision);
        }
    }
}

impl Open {
    /// Opens a watch of what comes after a revision, or from now on.
    async fn on(link: Arc<Link>, after: Option<Revision>) -> Result<Self, StoreError> {
        let range = link.context().keys.all();
        let mut watcher = link.watcher();
        let mut options = WatchOptions::new().with_range(range.end);
        if let Some(after) = after {
            options = options.with_start_revision(as_i64(after).saturating_add(1));
        }
        let opened = link.call(watcher.watch(range.start, Some(options))).await;
        let (requests, mut replies) = opened.map_err(Fault::into_unsent)?.split();
        let created = link.call(replies.message()).await;
        let created = created.map_err(Fault::into_unsent)?;
        let created = created.filter(|reply| reply.created() && !reply.canceled());
        let header = created.as_ref().and_then(WatchResponse::header);
        let header = header.ok_or_else(|| lost("the watch was not created"))?;
        let after = match after {
            Some(after) => after,
            None => revision(header.revision())?,
        };
        Ok(Self {
            link,
            requests,
            replies,
            after,
        })
    }

    async fn next(&mut self) -> Result<WatchResponse, Broken> {
        let clock = Arc::clone(&self.link.context().clock);
        let broken = self.link.broken().clone();
        let off = |error| Err(Broken::Off(error));
        let mut missed = 0;
        loop {
            let reply = tokio::select! {
                () = broken.cancelled() => return off(lost("the connection was given up")),
                reply = within(&clock, SILENCE_LIMIT, self.replies.message()) => reply,
            };
            match reply {
                Ok(Ok(Some(reply))) if reply.compact_revision() > 0 => {
                    return Err(Broken::Compacted);
                }
                Ok(Ok(Some(reply))) if reply.canceled() => {
                    return off(lost("the watch was cancelled"));
                }
                Ok(Ok(Some(reply))) => return Ok(reply),
                Ok(Ok(None)) => return off(lost("the watch ended")),
                Ok(Err(error)) => return off(Fault::of(error).into_unsent()),
                Err(_silent) if missed < MISSED_SIGNS => {
                    missed += 1;
                    let asked = self.requests.request_progress().await;
                    asked.map_err(|error| Broken::Off(Fault::of(error).into_unsent()))?;
                }
                Err(_silent) => {
                    self.link.give_up();
                    return off(lost("the watch fell silent"));
                }
            }
        }
    }
}

impl Watch {
    async fn start(links: Weak<Links>, link: Arc<Link>) -> Result<Self, StoreError> {
        let open = Open::on(link, None).await?;
        let generation = generation_at(&open.link, open.after).await?;
        let notices = notice::standing(&open.link).await?;
        let last = open.after;
        let delayed = delayed(&open.link).await?;
        let mut ready: VecDeque<Batch> = [[Event::Resync].into()].into();
        // Whoever looks after one finds out whether its lease has ended.
        let to_close = delayed.iter().cloned().map(|resource| {
            let revision = open.after;
            Event::ToClose { resource, revision }
        });
        ready.extend(to_close.map(|event| [event].into()));
        ready.extend(
            notices
                .into_iter()
                .map(|notice| [Event::Asked(notice)].into()),
        );
        ready.push_back([Event::Bookmark(last)].into());
        Ok(Self {
            links,
            open,
            last,
            generation,
            trail: None,
            delayed,
            ready,
        })
    }

    async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(batch);
            }
            match self.open.next().await {
                Ok(reply) => self.take(&reply)?,
                Err(Broken::Compacted) => {
                    info!(last = %self.last, "etcd's history was compacted; looking at everything again");
                    let link = Arc::clone(&self.open.link);
                    *self = Self::start(Weak::clone(&self.links), link).await?;
                }
                Err(Broken::Off(error)) => self.resume(error).await?,
            }
        }
    }

    fn take(&mut self, reply: &WatchResponse) -> Result<(), StoreError> {
        let keys = &self.open.link.context().keys;
        let events = reply.events();
        let same = events.chunk_by(|one, other| told::revision_of(one) == told::revision_of(other));
        for some in same {
            let at = revision(told::revision_of(&some[0]))?;
            let mut told = Told::default();
            for event in some {
                told.sort(keys, event);
            }
            if let Some(generation) = told.generation.take() {
                self.generation = Some(generation);
            }
            self.last = at;
            self.trail = Trail::of(&some[0]);
            for (resource, is_put) in std::mem::take(&mut told.left) {
                match is_put {
                    true => self.delayed.insert(resource),
                    false => self.delayed.remove(&resource),
                };
            }
            let events = told.in_order(at, &self.delayed);
            if !events.is_empty() {
                self.ready.push_back(events.into());
            }
        }
        Ok(())
    }

    /// Goes on where it broke off, over another connection.
    async fn resume(&mut self, error: StoreError) -> Result<(), StoreError> {
        debug!(%error, last = %self.last, "etcd's watch broke off");
        let clock = Arc::clone(&self.open.link.context().clock);
        let end = clock.now().after(RESUME_LIMIT);
        let mut last = error;
        while clock.now() < end {
            let links = self.links.upgrade();
            let links = links.ok_or_else(|| lost("the store is gone"))?;
            match links.get().await {
                Ok(link) => match self.go_on(link).await {
                    Ok(()) => return Ok(()),
                    Err(error) => last = error,
                },
                Err(error) => last = error,
            }
            drop(links);
            clock.sleep(RESUME_PAUSE).await;
        }
        Err(last)
    }

    /// Whether what was told last is in the history that a connection leads to.
    async fn is_history_of(&self, link: &Link) -> Result<bool, StoreError> {
        let (Some(known), Some(trail)) = (&self.generation, &self.trail) else {
            return Ok(false);
        };
        let found = generation_at(link, self.last).await?;
        Ok(found.as_ref() == Some(known) && trail.is_there(link, self.last).await?)
    }

    /// A restored etcd issues revisions again: what was told is its history only if the generation, whose
    /// nonce is random, was the same at that revision, and the same happened at it: what else is kept in etcd may have
    /// brought it there under the generation that was restored. Where that is compacted, it is not known.
    async fn go_on(&mut self, link: Arc<Link>) -> Result<(), StoreError> {
        let found = self.is_history_of(&link).await;
        if link.broken().is_cancelled() {
            let given_up = || lost("the connection was given up");
            return Err(found.err().unwrap_or_else(given_up));
        }
        if !matches!(found, Ok(true)) {
            *self = Self::start(Weak::clone(&self.links), link).await?;
            return Ok(());
        }
        self.open = Open::on(link, Some(self.last)).await?;
        debug!(last = %self.last, "etcd's watch goes on");
        Ok(())
    }
}

impl Trail {
    fn of(event: &EtcdEvent) -> Option<Self> {
        let key = event.kv()?;
        let is_put = event.event_type() == EventType::Put;
        Some(Self {
            key: key.key().to_vec(),
            value: is_put.then(|| key.value().to_vec()),
        })
    }

    /// Whether it happened at a revision of the history that a connection leads to.
    async fn is_there(&self, link: &Link, at: Revision) -> Result<bool, StoreError> {
        let before = Revision(at.0.saturating_sub(1));
        let get = |revision| {
            let options = GetOptions::new().with_revision(as_i64(revision));
            TxnOp::get(self.key.clone(), Some(options))
        };
        let mut gets = vec![get(at)];
        if self.value.is_none() {
            gets.push(get(before));
        }
        let (replies, _) = link.read(gets).await?;
        let found = |reply: Option<&TxnOpResponse>| match reply {
            Some(TxnOpResponse::Get(found)) => found.kvs().first().cloned(),
            _ => None,
        };
        let (is, was) = (found(replies.first()), found(replies.get(1)));
        Ok(match (&self.value, is) {
            (Some(put), Some(is)) => is.mod_revision() == as_i64(at) && is.value() == put,
            (None, None) => was.is_some(),
            (Some(_), None) | (None, Some(_)) => false,
        })
    }
}

/// Resources that leases with a lock-delay have left something behind of.
async fn delayed(link: &Link) -> Result<BTreeSet<ResourceName>, StoreError> {
    let keys = &link.context().keys;
    let range = keys.lasts();
    let options = GetOptions::new().with_range(range.end).with_keys_only();
    let (replies, _) = link
        .read(vec![TxnOp::get(range.start, Some(options))])
        .await?;
    let Some(TxnOpResponse::Get(found)) = replies.first() else {
        return Ok(BTreeSet::new());
    };
    let names = found.kvs().iter().map(|key| keys.kind_of(key.key()));
    Ok(names
        .filter_map(|kind| match kind {
            Kind::Last(resource) => Some(resource),
            _ => None,
        })
        .collect())
}

/// The generation as it was at a revision.
async fn generation_at(link: &Link, at: Revision) -> Result<Option<Vec<u8>>, StoreError> {
    let options = GetOptions::new().with_revision(as_i64(at));
    let get = TxnOp::get(link.context().keys.generation(), Some(options));
    let (replies, _) = link.read(vec![get]).await?;
    Ok(match replies.first() {
        Some(TxnOpResponse::Get(found)) => found.kvs().first().map(|key| key.value().to_vec()),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
