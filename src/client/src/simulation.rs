//! The library, whole but for the sockets, against a store that knows from when on it may have granted its
//! session's resources to others: through suspends, drift, failovers, and answers that are late, lost, doubled
//! or overtaken it never says that it holds what it may not hold (I8).
//!
//! Everything follows from a seed. A failure prints it; `PALISADE_SEED=N` runs that one alone, and
//! `PALISADE_SEEDS=N` so many instead of the usual number.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tonic::transport::Uri;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use self::dice::Dice;
use self::server::{Answer, Asked, Dial, Given, Reply, SharedInbox, What};
use self::time::{SECOND, Skew, Time};
use crate::client::{Client, Transport};
use crate::connector::{Connection, Connector};
use crate::error::ClientError;
use crate::lease::Lease;
use crate::random::Entropy;
use crate::session::{Session, SessionOptions};
use crate::standing::{LostReason, SessionState};

mod dice;
mod server;
mod time;

/// How the library reaches the coordinators of the simulation.
struct Dialling(Dial);

impl fmt::Debug for Dialling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Dialling")
    }
}

impl Connector for Dialling {
    fn connect(&self, endpoint: Uri) -> BoxFuture<'static, io::Result<Box<dyn Connection>>> {
        let host = usize::from(endpoint.host() == Some("other"));
        let dialled = self.0(host).map(|pipe| -> Box<dyn Connection> { Box::new(pipe) });
        Box::pin(std::future::ready(dialled))
    }
}

/// Chance of the library's own.
#[derive(Debug)]
struct Chance(Mutex<Dice>);

impl Entropy for Chance {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock().unwrap();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&dice.roll().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// What is simulated, besides what the seed decides.
#[derive(Debug, Clone, Copy)]
struct Plan {
    transport: Transport,
    /// Nothing is lost or late, and nobody is suspended.
    is_calm: bool,
    /// The library does not know how far the clocks drift apart.
    drift_is_ignored: bool,
    /// Its clock does not count the time of a suspend.
    clock_stands_still: bool,
}

const ROUGH: Plan = Plan {
    transport: Transport::Stream,
    is_calm: false,
    drift_is_ignored: false,
    clock_stands_still: false,
};

/// How the store sees the session.
#[derive(Debug)]
struct Store {
    skew: Skew,
    ttl: u64,
    /// From this true time on it may have granted to others. None before the session was opened.
    expires: Option<u64>,
    /// When the last renewal was sent to it.
    relayed: u64,
}

impl Store {
    fn has_ended(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    fn renew(&mut self, now: u64, relayed: u64) {
        let expires = self.skew.when(now, self.skew.at(now) + self.ttl);
        self.expires = Some(self.expires.map_or(expires, |known| known.max(expires)));
        self.relayed = self.relayed.max(relayed);
    }

    fn left_ms(&self, now: u64, since: u64) -> u64 {
        let gone = self.skew.at(now) - self.skew.at(since);
        self.ttl.saturating_sub(gone) / 1000
    }

    fn serve(&mut self, now: u64, relayed: u64, what: &What, dice: &mut Dice) -> Answer {
        if self.has_ended(now) {
            let details = ErrorDetails::with_error_info("SESSION_ENDED", "palisade", []);
            return Err(Status::with_error_details(Code::NotFound, "", details));
        }
        let ttl_ms = self.ttl / 1000;
        let left_ms = match what {
            What::Open { .. } | What::Renew => {
                self.renew(now, relayed);
                let told_late = dice.one_in(2);
                self.left_ms(if told_late { now } else { relayed }, relayed)
            }
            What::Acquire { .. } => self.left_ms(now, self.relayed),
            What::Release { .. } | What::Other => 0,
        };
        Ok(Given { ttl_ms, left_ms })
    }
}

#[derive(Debug)]
enum Event {
    /// The store takes a request, or a copy of one of which nobody hears.
    AtStore {
        asked: Asked,
        relayed: u64,
        is_copy: bool,
    },
    Answered(Asked, Answer),
    Look,
    /// Something else is asked for, and released.
    Acquire,
    /// The process, or the machine, stands still for so long.
    Suspend(u64),
    /// A coordinator is gone for so long.
    Down(usize, u64),
    Up(usize),
}

struct Simulation {
    plan: Plan,
    dice: Dice,
    time: Arc<Time>,
    store: Store,
    inbox: SharedInbox,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    /// So much else is to be asked for.
    wanted: u64,
    /// What happened, for whoever reads of a failure.
    trace: Vec<String>,
}

/// Of what happened so much is kept.
const TRACE: usize = 60;
/// How long the session's life is looked at, in true time.
const LENGTH: u64 = 150 * SECOND;
/// So often everybody gets a turn before time goes on: more than a call takes from end to end.
const TURNS: usize = 80;
const HELD: &str = "orders";

/// The library's side.
struct Holder {
    session: Session,
    lease: Lease,
    has_ended: bool,
}

impl Simulation {
    fn new(seed: u64, plan: Plan, inbox: SharedInbox) -> (Self, SessionOptions) {
        let mut dice = Dice::new(seed);
        let drift = dice.any_of(&[100, 10_000, 50_000, 100_000]);
        let (here, there) = clocks(drift, &mut dice);
        let ttl = dice.any_of(&[5, 15, 15, 30]);
        let told = if plan.drift_is_ignored { 0 } else { drift };
        let options = SessionOptions::default().drift_ppm(u32::try_from(told).unwrap());
        // Mostly so little that drift and the moment of sending alone must do.
        let options = if dice.one_in(4) {
            options
        } else {
            options.margin(Duration::from_millis(1))
        };
        let simulation = Self {
            plan,
            time: Time::new(here, plan.clock_stands_still),
            store: Store {
                skew: there,
                ttl: ttl * SECOND,
                expires: None,
                relayed: 0,
            },
            inbox,
            events: BTreeMap::new(),
            count: 0,
            wanted: 0,
            trace: Vec::new(),
            dice,
        };
        (simulation, options)
    }

