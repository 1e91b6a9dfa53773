//! A coordinator, a call for each step.

use std::time::Duration;

use palisade_api::v1::{
    AcquireRequest, CloseSessionRequest, OpenSessionRequest, ReleaseRequest, RenewSessionRequest,
    acquire_request, release_request,
};
use palisade_api::{ReleaseOutcome, SessionRef};
use tokio::task::JoinSet;

use super::WAIT_MS;
use super::failure::refused;
use super::opening::{opening, renewal_interval};
use super::rig::Caller;
use crate::clock;
use crate::failure::Failure;

/// A session that calls keep alive; no longer once this is dropped.
#[derive(Debug)]
pub(crate) struct UnarySession {
    caller: Caller,
    session: SessionRef,
    ttl: Duration,
    renewing: JoinSet<()>,
}

impl UnarySession {
    pub(crate) async fn open(mut caller: Caller, ttl: Duration) -> Result<Self, Failure> {
        let opening = opening(ttl)?;
        let secret = opening.secret.clone();
        let asked = OpenSessionRequest {
            opening: Some(opening),
        };
        let opened = caller.open_session(asked).await;
        let opened = opened.map_err(|status| refused("no session was opened", &status))?;
        let opened = opened.into_inner();
        Ok(Self {
            caller,
            session: SessionRef {
                session_id: opened.session_id,
                secret,
                epoch: 1,
            },
            ttl: Duration::from_millis(opened.ttl_ms),
            renewing: JoinSet::new(),
        })
    }

    /// Renews it from now on, each third of its TTL.
    pub(crate) fn keep_alive(&mut self) {
        let (mut caller, session) = (self.caller.clone(), self.session.clone());
        let interval = renewal_interval(self.ttl);
        self.renewing.spawn(async move {
            loop {
                clock::pause(interval).await;
                let session = Some(session.clone());
                // A session that ends is seen by whoever releases its leases.
                if let Err(error) = caller
                    .renew_session(RenewSessionRequest {
                        session,
                        ..Default::default()
                    })
                    .await
                {
                    tracing::warn!(%error, "a renewal failed");
                }
            }
        });
    }

    pub(crate) async fn renew(&mut self) -> Result<(), tonic::Status> {
        let session = Some(self.session.clone());
        let renewed = self.caller.renew_session(RenewSessionRequest {
            session,
            ..Default::default()
        });
        renewed.await.map(drop)
    }

    pub(crate) fn holder(&self, resource: String, slot: usize) -> UnaryHolder {
        UnaryHolder {
            caller: self.caller.clone(),
            session: self.session.clone(),
            resource,
            slot,
            turn: 0,
            token: 0,
        }
    }

    pub(crate) async fn close(mut self) -> Result<(), Failure> {
        self.renewing.shutdown().await;
        let session = Some(self.session);
        let closed = self.caller.close_session(CloseSessionRequest { session });
        let closed = closed.await.map(drop);
        closed.map_err(|status| refused("a session was not closed", &status))
    }
}

/// One resource, taken again and again.
#[derive(Debug)]
pub(crate) struct UnaryHolder {
    caller: Caller,
    session: SessionRef,
    resource: String,
    slot: usize,
    turn: u64,
    token: i64,
}

impl UnaryHolder {
    pub(crate) async fn acquire(&mut self) -> Result<(), Failure> {
        self.turn += 1;
        let asked = AcquireRequest {
            owner: Some(acquire_request::Owner::Session(self.session.clone())),
            request_id: format!("{}-{}", self.slot, self.turn),
            resource: self.resource.clone(),
            wait_ms: WAIT_MS,
            ..AcquireRequest::default()
        };
        let granted = self.caller.acquire(asked).await;
        let granted = granted.map_err(|status| refused("an acquire was refused", &status))?;
        self.token = granted.into_inner().lease.map_or(0, |lease| lease.token);
        Ok(())
    }

    pub(crate) async fn release(&mut self) -> Result<(), Failure> {
        let asked = ReleaseRequest {
            session: Some(self.session.clone()),
            resource: self.resource.clone(),
            hold: Some(release_request::Hold::Token(self.token)),
            refused_by_fence: 0,
        };
        let released = self.caller.release(asked).await;
        let released = released.map_err(|status| refused("a release was refused", &status))?;
        match released.into_inner().outcome() {
            ReleaseOutcome::Released => Ok(()),
            _ => Err(Failure::other("a lease ended before its release")),
        }
    }
}
