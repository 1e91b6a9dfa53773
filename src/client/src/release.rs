//! How a hold or a queue place is given back.

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::release_request;
use palisade_api::{ReleaseOutcome, ReleaseRequest, ReleaseResponse};
use palisade_token::{FencingToken, ResourceName};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::calls::{Shared, Tries};
use crate::clock::within;
use crate::credentials::Credentials;
use crate::epoch::Epochs;
use crate::error::{ClientError, Unavailable};
use crate::info::LeaseEnd;
use crate::session::core::{Core, Owner, lost_error};
use crate::session::known::Knows;

#[cfg(test)]
mod tests;

/// The pause before what was not given back is tried again, doubled with each further try...
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// ...up to this share of the TTL: a renewal's interval (I5).
const PAUSES_PER_TTL: u32 = 3;

/// What a release did. Either way the hold that was named stands no more.
///
/// ```no_run
/// # async fn example(lease: palisade_client::Lease)
/// # -> Result<(), palisade_client::ClientError> {
/// let released = lease.release().await?;
/// match released.ended_before {
///     None => println!("released: the next waiter gets it"),
///     Some(end) => println!("had ended before: {end:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Released {
    /// None if this call released the lease; else how it had ended before, as far as it is known.
    pub ended_before: Option<LeaseEnd>,
    /// A place in the queue was given back.
    pub queue_place_given_back: bool,
    /// The store's revision of the release; 0 where there was nothing to do, and over a stream, which does not
    /// tell it.
    pub revision: i64,
}

impl Released {
    /// The hold had ended before.
    pub(crate) fn before(end: LeaseEnd) -> Self {
        Self {
            ended_before: Some(end),
            queue_place_given_back: false,
            revision: 0,
        }
    }
}

/// Which hold of a resource is meant.
///
/// ```
/// use palisade_client::Hold;
///
/// let held = Hold::Token("42".parse()?);
/// let held_or_queued = Hold::Request("0123456789abcdef".to_owned());
/// assert_ne!(held, held_or_queued);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hold {
    /// The one with this token.
    Token(FencingToken),
    /// That of this request, or its place in the queue.
    Request(String),
}

/// What is to be given back.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    resource: ResourceName,
    hold: Hold,
    refused_by_fence: Option<FencingToken>,
    above: Option<u64>,
}

impl Release {
    pub(crate) fn new(resource: ResourceName, hold: Hold) -> Self {
        Self {
            resource,
            hold,
            refused_by_fence: None,
            above: None,
        }
    }

    pub(crate) fn refused_by(mut self, fence: Option<FencingToken>) -> Self {
        self.refused_by_fence = fence;
        self
    }

    /// With an epoch above this one, so that no copy sent with it can be granted afterwards (I4).
    pub(crate) fn above(mut self, epoch: u64) -> Self {
        self.above = Some(epoch);
        self
    }

    fn message(&self, credentials: &Credentials, epoch: u64) -> ReleaseRequest {
        ReleaseRequest {
            session: Some(credentials.at(epoch)),
            resource: self.resource.to_string(),
            hold: Some(match &self.hold {
                Hold::Token(token) => release_request::Hold::Token(token.as_i64()),
                Hold::Request(id) => release_request::Hold::RequestId(id.clone()),
            }),
            refused_by_fence: self.refused_by_fence.map_or(0, FencingToken::as_i64),
        }
    }

    /// Tries for as long as an operation may take.
    pub(crate) async fn run(
        &self,
        shared: &Shared,
        credentials: &Credentials,
        epochs: &Epochs,
    ) -> Result<Released, ClientError> {
        let tries = match self.above {
            Some(epoch) => Tries::above(shared, epochs, epoch),
            None => Tries::new(shared, epochs),
        };
        let answer = shared
            .call(
                tries,
                |next| self.message(credentials, next.epoch),
                |mut stub, request| async move { stub.release(request).await },
            )
            .await?;
        Ok(Released::from(answer.body))
    }
}

impl From<ReleaseResponse> for Released {
    fn from(answer: ReleaseResponse) -> Self {
        let by_this_call = answer.outcome() == ReleaseOutcome::Released;
        Self {
            ended_before: (!by_this_call).then(|| answer.end().into()),
            queue_place_given_back: answer.queue_place_given_back,
            revision: answer.revision,
        }
    }
}

