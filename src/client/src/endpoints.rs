//! The coordinators' addresses: each with its own connection, the failing ones left out for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_api::v1::admin_service_client::AdminServiceClient;
use palisade_api::v1::lease_service_client::LeaseServiceClient;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint as Address};
use tracing::debug;

use crate::bearer::Bearer;
use crate::clock::{Clock, Moment, within};
use crate::connector::{Connector, Dial};
use crate::error::ClientError;
use crate::error::status::Failure;
use crate::random::Random;

/// More endpoints than any deployment has coordinators; each costs a connection.
pub(crate) const MAX_ENDPOINTS: usize = 16;
/// How long a new connection may take, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// A broken link is noticed after this and [`PING_LIMIT`], also under a call that waits long.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_LIMIT: Duration = Duration::from_secs(5);
/// An endpoint that failed is left out for this long, doubled with each further failure...
const FIRST_EJECTION: Duration = Duration::from_millis(200);
/// ...up to this.
const LONGEST_EJECTION: Duration = Duration::from_secs(10);
/// A page of 1000 leases with 4 KiB of metadata each has 4 MiB and a little.
const MAX_ANSWER_BYTES: usize = 8 << 20;

pub(crate) type Stub = LeaseServiceClient<InterceptedService<Channel, Bearer>>;
/// For operators.
pub(crate) type AdminStub = AdminServiceClient<InterceptedService<Channel, Bearer>>;

#[derive(Debug)]
struct Endpoint {
    /// As it was given.
    name: String,
    address: Address,
    connection: tokio::sync::Mutex<Option<(u64, Channel)>>,
    health: Mutex<Health>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Health {
    failures: u32,
    ejected_until: Moment,
    connections: u64,
}

impl Endpoint {
    fn health<T>(&self, change: impl FnOnce(&mut Health) -> T) -> T {
        change(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connected endpoint, for one try.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) stub: Stub,
    pub(crate) admin: AdminStub,
    endpoint: usize,
    connection: u64,
}

impl Connected {
    pub(crate) fn endpoint(&self) -> usize {
        self.endpoint
    }
}

#[derive(Debug)]
pub(crate) struct Endpoints {
    all: Vec<Endpoint>,
    preferred: AtomicUsize,
    bearer: Bearer,
    clock: Arc<dyn Clock>,
    random: Random,
    connector: Option<Arc<dyn Connector>>,
}

impl Endpoints {
    pub(crate) fn new(
        addresses: &[String],
        tls: Option<&ClientTlsConfig>,
        bearer: Bearer,
        (clock, random): (Arc<dyn Clock>, Random),
        connector: Option<Arc<dyn Connector>>,
    ) -> Result<Self, ClientError> {
        if addresses.is_empty() || addresses.len() > MAX_ENDPOINTS {
            return Err(ClientError::invalid(
                "endpoints",
                format!("1 to {MAX_ENDPOINTS}"),
                addresses.len().to_string(),
            ));
        }
        let all = addresses
            .iter()
            .map(|address| {
                Ok(Endpoint {
                    name: address.clone(),
                    address: address_of(address, tls)?,
                    connection: tokio::sync::Mutex::default(),
                    health: Mutex::default(),
                })
            })
            .collect::<Result<Vec<_>, ClientError>>()?;
        // Many clients with one list of endpoints shall not all begin with the same.
        let first = usize::from(u16::from_le_bytes(random.bytes())) % all.len();
        Ok(Self {
            all,
            preferred: AtomicUsize::new(first),
            bearer,
            clock,
            random,
            connector,
        })
    }

    /// The endpoint used last, unless it is ejected: then the next that is not, then the one whose
    /// ejection ends first.
    fn pick(&self) -> usize {
        let chosen = self.best_but(None);
        self.preferred.store(chosen, Ordering::Relaxed);
        chosen
    }

    fn best_but(&self, avoided: Option<usize>) -> usize {
        let now = self.clock.now();
        let first = self.preferred.load(Ordering::Relaxed);
        let ejected = |index: usize| self.all[index].health(|health| health.ejected_until.max(now));
        (0..self.all.len())
            .map(|step| (first + step) % self.all.len())
            .min_by_key(|index| (ejected(*index), avoided == Some(*index)))
            .unwrap_or_default()
    }

    /// The endpoints as they were given, in that order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|endpoint| endpoint.name.as_str())
    }

    /// Which endpoint was given so.
    pub(crate) fn named(&self, name: &str) -> Option<usize> {
        self.names().position(|given| given == name)
    }

    /// A connection for one try, made within `limit`. A failure means that nothing was sent.
    pub(crate) async fn connected(&self, limit: Duration) -> Result<Connected, Failure> {
        self.connected_to(self.pick(), limit).await
    }

    /// As [`Endpoints::connected`], to another one than this if there is one that serves. What the client's
    /// other calls prefer stays.
    pub(crate) async fn connected_but(
        &self,
        avoided: Option<usize>,
        limit: Duration,
    ) -> Result<Connected, Failure> {
        self.connected_to(self.best_but(avoided), limit).await
    }

