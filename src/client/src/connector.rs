//! How connections to coordinators are made, where it is not over TCP.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::codegen::Service;
use tonic::transport::Uri;

/// What a connection carries its bytes over: every pair of a reader and a writer is one.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Makes connections to coordinators: over a Unix socket, a tunnel, or within a test.
///
/// It is called with the endpoint as it was given, once for each connection; the client takes care of TLS
/// (for `https`), of how long it may take, and of trying again.
///
/// ```
/// use std::io;
/// use std::sync::Arc;
/// use futures::future::BoxFuture;
/// use palisade_client::{Client, Connection, Connector, Uri};
/// use tokio::net::UnixStream;
///
/// /// A sidecar on this machine.
/// #[derive(Debug)]
/// struct Sidecar(&'static str);
///
/// impl Connector for Sidecar {
///     fn connect(&self, _endpoint: Uri) -> BoxFuture<'static, io::Result<Box<dyn Connection>>> {
///         let path = self.0;
///         Box::pin(async move {
///             let connection: Box<dyn Connection> = Box::new(UnixStream::connect(path).await?);
///             Ok(connection)
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), palisade_client::ClientError> {
/// let client = Client::builder()
///     .endpoint("http://sidecar")
///     .connector(Arc::new(Sidecar("/run/palisade.sock")))
///     .connect()?;
/// # let _ = client;
/// # Ok(())
/// # }
/// ```
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// A new connection to this endpoint. An error means that nothing was sent.
    fn connect(&self, endpoint: Uri) -> BoxFuture<'static, io::Result<Box<dyn Connection>>>;
}

/// A connector as the transport wants it.
pub(crate) struct Dial(pub(crate) Arc<dyn Connector>);

impl Service<Uri> for Dial {
    type Response = TokioIo<Box<dyn Connection>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Uri) -> Self::Future {
        let connecting = self.0.connect(endpoint);
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}
