//! Takes connections, as many as are allowed at a time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};
use tracing::warn;

use crate::clock::Clock;

/// How long nothing is taken after the system refused to, for want of file descriptors as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the preface of HTTP/2 is (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// What a connection is ended for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// The preface of HTTP/2 did not come within so long after it was opened. From there on pings find out
    /// whether anybody is there.
    Preface(Duration),
    /// It has been open for so long.
    Lifetime(Duration),
}

/// Takes connections while there are fewer than a bound; others wait in the system's backlog.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    free: Arc<Semaphore>,
    patience: Patience,
    clock: Arc<dyn Clock>,
}

impl Acceptor {
    pub(super) fn new(
        listener: TcpListener,
        bound: usize,
        patience: Patience,
        clock: &Arc<dyn Clock>,
    ) -> Self {
        Self {
            listener,
            patience,
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
                    return (self.connection(stream, permit), peer);
                }
                Err(error) => {
                    warn!(%error, "no connection can be taken now");
                    self.clock.sleep(PAUSE).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream, permit: Option<OwnedSemaphorePermit>) -> Connection {
        let (time, proves_itself_with) = match self.patience {
            Patience::Preface(time) => (time, Some(PREFACE_BYTES)),
            Patience::Lifetime(time) => (time, None),
        };
        let clock = Arc::clone(&self.clock);
        Connection {
            stream,
            end: Some(async move { clock.sleep(time).await }.boxed()),
            proves_itself_with,
            _permit: permit,
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
pub(super) struct Connection {
    stream: TcpStream,
    /// When this is over, it reads as closed.
    end: Option<BoxFuture<'static, ()>>,
    /// Bytes still to come before the end is lifted.
    proves_itself_with: Option<usize>,
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
        if let Some(end) = &mut self.end
            && end.poll_unpin(context).is_ready()
        {
            // It stays over, and a future that is over is not asked again.
            self.end = Some(futures::future::ready(()).boxed());
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let came = buffer.filled().len() - before;
        if let Some(missing) = &mut self.proves_itself_with {
            *missing = missing.saturating_sub(came);
            if *missing == 0 {
                self.end = None;
            }
        }
        read
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
