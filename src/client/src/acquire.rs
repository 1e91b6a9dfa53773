//! How a resource is asked for, and how what nobody waits for any more is given back.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::acquire_request;
use palisade_api::{AcquireRequest, AcquireResponse};
use palisade_token::{FencingToken, ResourceName};
use tokio::sync::watch;

use crate::calls::{Next, Tries, Try};
use crate::error::ClientError;
use crate::error::status::Failure;
use crate::info::{LeaseInfo, Metadata, PreviousLease};
use crate::lease::{Lease, LeaseNews, Way};
use crate::random::Random;
use crate::release::{self, Hold, Release};
use crate::session::core::{Core, Owner, lost_error};
use crate::session::known::Knows;
use crate::session::milliseconds;
use crate::stream;

/// A call that waits longer is ended and sent again, so that no call lives for hours; its place in the
/// queue stays.
const LONGEST_CALL: Duration = Duration::from_secs(30);
/// Down to this many thousandths of it, so that a session's calls do not end all at once.
const LONGEST_CALL_PERMILLE: u32 = 800;

/// What is asked for with a resource.
///
/// ```
/// use std::time::Duration;
/// use palisade_client::AcquireOptions;
///
/// let options = AcquireOptions::default()
///     .wait(Duration::from_secs(60))
///     .lock_delay(Duration::from_secs(5))
///     .metadata(b"pid 4711");
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct AcquireOptions {
    pub(crate) wait: Duration,
    pub(crate) lock_delay: Duration,
    pub(crate) metadata: Metadata,
    pub(crate) progress: Option<watch::Sender<Option<QueuePlace>>>,
}

/// Where a request stands in the queue of a resource.
///
/// ```
/// use palisade_client::QueuePlace;
///
/// fn line(place: &QueuePlace) -> String {
///     format!("{} before this one, {:?} left to wait", place.ahead, place.wait_left)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuePlace {
    /// How many requests are before it.
    pub ahead: u32,
    /// What is left of its wait.
    pub wait_left: Duration,
    /// The present holder's token, where there is one.
    pub holder: Option<FencingToken>,
}

impl AcquireOptions {
    /// How long to wait for the resource, in whole milliseconds, rounded up; not at all unless set. At most
    /// 1 h unless the coordinator is configured otherwise. Waiters are served in order (I11).
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// For how long nobody gets the resource after this lease expired or was revoked: not at all unless set,
    /// at most 5 min. For resources without a guard; it proves nothing.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = delay;
        self
    }

    /// Opaque bytes for whoever may read the lease: at most 4 KiB, never logged.
    pub fn metadata(mut self, metadata: impl Into<Vec<u8>>) -> Self {
        self.metadata = Metadata(metadata.into());
        self
    }

    /// Where to tell the place in the queue, once there is one and when it moves, though not at every step.
    /// Told on sessions with [`Transport::Stream`](crate::Transport::Stream) only.
    ///
    /// ```
    /// use palisade_client::AcquireOptions;
    /// use tokio::sync::watch;
    ///
    /// let (place, mut moved) = watch::channel(None);
    /// let options = AcquireOptions::default().progress(place);
    /// # let _ = (options, moved.borrow_and_update());
    /// ```
    pub fn progress(mut self, place: watch::Sender<Option<QueuePlace>>) -> Self {
        self.progress = Some(place);
        self
    }
}

/// A request that may be granted without anybody knowing: dropped, it is given back (I5).
#[derive(Debug)]
struct Claim {
    owner: Arc<Owner>,
    resource: ResourceName,
    request_id: String,
    /// The largest epoch that it was sent with; none if it was not sent.
    sent: Option<u64>,
    /// Goes on to the lease.
    knows: Option<Knows>,
}

impl Claim {
    fn decided(&mut self) {
        self.sent = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(epoch) = self.sent {
            let hold = Hold::Request(std::mem::take(&mut self.request_id));
            let release = Release::new(self.resource.clone(), hold).above(epoch);
            release::in_background(&self.owner, release, self.knows.take());
        }
    }
}

pub(crate) async fn acquire(
    owner: &Arc<Owner>,
    resource: &ResourceName,
    options: AcquireOptions,
) -> Result<Lease, ClientError> {
    match &owner.core.attached {
        Some(attached) => stream::acquire(owner, attached, resource, options).await,
        None => Box::pin(by_calls(owner, resource, options)).await,
    }
}