    /// As [`Endpoints::connected`], to one of them and no other.
    pub(crate) async fn connected_to(
        &self,
        index: usize,
        limit: Duration,
    ) -> Result<Connected, Failure> {
        let connecting = self.connection_of(index);
        match within(&self.clock, limit.min(CONNECT_LIMIT), connecting).await {
            Some(Ok((connection, channel))) => Ok(Connected {
                stub: LeaseServiceClient::with_interceptor(channel.clone(), self.bearer.clone())
                    .max_decoding_message_size(MAX_ANSWER_BYTES),
                admin: AdminServiceClient::with_interceptor(channel, self.bearer.clone()),
                endpoint: index,
                connection,
            }),
            Some(Err(failure)) => Err(failure),
            None => {
                self.eject(index);
                Err(Failure::unreachable("no connection in time"))
            }
        }
    }

    async fn connection_of(&self, index: usize) -> Result<(u64, Channel), Failure> {
        let endpoint = &self.all[index];
        let failures = endpoint.health(|health| health.failures);
        let mut slot = endpoint.connection.lock().await;
        if let Some((connection, channel)) = &*slot {
            return Ok((*connection, channel.clone()));
        }
        // Calls that waited for the same connection share its failure: it counts once.
        if endpoint.health(|health| health.failures) > failures {
            return Err(Failure::unreachable("no connection"));
        }
        match Box::pin(self.connect(&endpoint.address)).await {
            Ok(channel) => {
                let connection = endpoint.health(|health| {
                    health.connections += 1;
                    health.connections
                });
                *slot = Some((connection, channel.clone()));
                Ok((connection, channel))
            }
            Err(error) => {
                self.eject(index);
                Err(Failure::unreachable(error))
            }
        }
    }

    async fn connect(&self, address: &Address) -> Result<Channel, tonic::transport::Error> {
        match &self.connector {
            Some(connector) => {
                let dial = Dial(Arc::clone(connector));
                address.connect_with_connector(dial).await
            }
            None => address.connect().await,
        }
    }

    pub(crate) fn succeeded(&self, used: &Connected) {
        self.all[used.endpoint].health(|health| {
            health.failures = 0;
            health.ejected_until = Moment::default();
        });
    }

    /// Leaves the endpoint out for a while and gives up the connection that was used, so that the next
    /// try learns at once whether there is one. Calls that still run on it are not disturbed.
    pub(crate) async fn failed(&self, used: &Connected) {
        let mut slot = self.all[used.endpoint].connection.lock().await;
        // Of many calls on one connection the first that fails counts.
        if slot
            .as_ref()
            .is_some_and(|(connection, _)| *connection == used.connection)
        {
            *slot = None;
            self.eject(used.endpoint);
        }
    }

    /// As [`Endpoints::failed`], without waiting: while somebody connects anew the one that was used is given
    /// up already.
    pub(crate) fn give_up(&self, used: &Connected) {
        if let Ok(mut slot) = self.all[used.endpoint].connection.try_lock()
            && slot
                .take_if(|(current, _)| *current == used.connection)
                .is_some()
        {
            drop(slot);
            self.eject(used.endpoint);
        }
    }

    fn eject(&self, index: usize) {
        // Also when its time is over another one is tried first: that took less long than finding it dead.
        let next = (index + 1) % self.all.len();
        let relaxed = Ordering::Relaxed;
        let _moved: Result<usize, usize> = self
            .preferred
            .compare_exchange(index, next, relaxed, relaxed);
        let now = self.clock.now();
        let endpoint = &self.all[index];
        let pause = endpoint.health(|health| {
            let doubled = FIRST_EJECTION * (1 << health.failures.min(6));
            let pause = self.random.jittered(doubled.min(LONGEST_EJECTION), 500);
            health.failures = health.failures.saturating_add(1);
            health.ejected_until = now.after(pause);
            pause
        });
        debug!(endpoint = %endpoint.address.uri(), ?pause, "endpoint left out");
    }
}

fn address_of(text: &str, tls: Option<&ClientTlsConfig>) -> Result<Address, ClientError> {
    let bound = "http://HOST:PORT or https://HOST:PORT";
    let refuse = || ClientError::invalid("endpoint", bound, text);
    let address = Address::from_shared(text.to_owned()).map_err(|_| refuse())?;
    let address = match (address.uri().scheme_str(), tls) {
        (Some("http"), _) if address.uri().host().is_some() => address,
        (Some("https"), tls) if address.uri().host().is_some() => {
            let native = || ClientTlsConfig::new().with_enabled_roots();
            let tls = tls.cloned().unwrap_or_else(native);
            address.tls_config(tls).map_err(|_| {
                ClientError::invalid("tls", "certificates and keys that can be used", "")
            })?
        }
        _ => return Err(refuse()),
    };
    Ok(address
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .keep_alive_while_idle(false)
        .tcp_nodelay(true))
}
