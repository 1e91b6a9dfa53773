//! A coordinator that answers as a script says, and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::BoxStream;
use palisade_api::v1::admin_service_server::AdminServiceServer;
use palisade_api::v1::lease_service_server::{LeaseService, LeaseServiceServer};
use palisade_api::v1::{self, acquire_request, release_request};
use palisade_api::{AcquireRequest, AcquireResponse, ReleaseRequest, ReleaseResponse, SessionRef};
use palisade_test_support::{eventually, within};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

mod operators;

pub(crate) use self::operators::{Watching, event};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const SESSION: &str = "00000000000000ab";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Method {
    Open,
    Renew,
    Close,
    Acquire,
    Release,
    Get,
    List,
    Check,
    Revoke,
    Advance,
    Status,
    Drain,
}

/// What a call said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) session_id: String,
    pub(crate) secret: Vec<u8>,
    pub(crate) epoch: u64,
    pub(crate) open_id: String,
    pub(crate) request_id: String,
    pub(crate) attempt: u32,
    pub(crate) resource: String,
    pub(crate) wait_ms: u64,
    pub(crate) token: i64,
    pub(crate) fence: i64,
    pub(crate) patience_ms: u64,
    pub(crate) reason: String,
    pub(crate) actor: String,
}

/// What to do with a call instead of answering it well.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Refuse(Status),
    /// Never answered.
    Hang,
    /// Answered well once the gate opens.
    Gate(Arc<Notify>),
}

#[derive(Debug, Default)]
struct Script {
    steps: HashMap<Method, VecDeque<Step>>,
    always: HashMap<Method, Step>,
    calls: Vec<(Method, Call)>,
    not_held: bool,
    has: Vec<v1::OpenRequest>,
    previous: Option<v1::PreviousEnd>,
    ttl_ms: u64,
    epoch: u64,
    watches: Vec<Watching>,
    refused_watches: VecDeque<Status>,
}

#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) address: String,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Debug, Clone)]
struct Service(Arc<Mutex<Script>>);

pub(crate) fn refusal(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Step {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let details = ErrorDetails::with_error_info(reason, "palisade", metadata);
    Step::Refuse(Status::with_error_details(
        code,
        "refused by the script",
        details,
    ))
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test's server, ended when it is dropped"
)]
impl Fake {
    pub(crate) async fn start() -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let listener = TcpListener::bind(any).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(Script {
            ttl_ms: 15_000,
            ..Script::default()
        }));
        let service = LeaseServiceServer::new(Service(Arc::clone(&script)));
        let operators = AdminServiceServer::new(Service(Arc::clone(&script)));
        let server = tokio::spawn(async move {
            let serving = tonic::transport::Server::builder()
                .add_service(service)
                .add_service(operators)
                .serve_with_incoming(TcpListenerStream::new(listener));
            serving.await.unwrap();
        });
        Self {
            address,
            script,
            server,
        }
    }

    fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }

    /// The next call of this method goes this way; after the steps all goes well.
    pub(crate) fn next(&self, method: Method, step: Step) {
        self.script(|script| script.steps.entry(method).or_default().push_back(step));
    }

    /// Every call of this method goes this way, until told otherwise.
    pub(crate) fn always(&self, method: Method, step: Option<Step>) {
        self.script(|script| match step {
            Some(step) => drop(script.always.insert(method, step)),
            None => drop(script.always.remove(&method)),
        });
    }

    pub(crate) fn ttl(&self, ttl: Duration) {
        self.script(|script| script.ttl_ms = u64::try_from(ttl.as_millis()).unwrap());
    }

    /// Releases find nothing.
    pub(crate) fn holds_nothing(&self) {
        self.script(|script| script.not_held = true);
    }

    /// What the session has, as renewals tell it.
    pub(crate) fn has(&self, requests: &[&str]) {
        let request = |id: &&str| v1::OpenRequest {
            resource: "orders".into(),
            request_id: (*id).into(),
            token: 0,
        };
        self.script(|script| script.has = requests.iter().map(request).collect());
    }

    pub(crate) fn previous(&self, previous: v1::PreviousEnd) {
        self.script(|script| script.previous = Some(previous));
    }

    pub(crate) fn calls(&self, method: Method) -> Vec<Call> {
        self.script(|script| {
            let of_method = script.calls.iter().filter(|(seen, _)| *seen == method);
            of_method.map(|(_, call)| call.clone()).collect()
        })
    }

    pub(crate) fn order(&self) -> Vec<Method> {
        self.script(|script| script.calls.iter().map(|(method, _)| *method).collect())
    }

    /// The calls of a method, once there are so many.
    pub(crate) async fn saw(&self, method: Method, count: usize) -> Vec<Call> {
        let what = format!("{count} calls of {method:?}");
        eventually(&what, PATIENCE, async || self.calls(method).len() >= count)
            .await
            .unwrap();
        self.calls(method)
    }
}

pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> T {
    within("the call", PATIENCE, work).await.unwrap()
}

impl Service {
    async fn follow(&self, method: Method, call: Call) -> Result<u64, Status> {
        let (step, ttl_ms) = {
            let mut script = self.0.lock().unwrap();
            let (epoch, is_retry) = (call.epoch, call.attempt > 1);
            script.calls.push((method, call));
            if epoch > 0 && (epoch < script.epoch || (epoch == script.epoch && is_retry)) {
                return Err(epoch_stale(script.epoch));
            }
            script.epoch = script.epoch.max(epoch);
            let next = script.steps.get_mut(&method).and_then(VecDeque::pop_front);
            let step = next.or_else(|| script.always.get(&method).cloned());
            (step, script.ttl_ms)
        };
        match step {
            None => {}
            Some(Step::Refuse(status)) => return Err(status),
            Some(Step::Hang) => std::future::pending().await,
            Some(Step::Gate(gate)) => gate.notified().await,
        }
        Ok(ttl_ms)
    }
}

/// What a coordinator says below the stored epoch, and to a retry that is not above it.
fn epoch_stale(stored: u64) -> Status {
    let metadata = HashMap::from([("storedEpoch".to_owned(), stored.to_string())]);
    let details = ErrorDetails::with_error_info("EPOCH_STALE", "palisade", metadata);
    Status::with_error_details(Code::Aborted, "", details)
}

fn of_session(session: Option<SessionRef>) -> Call {
    let session = session.expect("a session is named");
    Call {
        session_id: session.session_id,
        secret: session.secret,
        epoch: session.epoch,
        ..Call::default()
    }
}

#[tonic::async_trait]
impl LeaseService for Service {
    type AttachStream = BoxStream<'static, Result<palisade_api::AttachResponse, Status>>;
    type WatchLeasesStream = BoxStream<'static, Result<v1::WatchLeasesResponse, Status>>;