    fn note(&mut self, what: String) {
        if self.trace.len() == TRACE {
            self.trace.remove(0);
        }
        self.trace.push(format!("{:>12} {what}", self.time.real()));
    }

    fn plan_at(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), event);
    }

    /// From one to the next.
    fn delay(&mut self) -> u64 {
        if self.plan.is_calm {
            return self.dice.below(SECOND / 10);
        }
        match self.dice.below(8) {
            0..=4 => self.dice.below(SECOND / 20),
            5 => self.dice.below(SECOND),
            6 => self.dice.below(3 * SECOND),
            _ if self.dice.one_in(2) => self.dice.below(3 * SECOND),
            _ => self.dice.below(25 * SECOND),
        }
    }

    fn happens(&mut self, chances: u64) -> bool {
        !self.plan.is_calm && self.dice.one_in(chances)
    }

    /// What was asked meanwhile goes its way.
    fn take_inbox(&mut self) {
        let asked = std::mem::take(&mut self.inbox.lock().unwrap().asked);
        let now = self.time.real();
        for asked in asked {
            self.note(format!("{} is asked {:?}", asked.host, asked.what));
            let is_down = self.inbox.lock().unwrap().down[asked.host];
            let opens = self.store.expires.is_none();
            if is_down || (!opens && self.happens(8)) {
                continue;
            }
            let relayed = now + self.delay();
            let at_store = relayed + self.delay();
            if self.happens(8) {
                let copy = Event::AtStore {
                    asked: asked.clone(),
                    relayed,
                    is_copy: true,
                };
                let later = at_store + self.delay();
                self.plan_at(later, copy);
            }
            let event = Event::AtStore {
                asked,
                relayed,
                is_copy: false,
            };
            self.plan_at(at_store, event);
        }
    }