async fn by_calls(
    owner: &Arc<Owner>,
    resource: &ResourceName,
    options: AcquireOptions,
) -> Result<Lease, ClientError> {
    let core = &owner.core;
    let shared = &core.shared;
    let request = Asked::new(resource, options, &shared.random)?;
    let mut claim = Claim {
        owner: Arc::clone(owner),
        resource: resource.clone(),
        request_id: request.request_id.clone(),
        sent: None,
        knows: Some(core.known.begin(resource, &request.request_id)),
    };
    let wait_end = shared.clock.now().after(request.wait);
    let deadline = wait_end.after(shared.operation_timeout);
    let mut tries = Tries::new(shared, &core.epochs);
    loop {
        let wait = shared.clock.now().until(wait_end);
        let whole = wait.saturating_add(shared.call_timeout);
        let longest = shared.random.jittered(LONGEST_CALL, LONGEST_CALL_PERMILLE);
        let limit = whole.min(longest.max(shared.call_timeout));
        let goes_on = limit < whole;
        let begun = shared.clock.now();
        let next = tries.next_try();
        let message = request.message(core, next, wait)?;
        claim.sent = Some(next.epoch);
        let asking = shared.try_once(limit, !goes_on, message, |mut stub, request| async move {
            stub.acquire(request).await
        });
        let failure = match core.while_held(asking).await {
            Err(state) => return Err(lost_error(state)),
            Ok(Ok(answer)) => return granted(&mut claim, answer.body),
            Ok(Err(failure)) => failure,
        };
        // The coordinator may cut it short a little earlier than the clock here.
        if goes_on && failure.is_no_answer() && begun.until(shared.clock.now()) >= limit / 2 {
            tries.go_on();
            continue;
        }
        let may_have_happened = failure.may_have_happened;
        let error = match core.while_held(tries.after(failure, deadline)).await {
            Err(state) => return Err(lost_error(state)),
            Ok(Next::Retry) => continue,
            Ok(Next::GiveUp(error)) => error,
        };
        let unknown = tries.may_have_happened();
        if !may_have_happened && is_decided(&error, unknown, request.wait.is_zero()) {
            claim.decided();
        }
        if let ClientError::SessionLost { reason } = &error {
            core.lose(*reason);
        }
        return Err(request.as_asked(error));
    }
}

/// Whether nothing of the request can be granted any more, or stand in the queue.
pub(crate) fn is_decided(error: &ClientError, earlier_unknown: bool, is_try: bool) -> bool {
    match error {
        ClientError::WaitExpired { .. }
        | ClientError::Cancelled
        | ClientError::SessionLost { .. } => true,
        ClientError::Held { .. } => is_try || !earlier_unknown,
        error => !earlier_unknown && !error.may_have_happened(),
    }
}

fn granted(claim: &mut Claim, answer: AcquireResponse) -> Result<Lease, ClientError> {
    let info = match answer.lease {
        Some(lease) => LeaseInfo::try_from(lease)?,
        None => return Err(Failure::unexpected("a grant without a lease").error),
    };
    if info.grant.resource != claim.resource || info.request_id != claim.request_id {
        return Err(Failure::unexpected("a grant of another request").error);
    }
    let state = claim.owner.core.state();
    if !state.is_held() {
        return Err(lost_error(state));
    }
    claim.decided();
    let previous = answer.previous.map(PreviousLease::from);
    let news = Arc::new(LeaseNews::of_session(&claim.owner.core.ended));
    let owner = Arc::clone(&claim.owner);
    let way = Way::Calls(claim.knows.take());
    Ok(Lease::granted(owner, info, previous, news, way))
}

/// One request, the same in each of its tries but for wait, attempt and epoch.
#[derive(Debug)]
struct Asked {
    request_id: String,
    resource: ResourceName,
    wait: Duration,
    lock_delay_ms: u64,
    metadata: Vec<u8>,
}

impl Asked {
    fn new(
        resource: &ResourceName,
        options: AcquireOptions,
        random: &Random,
    ) -> Result<Self, ClientError> {
        Ok(Self {
            request_id: random.id(),
            resource: resource.clone(),
            wait: options.wait,
            lock_delay_ms: milliseconds("lock_delay", options.lock_delay)?,
            metadata: options.metadata.0,
        })
    }

    fn message(
        &self,
        core: &Core,
        next: Try,
        wait: Duration,
    ) -> Result<AcquireRequest, ClientError> {
        Ok(AcquireRequest {
            owner: Some(acquire_request::Owner::Session(
                core.credentials.at(next.epoch),
            )),
            request_id: self.request_id.clone(),
            resource: self.resource.to_string(),
            wait_ms: milliseconds("wait", wait)?,
            lock_delay_ms: self.lock_delay_ms,
            metadata: self.metadata.clone(),
            attempt: next.attempt,
        })
    }

    /// The last tries of a request that waited do not wait any more: what they meet is the wait's end.
    fn as_asked(&self, error: ClientError) -> ClientError {
        match error {
            ClientError::Held { resource, .. } if !self.wait.is_zero() => {
                ClientError::WaitExpired { resource }
            }
            error => error,
        }
    }
}