/// Gives back in a task of its own, for as long as the session stands; when it has ended, so has the hold.
/// Tells the outcome, or of a refusal that may be for long.
pub(crate) fn in_background(
    owner: &Arc<Owner>,
    release: Release,
    knows: Option<Knows>,
) -> oneshot::Receiver<Result<Released, ClientError>> {
    let (told, outcome) = oneshot::channel();
    let tasks = owner.core.shared.tasks.clone();
    let owner = Arc::clone(owner);
    tasks.spawn("give back", async move {
        persist(owner, release, told).await;
        // Until then no renewal takes it for what nobody knows of.
        drop(knows);
    });
    outcome
}

/// Gives back, and waits for it no longer than an operation may take; it goes on in the background.
pub(crate) async fn and_wait(
    owner: &Arc<Owner>,
    release: Release,
    knows: Option<Knows>,
) -> Result<Released, ClientError> {
    let shared = Arc::clone(&owner.core.shared);
    let outcome = in_background(owner, release, knows);
    match within(&shared.clock, shared.operation_timeout, outcome).await {
        Some(Ok(outcome)) => outcome,
        Some(Err(_)) => Err(ClientError::NoRuntime),
        None => Err(ClientError::Unavailable {
            cause: Unavailable::NoAnswer,
            may_have_happened: true,
            retry_after: None,
            source: None,
        }),
    }
}

/// `owner` goes with it: the session is not closed, and goes on being renewed, until it is done or turns
/// out to be difficult. From there on others must keep the session: if nobody does, it is closed,
/// which gives everything back.
async fn persist(
    owner: Arc<Owner>,
    mut release: Release,
    told: oneshot::Sender<Result<Released, ClientError>>,
) {
    let core = Arc::clone(&owner.core);
    let (mut owner, mut told) = (Some(owner), Some(told));
    let tell = |told: &mut Option<oneshot::Sender<_>>, outcome| {
        drop(told.take().map(|told| told.send(outcome)));
    };
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match try_once(&core, &release).await {
            Ok(released) => {
                debug!(?released, "given back");
                return tell(&mut told, Ok(released));
            }
            Err(error) => error,
        };
        let (resource, later) = (&release.resource, after(&error));
        match (later, &owner) {
            (Later::Over, _) => debug!(%error, %resource, "nothing to give back"),
            (_, Some(_)) => warn!(%error, %resource, "not given back yet"),
            (_, None) => debug!(%error, %resource, "not given back yet"),
        }
        match later {
            Later::Over => return tell(&mut told, Err(error)),
            Later::Soon => {}
            Later::Perhaps => tell(&mut told, Err(error)),
        }
        drop(owner.take());
        release.above = Some(core.epochs.current());
        pause = pause.min(core.ttl / PAUSES_PER_TTL);
        let shared = &core.shared;
        let slept = shared.clock.sleep(shared.random.jittered(pause, 500));
        if let Err(state) = core.while_held(slept).await {
            return tell(&mut told, Err(lost_error(state)));
        }
        pause *= 2;
    }
}

pub(crate) async fn try_once(core: &Core, release: &Release) -> Result<Released, ClientError> {
    let running = release.run(&core.shared, &core.credentials, &core.epochs);
    let outcome = core.while_held(running).await.map_err(lost_error)?;
    if let Err(ClientError::SessionLost { reason }) = &outcome {
        core.lose(*reason);
    }
    outcome
}

/// What trying a release again may come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Later {
    /// Nothing: there is nothing to give back, or it cannot be named.
    Over,
    /// It will be done.
    Soon,
    /// It may be done: permissions change, and other coordinators answer better.
    Perhaps,
}

pub(crate) fn after(error: &ClientError) -> Later {
    match error {
        ClientError::SessionLost { .. }
        | ClientError::StaleToken { .. }
        | ClientError::FenceAhead { .. }
        | ClientError::Invalid { .. } => Later::Over,
        ClientError::Unavailable { .. } | ClientError::LimitReached { .. } => Later::Soon,
        _ => Later::Perhaps,
    }
}
