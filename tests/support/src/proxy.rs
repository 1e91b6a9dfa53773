//! A TCP proxy that breaks connections in the ways that networks do.

mod source;

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::clock::{self, Wait};
use crate::{Error, Port};

/// What one read takes at most; no more than this is held back per direction besides kernel buffers.
const CHUNK_BYTES: usize = 16 * 1024;

/// Descriptors come back as soon as other tests end.
const LISTEN_LIMIT: Duration = Duration::from_secs(10);

/// A proxy on loopback before one server. It starts healthy; dropping it ends every connection.
///
/// # Example
///
/// ```no_run
/// # async fn test() -> Result<(), palisade_test_support::Error> {
/// use palisade_test_support::{Coordinator, Etcd, Proxy};
/// let etcd = Etcd::start().await?;
/// let link = Proxy::start(&etcd.host_port()).await?;
/// let coordinator = Coordinator::builder().etcd(&[link.url()]).start().await?;
/// link.blackhole();
/// // … the coordinator hears nothing from etcd, not even an end …
/// link.heal().await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    link: watch::Sender<Link>,
    /// Whether the proxy listens: follows `link`.
    listening: watch::Receiver<bool>,
    // Ends the accepting task, and that its connections.
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    Refuse,
    Blackhole,
    HoldRequests,
    HoldReplies,
    DropReplies,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Requests,
    Replies,
}

/// Where connections go on to.
#[derive(Debug, Clone)]
struct Target {
    address: String,
    /// Whether it matters whose they are. To find that out takes a look at every process.
    sources: bool,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    mode: Mode,
    /// Connections made before the last reset are ended.
    resets: u64,
    /// A process whose connections are in a black hole, whatever the mode.
    barred: Option<u32>,
    /// How long each piece is under way, at least and at most.
    delay: Option<(Duration, Duration)>,
}

impl Link {
    fn passes(&self, way: Way, source: Option<u32>) -> bool {
        let holds = match self.mode {
            Mode::Blackhole => true,
            Mode::HoldRequests => way == Way::Requests,
            Mode::HoldReplies => way == Way::Replies,
            Mode::Forward | Mode::Refuse | Mode::DropReplies => false,
        };
        !holds && (self.barred.is_none() || self.barred != source)
    }
}

impl Proxy {
    /// Starts a proxy before `target`, `HOST:PORT`, also with `http://` before it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when no port can be listened on.
    pub async fn start(target: &str) -> Result<Self, Error> {
        Self::start_with(target, false).await
    }

    /// A proxy that knows whose connections it has, so that [`Proxy::bar`] works.
    pub(crate) async fn start_with(target: &str, sources: bool) -> Result<Self, Error> {
        let target = target.strip_prefix("http://").unwrap_or(target).to_owned();
        let port = Port::reserve()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port.number()));
        let listener = TcpListener::bind(address)
            .await
            .map_err(Error::io("listen as a proxy"))?;
        let (link, link_seen) = watch::channel(Link {
            mode: Mode::Forward,
            resets: 0,
            barred: None,
            delay: None,
        });
        let (listens, listening) = watch::channel(true);
        let mut tasks = JoinSet::new();
        let target = Target {
            address: target,
            sources,
        };
        tasks.spawn(serve(address, listener, target, link_seen, listens));
        Ok(Self {
            port,
            link,
            listening,
            _tasks: tasks,
        })
    }

    /// The address to give to clients in place of the server's, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.host_port())
    }

    /// The same without a scheme.
    #[must_use]
    pub fn host_port(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Resets every connection and refuses new ones, as for a server that is gone. Returns when it does.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] when the proxy's runtime is gone.
    pub async fn cut(&self) -> Result<(), Error> {
        self.set(Mode::Refuse, true);
        self.await_listening(false).await
    }

    /// Holds everything back, in both directions, and ends nothing: a lost network. What was held arrives
    /// late, after [`Proxy::heal`].
    pub fn blackhole(&self) {
        self.set(Mode::Blackhole, false);
    }

    /// Forwards answers and holds requests back, and ends nothing: a link that is half open.
    pub fn hold_requests(&self) {
        self.set(Mode::HoldRequests, false);
    }

    /// Forwards requests and holds the answers back, and ends nothing: a link that is half open the other way.
    pub fn hold_replies(&self) {
        self.set(Mode::HoldReplies, false);
    }

    /// Lets each piece of up to 16 KiB be under way for between `least` and `most`, in both directions, from now on
    /// until [`Proxy::heal`]. What is under way keeps its order.
    pub fn delay(&self, least: Duration, most: Duration) {
        self.link
            .send_modify(|link| link.delay = Some((least, most.max(least))));
    }

    /// Holds back what goes from and to this process, as [`Proxy::blackhole`] does for everybody, until
    /// [`Proxy::heal`]. Whose a connection is comes from `/proc`: elsewhere than on Linux nobody's is barred.
    pub(crate) fn bar(&self, process: u32) {
        self.link.send_modify(|link| link.barred = Some(process));
    }

    /// Forwards requests and throws the answers away.
    pub fn drop_replies(&self) {
        self.set(Mode::DropReplies, false);
    }

    /// Resets every connection, once, and goes on as before.
    pub fn reset(&self) {
        self.link.send_modify(|link| link.resets += 1);
    }

    /// Forwards everything again; returns when new connections are taken. Connections that have lost
    /// answers are reset.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] when the proxy's runtime is gone.
    pub async fn heal(&self) -> Result<(), Error> {
        let lossy = self.link.borrow().mode == Mode::DropReplies;
        self.link.send_modify(|link| {
            link.mode = Mode::Forward;
            link.resets += u64::from(lossy);
            link.barred = None;
            link.delay = None;
        });
        self.await_listening(true).await
    }

    fn set(&self, mode: Mode, reset: bool) {
        self.link.send_modify(|link| {
            link.mode = mode;
            link.resets += u64::from(reset);
        });
    }

    async fn await_listening(&self, wanted: bool) -> Result<(), Error> {
        let mut listening = self.listening.clone();
        let seen = listening.wait_for(|listens| *listens == wanted).await;
        seen.map(drop)
            .map_err(|_closed| Error::Unexpected("the proxy has ended".to_owned()))
    }
}

