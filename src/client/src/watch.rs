//! Watches of leases: news that goes on over broken streams, at whichever coordinator serves.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use palisade_api::v1::{self, LeaseEventType, WatchLeasesRequest, watch_leases_request};
use palisade_token::ResourceName;
use tonic::{Request, Streaming};
use tracing::debug;

use crate::calls::Shared;
use crate::client::Client;
use crate::clock::within;
use crate::endpoints::Connected;
use crate::error::status::{Failure, Verdict};
use crate::error::{ClientError, Unavailable};
use crate::session::milliseconds;

mod event;
mod place;

pub use self::event::WatchEvent;
use self::place::Place;
pub use self::place::WatchPosition;

/// How often the coordinator says that nothing happened, unless told otherwise.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// What a coordinator accepts.
const BOOKMARK_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// So many bookmarks may fail to come before another coordinator is asked.
const MISSED_BOOKMARKS: u32 = 2;
/// The pause before the first try to go on, doubled with each further one...
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// ...up to this: many watches come back at once, and each may cost a snapshot.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is watched.
///
/// ```
/// use palisade_client::{ResourceName, WatchScope};
///
/// let one: WatchScope = "orders/eu-1".parse::<ResourceName>()?.into();
/// let all_orders = WatchScope::Prefix("orders/".to_owned());
/// # let _ = (one, all_orders);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatchScope {
    /// One resource.
    Resource(ResourceName),
    /// All resources whose name begins with this; empty means all. End it with `/` to stay within a segment.
    /// Resources that the caller may not read are left out.
    Prefix(String),
}

impl From<ResourceName> for WatchScope {
    fn from(resource: ResourceName) -> Self {
        Self::Resource(resource)
    }
}

impl From<&ResourceName> for WatchScope {
    fn from(resource: &ResourceName) -> Self {
        Self::Resource(resource.clone())
    }
}

/// How a watch is made.
///
/// ```
/// use std::time::Duration;
/// use palisade_client::{WatchOptions, WatchPosition};
///
/// let position: WatchPosition = "1234".parse()?;
/// let options = WatchOptions::default().resume(position).bookmarks(Duration::from_secs(2));
/// # let _ = options;
/// # Ok::<(), palisade_client::ClientError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct WatchOptions {
    resume: Option<WatchPosition>,
    bookmarks: Option<Duration>,
}

impl WatchOptions {
    /// Goes on from where another watch of the same scope was (see [`LeaseWatch::position`]), instead of with a
    /// snapshot. If that is not known any more a [`WatchEvent::Resync`] comes, and a snapshot.
    pub fn resume(mut self, position: WatchPosition) -> Self {
        self.resume = Some(position);
        self
    }

    /// How often a [`WatchEvent::Bookmark`] comes while nothing happens: every 10 s unless set, from 1 s to
    /// 5 min. After about two without any another coordinator is asked.
    pub fn bookmarks(mut self, every: Duration) -> Self {
        self.bookmarks = Some(every);
        self
    }
}

impl Client {
    /// Watches a resource, or all whose names begin with a prefix. Connects with the first
    /// [`LeaseWatch::next`], not here.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for an interval of bookmarks outside its bound.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use palisade_client::{WatchEvent, WatchOptions, WatchScope};
    ///
    /// let orders = WatchScope::Prefix("orders/".to_owned());
    /// let mut watch = client.watch_leases(orders, WatchOptions::default())?;
    /// loop {
    ///     match watch.next().await? {
    ///         WatchEvent::Stands { lease, .. } => println!("{} is held", lease.grant.resource),
    ///         WatchEvent::Granted { resource, .. } => println!("{resource} was granted"),
    ///         WatchEvent::Ended { resource, end, .. } => println!("{resource} ended: {end:?}"),
    ///         WatchEvent::Resync { .. } => println!("forget all; it is told anew"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub fn watch_leases(
        &self,
        scope: impl Into<WatchScope>,
        options: WatchOptions,
    ) -> Result<LeaseWatch, ClientError> {
        let every = options.bookmarks.unwrap_or(BOOKMARK_INTERVAL);
        let (least, most) = BOOKMARK_BOUNDS;
        if !(least..=most).contains(&every) {
            let bound = format!("{least:?} to {most:?}");
            return Err(ClientError::invalid(
                "bookmarks",
                bound,
                format!("{every:?}"),
            ));
        }
        Ok(LeaseWatch {
            shared: Arc::clone(self.shared()),
            scope: scope.into(),
            bookmark_ms: milliseconds("bookmarks", every)?,
            silence: (every * MISSED_BOOKMARKS).saturating_add(self.shared().call_timeout),
            phase: Phase::Idle,
            ready: VecDeque::new(),
            place: Place::begin(options.resume),
            avoided: None,
            failures: 0,
            is_interrupted: false,
        })
    }
}

