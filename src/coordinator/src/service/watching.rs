//! `LeaseService.WatchLeases`: first what is, then what changes, each in the order of the store's log.
//!
//! The transport pulls: what it does not take waits in a bounded mailbox, and who lets too much wait is cut off.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use palisade_api::v1::watch_leases_request::Scope as Watched;
use palisade_api::v1::{
    Lease, LeaseEvent, LeaseEventType, WatchLeasesRequest, WatchLeasesResponse,
};
use palisade_token::FencingToken;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request, Status};

use super::error::{About, BadField, CallError};
use super::lease::Leases;
use super::news::{Subject, WatchNews, WatchSubscription};
use super::page::{self, MAX_PAGE_BYTES};
use super::parse::{self, bad, missing};
use super::{Service, reply, status};
use crate::access::{Scope, Verb};
use crate::clock::{Moment, within};
use crate::domain::{Batch, Ended, Event, Hold, LeaseEnd, Revision};
use crate::store::{Failure, Listed, Page, Pages, StoreError};

/// How often a bookmark comes where nothing else is asked for.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
const BOOKMARK_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// What an event that waits to be read counts of a stream's backlog, in bytes: all watchers share it. So what a
/// busy coordinator sees in a second fits into the backlog's default.
const EVENT_BYTES: usize = 64;
/// How often a snapshot is begun anew because more happened meanwhile than is remembered.
const SNAPSHOTS: usize = 3;

/// The stream of a watch.
pub(super) type Watching = BoxStream<'static, Result<WatchLeasesResponse, Status>>;

impl Service {
    /// Starts a watch.
    pub(super) fn try_watch(
        &self,
        request: Request<WatchLeasesRequest>,
    ) -> Result<Watching, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let principal = self.principal(&headers, &extensions)?;
        self.leases.admit_new()?;
        let resume = resume(given.resume_revision)?;
        let every = bookmark_interval(given.bookmark_interval_ms)?;
        let (subject, scope) = match given.scope.ok_or_else(|| missing("scope"))? {
            Watched::Resource(name) => {
                let name = parse::resource("resource", &name)?;
                self.access.check(&principal, Verb::Read, &name)?;
                (Subject::Resource(name), None)
            }
            Watched::Prefix(text) => {
                let text = page::prefix("prefix", &text)?;
                let scope = self.access.scope(&principal, Verb::Read, text)?;
                (Subject::Beginning(text.to_owned()), Some(scope))
            }
        };
        let bound = self.leases.limits.max_watchers;
        let permit = Arc::clone(&self.watches).try_acquire_owned();
        let permit = permit.map_err(|_| CallError::Limit {
            limit: "watchers",
            bound: u64::try_from(bound).unwrap_or(u64::MAX),
        })?;
        let watch = Watch {
            leases: Arc::clone(&self.leases),
            subject,
            scope,
            every,
            ready: VecDeque::new(),
            phase: Phase::Begin(resume),
            snapshots: 0,
            last: Revision::default(),
            bookmark: self.leases.clock.now().after(every),
            _permit: permit,
        };
        let responses = stream::unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match Box::pin(watch.next()).await {
                Ok(response) => Some((Ok(response), Some(watch))),
                Err(error) => {
                    let about = About::default();
                    status::log(&error, &about);
                    Some((Err(status::status(&error, &about)), None))
                }
            }
        });
        Ok(responses.boxed())
    }

    /// How many watches are open here.
    #[must_use]
    pub fn watches(&self) -> usize {
        let bound = self.leases.limits.max_watchers;
        bound.saturating_sub(self.watches.available_permits())
    }
}

fn resume(given: i64) -> Result<Option<Revision>, BadField> {
    match u64::try_from(given) {
        Ok(0) => Ok(None),
        Ok(revision) => Ok(Some(Revision(revision))),
        Err(_) => Err(bad("resume_revision", "0 or above", given)),
    }
}

fn bookmark_interval(given_ms: u64) -> Result<Duration, BadField> {
    let (least, most) = BOOKMARK_BOUNDS;
    match Duration::from_millis(given_ms) {
        Duration::ZERO => Ok(BOOKMARK_INTERVAL),
        given if (least..=most).contains(&given) => Ok(given),
        _ => {
            let bound = format!(
                "{} to {} ms, or 0",
                parse::millis(least),
                parse::millis(most)
            );
            Err(bad("bookmark_interval_ms", bound, format!("{given_ms} ms")))
        }
    }
}

