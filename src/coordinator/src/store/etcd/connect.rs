//! How a connection to etcd is opened: once, and never again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

/// etcd closes connections that ping more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// How long an answer to a ping may take before the connection is given up.
const PING_LIMIT: Duration = Duration::from_secs(5);
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A connection: the crate's client, and what is beneath it.
pub(super) struct Connected {
    pub(super) client: Client,
    pub(super) channel: tonic::transport::Channel,
}

/// Opens a connection that is never opened again: its connector works once.
pub(super) async fn open(url: &str) -> Result<Connected, BoxError> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_LIMIT)
        .keep_alive_while_idle(false);
    let used = Arc::new(AtomicBool::new(false));
    let connector = tower::service_fn(move |uri: http::Uri| {
        let used = Arc::clone(&used);
        async move {
            if used.swap(true, Ordering::SeqCst) {
                return Err(io::Error::other("a link is one connection"));
            }
            let host = uri.host().unwrap_or_default();
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(2379))).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        }
    });
    let channel = endpoint.connect_with_connector(connector).await?;
    let options = ConnectOptions::new().with_require_leader(true);
    let client = Client::from_channel(Channel::Tonic(channel.clone()), Some(options)).await?;
    Ok(Connected { client, channel })
}
