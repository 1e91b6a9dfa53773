//! What a coordinator is told to do, as plain data with checked bounds. Components (clock, store, tasks)
//! are made elsewhere.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::access::Rules;
use crate::store::etcd::EtcdOptions;

mod document;
mod places;
mod time;

pub(crate) use self::document::position;
pub use self::document::{Document, DocumentError};

/// All settings of one coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where gRPC is served. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where health is served over HTTP. Port 0 takes a free one.
    pub http: SocketAddr,
    /// What keeps the state.
    pub store: StoreChoice,
    /// How much is served.
    pub limits: Limits,
    /// How long things take.
    pub timeouts: Timeouts,
    /// TLS of both listeners; without it they speak in the clear.
    pub tls: Option<TlsFiles>,
    /// The file of bearer tokens (see [`Tokens`](crate::access::Tokens)), if callers show any. Read again
    /// while the coordinator runs.
    pub token_file: Option<PathBuf>,
    /// What principals may do. Without any rule each may do everything.
    pub rules: Rules,
}

/// Where TLS comes from: PEM files, read again while the coordinator runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities for clients. With them gRPC takes only clients whose certificate is from one of them, and
    /// HTTP answers nothing but health and metrics without.
    pub client_ca: Option<PathBuf>,
}

/// What keeps the state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreChoice {
    /// An etcd cluster, shared by any number of coordinators.
    Etcd {
        /// Its endpoints, such as `http://127.0.0.1:2379`. At least one.
        endpoints: Vec<String>,
        /// What all keys begin with.
        prefix: String,
        /// How they are talked to.
        access: EtcdAccess,
    },
    /// A file of this process's own.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// Memory: gone with the process. For tests and demonstrations.
    Memory,
}

/// How the endpoints of etcd are talked to. Files are read again for each connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EtcdAccess {
    /// The authorities that certificates of `https` endpoints are from, as PEM; the machine's own without it.
    pub ca_file: Option<PathBuf>,
    /// The certificate that is shown to etcd, as PEM.
    pub cert_file: Option<PathBuf>,
    /// Its private key, as PEM.
    pub key_file: Option<PathBuf>,
    /// The user of etcd's to be.
    pub user: Option<String>,
    /// The file with the user's password; a line break at its end does not count.
    pub password_file: Option<PathBuf>,
    /// Whether each operation is a transaction of its own, in place of many travelling as one (group commit).
    pub unbatched: bool,
    /// Whether an etcd is refused whose version loses sessions or history, before 3.4.32 and 3.5.14.
    pub strict: bool,
}

/// How much one coordinator serves. Everything is bounded (I13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The time to live given where none is asked for.
    pub default_ttl: Duration,
    /// The least time to live; the store may keep it higher. Shorter ones end by a slow renewal alone.
    pub min_ttl: Duration,
    /// The longest time to live: so long a dead holder keeps its resources.
    pub max_ttl: Duration,
    /// The longest wait of an acquire: so long a call without a client can stay unnoticed.
    pub max_wait: Duration,
    /// Requests that wait in calls of this coordinator; each is a stream and is looked up now and then.
    pub max_waiters: usize,
    /// Requests that may wait for one resource. Behind more than this nobody is served in good time.
    pub max_waiters_per_resource: u64,
    /// Sessions attached to this coordinator at a time: each is a stream and a few kilobytes.
    pub max_attach_streams: usize,
    /// Watches of leases at a time: each is told of every change it may see.
    pub max_watchers: usize,
    /// Requests that one attached session has open at a time, holds and waits together.
    pub max_open_requests: usize,
    /// What waits to be sent on one stream, in bytes: a client that lets more wait does not read, and is
    /// cut off.
    pub max_backlog_bytes: usize,
    /// Unary calls in progress at a time, acquires that wait among them: it is more than
    /// [`max_waiters`](Self::max_waiters), for what they wait for is released by calls, too.
    pub max_calls: usize,
    /// The longest lock-delay that may be asked for: so long a resource stays closed after an unclean end.
    pub max_lock_delay: Duration,
    /// The largest metadata of a lease, in bytes: it is kept with each lease and each place in a queue.
    pub max_metadata_bytes: usize,
    /// Calls at a time on one connection. A waiting acquire is a call, and a proxy in between puts the
    /// clients of a whole machine on one connection, so it is not less than what may wait.
    pub max_streams_per_connection: u32,
    /// Connections at a time: each costs memory before it has said anything.
    pub max_connections: usize,
    /// The largest message taken, in bytes: metadata, names and ids fit several times over.
    pub max_message_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            default_ttl: Duration::from_secs(15),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(5 * 60),
            max_wait: Duration::from_secs(60 * 60),
            max_waiters: 10_000,
            max_waiters_per_resource: 2_000,
            max_attach_streams: 50_000,
            max_watchers: 1_000,
            max_open_requests: 1_000,
            max_backlog_bytes: 1024 * 1024,
            max_calls: 20_000,
            max_lock_delay: Self::LONGEST_LOCK_DELAY,
            max_metadata_bytes: Self::MOST_METADATA_BYTES,
            max_streams_per_connection: 10_000,
            max_connections: 10_000,
            max_message_bytes: 64 * 1024,
        }
    }
}

