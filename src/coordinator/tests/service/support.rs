//! Coordinators in this process, and clients of theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use palisade_api::v1::release_request::Hold;
use palisade_api::v1::{GetLeaseRequest, GetLeaseResponse, OpenSessionRequest};
use palisade_api::{
    AcquireRequest, AcquireResponse, ErrorReason, ReleaseRequest, SessionOpening, SessionRef,
};
use palisade_coordinator::clock::SystemClock;
use palisade_coordinator::config::{Settings, StoreChoice};
use palisade_coordinator::entropy::SystemEntropy;
use palisade_coordinator::metrics::Metrics;
use palisade_coordinator::serve::{Addresses, Reload, ServeError, Server};
use palisade_coordinator::service::Parts;
use palisade_coordinator::store::Store;
use palisade_coordinator::store::memory::MemoryStore;
use palisade_coordinator::tasks::Tasks;
use palisade_test_support::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::store::Switch;

/// Far longer than anything here takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) type Client = LeaseServiceClient<Channel>;

pub(crate) struct Coordinator {
    pub(crate) addresses: Addresses,
    pub(crate) client: Client,
    pub(crate) store: Arc<Switch>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), ServeError>>,
}

/// A coordinator that clients connect to as they like.
pub(crate) struct Serving {
    pub(crate) addresses: Addresses,
    pub(crate) reload: Reload,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), ServeError>>,
}

impl Serving {
    pub(crate) async fn start(store: Arc<dyn Store>, settings: Settings) -> Self {
        Self::counting(Metrics::default(), store, settings).await
    }

    async fn counting(metrics: Metrics, store: Arc<dyn Store>, settings: Settings) -> Self {
        let parts = Parts {
            store,
            clock: SystemClock::shared(),
            entropy: SystemEntropy::shared(),
            tasks: Tasks::default(),
            metrics,
        };
        let server = Server::bind(settings, parts).await.unwrap();
        let (addresses, reload) = (server.addresses(), server.reload());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(server.run(shutdown.clone()));
        Self {
            addresses,
            reload,
            shutdown,
            running,
        }
    }
}

pub(crate) async fn memory() -> Arc<MemoryStore> {
    // These tasks end with the test's runtime.
    let tasks = Tasks::default();
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    MemoryStore::start(clock, entropy, &tasks).await.unwrap()
}

pub(crate) fn settings() -> Settings {
    let mut settings = Settings::local(StoreChoice::Memory);
    settings.timeouts.readiness_interval = Duration::from_millis(20);
    settings.timeouts.readiness_limit = Duration::from_millis(200);
    settings.timeouts.sweep = Duration::from_millis(200);
    settings.timeouts.drain_notice = Duration::ZERO;
    settings
}

impl Coordinator {
    pub(crate) async fn start() -> Self {
        let (memory, metrics) = (memory().await, Metrics::default());
        memory.count_in(&metrics);
        Self::counting(metrics, Switch::new(memory), settings()).await
    }

    pub(crate) async fn with(store: Switch, settings: Settings) -> Self {
        Self::counting(Metrics::default(), store, settings).await
    }

    async fn counting(metrics: Metrics, store: Switch, settings: Settings) -> Self {
        let store = Arc::new(store);
        let Serving {
            addresses,
            shutdown,
            running,
            ..
        } = Serving::counting(metrics, Arc::<Switch>::clone(&store), settings).await;
        let client = LeaseServiceClient::new(channel(addresses).await);
        Self {
            addresses,
            client,
            store,
            shutdown,
            running,
        }
    }

    /// Stops it and sees that it ends well.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        let ended = palisade_test_support::within("the coordinator ends", LONG, self.running);
        ended.await.unwrap().unwrap().unwrap();
    }

    /// Waits until so many requests wait for a resource.
    pub(crate) async fn waiting(&self, resource: &str, count: u32) {
        let what = format!("{count} wait for {resource}");
        let client = &self.client;
        eventually(&what, LONG, async || {
            get(client, resource).await.waiters == count
        })
        .await
        .unwrap();
    }
}

