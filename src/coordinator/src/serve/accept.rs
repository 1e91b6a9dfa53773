//! Takes connections, as many as are allowed at a time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, Stream as Items, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::Listeners;
use super::tls::{self, Live, Tls};
use crate::access::Peer;
use crate::clock::{Clock, Moment, within};
use crate::config::{Limits, Timeouts};
use crate::tasks::Tasks;

/// How long nothing is taken after the system refused to, for want of file descriptors as a rule.
const PAUSE: Duration = Duration::from_millis(100);

/// How many connections may have been made before the listener's owner takes them.
const MADE_AHEAD: usize = 64;

/// How long the preface of HTTP/2 is (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;

/// What a connection is ended for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Patience {
    /// The handshake of TLS and the preface of HTTP/2 did not come within so long after it was opened. From
    /// there on pings find out whether anybody is there.
    Preface(Duration),
    /// Nothing could be written on it for so long, though something is to be: its client does not read.
    Stuck(Duration),
}

/// What takes connections, for gRPC and for HTTP.
pub(super) fn doors(
    listeners: Listeners,
    live: Option<&Live>,
    (limits, timeouts): (&Limits, &Timeouts),
    (clock, tasks): (&Arc<dyn Clock>, &Tasks),
) -> (Acceptor, Acceptor) {
    let door = |listener, patience, tls| {
        Acceptor::new(listener, limits.max_connections, patience, clock).with_tls(
            tls,
            timeouts.preface,
            tasks,
        )
    };
    let preface = Patience::Preface(timeouts.preface);
    let stuck = Patience::Stuck(timeouts.http_connection);
    (
        door(listeners.grpc, preface, live.map(Tls::grpc)),
        door(listeners.http, stuck, live.map(Tls::http)),
    )
}

/// Takes connections while there are fewer than a bound; others wait in the system's backlog.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    free: Arc<Semaphore>,
    patience: Patience,
    clock: Arc<dyn Clock>,
    handshakes: Option<Handshakes>,
}

/// TLS connections in the making, each in a task of its own: a slow one keeps no other from its turn.
#[derive(Debug)]
struct Handshakes {
    tls: Tls,
    tasks: Tasks,
    /// How long one may take.
    limit: Duration,
    /// As many are made at a time as there are connections at most.
    done: mpsc::Sender<Connection>,
    ready: mpsc::Receiver<Connection>,
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
            handshakes: None,
        }
    }

    /// Meets callers with TLS, whose handshake may take so long.
    pub(super) fn with_tls(mut self, tls: Option<Tls>, limit: Duration, tasks: &Tasks) -> Self {
        // Whoever comes out of the channel holds a permit, so it is never full for long.
        let (done, ready) = mpsc::channel(MADE_AHEAD);
        self.handshakes = tls.map(|tls| Handshakes {
            tls,
            tasks: tasks.clone(),
            limit,
            done,
            ready,
        });
        self
    }

    /// The next connection. Who stops waiting for it loses none.
    pub(super) async fn next(&mut self) -> Connection {
        loop {
            let Some(handshakes) = &mut self.handshakes else {
                let (stream, address, permit) = take(&self.listener, &self.free, &self.clock).await;
                let peer = Peer {
                    address: Some(address),
                    principal: None,
                };
                let start = self.clock.now();
                return connection(
                    self.patience,
                    &self.clock,
                    start,
                    stream.into(),
                    peer,
                    permit,
                );
            };
            tokio::select! {
                Some(connection) = handshakes.ready.recv() => return connection,
                taken = take(&self.listener, &self.free, &self.clock) => {
                    handshakes.start(taken, self.patience, &self.clock);
                }
            }
        }
    }

    /// The connections, for gRPC.
    pub(super) fn connections(self) -> impl Items<Item = io::Result<Connection>> + Send {
        stream::unfold(self, |mut acceptor| async {
            Some((Ok(acceptor.next().await), acceptor))
        })
    }
}

type Taken = (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>);

