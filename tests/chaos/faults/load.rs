//! Clients at work whatever happens: they acquire, write through the guard and release, try it again later with what they
//! held before, and remember what they were told.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_client::{
    AcquireOptions, Client, ClientError, Grant, Lease, Moment, Session, SessionOptions, Transport,
};
use palisade_guard::GuardError;
use palisade_guard::memory::Sealed;
use palisade_test_support::{eventually, within};
use palisade_token::ResourceName;
use tokio::task::JoinHandle;

use super::engine::Engine;
use crate::common::{is_long, now, pause, spawn};

/// How many clients, each with a session.
const CLIENTS: usize = 4;
/// All of them want these.
const CONTENDED: [&str; 2] = ["hot/0", "hot/1"];
const WAIT: Duration = Duration::from_secs(2);
/// So long a call goes on trying: shorter than most faults, so that outcomes stay unknown.
const PATIENCE: Duration = Duration::from_secs(4);
/// For an answer, whatever happens.
const ANSWERED: Duration = Duration::from_secs(60);
/// What remains of a session that was lost goes after this. A busy machine renews it all the same.
pub(super) const TTL: Duration = Duration::from_secs(8);

/// A lease as its client was told of it.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) grant: Grant,
    pub(super) session: String,
    pub(super) request: String,
    pub(super) asked: Moment,
    pub(super) told: Moment,
    /// The last moment at which its client was seen to believe in it.
    pub(super) believed: Moment,
    /// When its client was told that it is released.
    pub(super) released: Option<Moment>,
}

impl Told {
    fn new(lease: &Lease, asked: Moment) -> Self {
        let info = lease.info();
        let told = now();
        Self {
            grant: info.grant.clone(),
            session: info.session_id.clone(),
            request: info.request_id.clone(),
            asked,
            told,
            believed: told,
            released: None,
        }
    }

    pub(super) fn name(&self) -> (String, i64) {
        (self.grant.resource.to_string(), self.grant.token.as_i64())
    }
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Shared {
    stop: AtomicBool,
    operations: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    /// Sessions that ended while their clients lived.
    lost: AtomicU64,
    /// Per client, what it was granted.
    granted: Vec<AtomicU64>,
    told: Mutex<Vec<Told>>,
    violations: Mutex<Vec<String>>,
    pub(super) engine: Engine,
}

impl Shared {
    fn counts(&self, error: &ClientError) {
        let kind = if error.may_have_happened() {
            &self.unknown
        } else {
            &self.refused
        };
        kind.fetch_add(1, Ordering::Relaxed);
    }

    fn violates(&self, what: String) {
        self.violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }

    fn keep(&self, told: Told) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told);
    }
}

/// One client, over one session after another.
struct Worker {
    number: usize,
    client: Client,
    shared: Arc<Shared>,
    /// What it held before: shown to the guard again, later.
    old: Vec<Sealed>,
    round: usize,
}

/// What each session holds all the while.
struct Kept {
    lease: Lease,
    told: Told,
}

/// What a worker has when it stops.
struct Left {
    session: Option<Session>,
    kept: Option<Kept>,
}