/// What happens to leases, in the order of the store's log. See [`Client::watch_leases`].
///
/// First a snapshot: [`WatchEvent::Stands`] for each lease, then [`WatchEvent::SnapshotEnd`]; then each change.
/// Where the stream breaks it goes on by itself, at whichever coordinator serves, from where it was; what was
/// missed for good is told as [`WatchEvent::Resync`], and a snapshot follows. It has no end of its own, and
/// never stops without saying so.
///
/// **It is a hint, never proof that a lease is held**, by this process or another: what it tells was true at a
/// revision that is past. A holder asks [`Lease::grant`](crate::Lease::grant), and the guard decides.
///
/// It holds one message of a coordinator, 8 MiB at most. What is not taken waits there, in bounds: who lets too
/// much wait is cut off, and goes on as after a broken stream.
///
/// ```no_run
/// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use palisade_client::{WatchOptions, WatchScope};
///
/// let all = || WatchScope::Prefix(String::new());
/// let mut watch = client.watch_leases(all(), WatchOptions::default())?;
/// while watch.position().is_none() {
///     println!("{:?}", watch.next().await?);
/// }
/// let options = watch.position().map(|position| WatchOptions::default().resume(position));
/// drop(watch);
/// let goes_on = client.watch_leases(all(), options.unwrap_or_default())?;
/// # drop(goes_on);
/// # Ok(())
/// # }
/// ```
pub struct LeaseWatch {
    shared: Arc<Shared>,
    scope: WatchScope,
    bookmark_ms: u64,
    /// Nothing heard for so long: the coordinator has lost its store, or is not there any more.
    silence: Duration,
    phase: Phase,
    /// What is left of one message.
    ready: VecDeque<v1::LeaseEvent>,
    place: Place,
    /// The endpoint that had no room.
    avoided: Option<usize>,
    failures: u32,
    /// An interruption was told, and nothing was heard since.
    is_interrupted: bool,
}

impl fmt::Debug for LeaseWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseWatch")
            .field("scope", &self.scope)
            .field("position", &self.position())
            .finish_non_exhaustive()
    }
}

