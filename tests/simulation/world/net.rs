//! The network: links that delay, are cut in one direction or both, and break; pipes over them.
#![allow(clippy::disallowed_methods, reason = "a pipe's delays are true time")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use palisade_client::{Connection, Connector, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::dice::Dice;
use super::time::{Bell, Gate, Truth};
use crate::history::{At, Host};

/// What a pipe holds on its way in one direction; who writes more waits.
const BUFFER: usize = 256 * 1024;

/// How long things are on their way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delays {
    /// Mostly up to this, in milliseconds.
    pub(crate) usual: u64,
    /// Once in so many times...
    pub(crate) slow_one_in: u64,
    /// ...up to this.
    pub(crate) slow: u64,
}

impl Delays {
    fn roll(self, dice: &mut Dice) -> Duration {
        if self.slow_one_in > 0 && dice.one_in(self.slow_one_in) {
            return dice.millis(1, self.slow);
        }
        dice.millis(1, self.usual.max(1))
    }
}

/// Where a coordinator takes connections.
pub(crate) struct Door {
    pub(crate) gate: Arc<Gate>,
    pub(crate) accept: mpsc::UnboundedSender<io::Result<PipeEnd>>,
}

#[derive(Default)]
struct State {
    cuts: BTreeMap<(Host, Host), u32>,
    doors: BTreeMap<Host, Door>,
    pipes: Vec<Arc<Mutex<Pipe>>>,
}

/// All links.
pub(crate) struct Net {
    truth: Truth,
    state: Mutex<State>,
    dice: Mutex<Dice>,
    delays: Mutex<Delays>,
    changed: Bell,
}

impl fmt::Debug for Net {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Net").finish_non_exhaustive()
    }
}

