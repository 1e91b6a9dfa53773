//! Puts a coordinator together and runs it until it is told to stop.
//!
//! It stops in order: health says so, nothing new begins, those who wait are sent elsewhere, calls under way
//! end, and at a bound of time it ends regardless. Nothing is revoked: what is held stays held.

mod accept;
mod credentials;
mod explain;
mod http1;
mod store;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use palisade_api::FILE_DESCRIPTOR_SET;
use palisade_api::v1::admin_service_server::AdminServiceServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport;
use tonic::transport::server::Router;
use tonic_health::server::{HealthReporter, health_reporter};
use tonic_web::GrpcWebLayer;
use tower::layer::util::{Identity, Stack};
use tracing::{info, warn};

use self::credentials::Credentials;
use self::explain::Explain;
use self::store::OpenStore;
use crate::clock::{Clock, SystemClock};
use crate::config::{Limits, Settings, SettingsError, Timeouts};
use crate::entropy::SystemEntropy;
use crate::health::{self, Health, LeaseServer};
use crate::http;
use crate::metrics::{CountCalls, Exported, Metrics, Standing, census};
use crate::rest;
use crate::service::{Admin, Parts, Service};
use crate::tasks::Tasks;
use crate::traces::Traces;

pub use self::credentials::{CredentialsError, Reload, check_files};
pub use self::store::OpenStoreError;
pub use self::tls::TlsError;

/// How often a quiet connection is asked whether its client is there: a waiting call of a machine that
/// vanished ends that soon.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest headers of a call, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// How long tasks may take to stop, after everything that answers has ended.
const TASKS_LIMIT: Duration = Duration::from_secs(1);

