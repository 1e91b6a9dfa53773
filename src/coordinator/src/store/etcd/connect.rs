//! How a connection to etcd is opened: once, and never again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::gather::Gather;
use crate::clock::Clock;
use crate::config::EtcdAccess;

/// etcd closes connections that ping more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer to a ping may take before the connection is given up.
const PING_LIMIT: Duration = Duration::from_secs(5);
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection: the crate's client, and what is beneath it.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) channel: tonic::transport::Channel,
    pub(super) login: Option<Login>,
}

/// A user of etcd's.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) name: String,
    pub(super) password: String,
}

/// A file of certificates, keys or passwords that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the {what}")]
struct Unreadable {
    what: &'static str,
    #[source]
    source: io::Error,
}

/// Opens a connection that is never opened again: its connector works once. Files are read anew each time, so
/// that what is exchanged in them counts from the next connection on.
pub(super) async fn open(
    url: &str,
    access: &EtcdAccess,
    clock: &Arc<dyn Clock>,
) -> Result<Connected, BoxError> {
    let mut endpoint = Endpoint::from_shared(url.to_owned())?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .keep_alive_while_idle(false);
    if endpoint.uri().scheme_str() == Some("https") {
        endpoint = endpoint.tls_config(tls(access).await?)?;
    }
    let used = Arc::new(AtomicBool::new(false));
    let clock = Arc::clone(clock);
    let connector = tower::service_fn(move |uri: http::Uri| {
        let used = Arc::clone(&used);
        let clock = Arc::clone(&clock);
        async move {
            if used.swap(true, Ordering::SeqCst) {
                return Err(io::Error::other("a link is one connection"));
            }
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(2379))).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(Gather::new(stream, clock)))
        }
    });
    let channel = endpoint.connect_with_connector(connector).await?;
    let login = login(access).await?;
    let mut options = ConnectOptions::new().with_require_leader(true);
    if let Some(Login { name, password }) = login.clone() {
        // A refused token was refused before anything was done: asking again is safe.
        options = options
            .with_user(name, password)
            .with_auto_token_refresh(true);
    }
    let client = Client::from_channel(Channel::Tonic(channel.clone()), Some(options)).await?;
    Ok(Connected {
        client,
        channel,
        login,
    })
}

async fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, Unreadable> {
    let read = tokio::fs::read(path).await;
    read.map_err(|source| Unreadable { what, source })
}

async fn tls(access: &EtcdAccess) -> Result<ClientTlsConfig, Unreadable> {
    let tls = match &access.ca_file {
        Some(path) => {
            let pem = read("certificate authority of etcd", path).await?;
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
        }
        None => ClientTlsConfig::new().with_native_roots(),
    };
    let (Some(cert), Some(key)) = (&access.cert_file, &access.key_file) else {
        return Ok(tls);
    };
    let cert = read("certificate for etcd", cert).await?;
    let key = read("private key for etcd", key).await?;
    Ok(tls.identity(Identity::from_pem(cert, key)))
}

async fn login(access: &EtcdAccess) -> Result<Option<Login>, BoxError> {
    let (Some(name), Some(path)) = (&access.user, &access.password_file) else {
        return Ok(None);
    };
    let mut password = String::from_utf8(read("password for etcd", path).await?)?;
    // Editors end files with a line break; no password ends so.
    password.truncate(password.trim_end_matches(['\r', '\n']).len());
    let name = name.clone();
    Ok(Some(Login { name, password }))
}
