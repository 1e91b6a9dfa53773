//! How a hold or a queue place is given back.

use std::sync::Arc;

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
use crate::random;
use crate::session::core::{Core, Owner, lost_error};

/// What a release did. Either way the hold that was named stands no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Released {
    /// None if this call released the lease; else how it had ended before, as far as it is known.
    pub ended_before: Option<LeaseEnd>,
    /// A place in the queue was given back.
    pub queue_place_given_back: bool,
    /// The store's revision of the release; 0 where there was nothing to do.
    pub revision: i64,
}

/// Which hold of a resource is meant.
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
pub(crate) fn in_background(
    owner: &Arc<Owner>,
    release: Release,
) -> oneshot::Receiver<Result<Released, ClientError>> {
    let (told, outcome) = oneshot::channel();
    // The owner goes with it: the session is not closed, and goes on being renewed, until it is done.
    let owner = Arc::clone(owner);
    let tasks = owner.core.shared.tasks.clone();
    tasks.spawn("give back", async move {
        let outcome = persist(&owner.core, release).await;
        match &outcome {
            Ok(released) => debug!(?released, "given back"),
            Err(error @ ClientError::SessionLost { .. }) => debug!(%error, "not given back"),
            Err(error) => warn!(%error, "not given back; it ends with its session"),
        }
        drop(told.send(outcome));
    });
    outcome
}

/// Gives back, and waits for it no longer than an operation may take; it goes on in the background.
pub(crate) async fn and_wait(
    owner: &Arc<Owner>,
    release: Release,
) -> Result<Released, ClientError> {
    let shared = Arc::clone(&owner.core.shared);
    let outcome = in_background(owner, release);
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

async fn persist(core: &Core, mut release: Release) -> Result<Released, ClientError> {
    let shared = &core.shared;
    loop {
        let running = release.run(shared, &core.credentials, &core.epochs);
        let error = match core.while_held(running).await {
            Err(state) => return Err(lost_error(state)),
            Ok(Ok(released)) => return Ok(released),
            Ok(Err(error)) => error,
        };
        match &error {
            ClientError::Unavailable { .. } | ClientError::LimitReached { .. } => {}
            ClientError::SessionLost { reason } => {
                core.lose(*reason);
                return Err(error);
            }
            _ => return Err(error),
        }
        warn!(%error, resource = %release.resource, "not given back yet");
        release.above = Some(core.epochs.current());
        let pause = random::jittered(shared.call_timeout, 500);
        if let Err(state) = core.while_held(shared.clock.sleep(pause)).await {
            return Err(lost_error(state));
        }
    }
}