    async fn attach(
        &self,
        _request: Request<tonic::Streaming<palisade_api::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn open_session(
        &self,
        request: Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        let opening = request.into_inner().opening.expect("an opening");
        let call = Call {
            secret: opening.secret,
            epoch: opening.epoch,
            open_id: opening.open_id,
            ..Call::default()
        };
        let ttl_ms = self.follow(Method::Open, call).await?;
        Ok(Response::new(v1::OpenSessionResponse {
            session_id: SESSION.into(),
            ttl_ms,
            ttl_left_ms: ttl_ms,
        }))
    }

    async fn renew_session(
        &self,
        request: Request<v1::RenewSessionRequest>,
    ) -> Result<Response<v1::RenewSessionResponse>, Status> {
        let request = request.into_inner();
        let call = of_session(request.session);
        let ttl_ms = self.follow(Method::Renew, call).await?;
        let has = self.0.lock().unwrap().has.clone();
        Ok(Response::new(v1::RenewSessionResponse {
            ttl_ms,
            ttl_left_ms: ttl_ms,
            open_requests: match request.list_open_requests {
                true => has,
                false => Vec::new(),
            },
        }))
    }

    async fn close_session(
        &self,
        request: Request<v1::CloseSessionRequest>,
    ) -> Result<Response<v1::CloseSessionResponse>, Status> {
        let call = of_session(request.into_inner().session);
        self.follow(Method::Close, call).await?;
        Ok(Response::new(v1::CloseSessionResponse {}))
    }

    async fn acquire(
        &self,
        request: Request<AcquireRequest>,
    ) -> Result<Response<AcquireResponse>, Status> {
        let request = request.into_inner();
        let Some(acquire_request::Owner::Session(session)) = request.owner else {
            panic!("a session is named");
        };
        let lease = palisade_api::Lease {
            resource: request.resource.clone(),
            token: 42,
            holder: vec![9; 16],
            session_id: SESSION.into(),
            request_id: request.request_id.clone(),
            metadata: request.metadata,
            ..palisade_api::Lease::default()
        };
        let call = Call {
            request_id: request.request_id,
            attempt: request.attempt,
            resource: request.resource,
            wait_ms: request.wait_ms,
            ..of_session(Some(session))
        };
        let ttl_left_ms = self.follow(Method::Acquire, call).await?;
        let previous = self.0.lock().unwrap().previous.clone();
        Ok(Response::new(AcquireResponse {
            lease: Some(lease),
            session_id: SESSION.into(),
            ttl_left_ms,
            previous,
        }))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let request = request.into_inner();
        let mut call = Call {
            resource: request.resource,
            fence: request.refused_by_fence,
            ..of_session(request.session)
        };
        match request.hold.expect("a hold is named") {
            release_request::Hold::Token(token) => call.token = token,
            release_request::Hold::RequestId(id) => call.request_id = id,
        }
        self.follow(Method::Release, call).await?;
        let (outcome, end) = if self.0.lock().unwrap().not_held {
            (v1::ReleaseOutcome::NotHeld, v1::LeaseEnd::Revoked)
        } else {
            (v1::ReleaseOutcome::Released, v1::LeaseEnd::Released)
        };
        Ok(Response::new(ReleaseResponse {
            outcome: outcome.into(),
            end: end.into(),
            queue_place_given_back: false,
            revision: 77,
        }))
    }

    async fn get_lease(
        &self,
        request: Request<v1::GetLeaseRequest>,
    ) -> Result<Response<v1::GetLeaseResponse>, Status> {
        let call = Call {
            resource: request.into_inner().resource,
            ..Call::default()
        };
        self.follow(Method::Get, call).await?;
        Ok(Response::new(v1::GetLeaseResponse {
            waiters: 3,
            revision: 77,
            ..v1::GetLeaseResponse::default()
        }))
    }

    async fn list_leases(
        &self,
        request: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        let request = request.into_inner();
        self.follow(Method::List, Call::default()).await?;
        let lease = |token: i64| palisade_api::Lease {
            resource: format!("{}{token}", request.prefix),
            token,
            holder: vec![9; 16],
            ..palisade_api::Lease::default()
        };
        let (token, next) = if request.page_token.is_empty() {
            (1, "more")
        } else {
            (2, "")
        };
        Ok(Response::new(v1::ListLeasesResponse {
            leases: vec![lease(token)],
            next_page_token: next.into(),
            revision: 77,
        }))
    }

    async fn watch_leases(
        &self,
        request: Request<v1::WatchLeasesRequest>,
    ) -> Result<Response<Self::WatchLeasesStream>, Status> {
        self.watch(request.into_inner()).map(Response::new)
    }

    async fn check_token(
        &self,
        request: Request<v1::CheckTokenRequest>,
    ) -> Result<Response<v1::CheckTokenResponse>, Status> {
        self.check(request.into_inner()).await.map(Response::new)
    }
}

/// A client of these that gives up on a try soon, but not because the machine is busy.
pub(crate) fn client_of(fakes: &[&Fake]) -> palisade_client::Client {
    palisade_client::Client::builder()
        .transport(palisade_client::Transport::Unary)
        .endpoints(fakes.iter().map(|fake| fake.address.clone()))
        .call_timeout(Duration::from_secs(1))
        .operation_timeout(Duration::from_secs(15))
        .connect()
        .unwrap()
}

pub(crate) async fn session_of(fakes: &[&Fake]) -> palisade_client::Session {
    let opening = client_of(fakes);
    let opening = opening.open_session(palisade_client::SessionOptions::default());
    in_time(opening).await.unwrap()
}

pub(crate) fn orders() -> palisade_client::ResourceName {
    "orders".parse().unwrap()
}

/// Answered by nobody who tells why: what a broken connection looks like.
pub(crate) fn lost_reply() -> Step {
    Step::Refuse(Status::unavailable("connection reset"))
}
