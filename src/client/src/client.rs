use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use palisade_api::v1::{GetLeaseRequest, ListLeasesRequest};
use palisade_token::ResourceName;
use tokio::runtime::Handle;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::bearer::Bearer;
use crate::calls::Shared;
use crate::clock::{Clock, SystemClock};
use crate::connector::Connector;
use crate::credentials::Credentials;
use crate::detached::DetachedSession;
use crate::endpoints::Endpoints;
use crate::error::ClientError;
use crate::info::{LeasePage, Occupancy};
use crate::random::{Entropy, Random};
use crate::session::{Session, SessionOptions};
use crate::tasks::Tasks;

/// How long one try of a call may take, unless told otherwise: longer than an etcd election.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call is tried, unless told otherwise: as long as the default TTL.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);

/// A client of one or more coordinators of one store.
///
/// It is cheap to clone. Any coordinator serves any session, so a call that one does not answer is tried
/// at the next; one that fails is left out for a while.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use palisade_client::{AcquireOptions, Client, SessionOptions};
///
/// let client = Client::connect("http://127.0.0.1:7650")?;
/// let session = client.open_session(SessionOptions::default()).await?;
/// let lease = session.acquire(&"orders/eu-1".parse()?, AcquireOptions::default()).await?;
/// println!("{}", lease.grant()?);
/// lease.release().await?;
/// session.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    bearer: Bearer,
}

impl Client {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A client of one coordinator. Connects with the first call, not here.
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub fn connect(endpoint: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder().endpoint(endpoint).connect()
    }

    /// How to reach the coordinators.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Opens a session and keeps it renewed until it is closed, or it and all its leases are dropped.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for a TTL, label or margin outside its bound, [`ClientError::LimitReached`],
    /// [`ClientError::Denied`], [`ClientError::Unavailable`]. A session that a failed opening may have left
    /// behind ends by its TTL.
    pub async fn open_session(&self, options: SessionOptions) -> Result<Session, ClientError> {
        Box::pin(Session::open(Arc::clone(&self.shared), options)).await
    }

    /// Sends another bearer token from now on, with calls and with streams that are yet to begin. It must be one of
    /// the same principal: sessions belong to it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for what cannot be a token; the one before stays in use.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), palisade_client::ClientError> {
    /// let client = palisade_client::Client::connect("http://10.0.0.1:7650")?;
    /// client.set_bearer_token("bmV4dA")?;
    /// assert!(client.set_bearer_token("not a token").is_err(), "the one before stays in use");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_bearer_token(&self, token: &str) -> Result<(), ClientError> {
        self.bearer.set(token)
    }

    /// A session of another process, by the credentials that it gave away: to renew it by hand, to release
    /// what it holds, or to close it.
    #[must_use]
    pub fn detached(&self, credentials: Credentials) -> DetachedSession {
        DetachedSession::new(Arc::clone(&self.shared), credentials)
    }

    /// Who holds a resource and how many wait, with the first `queue_size` (0 to 1000) of them; of a vacant
    /// resource how its last lease ended, and what is left of a lock-delay. True at the revision told; by the
    /// time it is read it may be otherwise.
    ///
    /// # Errors
    /// [`ClientError::Invalid`], [`ClientError::Denied`], [`ClientError::Unavailable`].
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let seen = client.get_lease(&"orders".parse()?, 10).await?;
    /// match &seen.lease {
    ///     Some(lease) => println!("held by {} with token {}", lease.label, lease.grant.token),
    ///     None => println!("vacant; before: {:?}", seen.previous),
    /// }
    /// for waiter in &seen.queue {
    ///     println!("waits: {}", waiter.label);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get_lease(
        &self,
        resource: &ResourceName,
        queue_size: u16,
    ) -> Result<Occupancy, ClientError> {
        let request = GetLeaseRequest {
            resource: resource.to_string(),
            queue_size: i32::from(queue_size),
        };
        let answer = self
            .shared
            .read(request, |mut stub, request| async move {
                stub.get_lease(request).await
            })
            .await?;
        Occupancy::try_from(answer)
    }

    /// One page of the leases whose resource begins with `prefix` (empty for all), by name. `page_size` 0
    /// means 100, above 1000 means 1000; `after` is [`LeasePage::next`] of the page before.
    ///
    /// # Errors
    /// [`ClientError::Invalid`], [`ClientError::Denied`], [`ClientError::Unavailable`].
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client) -> Result<(), palisade_client::ClientError> {
    /// let mut next = None;
    /// loop {
    ///     let page = client.list_leases("orders/", 0, next.as_deref()).await?;
    ///     for lease in &page.leases {
    ///         println!("{} {}", lease.grant.resource, lease.grant.token);
    ///     }
    ///     next = page.next;
    ///     if next.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_leases(
        &self,
        prefix: &str,
        page_size: u16,
        after: Option<&str>,
    ) -> Result<LeasePage, ClientError> {
        let request = ListLeasesRequest {
            prefix: prefix.to_owned(),
            page_size: i32::from(page_size),
            page_token: after.unwrap_or_default().to_owned(),
        };
        let answer = self
            .shared
            .read(request, |mut stub, request| async move {
                stub.list_leases(request).await
            })
            .await?;
        LeasePage::try_from(answer)
    }

    /// Waits until all that was dropped or abandoned has been given back, no longer than `limit`, and says
    /// whether it has. For use before a process ends; drop or close the sessions first, for an open
    /// one is work too.
    ///
    /// ```no_run
    /// # async fn example(client: palisade_client::Client, session: palisade_client::Session) {
    /// drop(session);
    /// if !client.settled(std::time::Duration::from_secs(5)).await {
    ///     eprintln!("not all is given back; the rest ends by its TTL");
    /// }
    /// # }
    /// ```
    pub async fn settled(&self, limit: Duration) -> bool {
        self.shared.tasks.settled(&self.shared.clock, limit).await
    }
}