/// What is under way: kept here, so that a future that is dropped loses nothing.
enum Phase {
    Idle,
    Pausing(BoxFuture<'static, ()>),
    Connecting(BoxFuture<'static, Result<Box<Wire>, Refused>>),
    /// With a timer that fires when too long nothing was heard.
    Open(Box<Wire>, BoxFuture<'static, ()>),
}

struct Wire {
    stream: Streaming<v1::WatchLeasesResponse>,
    used: Connected,
}

struct Refused {
    failure: Failure,
    endpoint: Option<usize>,
}

/// What a step of a watch came to.
enum Step {
    Heard(Vec<v1::LeaseEvent>),
    Failed(Refused),
    WentOn,
}

impl LeaseWatch {
    /// The next event. Waits for as long as it takes: a coordinator that does not serve is told once, as
    /// [`WatchEvent::Interrupted`], and tried again, as are the others. Nothing is lost if the future is
    /// dropped.
    ///
    /// # Errors
    /// [`ClientError::Denied`], [`ClientError::Invalid`], [`ClientError::NotServed`] and
    /// [`ClientError::Unexpected`], which trying again seldom cures. All the same it may be called again: after a
    /// pause it goes on from where it was.
    pub async fn next(&mut self) -> Result<WatchEvent, ClientError> {
        loop {
            while let Some(event) = self.ready.pop_front() {
                self.place.hands_on(&event, self.ready.is_empty());
                if let Some(event) = WatchEvent::read(event)? {
                    return Ok(event);
                }
            }
            match self.step().await {
                Step::WentOn => {}
                Step::Heard(events) => {
                    self.failures = 0;
                    self.avoided = None;
                    self.is_interrupted = false;
                    self.ready.extend(self.place.hears(events));
                }
                Step::Failed(refused) => {
                    if let Some(event) = self.failed(refused)? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// What all that was handed on amounts to: another watch of the same scope can go on from here. None
    /// until a snapshot is complete.
    #[must_use]
    pub fn position(&self) -> Option<WatchPosition> {
        self.place.position()
    }

    async fn step(&mut self) -> Step {
        match &mut self.phase {
            Phase::Idle => {
                self.phase = Phase::Connecting(self.connecting());
                Step::WentOn
            }
            Phase::Pausing(pause) => {
                pause.await;
                self.phase = Phase::Idle;
                Step::WentOn
            }
            Phase::Connecting(connecting) => match connecting.await {
                Ok(wire) => {
                    let silence = self.shared.clock.sleep(self.silence);
                    self.phase = Phase::Open(wire, silence);
                    Step::WentOn
                }
                Err(refused) => {
                    self.phase = Phase::Idle;
                    Step::Failed(refused)
                }
            },
            Phase::Open(wire, silence) => {
                let heard = tokio::select! {
                    biased;
                    message = wire.stream.message() => message,
                    () = &mut *silence => Ok(None),
                };
                let failure = match heard {
                    Ok(Some(message)) => {
                        *silence = self.shared.clock.sleep(self.silence);
                        return Step::Heard(message.events);
                    }
                    Ok(None) => Failure::no_answer(true),
                    Err(status) => Failure::from(status),
                };
                let endpoint = Some(wire.used.endpoint());
                if failure.endpoint_at_fault {
                    self.shared.endpoints.give_up(&wire.used);
                }
                self.phase = Phase::Idle;
                Step::Failed(Refused { failure, endpoint })
            }
        }
    }

    fn connecting(&self) -> BoxFuture<'static, Result<Box<Wire>, Refused>> {
        let request = WatchLeasesRequest {
            scope: Some(match &self.scope {
                WatchScope::Resource(name) => {
                    watch_leases_request::Scope::Resource(name.to_string())
                }
                WatchScope::Prefix(text) => watch_leases_request::Scope::Prefix(text.clone()),
            }),
            resume_revision: self.place.resume_revision(),
            bookmark_interval_ms: self.bookmark_ms,
        };
        Box::pin(connect(Arc::clone(&self.shared), request, self.avoided))
    }

    /// Goes on after a pause. What is to be told of it comes once.
    fn failed(&mut self, refused: Refused) -> Result<Option<WatchEvent>, ClientError> {
        let Refused { failure, endpoint } = refused;
        debug!(error = %failure.error, "a watch broke off");
        let doubled = FIRST_PAUSE * (1 << self.failures.min(10));
        let least = match &failure.error {
            ClientError::LimitReached { retry_after, .. } => retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        self.failures = self.failures.saturating_add(1);
        let pause =
            least.min(LONGEST_PAUSE) + self.shared.random.jittered(doubled.min(LONGEST_PAUSE), 500);
        self.phase = Phase::Pausing(self.shared.clock.sleep(pause));
        self.place.breaks_off();
        let cause = match (&failure.error, failure.verdict) {
            (ClientError::Unavailable { cause, .. }, _) => *cause,
            (ClientError::LimitReached { .. }, _) => {
                self.avoided = endpoint;
                Unavailable::Limit
            }
            (_, Verdict::Final) => return Err(failure.error),
            _ => Unavailable::NoAnswer,
        };
        let is_news = !std::mem::replace(&mut self.is_interrupted, true);
        Ok(is_news.then_some(WatchEvent::Interrupted { cause }))
    }
}

async fn connect(
    shared: Arc<Shared>,
    request: WatchLeasesRequest,
    avoided: Option<usize>,
) -> Result<Box<Wire>, Refused> {
    let limit = shared.call_timeout;
    let nowhere = |failure| Refused {
        failure,
        endpoint: None,
    };
    let connecting = shared.endpoints.connected_but(avoided, limit);
    let used = connecting.await.map_err(nowhere)?;
    let mut stub = used.stub.clone();
    // Without a deadline of its own: it goes on for as long as it is wanted.
    let opening = stub.watch_leases(Request::new(request));
    let failure = match within(&shared.clock, limit, opening).await {
        Some(Ok(response)) => {
            shared.endpoints.succeeded(&used);
            let stream = response.into_inner();
            return Ok(Box::new(Wire { stream, used }));
        }
        Some(Err(status)) => Failure::from(status),
        None => Failure::no_answer(true),
    };
    if failure.endpoint_at_fault {
        shared.endpoints.failed(&used).await;
    }
    Err(Refused {
        failure,
        endpoint: Some(used.endpoint()),
    })
}

fn kind(event: &v1::LeaseEvent) -> LeaseEventType {
    event.r#type()
}

/// A message of a watch, whoever sent it: what is handed on never goes back but by a resync or a snapshot.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_events(events: &[v1::LeaseEvent]) {
    let mut place = Place::begin(None);
    for _round in 0..2 {
        let before = place.position();
        let heard = place.hears(events.to_vec());
        assert!(heard.len() <= events.len() + 1);
        let resets = [LeaseEventType::Resync, LeaseEventType::SnapshotEnd];
        let is_reset = heard.iter().any(|event| resets.contains(&kind(event)));
        let last = heard.len().saturating_sub(1);
        for (at, event) in heard.into_iter().enumerate() {
            place.hands_on(&event, at == last);
            let _read = WatchEvent::read(event).map(|event| format!("{event:?}"));
        }
        if let (Some(before), Some(after), false) = (before, place.position(), is_reset) {
            assert!(before.revision() <= after.revision());
        }
        place.breaks_off();
    }
}