/// How long a coordinator takes for things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// How long a call may take that comes without a deadline; the wait of an acquire comes on top.
    pub default_call: Duration,
    /// The longest deadline that is honoured; the wait of an acquire comes on top.
    pub max_call: Duration,
    /// How long before the client's deadline the answer is sent, so that it arrives in time.
    pub reply_margin: Duration,
    /// How often all waiting requests are looked up, in case news of one was missed.
    pub sweep: Duration,
    /// How often the store is asked whether it can grant.
    pub readiness_interval: Duration,
    /// How long that answer may take.
    pub readiness_limit: Duration,
    /// How long a gRPC connection may be open before the preface of HTTP/2 has come on it; and on both
    /// listeners how long the handshake of TLS may take.
    pub preface: Duration,
    /// How often files of certificates, keys and tokens are looked at: so late a change counts.
    pub reload: Duration,
    /// How long an HTTP connection may be open without a request on it, and how long a client may take nothing
    /// of an answer: longer than probes and scrapes are apart.
    pub http_connection: Duration,
    /// How long a draining coordinator still takes connections, so that all who look at its health see it.
    pub drain_notice: Duration,
    /// How long a draining coordinator waits for calls to end, the notice included.
    pub drain_limit: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            default_call: Duration::from_secs(10),
            max_call: Duration::from_secs(60),
            reply_margin: Duration::from_millis(100),
            sweep: Duration::from_secs(5),
            readiness_interval: Duration::from_secs(1),
            readiness_limit: Duration::from_secs(4),
            preface: Duration::from_secs(10),
            reload: Duration::from_secs(30),
            http_connection: Duration::from_secs(60),
            drain_notice: Duration::from_millis(500),
            drain_limit: Duration::from_secs(10),
        }
    }
}

/// A setting that cannot be used. Change it and start again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} is {given}; it must be {bound}")]
#[non_exhaustive]
pub struct SettingsError {
    /// The setting.
    pub setting: &'static str,
    /// What is allowed.
    pub bound: String,
    /// What was given.
    pub given: String,
}

