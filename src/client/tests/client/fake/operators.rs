//! What the script answers operators and watchers.

use futures::StreamExt;
use futures::stream::BoxStream;
use palisade_api::v1::admin_service_server::AdminService;
use palisade_api::v1::{self, LeaseEvent, LeaseEventType, WatchLeasesRequest, WatchLeasesResponse};
use palisade_test_support::eventually;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status};

use super::{Call, Fake, Method, PATIENCE, Service};

/// A watch that was begun, and how to tell it something.
#[derive(Debug, Clone)]
pub(crate) struct Watching {
    pub(crate) request: WatchLeasesRequest,
    tell: mpsc::UnboundedSender<Result<WatchLeasesResponse, Status>>,
}

pub(crate) fn event(kind: LeaseEventType, revision: i64, resource: &str) -> LeaseEvent {
    let lease = palisade_api::Lease {
        resource: resource.to_owned(),
        token: revision,
        holder: vec![9; 16],
        label: "worker-7".to_owned(),
        ..palisade_api::Lease::default()
    };
    LeaseEvent {
        r#type: kind.into(),
        revision,
        resource: resource.to_owned(),
        lease: (!resource.is_empty()).then_some(lease),
        reason: String::new(),
    }
}

impl Watching {
    pub(crate) fn tell(&self, events: Vec<LeaseEvent>) {
        drop(self.tell.send(Ok(WatchLeasesResponse { events })));
    }

    pub(crate) fn tells(&self, kind: LeaseEventType, revision: i64, resource: &str) {
        self.tell(vec![event(kind, revision, resource)]);
    }

    pub(crate) fn ends(&self, status: Status) {
        drop(self.tell.send(Err(status)));
    }

    /// Nobody listens any more.
    pub(crate) fn is_over(&self) -> bool {
        self.tell.is_closed()
    }
}

impl Fake {
    /// The watches that were begun, once there are so many.
    pub(crate) async fn watched(&self, count: usize) -> Vec<Watching> {
        let begun = || self.script(|script| script.watches.clone());
        let what = format!("{count} watches");
        eventually(&what, PATIENCE, async || begun().len() >= count)
            .await
            .unwrap();
        begun()
    }

    /// Ends the last watch without a word.
    pub(crate) fn forget_watches(&self) {
        self.script(|script| {
            for watching in &mut script.watches {
                watching.tell = mpsc::unbounded_channel().0;
            }
        });
    }

    pub(crate) fn watch_count(&self) -> usize {
        self.script(|script| script.watches.len())
    }

    /// The next watch is refused.
    pub(crate) fn refuse_watch(&self, status: Status) {
        self.script(|script| script.refused_watches.push_back(status));
    }
}

impl Service {
    pub(super) fn watch(
        &self,
        request: WatchLeasesRequest,
    ) -> Result<BoxStream<'static, Result<WatchLeasesResponse, Status>>, Status> {
        let mut script = self.0.lock().unwrap();
        if let Some(status) = script.refused_watches.pop_front() {
            return Err(status);
        }
        let (tell, told) = mpsc::unbounded_channel();
        script.watches.push(Watching { request, tell });
        Ok(UnboundedReceiverStream::new(told).boxed())
    }

    pub(super) async fn check(
        &self,
        request: v1::CheckTokenRequest,
    ) -> Result<v1::CheckTokenResponse, Status> {
        let token = request.token;
        let call = Call {
            resource: request.resource,
            token,
            ..Call::default()
        };
        self.follow(Method::Check, call).await?;
        let state = match token {
            42 => v1::TokenState::Current,
            ..42 => v1::TokenState::Stale,
            _ => v1::TokenState::Ahead,
        };
        Ok(v1::CheckTokenResponse {
            state: state.into(),
            current_token: 42,
            revision: 77,
        })
    }
}

#[tonic::async_trait]
impl AdminService for Service {
    async fn revoke_lease(
        &self,
        request: Request<v1::RevokeLeaseRequest>,
    ) -> Result<Response<v1::RevokeLeaseResponse>, Status> {
        let request = request.into_inner();
        let call = Call {
            resource: request.resource,
            token: request.token,
            patience_ms: request.cooperative_ms,
            reason: request.reason,
            actor: request.actor,
            ..Call::default()
        };
        self.follow(Method::Revoke, call).await?;
        let (outcome, end) = if self.0.lock().unwrap().not_held {
            (v1::RevokeOutcome::NotHeld, v1::LeaseEnd::Revoked)
        } else {
            (v1::RevokeOutcome::Revoked, v1::LeaseEnd::Revoked)
        };
        Ok(Response::new(v1::RevokeLeaseResponse {
            outcome: outcome.into(),
            end: end.into(),
            revision: 77,
        }))
    }

    async fn advance_generation(
        &self,
        request: Request<v1::AdvanceGenerationRequest>,
    ) -> Result<Response<v1::AdvanceGenerationResponse>, Status> {
        let request = request.into_inner();
        let call = Call {
            token: request.past_token,
            reason: request.reason,
            actor: request.actor,
            ..Call::default()
        };
        self.follow(Method::Advance, call).await?;
        Ok(Response::new(v1::AdvanceGenerationResponse {
            generation: Some(v1::Generation {
                nonce: vec![7; 16],
                base: request.past_token + 1,
                since_revision: 70,
            }),
            previous: None,
        }))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.follow(Method::Status, Call::default()).await?;
        Ok(Response::new(v1::GetStatusResponse {
            instance_id: "a".repeat(32),
            not_ready_reasons: vec!["STORE_UNAVAILABLE".to_owned()],
            store: v1::StoreKind::Etcd.into(),
            endpoints: vec![v1::StoreEndpoint {
                address: "http://etcd:2379".to_owned(),
                healthy: true,
                ..v1::StoreEndpoint::default()
            }],
            uptime_ms: 1500,
            ..v1::GetStatusResponse::default()
        }))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let request = request.into_inner();
        let call = Call {
            patience_ms: request.deadline_ms,
            reason: request.reason,
            actor: request.actor,
            ..Call::default()
        };
        self.follow(Method::Drain, call).await?;
        Ok(Response::new(v1::DrainResponse { streams_ended: 3 }))
    }
}