/// Why a coordinator could not start, or ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting cannot be used: change it.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Something else listens there: stop it, or choose another address.
    #[error("{address} is in use by another process; choose another address for {setting}")]
    AddressInUse {
        /// The address.
        address: SocketAddr,
        /// The setting that has it.
        setting: &'static str,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({setting})")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The setting that has it.
        setting: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file with a certificate, a key or tokens cannot be used: mend it.
    #[error("a file of credentials cannot be used")]
    Credentials(#[from] CredentialsError),
    /// The store could not be opened.
    #[error("the store cannot be opened")]
    Store(#[from] OpenStoreError),
    /// The reflection service could not be built: a fault of this build.
    #[error("the interface's description cannot be read")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// gRPC ended by itself.
    #[error("gRPC ended before it was told to")]
    Grpc(#[source] transport::Error),
}

/// Where a coordinator serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// Health over HTTP.
    pub http: SocketAddr,
}

/// A coordinator whose addresses are taken and whose store is open.
///
/// ```
/// use palisade_coordinator::config::{Settings, StoreChoice};
/// use palisade_coordinator::serve::Server;
/// use tokio_util::sync::CancellationToken;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), palisade_coordinator::serve::ServeError> {
/// let server = Server::open(Settings::local(StoreChoice::Memory)).await?;
/// assert_ne!(server.addresses().grpc.port(), 0);
/// let shutdown = CancellationToken::new();
/// shutdown.cancel();
/// server.run(shutdown).await
/// # }
/// ```
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    listeners: Listeners,
    credentials: Credentials,
    parts: Parts,
    store: OpenStore,
    traces: Option<Arc<dyn Traces>>,
}

#[derive(Debug)]
struct Listeners {
    grpc: TcpListener,
    http: TcpListener,
    addresses: Addresses,
}

impl Listeners {
    async fn bind(settings: &Settings) -> Result<Self, ServeError> {
        let (grpc, grpc_address) = bind("listen", settings.listen).await?;
        let (http, http_address) = bind("http", settings.http).await?;
        Ok(Self {
            grpc,
            http,
            addresses: Addresses {
                grpc: grpc_address,
                http: http_address,
            },
        })
    }
}

async fn bind(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::AddressInUse { address, setting },
        _ => ServeError::Bind {
            address,
            setting,
            source,
        },
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Server {
    /// Takes the addresses and opens the store that the settings name, with this machine's clock. An etcd that
    /// is away is no error here: the coordinator is not ready until it answers.
    ///
    /// # Errors
    /// A [`ServeError`]: nothing is left behind.
    pub async fn open(settings: Settings) -> Result<Self, ServeError> {
        settings.validate()?;
        let credentials = Credentials::load(&settings).await?;
        let listeners = Listeners::bind(&settings).await?;
        let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
        let (tasks, metrics) = (Tasks::default(), Metrics::default());
        let store = OpenStore::open(&settings.store, &clock, &entropy, &tasks, &metrics).await?;
        let parts = Parts {
            store: Arc::clone(&store.store),
            clock,
            entropy,
            tasks,
            metrics,
        };
        Ok(Self {
            settings,
            listeners,
            credentials,
            parts,
            store,
            traces: None,
        })
    }

    /// Takes the addresses; everything else is given. The store that the settings name is not opened.
    ///
    /// # Errors
    /// [`ServeError::Settings`], [`ServeError::Credentials`], [`ServeError::AddressInUse`] or
    /// [`ServeError::Bind`].
    pub async fn bind(settings: Settings, parts: Parts) -> Result<Self, ServeError> {
        settings.validate()?;
        let credentials = Credentials::load(&settings).await?;
        let listeners = Listeners::bind(&settings).await?;
        let store = OpenStore::given(Arc::clone(&parts.store));
        Ok(Self {
            settings,
            listeners,
            credentials,
            parts,
            store,
            traces: None,
        })
    }

    /// The same, telling `traces` of the calls that it serves.
    #[must_use]
    pub fn with_traces(self, traces: Arc<dyn Traces>) -> Self {
        Self {
            traces: Some(traces),
            ..self
        }
    }

    /// Where it serves, with the real ports where port 0 was asked for.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.listeners.addresses
    }

    /// Makes it read its certificates, keys and tokens again, while it runs.
    #[must_use]
    pub fn reload(&self) -> Reload {
        self.credentials.reload.clone()
    }

    /// Serves until `shutdown` is cancelled; then drains and returns, within
    /// [`Timeouts::drain_limit`](crate::config::Timeouts::drain_limit). No lease is revoked.
    ///
    /// # Errors
    /// [`ServeError::Reflection`] or [`ServeError::Grpc`] where it ends otherwise.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ServeError> {
        let Self {
            settings,
            listeners,
            credentials,
            parts,
            store,
            traces,
        } = self;
        let Parts { clock, tasks, .. } = parts.clone();
        let Addresses { grpc, http } = listeners.addresses;
        info!(%grpc, %http, version = env!("CARGO_PKG_VERSION"), "serving");
        credentials.warn_if_open(&settings);
        let serving = run(settings, listeners, credentials, (parts, traces), shutdown);
        let result = Box::pin(serving).await;
        tasks.stop(&clock, TASKS_LIMIT).await;
        store.close().await;
        info!("stopped");
        result
    }
}

/// What is told when a coordinator drains.
struct Drain {
    clock: Arc<dyn Clock>,
    health: Arc<watch::Sender<Health>>,
    reporter: HealthReporter,
    /// Nothing new begins, and those who wait go elsewhere.
    draining: CancellationToken,
    /// No connection is taken any more, and those there are end with their calls.
    closing: CancellationToken,
}

impl Drain {
    /// Ends when calls have had their time.
    async fn run(self, shutdown: CancellationToken, notice: Duration, limit: Duration) {
        shutdown.cancelled().await;
        info!("draining");
        self.health.send_replace(Health::Draining);
        health::tell(&self.reporter, false).await;
        self.draining.cancel();
        self.clock.sleep(notice).await;
        health::hang_up(self.reporter).await;
        self.closing.cancel();
        self.clock.sleep(limit.saturating_sub(notice)).await;
    }
}