impl Settings {
    /// Where gRPC is served unless another address is given.
    pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7650);
    /// Where HTTP is served unless another address is given.
    pub const DEFAULT_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7651);

    /// Settings that serve on this machine only, on free ports, with the default bounds.
    #[must_use]
    pub fn local(store: StoreChoice) -> Self {
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            listen: loopback,
            http: loopback,
            store,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            tls: None,
            token_file: None,
            rules: Rules::default(),
        }
    }

    /// Checks what can be checked without a store.
    ///
    /// # Errors
    /// A [`SettingsError`] that names the first setting that cannot be used, and its bound.
    ///
    /// ```
    /// use palisade_coordinator::config::{Settings, StoreChoice};
    ///
    /// let mut settings = Settings::local(StoreChoice::Memory);
    /// assert!(settings.validate().is_ok());
    /// settings.limits.max_waiters = 0;
    /// assert_eq!(settings.validate().unwrap_err().setting, "limits.max_waiters");
    /// ```
    pub fn validate(&self) -> Result<(), SettingsError> {
        if self.listen == self.http && self.listen.port() != 0 {
            return Err(SettingsError {
                setting: "http",
                bound: "another address than listen".to_owned(),
                given: self.http.to_string(),
            });
        }
        let asks = self.token_file.is_some()
            || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        if !asks && self.rules.name_anybody() {
            return Err(SettingsError {
                setting: "rules",
                bound: "for the principal * while nobody shows credentials (auth.token_file or \
                        tls.client_ca_file)"
                    .to_owned(),
                given: "for principals by name".to_owned(),
            });
        }
        self.store.validate()?;
        self.limits.validate()?;
        self.timeouts.validate()
    }
}

impl StoreChoice {
    /// What keys in etcd begin with unless another prefix is given.
    pub const DEFAULT_PREFIX: &str = EtcdOptions::PREFIX;
    /// The longest prefix of etcd keys, in bytes: a key with a full name stays far below etcd's bounds.
    pub const MAX_PREFIX_BYTES: usize = 256;

    fn validate(&self) -> Result<(), SettingsError> {
        let Self::Etcd {
            endpoints,
            prefix,
            access,
        } = self
        else {
            return Ok(());
        };
        let is_url = |text: &String| {
            let uri = text.parse::<http::Uri>().ok();
            uri.is_some_and(|uri| {
                let has_user = uri.authority().is_some_and(|at| at.as_str().contains('@'));
                matches!(uri.scheme_str(), Some("http" | "https"))
                    && uri.host().is_some()
                    && !has_user
            })
        };
        if endpoints.is_empty() || !endpoints.iter().all(is_url) {
            return Err(SettingsError {
                setting: "store.etcd",
                bound: "one or more URLs as http://HOST:PORT or https://HOST:PORT".to_owned(),
                // Not what was given: URLs carry passwords.
                given: format!("{} of which some are not so", endpoints.len()),
            });
        }
        if prefix.is_empty() || prefix.len() > Self::MAX_PREFIX_BYTES {
            return Err(SettingsError {
                setting: "store.etcd_prefix",
                bound: format!("1 to {} bytes", Self::MAX_PREFIX_BYTES),
                given: format!("{} bytes", prefix.len()),
            });
        }
        access.validate(endpoints)
    }
}

impl EtcdAccess {
    fn validate(&self, endpoints: &[String]) -> Result<(), SettingsError> {
        let refuse = |setting, bound: &str, given: &str| {
            Err(SettingsError {
                setting,
                bound: bound.to_owned(),
                given: given.to_owned(),
            })
        };
        let has_tls = self.ca_file.is_some() || self.cert_file.is_some() || self.key_file.is_some();
        let is_clear = |url: &String| !url.to_ascii_lowercase().starts_with("https://");
        if has_tls && endpoints.iter().any(is_clear) {
            let bound = "https://HOST:PORT for all endpoints where files for TLS are given";
            return refuse("store.etcd", bound, "in the clear");
        }
        if self.cert_file.is_some() != self.key_file.is_some() {
            let bound = "given together with store.etcd_key_file, or neither";
            return refuse("store.etcd_cert_file", bound, "without the other");
        }
        if self.user.is_some() != self.password_file.is_some() {
            let bound = "given together with store.etcd_password_file, or neither";
            return refuse("store.etcd_user", bound, "without the other");
        }
        Ok(())
    }
}