/// How a session speaks with its coordinator.
///
/// ```
/// use palisade_client::{Client, Transport};
///
/// assert_eq!(Transport::default(), Transport::Stream);
/// let behind_an_old_proxy = Client::builder().transport(Transport::Unary);
/// # let _ = behind_an_old_proxy;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Transport {
    /// Over one stream, which also carries news of the leases: lost, wanted back, the place in the queue. It
    /// needs coordinators that serve `Attach`; where it breaks the session goes on over another, through any
    /// of them. At most 1000 requests may wait and hold in one session.
    #[default]
    Stream,
    /// By calls of their own: for coordinators and proxies that serve no streams. There is no news; a lease
    /// that was revoked looks held until its session ends.
    Unary,
}

/// How to reach the coordinators. See [`Client::builder`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), palisade_client::ClientError> {
/// # let (ca_pem, cert_pem, key_pem) = ("", "", "");
/// use std::time::Duration;
/// use palisade_client::Client;
///
/// let client = Client::builder()
///     .endpoint("http://10.0.0.1:7650")
///     .bearer_token("YS10b2tlbg")
///     .call_timeout(Duration::from_secs(2))
///     .operation_timeout(Duration::from_secs(10))
///     .connect()?;
/// assert_eq!(client.endpoints(), ["http://10.0.0.1:7650"]);
///
/// let mutual_tls = Client::builder()
///     .endpoint("https://10.0.0.1:7650")
///     .ca_certificate(ca_pem)
///     .identity(cert_pem, key_pem);
/// # let _ = mutual_tls;
/// # Ok(())
/// # }
/// ```
#[must_use]
#[derive(Clone, Default)]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    tls: Option<ClientTlsConfig>,
    bearer_token: Option<String>,
    clock: Option<Arc<dyn Clock>>,
    entropy: Option<Arc<dyn Entropy>>,
    connector: Option<Arc<dyn Connector>>,
    transport: Transport,
    call_timeout: Option<Duration>,
    operation_timeout: Option<Duration>,
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("endpoints", &self.endpoints)
            .field("tls", &self.tls.is_some())
            .field("bearer_token", &self.bearer_token.is_some())
            .field("transport", &self.transport)
            .field("call_timeout", &self.call_timeout)
            .field("operation_timeout", &self.operation_timeout)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Adds a coordinator, as `http://HOST:PORT` or `https://HOST:PORT`. At least 1, at most 16.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Adds coordinators. See [`ClientBuilder::endpoint`].
    pub fn endpoints<E: Into<String>>(mut self, endpoints: impl IntoIterator<Item = E>) -> Self {
        self.endpoints.extend(endpoints.into_iter().map(Into::into));
        self
    }

    /// How TLS is spoken with `https` endpoints. Without it: with the machine's root certificates.
    ///
    /// ```
    /// use palisade_client::Client;
    /// use tonic::transport::ClientTlsConfig;
    ///
    /// let tls = ClientTlsConfig::new().with_enabled_roots().domain_name("palisade.internal");
    /// let builder = Client::builder().endpoint("https://10.0.0.1:7650").tls(tls);
    /// # let _ = builder;
    /// ```
    pub fn tls(mut self, tls: ClientTlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Trusts `https` endpoints whose certificates are of these authorities (PEM), and no others.
    pub fn ca_certificate(mut self, pem: impl AsRef<[u8]>) -> Self {
        let tls = self.tls.take().unwrap_or_default();
        self.tls = Some(tls.ca_certificate(Certificate::from_pem(pem)));
        self
    }

    /// Shows `https` endpoints this certificate (PEM, with those between it and its authority) and proves it
    /// with its key (PEM). Without [`ca_certificate`](Self::ca_certificate) or [`tls`](Self::tls) before it,
    /// endpoints are trusted by the machine's root certificates.
    pub fn identity(mut self, cert: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        let native = || ClientTlsConfig::new().with_enabled_roots();
        let tls = self.tls.take().unwrap_or_else(native);
        self.tls = Some(tls.identity(Identity::from_pem(cert, key)));
        self
    }

    /// Sends this token with each call, as `authorization: Bearer TOKEN`. Over `http` whoever is on the way can
    /// read it. See [`Client::set_bearer_token`] for when it changes.
    pub fn bearer_token(mut self, token: impl Into<String>) -> Self {
        self.bearer_token = Some(token.into());
        self
    }

    /// How long one try of a call may take before the next endpoint is tried: 5 s unless set, above 0.
    pub fn call_timeout(mut self, limit: Duration) -> Self {
        self.call_timeout = Some(limit);
        self
    }

    /// How long a call is tried over all endpoints: 15 s unless set, above 0. The wait of an acquire comes
    /// on top.
    pub fn operation_timeout(mut self, limit: Duration) -> Self {
        self.operation_timeout = Some(limit);
        self
    }

    /// How sessions speak with their coordinator: [`Transport::Stream`] unless set.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Another clock, for tests. It must go on while the process or the machine is suspended.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Another source of random numbers, for tests. Whoever can guess them can take over sessions.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// Makes connections otherwise than over TCP: see [`Connector`].
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = Some(connector);
        self
    }

    /// Makes the client, on the Tokio runtime that this is called in. Connects with the first call.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for an endpoint or a limit outside its bound, [`ClientError::NoRuntime`].
    pub fn connect(self) -> Result<Client, ClientError> {
        let runtime = Handle::try_current().map_err(|_| ClientError::NoRuntime)?;
        let clock = self.clock.unwrap_or_else(SystemClock::shared);
        let random = self.entropy.map(Random::from).unwrap_or_default();
        let bearer = Bearer::default();
        if let Some(token) = &self.bearer_token {
            bearer.set(token)?;
        }
        let endpoints = Endpoints::new(
            &self.endpoints,
            self.tls.as_ref(),
            bearer.clone(),
            (Arc::clone(&clock), random.clone()),
            self.connector,
        )?;
        Ok(Client {
            bearer,
            shared: Arc::new(Shared {
                endpoints,
                clock,
                random,
                tasks: Tasks::on(runtime),
                transport: self.transport,
                call_timeout: above_zero("call_timeout", self.call_timeout, CALL_TIMEOUT)?,
                operation_timeout: above_zero(
                    "operation_timeout",
                    self.operation_timeout,
                    OPERATION_TIMEOUT,
                )?,
            }),
        })
    }
}

fn above_zero(
    field: &str,
    given: Option<Duration>,
    default: Duration,
) -> Result<Duration, ClientError> {
    match given {
        Some(Duration::ZERO) => Err(ClientError::invalid(field, "above 0", "0")),
        given => Ok(given.unwrap_or(default)),
    }
}