    fn at_store(&mut self, now: u64, asked: Asked, relayed: u64, is_copy: bool) {
        let mut answer = self.store.serve(now, relayed, &asked.what, &mut self.dice);
        let expires = self.store.expires;
        self.note(format!("store: {:?} expires {expires:?}", asked.what));
        let opens = matches!(asked.what, What::Open { .. });
        if is_copy || (!opens && self.happens(8)) {
            return;
        }
        if !opens && self.happens(16) {
            let may = [("mayHaveHappened".to_owned(), "true".to_owned())];
            let details = ErrorDetails::with_error_info("STORE_UNAVAILABLE", "palisade", may);
            answer = Err(Status::with_error_details(Code::Unavailable, "", details));
        }
        let back = now + self.delay();
        if self.happens(6) && matches!(asked.reply, Reply::Stream(..)) {
            let again = back + self.delay();
            self.plan_at(again, Event::Answered(asked.clone(), answer.clone()));
        }
        self.plan_at(back, Event::Answered(asked, answer));
    }

    /// All that happens at this time but looks. Says whether the library is to be looked at.
    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::AtStore {
                asked,
                relayed,
                is_copy,
            } => self.at_store(now, asked, relayed, is_copy),
            Event::Answered(asked, answer) => {
                let left = answer.as_ref().map(|given| given.left_ms).ok();
                self.note(format!("{} answers {:?}: {left:?}", asked.host, asked.what));
                asked.reply.send(&asked.what, answer);
                // The worst moment to be cut off: what is believed now has to do.
                if !matches!(asked.what, What::Other) && self.happens(10) {
                    let length = self.dice.between(self.store.ttl / 2, 2 * self.store.ttl);
                    self.plan_at(now, Event::Down(0, length));
                    self.plan_at(now, Event::Down(1, length));
                }
            }
            Event::Look => {}
            Event::Acquire => self.wanted += 1,
            Event::Suspend(length) => self.suspend(now, length),
            Event::Down(host, length) => {
                self.note(format!("{host} is down"));
                let mut inbox = self.inbox.lock().unwrap();
                inbox.down[host] = true;
                for stream in inbox.streams[host].drain(..) {
                    drop(stream.send(Err(Status::unavailable("connection reset"))));
                }
                drop(inbox);
                self.plan_at(now + length, Event::Up(host));
            }
            Event::Up(host) => self.inbox.lock().unwrap().down[host] = false,
        }
    }

    /// The world goes on while the library's process stands still; then it finds all at once.
    fn suspend(&mut self, now: u64, length: u64) {
        let until = now + length;
        self.note(format!("suspended until {until}"));
        let mut found = Vec::new();
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), event) = entry.remove_entry();
            match event {
                Event::AtStore {
                    asked,
                    relayed,
                    is_copy,
                } => self.at_store(at, asked, relayed, is_copy),
                Event::Look | Event::Acquire | Event::Suspend(_) => {}
                other => found.push(other),
            }
        }
        self.time.wake(until, &mut self.dice);
        for event in found {
            self.happen(until, event);
        }
    }

    /// Once the store may have granted elsewhere, nothing says that it is held.
    fn look(&mut self, holder: &mut Holder) -> Result<(), String> {
        let now = self.time.real();
        let state = holder.session.state();
        let granted = holder.lease.grant().is_ok();
        let says_held = state.is_held() || granted || holder.lease.state().is_held();
        let left = holder.lease.time_left();
        if says_held && self.store.has_ended(now) {
            return Err(format!("{state:?} (grant: {granted}) at {now}"));
        }
        if says_held && holder.has_ended {
            return Err(format!("held again at {now}"));
        }
        let is_told = holder.lease.lost().is_cancelled() && left.is_zero();
        if !(says_held || is_told) {
            return Err(format!("lost in silence at {now}"));
        }
        if self.plan.is_calm && state != SessionState::Held {
            return Err(format!("{state:?} though all is well, at {now}"));
        }
        holder.has_ended |= !says_held;
        Ok(())
    }

    /// Time goes on to whatever comes next.
    fn step(&mut self) -> u64 {
        self.take_inbox();
        let timer = self.time.next_timer();
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        // The sharpest moment to look at.
        let expiry = self.store.expires.filter(|at| *at > self.time.real());
        let next = [timer, event, expiry].into_iter().flatten().min();
        let next = next.unwrap_or(LENGTH).max(self.time.real());
        self.time.reach(next);
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= self.time.real()
        {
            let ((at, _), event) = entry.remove_entry();
            self.happen(at, event);
        }
        self.time.real()
    }

    fn plan_faults(&mut self) {
        let begun = self.time.real();
        for _look in 0..30 {
            let at = begun + self.dice.below(LENGTH);
            self.plan_at(at, Event::Look);
        }
        for _acquire in 0..8 {
            let at = begun + self.dice.below(LENGTH);
            self.plan_at(at, Event::Acquire);
        }
        if self.plan.is_calm {
            return;
        }
        for _suspend in 0..self.dice.below(4) {
            let at = begun + self.dice.below(LENGTH / 2);
            let length = self
                .dice
                .any_of(&[SECOND, 6 * SECOND, 14 * SECOND, 40 * SECOND]);
            let length = self.dice.between(1, length);
            self.plan_at(at, Event::Suspend(length));
        }
        for _outage in 0..self.dice.below(4) {
            let at = begun + self.dice.below(LENGTH / 2);
            let host = self.dice.any_of(&[0, 1]);
            let length = self.dice.below(20 * SECOND);
            self.plan_at(at, Event::Down(host, length));
        }
    }

    /// Lets everybody work until this is done.
    async fn until<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            for _turn in 0..TURNS {
                if let Some(done) = turn(work.as_mut()).await {
                    return done;
                }
            }
            self.step();
        }
    }

    /// Says whether there was a lease at all: a rough sea may prevent that.
    async fn run(&mut self, client: &Client, options: SessionOptions) -> Result<bool, String> {
        let opening = client.open_session(options);
        let resource = HELD.parse().unwrap();
        let beginning = async {
            let session = opening.await?;
            let lease = session.try_acquire(&resource).await?;
            Ok((session, lease))
        };
        let begun: Result<_, ClientError> = self.until(beginning).await;
        let (session, lease) = match begun {
            Ok(begun) => begun,
            Err(error) if self.plan.is_calm => return Err(format!("no lease: {error:?}")),
            Err(_) => return Ok(false),
        };
        let mut holder = Holder {
            session,
            lease,
            has_ended: false,
        };
        self.plan_faults();
        let end = self.time.real() + LENGTH;
        while self.time.real() < end
            && !(holder.has_ended && self.store.has_ended(self.time.real()))
        {
            self.step();
            if self.dice.one_in(2) {
                // The first look comes before anything that arrived is taken in.
                self.look(&mut holder)?;
            }
            for _wanted in 0..std::mem::take(&mut self.wanted) {
                acquire_another(&holder.session);
            }
            settle().await;
            self.look(&mut holder)?;
        }
        Ok(true)
    }
}