/// Beyond this a time to live or a wait is a slip of units, and no store keeps it.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn between(
    setting: &'static str,
    given: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), SettingsError> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    Err(SettingsError {
        setting,
        bound: format!("{least:?} to {most:?}"),
        given: format!("{given:?}"),
    })
}

fn above_zero(setting: &'static str, is_zero: bool) -> Result<(), SettingsError> {
    if !is_zero {
        return Ok(());
    }
    Err(SettingsError {
        setting,
        bound: "above 0".to_owned(),
        given: "0".to_owned(),
    })
}

impl Limits {
    /// The longest lock-delay that the interface knows.
    pub const LONGEST_LOCK_DELAY: Duration = Duration::from_secs(5 * 60);
    /// The largest metadata that the interface knows, in bytes.
    pub const MOST_METADATA_BYTES: usize = 4096;

    fn validate(&self) -> Result<(), SettingsError> {
        let second = Duration::from_secs(1);
        between("limits.min_ttl", self.min_ttl, second, DAY)?;
        between("limits.max_ttl", self.max_ttl, self.min_ttl, DAY)?;
        between(
            "limits.default_ttl",
            self.default_ttl,
            self.min_ttl,
            self.max_ttl,
        )?;
        between("limits.max_wait", self.max_wait, Duration::ZERO, DAY)?;
        let longest = Self::LONGEST_LOCK_DELAY;
        between(
            "limits.max_lock_delay",
            self.max_lock_delay,
            Duration::ZERO,
            longest,
        )?;
        for (setting, is_zero) in [
            ("limits.max_waiters", self.max_waiters == 0),
            (
                "limits.max_waiters_per_resource",
                self.max_waiters_per_resource == 0,
            ),
            ("limits.max_attach_streams", self.max_attach_streams == 0),
            ("limits.max_watchers", self.max_watchers == 0),
            ("limits.max_open_requests", self.max_open_requests == 0),
            ("limits.max_backlog_bytes", self.max_backlog_bytes == 0),
            ("limits.max_calls", self.max_calls == 0),
            (
                "limits.max_streams_per_connection",
                self.max_streams_per_connection == 0,
            ),
            ("limits.max_connections", self.max_connections == 0),
        ] {
            above_zero(setting, is_zero)?;
        }
        if self.max_metadata_bytes > Self::MOST_METADATA_BYTES {
            return Err(SettingsError {
                setting: "limits.max_metadata_bytes",
                bound: format!("at most {}", Self::MOST_METADATA_BYTES),
                given: self.max_metadata_bytes.to_string(),
            });
        }
        // A request with full metadata and names must fit.
        if self.max_message_bytes < 8 * 1024 {
            return Err(SettingsError {
                setting: "limits.max_message_bytes",
                bound: "at least 8192".to_owned(),
                given: self.max_message_bytes.to_string(),
            });
        }
        Ok(())
    }
}

impl Timeouts {
    fn validate(&self) -> Result<(), SettingsError> {
        let millisecond = Duration::from_millis(1);
        let hour = Duration::from_secs(60 * 60);
        for (setting, given) in [
            ("timeouts.max_call", self.max_call),
            ("timeouts.sweep", self.sweep),
            ("timeouts.readiness_interval", self.readiness_interval),
            ("timeouts.readiness_limit", self.readiness_limit),
            ("timeouts.preface", self.preface),
            ("timeouts.reload", self.reload),
            ("timeouts.http_connection", self.http_connection),
            ("timeouts.drain_limit", self.drain_limit),
        ] {
            between(setting, given, millisecond, hour)?;
        }
        let (call, margin) = (self.default_call, self.reply_margin);
        between("timeouts.default_call", call, millisecond, self.max_call)?;
        between("timeouts.reply_margin", margin, Duration::ZERO, call)?;
        between(
            "timeouts.drain_notice",
            self.drain_notice,
            Duration::ZERO,
            self.drain_limit,
        )
    }
}

#[cfg(test)]
mod tests;