/// The next connection, once there is room for it. A caller that stops waiting loses none.
async fn take(listener: &TcpListener, free: &Arc<Semaphore>, clock: &Arc<dyn Clock>) -> Taken {
    loop {
        let permit = Arc::clone(free).acquire_owned().await.ok();
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    warn!(%error, "answers may be late on a connection");
                }
                return (stream, address, permit);
            }
            Err(error) => {
                warn!(%error, "no connection can be taken now");
                clock.sleep(PAUSE).await;
            }
        }
    }
}

impl Handshakes {
    fn start(&self, taken: Taken, patience: Patience, clock: &Arc<dyn Clock>) {
        let (stream, address, permit) = taken;
        let (clock, done, limit) = (Arc::clone(clock), self.done.clone(), self.limit);
        let acceptor = TlsAcceptor::from(self.tls.config());
        self.tasks.spawn("accept: handshake", async move {
            let start = clock.now();
            let shaken = within(&clock, limit, acceptor.accept(stream)).await;
            let stream = match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    debug!(%error, %address, "a TLS handshake failed");
                    return;
                }
                Err(_) => {
                    debug!(%address, "a TLS handshake took too long");
                    return;
                }
            };
            let shown = stream.get_ref().1.peer_certificates();
            let peer = Peer {
                address: Some(address),
                principal: shown.and_then(|chain| tls::principal(chain.first()?)),
            };
            let stream = Stream::Tls(Box::new(stream));
            let made = connection(patience, &clock, start, stream, peer, permit);
            // Nobody is there to take it once this coordinator ends.
            drop(done.send(made).await);
        });
    }
}

/// A connection that was opened at a moment.
fn connection(
    patience: Patience,
    clock: &Arc<dyn Clock>,
    start: Moment,
    stream: Stream,
    peer: Peer,
    permit: Option<OwnedSemaphorePermit>,
) -> Connection {
    let (end, proves_itself_with, stuck) = match patience {
        Patience::Preface(time) => {
            let (clock, left) = (Arc::clone(clock), clock.now().until(start.after(time)));
            let end = async move { clock.sleep(left).await };
            (Some(end.boxed()), Some(PREFACE_BYTES), None)
        }
        Patience::Stuck(time) => (None, None, Some(Stuck::new(clock, time))),
    };
    Connection {
        stream,
        peer,
        end,
        proves_itself_with,
        stuck,
        _permit: permit,
    }
}

/// A connection that counts for as long as it is open.
pub(super) struct Connection {
    stream: Stream,
    peer: Peer,
    /// When this is over, it reads as closed.
    end: Option<BoxFuture<'static, ()>>,
    /// Bytes still to come before the end is lifted.
    proves_itself_with: Option<usize>,
    stuck: Option<Stuck>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// How long nothing could be written.
struct Stuck {
    clock: Arc<dyn Clock>,
    limit: Duration,
    over: Option<BoxFuture<'static, ()>>,
}

impl Stuck {
    fn new(clock: &Arc<dyn Clock>, limit: Duration) -> Self {
        Self {
            clock: Arc::clone(clock),
            limit,
            over: None,
        }
    }

    /// What a write came to, or that it has taken too long.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.over = None;
            return written;
        }
        let over = self.over.get_or_insert_with(|| {
            let (clock, limit) = (Arc::clone(&self.clock), self.limit);
            async move { clock.sleep(limit).await }.boxed()
        });
        std::task::ready!(over.poll_unpin(context));
        self.over = None;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Connection {
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.stuck {
            Some(stuck) => stuck.written(context, written),
            None => written,
        }
    }
}

/// What bytes go over.
enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Stream {
    fn duplex(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
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
        let read = self.stream.duplex().poll_read(context, buffer);
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
        let written = self.stream.duplex().poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.stream.duplex().poll_flush(context);
        self.written(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.stream.duplex().poll_shutdown(context);
        self.written(context, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream.duplex().poll_write_vectored(context, buffers);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
