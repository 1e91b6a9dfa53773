//! Takes connections, as many as are allowed at a time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

use crate::clock::Clock;

/// How long nothing is taken after the system refused to, for want of file descriptors as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections while there are fewer than a bound; others wait in the system's backlog.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    free: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, bound: usize, clock: &Arc<dyn Clock>) -> Self {
        Self {
            listener,
            free: Arc::new(Semaphore::new(bound.min(Semaphore::MAX_PERMITS))),
            clock: Arc::clone(clock),
        }
    }

    async fn next(&self) -> (Connection, SocketAddr) {
        loop {
            let free = Arc::clone(&self.free);
            let permit = free.acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        warn!(%error, "answers may be late on a connection");
                    }
                    let connection = Connection {
                        stream,
                        _permit: permit,
                    };
                    return (connection, peer);
                }
                Err(error) => {
                    warn!(%error, "no connection can be taken now");
                    self.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    /// The connections, for gRPC.
    pub(super) fn connections(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        stream::unfold(self, |acceptor| async {
            let (connection, _) = acceptor.next().await;
            Some((Ok(connection), acceptor))
        })
    }
}

impl axum::serve::Listener for Acceptor {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that counts for as long as it is open.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