impl Worker {
    async fn run(mut self) -> Left {
        loop {
            let mut left = Left {
                session: self.opens().await,
                kept: None,
            };
            while let Some(session) = &left.session
                && session.state().is_held()
            {
                if self.is_stopped() {
                    return left;
                }
                self.keeps(session, &mut left.kept).await;
                self.goes_round(session).await;
                pause(self.between()).await;
            }
            if let Some(kept) = left.kept.take() {
                self.shared.keep(kept.told);
            }
            if left.session.is_some() {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
            if self.is_stopped() {
                return Left {
                    session: None,
                    kept: None,
                };
            }
            pause(self.between()).await;
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// In CI others need the processors, too.
    fn between(&self) -> Duration {
        Duration::from_millis(if is_long() { 10 } else { 120 })
    }

    async fn opens(&self) -> Option<Session> {
        self.shared.operations.fetch_add(1, Ordering::Relaxed);
        let options = SessionOptions::default().ttl(TTL);
        let opened = within(
            "an answer to an opening",
            ANSWERED,
            self.client.open_session(options),
        )
        .await;
        match opened {
            Ok(Ok(session)) => Some(session),
            Ok(Err(error)) => {
                self.shared.counts(&error);
                None
            }
            Err(hangs) => {
                self.shared.violates(format!("I6: {hangs}"));
                None
            }
        }
    }

    /// Holds a resource that nobody else wants for as long as it lasts.
    async fn keeps(&self, session: &Session, kept: &mut Option<Kept>) {
        if let Some(Kept { lease, told }) = kept {
            let at = now();
            if lease.grant().is_ok() {
                told.believed = at;
                return;
            }
        }
        if let Some(lost) = kept.take() {
            self.shared.keep(lost.told);
        }
        let name = format!("kept/{}", self.number);
        *kept = self
            .acquires(session, &name, Some(WAIT))
            .await
            .map(|(lease, told)| Kept { lease, told });
    }

    async fn acquires(
        &self,
        session: &Session,
        resource: &str,
        wait: Option<Duration>,
    ) -> Option<(Lease, Told)> {
        self.shared.operations.fetch_add(1, Ordering::Relaxed);
        let resource = ResourceName::new(resource).unwrap();
        let options = AcquireOptions::default();
        let options = wait.map_or_else(AcquireOptions::default, |wait| options.wait(wait));
        let asked = now();
        let answer = session.acquire(&resource, options);
        match within("an answer to an acquire", ANSWERED, answer).await {
            Ok(Ok(lease)) => {
                self.shared.granted[self.number].fetch_add(1, Ordering::Relaxed);
                let told = Told::new(&lease, asked);
                Some((lease, told))
            }
            Ok(Err(error)) => {
                self.shared.counts(&error);
                None
            }
            Err(hangs) => {
                self.shared.violates(format!("I6: {resource}: {hangs}"));
                None
            }
        }
    }

    async fn goes_round(&mut self, session: &Session) {
        self.round += 1;
        let round = self.round;
        let own = format!("own/{}", self.number);
        let (resource, wait) = match round % 4 {
            0 => (CONTENDED[0], Some(WAIT)),
            1 => (CONTENDED[1], Some(WAIT)),
            2 => (own.as_str(), Some(WAIT)),
            _ => (CONTENDED[round / 4 % 2], None),
        };
        let Some((lease, mut told)) = self.acquires(session, resource, wait).await else {
            return;
        };
        self.writes(&lease, &mut told).await;
        self.releases(lease, told).await;
    }

    async fn writes(&mut self, lease: &Lease, told: &mut Told) {
        self.writes_late();
        let Ok(grant) = lease.grant() else { return };
        told.believed = told.believed.max(now());
        self.shared.operations.fetch_add(1, Ordering::Relaxed);
        match self.shared.engine.seal(&grant).await {
            Ok(sealed) => {
                self.expects_refusal_or_write(&sealed);
                self.old.push(sealed);
                // The last few are enough.
                if self.old.len() > 8 {
                    self.old.remove(0);
                }
            }
            Err(GuardError::Stale { .. }) => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(other) => self.shared.violates(format!("I2: {grant}: {other}")),
        }
        let at = now();
        if lease.grant().is_ok() {
            told.believed = at;
        }
    }

    /// A leader that does not know that it is none any more.
    fn writes_late(&self) {
        if let Some(sealed) = self.old.get(self.round % 8) {
            self.shared.operations.fetch_add(1, Ordering::Relaxed);
            self.expects_refusal_or_write(sealed);
        }
    }

    fn expects_refusal_or_write(&self, sealed: &Sealed) {
        match self.shared.engine.write(sealed) {
            Ok(()) => {}
            Err(GuardError::Stale { .. }) => {
                self.shared.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(other) => self
                .shared
                .violates(format!("I2: {}: {other}", sealed.grant())),
        }
    }

    async fn releases(&self, lease: Lease, mut told: Told) {
        self.shared.operations.fetch_add(1, Ordering::Relaxed);
        match within("an answer to a release", ANSWERED, lease.release()).await {
            Ok(Ok(_released)) => told.released = Some(now()),
            Ok(Err(error)) => self.shared.counts(&error),
            Err(hangs) => self.shared.violates(format!("I6: {hangs}")),
        }
        self.shared.keep(told);
    }
}

/// Figures at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    pub(super) operations: u64,
    pub(super) unknown: u64,
    pub(super) lost: u64,
}

/// Half of the clients have streams.
fn transport(number: usize) -> Transport {
    match number / 2 % 2 {
        0 => Transport::Stream,
        _ => Transport::Unary,
    }
}

/// Several clients at work.
pub(super) struct Load {
    pub(super) shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Left>>,
}

impl Load {
    /// Each client prefers another one of these coordinators, and has all.
    pub(super) fn start(coordinators: &[String]) -> Self {
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            granted: (0..CLIENTS).map(|_| AtomicU64::new(0)).collect(),
            told: Mutex::default(),
            violations: Mutex::default(),
            engine: Engine::new(),
        });
        let work = |number: usize| {
            let mut endpoints = coordinators.to_vec();
            endpoints.rotate_left(number % coordinators.len());
            let client = Client::builder()
                .endpoints(endpoints)
                .transport(transport(number))
                .operation_timeout(PATIENCE)
                .connect()
                .unwrap();
            let worker = Worker {
                number,
                client,
                shared: Arc::clone(&shared),
                old: Vec::new(),
                round: number,
            };
            spawn(worker.run())
        };
        let tasks = (0..CLIENTS).map(work).collect();
        Self { shared, tasks }
    }

    pub(super) fn figures(&self) -> Figures {
        let shared = &self.shared;
        Figures {
            operations: shared.operations.load(Ordering::Relaxed),
            unknown: shared.unknown.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
        }
    }

    fn grants(&self) -> Vec<u64> {
        let granted = self.shared.granted.iter();
        granted.map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Waits until somebody is granted something once more.
    pub(super) async fn one_gets_on(&self, limit: Duration) {
        let before: u64 = self.grants().iter().sum();
        let moved = async || self.grants().iter().sum::<u64>() > before || self.has_failed();
        eventually("a grant", limit, moved).await.unwrap();
        assert!(!self.has_failed(), "a client has failed: see above");
    }

    /// Waits until each client was granted something once more.
    pub(super) async fn all_get_on(&self, limit: Duration) {
        let before = self.grants();
        let moved = async || {
            let grants = self.grants();
            grants.iter().zip(&before).all(|(now, before)| now > before) || self.has_failed()
        };
        eventually("a grant to each client", limit, moved)
            .await
            .unwrap();
        assert!(!self.has_failed(), "a client has failed: see above");
    }

    fn has_failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Lets every client end its round.
    pub(super) async fn end(self) -> Rest {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut left = Vec::new();
        for task in self.tasks {
            left.push(
                within("a client", ANSWERED * 2, task)
                    .await
                    .unwrap()
                    .unwrap(),
            );
        }
        Rest {
            shared: self.shared,
            left,
        }
    }
}

/// What is left when the work is done, while the sessions live.
pub(super) struct Rest {
    shared: Arc<Shared>,
    left: Vec<Left>,
}

impl Rest {
    /// What clients believe that they hold.
    pub(super) fn believed(&mut self) -> BTreeSet<(String, i64)> {
        let mut believed = BTreeSet::new();
        for kept in self.left.iter_mut().filter_map(|left| left.kept.as_mut()) {
            let at = now();
            if kept.lease.grant().is_ok() {
                kept.told.believed = at;
                believed.insert(kept.told.name());
            }
        }
        believed
    }

    /// Closes all sessions; tells what all clients were told, and what is wrong with that at first sight.
    pub(super) async fn close(self) -> (Arc<Shared>, Vec<Told>, Vec<String>) {
        for Left { session, kept } in self.left {
            if let Some(session) = session {
                // One that is not closed ends by itself.
                let closed = within("a session closes", ANSWERED, session.close()).await;
                drop(closed);
            }
            if let Some(kept) = kept {
                if kept.lease.grant().is_ok() {
                    let what = format!("I8: held after its session: {:?}", kept.told);
                    self.shared.violates(what);
                }
                self.shared.keep(kept.told);
            }
        }
        let take = |told: &Mutex<Vec<Told>>| {
            std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let told = take(&self.shared.told);
        let mut violations = std::mem::take(
            &mut *self
                .shared
                .violations
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        violations.extend(self.shared.engine.violations());
        (self.shared, told, violations)
    }
}
