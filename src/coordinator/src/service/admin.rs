//! `palisade.v1.AdminService`: what operators ask for. Who it was and why is logged with what was done.

mod parse;
mod revoke;

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::admin_service_server::AdminService;
use palisade_api::v1::{
    AdvanceGenerationRequest, AdvanceGenerationResponse, DrainRequest, DrainResponse,
    GetStatusRequest, GetStatusResponse, Limits as ToldLimits, RevokeLeaseRequest,
    RevokeLeaseResponse, StoreEndpoint, StoreKind as ToldKind, Usage,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tracing::{info, warn};

use super::deadline::Kind;
use super::error::{About, CallError};
use super::parse::millis;
use super::{Service, answer, reply};
use crate::access::Verb;
use crate::clock::Moment;
use crate::config::Limits;
use crate::domain::Principal;
use crate::health::Health;
use crate::store::{Advance, Endpoint, StoreKind};

/// How often a draining coordinator looks whether its streams have gone.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `palisade.v1.AdminService` beside a service. A clone serves the same.
#[derive(Debug, Clone)]
pub struct Admin {
    service: Service,
    health: Arc<watch::Sender<Health>>,
    since: Moment,
}

impl Admin {
    /// Serves operators of a service that nobody looks after: it counts as ready until it drains.
    #[must_use]
    pub fn beside(service: Service) -> Self {
        Self::new(service, Arc::new(watch::Sender::new(Health::Ready)))
    }

    /// Serves operators of a service whose health is told so.
    pub(crate) fn new(service: Service, health: Arc<watch::Sender<Health>>) -> Self {
        let since = service.leases.clock.now();
        Self {
            service,
            health,
            since,
        }
    }

    async fn try_advance(
        &self,
        request: Request<AdvanceGenerationRequest>,
    ) -> Result<AdvanceGenerationResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.service.begin(&headers, &extensions)?;
        let deadline = self.service.deadline(&headers, Duration::ZERO)?;
        let past = parse::past("past_token", given.past_token)?;
        let (reason, actor) = parse::why(&given.reason, &given.actor)?;
        self.service.access.check_all(&principal, Verb::Admin)?;
        let advance = Advance {
            past,
            is_forced: given.force,
        };
        let store = &self.service.leases.store;
        let made = deadline.run(Kind::Write, store.advance_as(advance)).await?;
        warn!(principal = Principal::name(&principal), %actor, %reason, ?past,
            is_forced = given.force, base = made.generation.base, "an operator advanced the generation");
        Ok(AdvanceGenerationResponse {
            generation: Some(reply::generation(&made.generation)),
            previous: made.previous.as_ref().map(reply::generation),
        })
    }

    async fn try_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<GetStatusResponse, CallError> {
        let (headers, extensions, _) = request.into_parts();
        let principal = self.service.principal(&headers, &extensions)?;
        self.service.access.check_all(&principal, Verb::Admin)?;
        let leases = &self.service.leases;
        let health = *self.health.borrow();
        let status = leases.store.status().await;
        let reasons = health.reason().map(str::to_owned);
        Ok(GetStatusResponse {
            instance_id: hex::encode(leases.process.as_bytes()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ready: health.is_ready(),
            not_ready_reasons: reasons.into_iter().collect(),
            draining: leases.draining.is_cancelled(),
            store: kind(status.kind).into(),
            cluster_id: cluster(status.cluster),
            endpoints: status.endpoints.into_iter().map(endpoint).collect(),
            generation: status.generation.as_ref().map(reply::generation),
            revision: reply::signed(status.revision.0),
            uptime_ms: millis(self.since.until(leases.clock.now())),
            usage: Some(Usage {
                streams: count(self.service.streams()),
                waiters: count(self.service.waiting()),
                watchers: count(self.service.watches()),
                transactions: u32::try_from(status.in_flight).unwrap_or(u32::MAX),
            }),
            limits: Some(limits(&leases.limits)),
        })
    }

    async fn try_drain(&self, request: Request<DrainRequest>) -> Result<DrainResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.service.begin(&headers, &extensions)?;
        let limit = parse::drain_limit("deadline_ms", given.deadline_ms)?;
        let deadline = self.service.deadline(&headers, limit)?;
        let (reason, actor) = parse::why(&given.reason, &given.actor)?;
        self.service.access.check_all(&principal, Verb::Admin)?;
        let leases = &self.service.leases;
        let until = leases.clock.now().after(limit).min(deadline.at());
        info!(principal = Principal::name(&principal), %actor, %reason, ?limit, "an operator drains this coordinator");
        leases.drain.begin(limit);
        self.health.send_replace(Health::Draining);
        leases.draining.cancel();
        while self.service.streams() > 0 && leases.clock.now() < until {
            leases.clock.sleep(LOOK_EVERY).await;
        }
        Ok(DrainResponse {
            streams_ended: leases.drain.ended(),
        })
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn kind(kind: StoreKind) -> ToldKind {
    match kind {
        StoreKind::Etcd => ToldKind::Etcd,
        StoreKind::Embedded => ToldKind::Embedded,
        StoreKind::Memory => ToldKind::Memory,
    }
}

fn cluster(id: Option<u64>) -> String {
    id.map(|id| format!("{id:x}")).unwrap_or_default()
}

fn endpoint(endpoint: Endpoint) -> StoreEndpoint {
    StoreEndpoint {
        address: endpoint.address,
        healthy: endpoint.is_healthy,
        cluster_id: cluster(endpoint.cluster),
        version: endpoint.version.unwrap_or_default(),
    }
}

fn limits(limits: &Limits) -> ToldLimits {
    ToldLimits {
        default_ttl_ms: millis(limits.default_ttl),
        min_ttl_ms: millis(limits.min_ttl),
        max_ttl_ms: millis(limits.max_ttl),
        max_wait_ms: millis(limits.max_wait),
        max_lock_delay_ms: millis(limits.max_lock_delay),
        max_metadata_bytes: count(limits.max_metadata_bytes),
        max_open_requests: count(limits.max_open_requests),
        max_streams: count(limits.max_attach_streams),
        max_waiters: count(limits.max_waiters),
        max_watchers: count(limits.max_watchers),
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn revoke_lease(
        &self,
        request: Request<RevokeLeaseRequest>,
    ) -> Result<Response<RevokeLeaseResponse>, Status> {
        let mut about = About::default();
        answer(self.try_revoke(request, &mut about).await, &about)
    }

    async fn advance_generation(
        &self,
        request: Request<AdvanceGenerationRequest>,
    ) -> Result<Response<AdvanceGenerationResponse>, Status> {
        answer(self.try_advance(request).await, &About::default())
    }

    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        answer(self.try_status(request).await, &About::default())
    }

    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        answer(self.try_drain(request).await, &About::default())
    }
}
