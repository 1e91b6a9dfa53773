//! One stream that many sessions are renewed on, and its watchdog.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use tracing::{debug, warn};

use super::wire::{Renew, Renewed, Stream};
use super::{Answer, Parts, SILENCE, seconds};
use crate::clock::Moment;

/// Renewals that are sent ahead of their replies: enough to keep etcd at work, few enough that a stall is
/// noticed with little behind it.
const WINDOW: usize = 64;
/// The pause before a stream is opened again that has ended without a reply; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest such pause: a fraction of the least time to live.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A renewal to be made.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) lease: i64,
    /// When it is too late to renew the lease on a stream that others use.
    pub(super) late_at: Moment,
    pub(super) told: oneshot::Sender<Answer>,
}

/// Everybody who waits for a renewal of one lease: they share it.
#[derive(Debug)]
struct Wanted {
    late_at: Moment,
    told: Vec<oneshot::Sender<Answer>>,
}

/// A renewal that was sent.
#[derive(Debug, Clone, Copy)]
struct Flight {
    lease: i64,
    sent: Moment,
}

pub(super) struct Shard {
    parts: Arc<Parts>,
    asks: mpsc::Receiver<Ask>,
    wanted: HashMap<i64, Wanted>,
    /// Leases that are yet to be sent.
    line: VecDeque<i64>,
    /// In the order in which they were sent, which is that in which etcd answers.
    flights: VecDeque<Flight>,
    stream: Option<Stream>,
    /// When the stream was last heard of, or got something to answer.
    alive: Moment,
    /// Streams in a row that ended without a reply.
    failures: u32,
    not_before: Moment,
}

enum Next {
    Asked(Option<Ask>),
    Replied(Option<Result<Renewed, Status>>),
    Silent,
    OpenAgain,
    Broken,
}

impl Shard {
    pub(super) fn new(parts: Arc<Parts>, asks: mpsc::Receiver<Ask>) -> Self {
        Self {
            parts,
            asks,
            wanted: HashMap::new(),
            line: VecDeque::new(),
            flights: VecDeque::new(),
            stream: None,
            alive: Moment::default(),
            failures: 0,
            not_before: Moment::default(),
        }
    }

    /// Ends with the connection, or when nobody can ask any more.
    pub(super) async fn run(mut self) {
        loop {
            self.send();
            match self.next().await {
                Next::Asked(Some(ask)) => self.take(ask),
                Next::Asked(None) | Next::Broken => return,
                Next::Replied(Some(Ok(reply))) => self.tell(&reply),
                Next::Replied(Some(Err(status))) => self.ended(&status),
                Next::Replied(None) => self.ended(&Status::unavailable("the stream ended")),
                Next::Silent => self.stalled(),
                Next::OpenAgain => {}
            }
        }
    }

    async fn next(&mut self) -> Next {
        let now = self.parts.clock.now();
        let is_waiting = !self.flights.is_empty();
        let silence = self.alive.after(SILENCE);
        let is_idle = self.stream.is_none();
        let pause = now.until(self.not_before);
        let replied = async {
            match &mut self.stream {
                Some(stream) => stream.replies.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.parts.broken.cancelled() => Next::Broken,
            reply = replied => Next::Replied(reply),
            () = self.parts.clock.sleep(now.until(silence)), if is_waiting => Next::Silent,
            () = self.parts.clock.sleep(pause), if is_idle && !self.line.is_empty() => Next::OpenAgain,
            ask = self.asks.recv() => Next::Asked(ask),
        }
    }

    fn take(&mut self, ask: Ask) {
        let Ask {
            lease,
            late_at,
            told,
        } = ask;
        if let Some(wanted) = self.wanted.get_mut(&lease) {
            wanted.told.retain(|told| !told.is_closed());
            wanted.told.push(told);
            return;
        }
        let told = vec![told];
        self.wanted.insert(lease, Wanted { late_at, told });
        self.line.push_back(lease);
    }

    /// Sends what there is room for.
    fn send(&mut self) {
        let now = self.parts.clock.now();
        if self.line.is_empty() || (self.stream.is_none() && now < self.not_before) {
            return;
        }
        while self.flights.len() < WINDOW
            && let Some(lease) = self.line.pop_front()
        {
            let Some(wanted) = self.wanted.get_mut(&lease) else {
                continue;
            };
            wanted.told.retain(|told| !told.is_closed());
            if wanted.told.is_empty() {
                self.wanted.remove(&lease);
                continue;
            }
            if wanted.late_at <= now {
                self.answer(lease, Answer::GoAlone);
                continue;
            }
            let wire = &self.parts.wire;
            let stream = self.stream.get_or_insert_with(|| wire.open(WINDOW));
            if stream.requests.try_send(Renew { lease }).is_err() {
                // It has ended, and says so where replies are waited for.
                self.line.push_front(lease);
                return;
            }
            if self.flights.is_empty() {
                self.alive = now;
            }
            self.parts.counts.sent.fetch_add(1, Ordering::Relaxed);
            self.flights.push_back(Flight { lease, sent: now });
        }
    }

    fn answer(&mut self, lease: i64, answer: Answer) {
        for told in self.wanted.remove(&lease).into_iter().flat_map(|w| w.told) {
            // Whoever has gone away meanwhile needs no answer.
            let _gone = told.send(answer);
        }
    }

    fn tell(&mut self, reply: &Renewed) {
        self.alive = self.parts.clock.now();
        self.failures = 0;
        let Some(at) = (self.flights.iter()).position(|flight| flight.lease == reply.lease) else {
            return;
        };
        let Some(flight) = self.flights.remove(at) else {
            return;
        };
        let answer = self
            .parts
            .note(flight.lease, flight.sent, seconds(reply.ttl));
        self.answer(flight.lease, answer);
    }

    /// etcd answers in order, so what has no answer for long is the first that was sent: a lease that is
    /// expired, but not yet revoked, holds up its stream until that is done. It goes on alone, the others on a
    /// new stream (I12). Or else the connection is half open.
    fn stalled(&mut self) {
        self.parts.counts.stalls.fetch_add(1, Ordering::Relaxed);
        debug!(
            outstanding = self.flights.len(),
            "a keepalive stream fell silent"
        );
        if let Some(first) = self.flights.pop_front() {
            self.answer(first.lease, Answer::GoAlone);
        }
        self.parts.ask_for_a_sign_of_life();
        self.open_again();
    }

    fn ended(&mut self, status: &Status) {
        if self.failures == 0 && !self.flights.is_empty() {
            warn!(code = ?status.code(), error = %status, "a keepalive stream ended");
        } else {
            debug!(code = ?status.code(), error = %status, "a keepalive stream ended");
        }
        // Should it be what ended the stream, it ends nobody else's again.
        if let Some(first) = self.flights.pop_front() {
            self.answer(first.lease, Answer::GoAlone);
        }
        let doublings = self.failures.min(8);
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings);
        self.failures = self.failures.saturating_add(1);
        self.not_before = self.parts.clock.now().after(pause.min(LONGEST_PAUSE));
        self.open_again();
    }

    fn open_again(&mut self) {
        self.stream = None;
        // Before those that were never sent, and in their order.
        while let Some(flight) = self.flights.pop_back() {
            self.line.push_front(flight.lease);
        }
    }
}