async fn run(
    settings: Settings,
    listeners: Listeners,
    credentials: Credentials,
    (parts, traces): (Parts, Option<Arc<dyn Traces>>),
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let Settings {
        limits, timeouts, ..
    } = settings;
    let (clock, tasks) = (Arc::clone(&parts.clock), parts.tasks.clone());
    let metrics = parts.metrics.clone();
    let (health, known) = watch::channel(Health::Starting);
    let health = Arc::new(health);
    let (reporter, health_service) = health_reporter();
    health::tell(&reporter, false).await;
    look(&parts, &timeouts, &health, &reporter);

    let (draining, closing) = (CancellationToken::new(), CancellationToken::new());
    let service = Service::start(parts, limits.clone(), timeouts.clone(), draining.clone())
        .with_access(credentials.access.clone());
    if let Some(watch) = credentials.watch(&clock, timeouts.reload) {
        tasks.spawn("credentials: read again", watch.run());
    }
    let standing = Standing {
        health: known.clone(),
        service: service.clone(),
        max_waiters: limits.max_waiters,
    };
    let admin = Admin::new(service.clone(), Arc::clone(&health));
    let exported = Exported::new(metrics.clone(), standing);
    let drain = Drain {
        clock: Arc::clone(&clock),
        health,
        reporter,
        draining,
        closing: closing.clone(),
    };
    let drained = drain.run(shutdown, timeouts.drain_notice, timeouts.drain_limit);

    let live = credentials.tls.as_ref();
    let (grpc, http) = accept::doors(listeners, live, (&limits, &timeouts), (&clock, &tasks));
    let calls = CountCalls::new(&metrics, &clock, traces);
    let rest = rest::router((service.clone(), calls.clone()), &clock, &limits, &timeouts);
    let router = router((service, admin), &limits, calls)?.add_service(health_service);
    let grpc = router.serve_with_incoming_shutdown(grpc.connections(), closing.cancelled_owned());
    // Whoever probes over HTTP is told "draining" until the last call has ended.
    let ended = CancellationToken::new();
    let http = http1::serve(
        http,
        http::router(known, exported, rest),
        timeouts.http_connection,
        &tasks,
        ended.clone(),
    );
    let served = serve_both(grpc, http, ended);
    tokio::select! {
        biased;
        result = served => result,
        () = drained => {
            warn!("some calls did not end in time");
            Ok(())
        }
    }
}

/// Looks at the store again and again, and tells what is found.
fn look(
    parts: &Parts,
    timeouts: &Timeouts,
    health: &Arc<watch::Sender<Health>>,
    reporter: &HealthReporter,
) {
    let (store, clock, metrics) = (&parts.store, &parts.clock, &parts.metrics);
    let probe = health::probe(
        Arc::clone(store),
        Arc::clone(clock),
        timeouts.clone(),
        Arc::clone(health),
        metrics.clone(),
    );
    parts.tasks.spawn("health: probe", probe);
    let census = census(Arc::clone(store), Arc::clone(clock), metrics.clone());
    parts.tasks.spawn("census", census);
    let report = health::report(reporter.clone(), health.subscribe());
    parts.tasks.spawn("health: report", report);
}

async fn serve_both(
    grpc: impl Future<Output = Result<(), transport::Error>>,
    http: impl Future<Output = ()>,
    ended: CancellationToken,
) -> Result<(), ServeError> {
    let grpc = async {
        let result = grpc.await.map_err(ServeError::Grpc);
        ended.cancel();
        result
    };
    tokio::join!(grpc, http).0
}

/// What each call of gRPC goes through, the last one first.
type Layers = Stack<Explain, Stack<CountCalls, Stack<GrpcWebLayer, Identity>>>;

fn router(
    (service, admin): (Service, Admin),
    limits: &Limits,
    calls: CountCalls,
) -> Result<Router<Layers>, ServeError> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let largest = limits.max_message_bytes;
    let leases = LeaseServer::new(service).max_decoding_message_size(largest);
    let admin = AdminServiceServer::new(admin).max_decoding_message_size(largest);
    Ok(transport::Server::builder()
        // What is not HTTP/2 is refused by the next layer, unless it is gRPC-web.
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(limits.max_streams_per_connection)
        .layer(GrpcWebLayer::new())
        .layer(calls)
        .layer(Explain {
            max_message_bytes: largest,
        })
        .add_service(leases)
        .add_service(admin)
        .add_service(reflection().build_v1().map_err(ServeError::Reflection)?)
        // Python's reflection client asks for this one.
        .add_service(
            reflection()
                .build_v1alpha()
                .map_err(ServeError::Reflection)?,
        ))
}
