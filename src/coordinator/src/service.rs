//! The gRPC face: parse, ask the store, answer.

mod admin;
mod attach;
mod backoff;
mod counted;
mod deadline;
mod drain;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lease;
mod news;
mod page;
mod parse;
mod reply;
mod rpc;
mod status;
mod waiters;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::{
    CheckTokenRequest, CheckTokenResponse, CloseSessionRequest, CloseSessionResponse,
    GetLeaseRequest, GetLeaseResponse, ListLeasesRequest, ListLeasesResponse, OpenSessionRequest,
    OpenSessionResponse, RenewSessionRequest, RenewSessionResponse, TokenState,
};
use palisade_api::{AcquireRequest, AcquireResponse, ReleaseRequest, ReleaseResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status};
use tracing::error;

use self::attach::Streams;
use self::deadline::Deadline;
use self::drain::Drain;
use self::error::About;
use self::lease::{Leases, Living};
use self::news::News;
use self::parse::{Credentials, required};
use self::waiters::Waiters;
use crate::access::{Access, Verb};
use crate::clock::Clock;
use crate::config::{Limits, Timeouts};
use crate::domain::{Acquire, Caller, Principal, Release};
use crate::entropy::Entropy;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::tasks::Tasks;

pub use self::admin::Admin;
pub(crate) use self::error::{BadField, CallError};
pub(crate) use self::parse::{bad, shown};

/// `palisade.v1.LeaseService` on a store. A clone serves the same.
#[derive(Debug, Clone)]
pub struct Service {
    leases: Arc<Leases>,
    streams: Arc<Streams>,
    access: Access,
    /// Room for watches.
    watches: Arc<Semaphore>,
    /// Room for unary calls.
    calls: Arc<Semaphore>,
}

/// What a service is made of, besides its settings.
#[derive(Debug, Clone)]
pub struct Parts {
    /// What keeps the state.
    pub store: Arc<dyn Store>,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where random numbers come from.
    pub entropy: Arc<dyn Entropy>,
    /// Where tasks run.
    pub tasks: Tasks,
    /// Where what is done is counted.
    pub metrics: Metrics,
}

impl Service {
    /// Starts to serve. Once `draining` is cancelled, nothing new begins and nobody waits any longer; what
    /// is held stays held.
    #[must_use]
    pub fn start(
        parts: Parts,
        limits: Limits,
        timeouts: Timeouts,
        draining: CancellationToken,
    ) -> Self {
        let bounds = (limits.max_waiters, timeouts.sweep);
        let Parts {
            store,
            clock,
            entropy,
            tasks,
            metrics,
        } = parts;
        let calls = limits.max_calls.min(Semaphore::MAX_PERMITS);
        let watches = limits.max_watchers.min(Semaphore::MAX_PERMITS);
        let waiters = Waiters::start(&store, &clock, &entropy, &tasks, bounds);
        let news = News::start(
            (&store, &clock),
            (&entropy, &metrics),
            &tasks,
            waiters.clone(),
        );
        let streams = Streams::start(limits.max_attach_streams, &tasks, draining.clone());
        let process = entropy.nonce();
        let leases = Leases {
            store,
            clock,
            entropy,
            process,
            limits,
            timeouts,
            waiters,
            metrics,
            news,
            draining,
            drain: Drain::default(),
        };
        Self {
            leases: Arc::new(leases),
            streams,
            access: Access::open(),
            watches: Arc::new(Semaphore::new(watches)),
            calls: Arc::new(Semaphore::new(calls)),
        }
    }

    /// The same service for those whom `access` lets in. Without it everybody is.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Self { access, ..self }
    }

    /// What lets callers in: every call asks it, whatever protocol it comes by.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// How many calls wait here for a resource.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.leases.waiters.count()
    }

    /// How many sessions' streams are open here.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.count()
    }

    fn deadline(&self, headers: &MetadataMap, wait: Duration) -> Result<Deadline, BadField> {
        let leases = &self.leases;
        Deadline::of(headers, &leases.clock, &leases.timeouts, wait)
    }

    /// Lets a unary call in. It counts until what is returned beside its principal is dropped.
    pub(crate) fn begin(
        &self,
        headers: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<(Principal, OwnedSemaphorePermit), CallError> {
        let principal = self.principal(headers, extensions)?;
        let limit = Arc::clone(&self.calls).try_acquire_owned();
        let counted = limit.map_err(|_| CallError::Limit {
            limit: "calls",
            bound: self.leases.limits.max_calls.try_into().unwrap_or(u64::MAX),
        })?;
        Ok((principal, counted))
    }

    /// Who calls. This comes first in each call: who is not let in is told nothing about what was sent.
    pub(crate) fn principal(
        &self,
        headers: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Principal, CallError> {
        Ok(self.access.authenticate(headers.as_ref(), extensions)?)
    }

    fn caller(&self, credentials: Credentials, principal: Principal, is_retry: bool) -> Caller {
        Caller {
            session: credentials.session,
            principal,
            secret: credentials.secret,
            epoch: credentials.epoch,
            is_retry,
            process: self.leases.process,
            mark: None,
        }
    }
}

fn answer<T>(result: Result<T, CallError>, about: &About) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| {
        status::log(&error, about);
        status::status(&error, about)
    })
}