impl Net {
    pub(crate) fn new(truth: &Truth, dice: Dice, delays: Delays) -> Arc<Self> {
        Arc::new(Self {
            truth: truth.clone(),
            state: Mutex::default(),
            dice: Mutex::new(dice),
            delays: Mutex::new(delays),
            changed: Bell::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn delay(&self) -> Duration {
        let delays = *self.delays.lock().unwrap();
        delays.roll(&mut self.dice.lock().unwrap())
    }

    pub(crate) fn set_delays(&self, delays: Delays) {
        *self.delays.lock().unwrap() = delays;
    }

    /// Nothing gets from the one to the other, until it is healed as often as it was cut.
    pub(crate) fn cut(&self, from: Host, to: Host) {
        *self.state().cuts.entry((from, to)).or_default() += 1;
        self.stir();
    }

    pub(crate) fn heal(&self, from: Host, to: Host) {
        {
            let mut state = self.state();
            if let Some(times) = state.cuts.get_mut(&(from, to)) {
                *times -= 1;
                if *times == 0 {
                    state.cuts.remove(&(from, to));
                }
            }
        }
        self.stir();
    }

    pub(crate) fn is_cut(&self, from: Host, to: Host) -> bool {
        self.state().cuts.contains_key(&(from, to))
    }

    /// A coordinator takes connections from now on.
    pub(crate) fn open_door(&self, host: Host, door: Door) {
        self.state().doors.insert(host, door);
    }

    pub(crate) fn close_door(&self, host: Host) {
        self.state().doors.remove(&host);
    }

    /// Everybody looks again: something about links or hosts is otherwise than before.
    pub(crate) fn stir(&self) {
        let pipes = {
            let mut state = self.state();
            state.pipes.retain(|pipe| !pipe.lock().unwrap().is_over());
            state.pipes.clone()
        };
        for pipe in pipes {
            let mut pipe = pipe.lock().unwrap();
            pipe.note_ruin();
            pipe.wake_all();
        }
        self.changed.tell();
    }

    /// Breaks the connections between two hosts: both ends find them reset.
    pub(crate) fn reset(&self, one: Host, other: Host) {
        let pipes = self.state().pipes.clone();
        for pipe in pipes {
            let mut pipe = pipe.lock().unwrap();
            let ends = BTreeSet::from(pipe.hosts);
            if ends == BTreeSet::from([one, other]) {
                let now = self.truth.now();
                for wire in &mut pipe.wires {
                    wire.queue.clear();
                    wire.end = Some((now, End::Reset));
                }
                pipe.wake_all();
            }
        }
    }

    /// One message by itself gets from the one to the other, however long it takes.
    pub(crate) async fn travel(&self, from: Host, to: Host) {
        self.truth.sleep(self.delay()).await;
        self.changed.until(|| !self.is_cut(from, to)).await;
    }

    async fn dial(
        self: Arc<Self>,
        client: (Host, Arc<Gate>),
        to: Host,
    ) -> io::Result<Box<dyn Connection>> {
        let (host, gate) = client;
        gate.pass().await;
        self.travel(host, to).await;
        self.travel(to, host).await;
        gate.pass().await;
        let pipe = {
            let mut state = self.state();
            let Some(door) = state.doors.get(&to) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let pipe = Pipe::new([host, to], [gate, Arc::clone(&door.gate)]);
            let pipe = Arc::new(Mutex::new(pipe));
            let far = PipeEnd::new(&pipe, 1, &self);
            if door.accept.send(Ok(far)).is_err() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            state.pipes.push(Arc::clone(&pipe));
            pipe
        };
        Ok(Box::new(PipeEnd::new(&pipe, 0, &self)))
    }
}

/// How a client's process reaches coordinators, which are named `c0`, `c1`, ...
#[derive(Debug)]
pub(crate) struct Dialler {
    pub(crate) net: Arc<Net>,
    pub(crate) host: Host,
    pub(crate) gate: Arc<Gate>,
}

impl Connector for Dialler {
    fn connect(&self, endpoint: Uri) -> BoxFuture<'static, io::Result<Box<dyn Connection>>> {
        let number = endpoint.host().and_then(|name| name.strip_prefix('c'));
        let number = number.and_then(|number| number.parse().ok());
        let to = Host::Coordinator(number.expect("coordinators are named c0, c1, ..."));
        let client = (self.host, Arc::clone(&self.gate));
        Box::pin(Arc::clone(&self.net).dial(client, to))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// All was sent.
    Finished,
    Reset,
}

/// One direction.
#[derive(Debug, Default)]
struct Wire {
    queue: VecDeque<(At, Vec<u8>)>,
    held: usize,
    /// Nothing overtakes what was sent before.
    last: At,
    end: Option<(At, End)>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A connection.
#[derive(Debug)]
struct Pipe {
    hosts: [Host; 2],
    gates: [Arc<Gate>; 2],
    /// Each to the host of the other number: `wires[0]` carries what end 0 writes.
    wires: [Wire; 2],
    dropped: [bool; 2],
}

impl Pipe {
    fn new(hosts: [Host; 2], gates: [Arc<Gate>; 2]) -> Self {
        Self {
            hosts,
            gates,
            wires: Default::default(),
            dropped: [false; 2],
        }
    }

    fn is_over(&self) -> bool {
        self.dropped == [true; 2]
    }

    /// What a process leaves behind that is gone: its kernel resets.
    fn note_ruin(&mut self) {
        for side in [0, 1] {
            if self.gates[side].is_gone() {
                let wire = &mut self.wires[side];
                let last = wire.last;
                wire.end.get_or_insert((last, End::Reset));
            }
        }
    }

    fn wake_all(&mut self) {
        for wire in &mut self.wires {
            for waker in [wire.reader.take(), wire.writer.take()]
                .into_iter()
                .flatten()
            {
                waker.wake();
            }
        }
    }
}

/// One end of a connection.
pub(crate) struct PipeEnd {
    pipe: Arc<Mutex<Pipe>>,
    side: usize,
    net: Arc<Net>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for PipeEnd {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PipeEnd").finish_non_exhaustive()
    }
}

impl Connected for PipeEnd {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// What a look at a wire comes to.
enum Look {
    Bytes(usize),
    Finished,
    Reset,
    Due(At),
    Nothing,
}

impl PipeEnd {
    fn new(pipe: &Arc<Mutex<Pipe>>, side: usize, net: &Arc<Net>) -> Self {
        Self {
            pipe: Arc::clone(pipe),
            side,
            net: Arc::clone(net),
            timer: None,
        }
    }

    fn look(&self, buffer: &mut ReadBuf<'_>, waker: &Waker) -> Look {
        let now = self.net.truth.now();
        let mut pipe = self.pipe.lock().unwrap();
        let (here, there) = (self.side, 1 - self.side);
        if pipe.gates[here].is_gone() {
            return Look::Reset;
        }
        let is_shut = !pipe.gates[here].is_open();
        let (from, to) = (pipe.hosts[there], pipe.hosts[here]);
        let wire = &mut pipe.wires[there];
        wire.reader = Some(waker.clone());
        if is_shut || self.net.is_cut(from, to) {
            return Look::Nothing;
        }
        let mut filled = 0;
        while let Some((due, bytes)) = wire.queue.front_mut()
            && *due <= now
            && buffer.remaining() > 0
        {
            let count = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..count]);
            filled += count;
            if count == bytes.len() {
                wire.queue.pop_front();
            } else {
                bytes.drain(..count);
            }
        }
        if filled > 0 {
            wire.held -= filled;
            if let Some(writer) = wire.writer.take() {
                writer.wake();
            }
            return Look::Bytes(filled);
        }
        match (wire.queue.front(), wire.end) {
            (Some((due, _)), _) => Look::Due(*due),
            (None, Some((due, _))) if due > now => Look::Due(due),
            (None, Some((_, End::Finished))) => Look::Finished,
            (None, Some((_, End::Reset))) => Look::Reset,
            (None, None) => Look::Nothing,
        }
    }
}

impl AsyncRead for PipeEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.look(buffer, context.waker()) {
                Look::Bytes(_) | Look::Finished => return Poll::Ready(Ok(())),
                Look::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Look::Nothing => return Poll::Pending,
                Look::Due(due) => {
                    let due = self.net.truth.instant(due);
                    let timer = match &mut self.timer {
                        Some(timer) => {
                            if timer.deadline() != due {
                                timer.as_mut().reset(due);
                            }
                            timer
                        }
                        none => none.insert(Box::pin(tokio::time::sleep_until(due))),
                    };
                    std::task::ready!(timer.as_mut().poll(context));
                    self.timer = None;
                }
            }
        }
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let now = self.net.truth.now();
        let mut pipe = self.pipe.lock().unwrap();
        let (here, there) = (self.side, 1 - self.side);
        // The other end's reset is known once it has come.
        let was_reset = matches!(pipe.wires[there].end, Some((at, End::Reset)) if at <= now)
            && !self.net.is_cut(pipe.hosts[there], pipe.hosts[here]);
        if pipe.gates[here].is_gone() || was_reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let is_shut = !pipe.gates[here].is_open();
        let wire = &mut pipe.wires[here];
        if is_shut || wire.held >= BUFFER {
            wire.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let due = now.after(self.net.delay()).max(wire.last);
        wire.last = due;
        wire.held += bytes.len();
        wire.queue.push_back((due, bytes.to_vec()));
        if let Some(reader) = wire.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl PipeEnd {
    fn finish(&self) {
        let mut pipe = self.pipe.lock().unwrap();
        let end = if pipe.gates[self.side].is_gone() {
            End::Reset
        } else {
            End::Finished
        };
        let wire = &mut pipe.wires[self.side];
        let last = wire.last;
        wire.end.get_or_insert((last, end));
        if let Some(reader) = wire.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        self.finish();
        self.pipe.lock().unwrap().dropped[self.side] = true;
    }
}