/// Accepts while the link is not cut. Ends with the proxy, and its connections with it.
async fn serve(
    address: SocketAddr,
    first: TcpListener,
    target: Target,
    mut link: watch::Receiver<Link>,
    listens: watch::Sender<bool>,
) {
    let mut relays = JoinSet::new();
    let mut listener = Some(first);
    loop {
        let refused = link.borrow_and_update().mode == Mode::Refuse;
        if refused {
            listener = None;
            // Each sees the reset for itself; after this none of them is left.
            while relays.join_next().await.is_some() {}
        } else if listener.is_none() {
            // The port is reserved, so this fails only for a moment, for want of descriptors.
            listener = listen_again(address).await;
            if listener.is_none() {
                return;
            }
        }
        listens.send_replace(listener.is_some());
        tokio::select! {
            accepted = accept(listener.as_ref()) => {
                if let Some(client) = accepted {
                    relays.spawn(relay(client, target.clone(), link.clone()));
                }
            }
            changed = link.changed() => if changed.is_err() { return },
            Some(_ended) = relays.join_next() => {}
        }
    }
}

async fn listen_again(address: SocketAddr) -> Option<TcpListener> {
    let wait = Wait::new("the proxy listens", LISTEN_LIMIT);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(_busy) => wait.tick().await.ok()?,
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(client, _)| client),
        None => std::future::pending().await,
    }
}

/// One connection, to its end.
async fn relay(mut client: TcpStream, target: Target, mut link: watch::Receiver<Link>) {
    let born = link.borrow().resets;
    let source = target.sources.then(|| source::of(&client)).flatten();
    let mut pass = link.clone();
    // Cut or reset since it was accepted, or later.
    let reset = link.wait_for(|link| link.resets != born || link.mode == Mode::Refuse);
    let lost = AtomicBool::new(false);
    let work = async {
        // In a black hole not even the connection is made.
        pass.wait_for(|link| {
            link.passes(Way::Requests, source) && link.passes(Way::Replies, source)
        })
        .await
        .ok()?;
        let mut server = TcpStream::connect(&target.address).await.ok()?;
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let requests = pump(
            from_client,
            to_server,
            pass.clone(),
            (Way::Requests, source),
            &lost,
        );
        let answers = pump(
            from_server,
            to_client,
            pass.clone(),
            (Way::Replies, source),
            &lost,
        );
        tokio::try_join!(requests, answers).ok()
    };
    let clean = tokio::select! {
        done = work => done.is_some(),
        _reset = reset => false,
    };
    if !clean || lost.into_inner() {
        // A reset in place of an orderly end.
        drop(client.set_zero_linger());
    }
}

/// Moves bytes one way until their end. Answers may be thrown away: then they are `lost`.
async fn pump<R, W>(
    mut from: R,
    mut to: W,
    mut link: watch::Receiver<Link>,
    (way, source): (Way, Option<u32>),
    lost: &AtomicBool,
) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut chunk).await?;
        let delay = link.borrow().delay;
        if let Some((least, most)) = delay {
            clock::pause(between(least, most)).await;
        }
        let open = link.wait_for(|link| link.passes(way, source)).await;
        let mode = open.map(|link| link.mode).map_err(std::io::Error::other)?;
        if mode == Mode::DropReplies && way == Way::Replies {
            lost.store(true, Ordering::Relaxed);
        } else {
            to.write_all(&chunk[..length]).await?;
        }
        if length == 0 {
            return to.shutdown().await;
        }
    }
}

/// Somewhere between the two, at random.
fn between(least: Duration, most: Duration) -> Duration {
    // Its keys are random.
    let dice = RandomState::new().hash_one(0_u8) % 1024;
    let share = u32::try_from(dice).unwrap_or_default();
    least + (most - least) * share / 1024
}