/// The status of what stands in a call's way before it begins, whatever face it came by.
pub(crate) fn refuse(error: &CallError) -> Status {
    let about = About::default();
    status::log(error, &about);
    status::status(error, &about)
}

impl Service {
    async fn try_open(
        &self,
        request: Request<OpenSessionRequest>,
        about: &mut About,
    ) -> Result<OpenSessionResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.begin(&headers, &extensions)?;
        let deadline = self.deadline(&headers, Duration::ZERO)?;
        let opening = required("opening", given.opening)?;
        let leases = &self.leases;
        let opening = parse::opening(&opening, &leases.limits, leases.store.least_ttl())?;
        self.access.check_any(&principal, Verb::Acquire)?;
        let living = leases.open(&opening, &principal, &deadline).await?;
        about.session = Some(living.session);
        Ok(OpenSessionResponse {
            session_id: living.session.to_string(),
            ttl_ms: parse::millis(living.ttl),
            ttl_left_ms: parse::millis(leases.left(living.until)),
        })
    }

    async fn try_renew(
        &self,
        request: Request<RenewSessionRequest>,
        about: &mut About,
    ) -> Result<RenewSessionResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.begin(&headers, &extensions)?;
        let deadline = self.deadline(&headers, Duration::ZERO)?;
        let credentials = parse::session(&required("session", given.session)?)?;
        about.session = Some(credentials.session);
        let caller = self.caller(credentials, principal, false);
        let living = self.leases.renew(&caller, &deadline).await?;
        let found = match given.list_open_requests {
            true => self.leases.holdings(caller.session, &deadline).await,
            false => Vec::new(),
        };
        Ok(RenewSessionResponse {
            ttl_ms: parse::millis(living.ttl),
            ttl_left_ms: parse::millis(self.leases.left(living.until)),
            open_requests: found.iter().map(reply::open_request).collect(),
        })
    }

    async fn try_close(
        &self,
        request: Request<CloseSessionRequest>,
        about: &mut About,
    ) -> Result<CloseSessionResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.begin(&headers, &extensions)?;
        let deadline = self.deadline(&headers, Duration::ZERO)?;
        let credentials = parse::session(&required("session", given.session)?)?;
        about.session = Some(credentials.session);
        let caller = self.caller(credentials, principal, false);
        self.leases.close(&caller, &deadline).await?;
        Ok(CloseSessionResponse {})
    }

    async fn try_acquire(
        &self,
        request: Request<AcquireRequest>,
        about: &mut About,
    ) -> Result<AcquireResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.begin(&headers, &extensions)?;
        let leases = &self.leases;
        let wait = parse::wait("wait_ms", given.wait_ms, &leases.limits)?;
        let deadline = self.deadline(&headers, wait)?;
        let resource = parse::resource("resource", &given.resource)?;
        about.resource = Some(resource.clone());
        let request = parse::request_id("request_id", &given.request_id)?;
        about.request = Some(request.clone());
        let metadata = parse::metadata("metadata", given.metadata, &leases.limits)?;
        let lock_delay = parse::lock_delay("lock_delay_ms", given.lock_delay_ms, &leases.limits)?;
        let owner = required("owner", given.owner)?;
        self.access.check(&principal, Verb::Acquire, &resource)?;
        let (caller, opened) = self
            .owner(owner, principal, given.attempt, &deadline)
            .await?;
        about.session = Some(caller.session);
        let acquire = Acquire {
            previous: leases.news.previous(&resource),
            caller,
            resource,
            request,
            metadata,
            waits: !wait.is_zero(),
            max_waiters: leases.limits.max_waiters_per_resource,
            lock_delay_ms: parse::millis(lock_delay),
        };
        let hold = leases.acquire(&acquire, wait, &deadline).await?;
        let session = acquire.caller.session;
        // What was known before a wait may be over, while renewals went on.
        let until = match opened {
            Some(living) if !leases.left(living.until).is_zero() => Some(living.until),
            Some(_) | None => leases.living_until(session, &deadline).await?,
        };
        let left = until.map_or(Duration::ZERO, |until| leases.left(until));
        let ttl = opened.map(|living| living.ttl);
        reply::acquired(&hold, ttl, left)
    }

    /// The session that acquires: one that is named, or one that is opened once nothing else is wrong.
    async fn owner(
        &self,
        owner: Owner,
        principal: Principal,
        attempt: u32,
        deadline: &Deadline,
    ) -> Result<(Caller, Option<Living>), CallError> {
        let is_retry = attempt > 1;
        match owner {
            Owner::Session(session) => {
                let credentials = parse::session(&session)?;
                Ok((self.caller(credentials, principal, is_retry), None))
            }
            Owner::Opening(opening) => {
                let leases = &self.leases;
                let mut opening =
                    parse::opening(&opening, &leases.limits, leases.store.least_ttl())?;
                let epoch = opening.epoch;
                if is_retry {
                    // Opened below its epoch, so that the acquire raises it like that of any retry,
                    // whether its first try had opened the session or not.
                    opening.epoch = epoch.saturating_sub(1).max(1);
                }
                let living = leases.open(&opening, &principal, deadline).await?;
                let credentials = Credentials {
                    session: living.session,
                    secret: opening.secret,
                    epoch,
                };
                Ok((self.caller(credentials, principal, is_retry), Some(living)))
            }
        }
    }

    async fn try_release(
        &self,
        request: Request<ReleaseRequest>,
        about: &mut About,
    ) -> Result<ReleaseResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.begin(&headers, &extensions)?;
        let deadline = self.deadline(&headers, Duration::ZERO)?;
        let credentials = parse::session(&required("session", given.session)?)?;
        about.session = Some(credentials.session);
        let resource = parse::resource("resource", &given.resource)?;
        about.resource = Some(resource.clone());
        let hold = parse::hold(given.hold)?;
        let fence = parse::fence("refused_by_fence", given.refused_by_fence)?;
        self.access.check(&principal, Verb::Acquire, &resource)?;
        let release = Release {
            caller: self.caller(credentials, principal, false),
            resource,
            hold,
        };
        let released = self.leases.release(&release, fence, &deadline).await?;
        Ok(reply::released(&released))
    }

    async fn try_get(
        &self,
        request: Request<GetLeaseRequest>,
        about: &mut About,
    ) -> Result<GetLeaseResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.begin(&headers, &extensions)?;
        let deadline = self.deadline(&headers, Duration::ZERO)?;
        let resource = parse::resource("resource", &given.resource)?;
        about.resource = Some(resource.clone());
        self.access.check(&principal, Verb::Read, &resource)?;
        let queue_size = parse::queue_size("queue_size", given.queue_size)?;
        let asked = self
            .leases
            .lease_and_queue(&resource, queue_size, &deadline);
        let standing = asked.await?;
        let previous = self.leases.news.previous(&resource);
        reply::standing(&standing, previous.as_ref())
    }

    async fn try_check(
        &self,
        request: Request<CheckTokenRequest>,
        about: &mut About,
    ) -> Result<CheckTokenResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.begin(&headers, &extensions)?;
        let deadline = self.deadline(&headers, Duration::ZERO)?;
        let resource = parse::resource("resource", &given.resource)?;
        about.resource = Some(resource.clone());
        let token = parse::token("token", given.token)?;
        self.access.check(&principal, Verb::Read, &resource)?;
        let standing = self.leases.lease(&resource, &deadline).await?;
        let checked = reply::checked(&standing, token);
        if checked.state() == TokenState::Ahead {
            self.leases.metrics.token_ahead();
            error!(%resource, %token, revision = %standing.revision,
                "a token is above any that this store can have issued: its history went backwards, or the \
                 token is not ours");
        }
        Ok(checked)
    }

    async fn try_list(
        &self,
        request: Request<ListLeasesRequest>,
    ) -> Result<ListLeasesResponse, CallError> {
        let (headers, extensions, given) = request.into_parts();
        let (principal, _counted) = self.begin(&headers, &extensions)?;
        let deadline = self.deadline(&headers, Duration::ZERO)?;
        let prefix = page::prefix("prefix", &given.prefix)?;
        let size = page::size("page_size", given.page_size)?;
        let after = page::after("page_token", prefix, &given.page_token)?;
        let scope = self.access.scope(&principal, Verb::Read, prefix)?;
        let listed = self.leases.leases(&scope, after.as_ref(), size, &deadline);
        Ok(reply::page(prefix, listed.await?))
    }
}
