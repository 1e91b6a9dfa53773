//! Events from etcd's watch: hints that wake, resumed by looking again, never proof of anything.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    Event as EtcdEvent, EventType, WatchOptions, WatchRequestSender, WatchResponse,
    WatchResponseStream,
};
use futures::stream::{self, BoxStream, StreamExt};
use tracing::debug;

use super::EtcdStore;
use super::codec::{self, revision};
use super::fault::Fault;
use super::link::Link;
use crate::clock::within;
use crate::domain::Event;
use crate::store::{Failure, StoreError};

/// How long a watch may be silent before it is asked for a sign of life.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);
/// How many signs of life may fail to come before the watch is given up. A half-open connection shows
/// nothing else.
const MISSED_SIGNS: u32 = 2;

struct Watch {
    link: Arc<Link>,
    requests: WatchRequestSender,
    replies: WatchResponseStream,
}

fn lost(what: &'static str) -> StoreError {
    StoreError::unknown(Failure::Unavailable, what)
}

impl EtcdStore {
    pub(super) async fn do_watch(
        &self,
    ) -> Result<BoxStream<'static, Result<Event, StoreError>>, StoreError> {
        let link = self.links.get().await?;
        let range = link.context().keys.leases("");
        let mut watcher = link.watcher();
        let options = WatchOptions::new().with_range(range.end);
        let opened = link.call(watcher.watch(range.start, Some(options))).await;
        let (requests, mut replies) = opened.map_err(Fault::into_unsent)?.split();
        let created = link
            .call(replies.message())
            .await
            .map_err(Fault::into_unsent)?;
        if !created.is_some_and(|reply| reply.created() && !reply.canceled()) {
            return Err(lost("the watch was not created"));
        }
        let watch = Watch {
            link,
            requests,
            replies,
        };
        let batches = stream::unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(events) => Some((Ok(events), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let events = batches.flat_map(|batch| match batch {
            Ok(events) => stream::iter(events).left_stream(),
            Err(error) => stream::iter([Err(error)]).right_stream(),
        });
        Ok(stream::iter([Ok(Event::Resync)]).chain(events).boxed())
    }
}

impl Watch {
    async fn next(&mut self) -> Result<Vec<Result<Event, StoreError>>, StoreError> {
        let clock = Arc::clone(&self.link.context().clock);
        let broken = self.link.broken().clone();
        let mut missed = 0;
        loop {
            let reply = tokio::select! {
                () = broken.cancelled() => return Err(lost("the connection was given up")),
                reply = within(&clock, SILENCE_LIMIT, self.replies.message()) => reply,
            };
            match reply {
                Ok(Ok(Some(reply))) => return self.events(&reply),
                Ok(Ok(None)) => return Err(lost("the watch ended")),
                Ok(Err(error)) => return Err(Fault::of(error).into_unsent()),
                Err(_silent) if missed < MISSED_SIGNS => {
                    missed += 1;
                    self.requests
                        .request_progress()
                        .await
                        .map_err(|e| Fault::of(e).into_unsent())?;
                }
                Err(_silent) => {
                    self.link.give_up();
                    return Err(lost("the watch fell silent"));
                }
            }
        }
    }

    fn events(&self, reply: &WatchResponse) -> Result<Vec<Result<Event, StoreError>>, StoreError> {
        if reply.canceled() {
            debug!(
                compact_revision = reply.compact_revision(),
                "etcd cancelled the watch"
            );
            return Err(lost("the watch was cancelled"));
        }
        Ok(reply
            .events()
            .iter()
            .filter_map(|event| self.event(event).transpose())
            .collect())
    }

    fn event(&self, event: &EtcdEvent) -> Result<Option<Event>, StoreError> {
        let Some(key) = event.kv() else {
            return Ok(None);
        };
        match event.event_type() {
            EventType::Put => codec::hold(key).map(|hold| Some(Event::Granted(hold.record))),
            EventType::Delete => {
                let revision = revision(key.mod_revision())?;
                let resource = self.link.context().keys.resource_of(key.key());
                Ok(resource.map(|resource| Event::Vacant { resource, revision }))
            }
        }
    }
}