/// One watch.
struct Watch {
    leases: Arc<Leases>,
    subject: Subject,
    /// What of the subject the caller may see; `None` where that is all.
    scope: Option<Scope>,
    every: Duration,
    ready: VecDeque<Vec<LeaseEvent>>,
    phase: Phase,
    snapshots: usize,
    /// All up to here was told.
    last: Revision,
    /// When the next bookmark is due.
    bookmark: Moment,
    _permit: OwnedSemaphorePermit,
}

enum Phase {
    /// Everything is told, or what came after a revision.
    Begin(Option<Revision>),
    Snapshot(Pages),
    Follow(WatchSubscription),
}

fn unavailable() -> CallError {
    StoreError::not_applied(Failure::Unavailable).into()
}

/// An event about no resource.
fn plain(kind: LeaseEventType, revision: Revision) -> LeaseEvent {
    LeaseEvent {
        r#type: kind.into(),
        revision: reply::signed(revision.0),
        ..LeaseEvent::default()
    }
}

impl Watch {
    async fn next(&mut self) -> Result<WatchLeasesResponse, CallError> {
        let draining = self.leases.draining.clone();
        loop {
            if let Some(events) = self.ready.pop_front() {
                self.bookmark = self.leases.clock.now().after(self.every);
                return Ok(WatchLeasesResponse { events });
            }
            tokio::select! {
                biased;
                () = draining.cancelled() => return Err(CallError::Draining),
                went_on = Box::pin(self.go_on()) => went_on?,
            }
        }
    }

    async fn go_on(&mut self) -> Result<(), CallError> {
        match &mut self.phase {
            Phase::Begin(resume) => {
                let resume = *resume;
                self.begin(resume).await
            }
            Phase::Snapshot(pages) => {
                let limit = self.leases.timeouts.default_call;
                let page = within(&self.leases.clock, limit, pages.next()).await;
                match page.map_err(|_| unavailable())? {
                    Some(page) => self.show(page?),
                    None => self.follow(),
                }
            }
            Phase::Follow(_) => self.listen().await,
        }
    }

    async fn begin(&mut self, resume: Option<Revision>) -> Result<(), CallError> {
        let limit = self.leases.timeouts.default_call;
        let followed = self.leases.news.followed();
        let followed = within(&self.leases.clock, limit, followed).await;
        followed.map_err(|_| unavailable())?;
        if let Some(after) = resume {
            if is_past(&self.leases, after).await?
                && let Some(news) = self.subscribe(after)
            {
                self.last = after;
                self.phase = Phase::Follow(news);
                return Ok(());
            }
            return self.resync();
        }
        let asked = async {
            match &self.subject {
                Subject::Beginning(text) => self.leases.store.snapshot(text).await,
                Subject::Resource(name) => {
                    let standing = self.leases.store.lease(name).await?;
                    let listed = |hold| Listed { hold, waiters: 0 };
                    let page = Page {
                        leases: standing.hold.into_iter().map(listed).collect(),
                        next: None,
                        revision: standing.revision,
                    };
                    Ok(stream::iter([Ok(page)]).boxed())
                }
            }
        };
        let pages = within(&self.leases.clock, limit, asked).await;
        self.phase = Phase::Snapshot(pages.map_err(|_| unavailable())??);
        Ok(())
    }

    fn subscribe(&self, after: Revision) -> Option<WatchSubscription> {
        let subject = self.subject.clone();
        let bound = self.leases.limits.max_backlog_bytes / EVENT_BYTES;
        self.leases.news.subscribe(subject, after, bound)
    }

    /// Begins anew with a snapshot.
    fn resync(&mut self) -> Result<(), CallError> {
        self.snapshots += 1;
        if self.snapshots > SNAPSHOTS {
            return Err(self.backlog());
        }
        let event = plain(LeaseEventType::Resync, self.leases.news.last());
        self.ready.push_back(vec![event]);
        self.phase = Phase::Begin(None);
        Ok(())
    }

    fn show(&mut self, page: Page) -> Result<(), CallError> {
        self.last = page.revision;
        let mut events = Vec::new();
        let mut bytes = 0;
        for Listed { hold, .. } in page.leases {
            if !self.is_shown(&hold.claim.resource) {
                continue;
            }
            let Some(lease) = reply::lease(&hold) else {
                continue;
            };
            let event = LeaseEvent {
                resource: lease.resource.clone(),
                lease: Some(lease),
                ..plain(LeaseEventType::Snapshot, page.revision)
            };
            bytes += prost::Message::encoded_len(&event);
            events.push(event);
            if bytes > MAX_PAGE_BYTES / 2 {
                self.ready.push_back(std::mem::take(&mut events));
                bytes = 0;
            }
        }
        if !events.is_empty() {
            self.ready.push_back(events);
        }
        Ok(())
    }