/// The work's outcome, if it is done in one turn of everybody.
async fn turn<T>(work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut work = work;
    let done = std::future::poll_fn(|context| match work.poll_unpin(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await;
    tokio::task::yield_now().await;
    done
}

/// Its answer tells what is left of the TTL, too.
#[allow(
    clippy::disallowed_methods,
    reason = "it ends with the simulation's runtime"
)]
fn acquire_another(session: &Session) {
    let session = session.clone();
    tokio::spawn(async move {
        let resource = "another".parse().unwrap();
        if let Ok(lease) = session.try_acquire(&resource).await {
            drop(lease.release().await);
        }
    });
}

async fn settle() {
    for _turn in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// A clock here and one there that drift apart by no more than so many millionths.
fn clocks(drift: u64, dice: &mut Dice) -> (Skew, Skew) {
    const EVEN: u64 = 1_000_000;
    let half = drift / 2;
    let fastest = |slow: u64| EVEN * EVEN / (EVEN - slow);
    let (slow, fast) = match dice.below(3) {
        0 => (EVEN - drift, EVEN),
        1 => (EVEN, fastest(drift)),
        _ => (EVEN - half, fastest(half)),
    };
    let mut rates = |worst: u64, least: u64, most: u64| {
        if dice.one_in(2) {
            return vec![worst];
        }
        (0..10).map(|_| dice.between(least, most)).collect()
    };
    let here = rates(slow, slow, EVEN + drift);
    let there = rates(fast, EVEN - drift, fast);
    let origin = dice.below(1 << 40);
    (Skew::new(origin, here), Skew::new(0, there))
}

/// Has the work done in a world of its own.
fn in_world<T>(
    (seed, plan): (u64, Plan),
    work: impl AsyncFnOnce(&mut Simulation, &Client, SessionOptions) -> T,
) -> T {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let outcome = runtime.block_on(async {
        let inbox = SharedInbox::default();
        let dial = server::start(&inbox);
        let chance = Chance(Mutex::new(Dice::new(!seed)));
        let (mut simulation, options) = Simulation::new(seed, plan, inbox);
        let client = Client::builder()
            .endpoints(["http://one", "http://other"])
            .transport(plan.transport)
            .clock(Arc::<Time>::clone(&simulation.time))
            .connector(Arc::new(Dialling(dial)))
            .entropy(Arc::new(chance))
            .connect()
            .unwrap();
        work(&mut simulation, &client, options).await
    });
    drop(runtime);
    outcome
}

fn simulate(seed: u64, plan: Plan) -> Result<bool, String> {
    in_world((seed, plan), async |simulation, client, options| {
        let outcome = simulation.run(client, options).await;
        outcome.map_err(|what| format!("seed {seed}: {what}\n{}", simulation.trace.join("\n")))
    })
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Simulates what the environment names, or so many seeds.
fn all_seeds(count: u64, plan: Plan) {
    let seeds = match from_env("PALISADE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_env("PALISADE_SEEDS").unwrap_or(count),
    };
    let (mut all, mut held) = (0, 0);
    for seed in seeds {
        all += 1;
        match simulate(seed, plan) {
            Ok(was_held) => held += u64::from(was_held),
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(
        all < 10 || held > all / 2,
        "{held} leases in {all} simulations show little"
    );
}

/// Whether the simulation finds what is wrong.
fn is_caught(plan: Plan) -> bool {
    (0..200).any(|seed| simulate(seed, plan).is_err())
}

const UNARY: Plan = Plan {
    transport: Transport::Unary,
    ..ROUGH
};

#[test]
fn over_a_stream_it_never_says_held_once_another_may_hold() {
    all_seeds(80, ROUGH);
}

#[test]
fn over_calls_it_never_says_held_once_another_may_hold() {
    all_seeds(80, UNARY);
}

#[test]
fn without_faults_it_is_held() {
    for plan in [ROUGH, UNARY] {
        let calm = Plan {
            is_calm: true,
            ..plan
        };
        all_seeds(5, calm);
    }
}

/// The simulation itself: it finds a library that allows for no drift.
#[test]
fn drift_that_is_ignored_is_caught() {
    for plan in [ROUGH, UNARY] {
        let wrong = Plan {
            drift_is_ignored: true,
            ..plan
        };
        assert!(is_caught(wrong), "{plan:?}");
    }
}

/// The simulation itself: it finds a clock that does not count suspends, as `CLOCK_MONOTONIC`.
#[test]
fn a_clock_that_stands_still_in_a_suspend_is_caught() {
    for plan in [ROUGH, UNARY] {
        let wrong = Plan {
            clock_stands_still: true,
            ..plan
        };
        assert!(is_caught(wrong), "{plan:?}");
    }
}

/// Whoever closes a session on another thread ends it here and tells its task so; the task may look for what it is
/// told after the one, having looked for the end before the other.
#[test]
fn a_session_is_closed_also_by_a_task_that_was_told_so_before_it_saw_the_end() {
    let calm = Plan {
        is_calm: true,
        ..ROUGH
    };
    in_world((1, calm), async |simulation, client, options| {
        let session = simulation
            .until(client.open_session(options))
            .await
            .unwrap();
        let core = Arc::clone(session.core());
        let (told, closed) = oneshot::channel();
        let attached = core.attached.as_ref().unwrap();
        assert!(attached.close(Some(told)).is_ok());
        settle().await;
        core.lose(LostReason::Closed);
        let closed = simulation.until(closed).await;
        closed.expect("told").expect("closed");
        let settled = client.settled(Duration::from_secs(60));
        assert!(simulation.until(settled).await, "no task is left");
    });
}