pub(crate) async fn channel(addresses: Addresses) -> Channel {
    let url = format!("http://{}", addresses.grpc);
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

pub(crate) fn opening(name: &str) -> SessionOpening {
    SessionOpening {
        open_id: name.to_owned(),
        secret: vec![7; 16],
        ttl_ms: 300_000,
        label: "a test".to_owned(),
        epoch: 1,
    }
}

pub(crate) async fn open(client: &Client, name: &str) -> SessionRef {
    let opening = opening(name);
    let secret = opening.secret.clone();
    let request = OpenSessionRequest {
        opening: Some(opening),
    };
    let opened = client.clone().open_session(request).await.unwrap();
    SessionRef {
        session_id: opened.into_inner().session_id,
        secret,
        epoch: 1,
    }
}

pub(crate) fn asking(
    session: &SessionRef,
    request: &str,
    resource: &str,
    wait: Duration,
) -> AcquireRequest {
    AcquireRequest {
        owner: Some(Owner::Session(session.clone())),
        request_id: request.to_owned(),
        resource: resource.to_owned(),
        wait_ms: u64::try_from(wait.as_millis()).unwrap(),
        ..AcquireRequest::default()
    }
}

/// The same request once more, as a client sends it whose first try had no answer.
pub(crate) fn again(mut request: AcquireRequest) -> AcquireRequest {
    request.attempt = request.attempt.max(1) + 1;
    match &mut request.owner {
        Some(Owner::Session(session)) => session.epoch += 1,
        Some(Owner::Opening(opening)) => opening.epoch += 1,
        None => {}
    }
    request
}

pub(crate) async fn acquire(
    client: &Client,
    request: AcquireRequest,
) -> Result<AcquireResponse, Status> {
    client
        .clone()
        .acquire(request)
        .await
        .map(tonic::Response::into_inner)
}

/// Asks in a task of its own.
pub(crate) fn acquiring(
    client: &Client,
    request: AcquireRequest,
) -> JoinHandle<Result<AcquireResponse, Status>> {
    let client = client.clone();
    tokio::spawn(async move { acquire(&client, request).await })
}

/// Waits for a task, but not for ever.
pub(crate) async fn outcome<T>(task: JoinHandle<T>) -> T {
    let ended = palisade_test_support::within("a call is answered", LONG, task).await;
    ended.unwrap().unwrap()
}

pub(crate) fn token(granted: &AcquireResponse) -> i64 {
    granted.lease.as_ref().unwrap().token
}

pub(crate) fn releasing(session: &SessionRef, resource: &str, hold: Hold) -> ReleaseRequest {
    ReleaseRequest {
        session: Some(session.clone()),
        resource: resource.to_owned(),
        hold: Some(hold),
        refused_by_fence: 0,
    }
}

pub(crate) async fn release(client: &Client, session: &SessionRef, resource: &str, token: i64) {
    let request = releasing(session, resource, Hold::Token(token));
    client.clone().release(request).await.unwrap();
}

pub(crate) async fn get(client: &Client, resource: &str) -> GetLeaseResponse {
    let request = GetLeaseRequest {
        resource: resource.to_owned(),
        queue_size: 0,
    };
    client
        .clone()
        .get_lease(request)
        .await
        .unwrap()
        .into_inner()
}

/// Checks code and reason, and returns the metadata.
pub(crate) fn refused(status: &Status, code: Code, reason: ErrorReason) -> HashMap<String, String> {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!(
        (status.code(), info.reason.as_str(), info.domain.as_str()),
        (code, reason.reason(), "palisade"),
        "{status:?}"
    );
    info.metadata.clone()
}

/// Status and body of an HTTP request.
pub(crate) async fn http_get(addresses: Addresses, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addresses.http).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