    /// The snapshot is complete: changes follow.
    fn follow(&mut self) -> Result<(), CallError> {
        let Some(news) = self.subscribe(self.last) else {
            return self.resync();
        };
        let event = plain(LeaseEventType::SnapshotEnd, self.last);
        self.ready.push_back(vec![event]);
        self.phase = Phase::Follow(news);
        self.snapshots = 0;
        Ok(())
    }

    async fn listen(&mut self) -> Result<(), CallError> {
        let Phase::Follow(news) = &self.phase else {
            return Ok(());
        };
        let clock = &self.leases.clock;
        let wait = clock.now().until(self.bookmark);
        tokio::select! {
            biased;
            told = news.next() => match told {
                Some(WatchNews::Batch(batch)) => self.tell(&batch),
                Some(WatchNews::Resync) => return self.resync(),
                None => return Err(self.backlog()),
            },
            () = clock.sleep(wait) => {
                let quiet = news.quiet_at();
                self.bookmark = clock.now().after(self.every);
                if let Some(quiet) = quiet {
                    self.last = self.last.max(quiet);
                    let event = plain(LeaseEventType::Bookmark, self.last);
                    self.ready.push_back(vec![event]);
                }
            }
        }
        Ok(())
    }

    fn tell(&mut self, batch: &Batch) {
        let mut of_leases = batch.iter().filter(|event| event.is_of_lease());
        let revision = of_leases.find_map(Event::revision);
        // What a snapshot showed already may come once more.
        let Some(revision) = revision.filter(|revision| *revision > self.last) else {
            return;
        };
        self.last = revision;
        let shown = batch.iter().filter(|event| {
            let resource = event.resource();
            resource.is_some_and(|name| self.subject.has(name) && self.is_shown(name))
        });
        let events: Vec<_> = shown.filter_map(event).collect();
        if !events.is_empty() {
            self.ready.push_back(events);
        }
    }

    fn backlog(&self) -> CallError {
        let bound = self.leases.limits.max_backlog_bytes;
        CallError::Limit {
            limit: "backlog",
            bound: u64::try_from(bound).unwrap_or(u64::MAX),
        }
    }

    fn is_shown(&self, resource: &palisade_token::ResourceName) -> bool {
        self.scope
            .as_ref()
            .is_none_or(|scope| scope.allows(resource))
    }
}

/// Whether a revision is one of this history. News may lag behind what another coordinator has told; the
/// store does not.
async fn is_past(leases: &Leases, revision: Revision) -> Result<bool, CallError> {
    if revision <= leases.news.last() {
        return Ok(true);
    }
    let limit = leases.timeouts.default_call;
    let asked = leases.store.leases("", None, 1);
    let page = within(&leases.clock, limit, asked).await;
    Ok(page.map_err(|_| unavailable())??.revision >= revision)
}

/// An event as the interface has it; `None` for what only concerns holders.
fn event(event: &Event) -> Option<LeaseEvent> {
    match event {
        Event::Ended(ended) => Some(ended_event(ended)),
        Event::Granted(granted) => Some(LeaseEvent {
            resource: granted.resource().to_string(),
            lease: granted.hold().and_then(reply::lease),
            ..plain(LeaseEventType::Granted, granted.revision())
        }),
        Event::Vacant { resource, revision } => Some(LeaseEvent {
            resource: resource.to_string(),
            ..plain(LeaseEventType::Vacant, *revision)
        }),
        Event::Reopened { .. }
        | Event::ToClose { .. }
        | Event::Asked(_)
        | Event::Declined { .. }
        | Event::Bookmark(_)
        | Event::Resync => None,
    }
}

fn ended_event(ended: &Ended) -> LeaseEvent {
    let kind = match ended.end {
        Some(LeaseEnd::Released) => LeaseEventType::Released,
        Some(LeaseEnd::Expired) => LeaseEventType::Expired,
        Some(LeaseEnd::Revoked) => LeaseEventType::Revoked,
        None => LeaseEventType::Ended,
    };
    let seen = ended.lease.as_ref().and_then(|lease| lease.hold());
    // Thousands may end with one session: what their holders attached was told with the grants.
    let bare = |hold: &Hold| {
        reply::lease(hold).map(|lease| Lease {
            metadata: Vec::new(),
            ..lease
        })
    };
    let named = || {
        let (token, label) = ended.told.as_ref()?;
        Some(Lease {
            resource: ended.resource.to_string(),
            token: FencingToken::as_i64(*token),
            label: label.clone(),
            ..Lease::default()
        })
    };
    LeaseEvent {
        resource: ended.resource.to_string(),
        lease: seen.and_then(bare).or_else(named),
        reason: ended.reason.clone(),
        ..plain(kind, ended.revision)
    }
}
