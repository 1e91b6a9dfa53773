//! Leaderships: over a coordinator that breaks as a plan says, on a clock that the test moves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_client::{
    Client, Ended, FencingToken, Grant, LeaderError, LeadershipOptions, SealError,
};
use palisade_test_support::eventually;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::attach::world::{Asked, Host, Kind};
use crate::clock::ManualClock;
use crate::fake::PATIENCE;

mod begin;
mod stop;

/// Starts a task of a test; it ends with the test's runtime.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where these tests start tasks"
)]
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(work)
}

/// What happened, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, what: &str) -> usize {
        let all = self.0.lock().unwrap();
        all.iter().filter(|said| said.starts_with(what)).count()
    }

    async fn saw(&self, what: &str, count: usize) {
        eventually(what, PATIENCE, async || self.count(what) >= count)
            .await
            .unwrap();
    }
}

/// One campaign and what it is played with.
struct Stage {
    host: Host,
    clock: Arc<ManualClock>,
    client: Client,
    log: Log,
    stop: CancellationToken,
}

type Campaigning = JoinHandle<Result<Ended, LeaderError>>;

impl Stage {
    async fn new() -> Self {
        let host = Host::start().await;
        let clock = ManualClock::shared();
        let client = Client::builder()
            .endpoint(&host.address)
            .call_timeout(Duration::from_secs(2))
            .clock(Arc::<ManualClock>::clone(&clock))
            .connect()
            .unwrap();
        Self {
            host,
            clock,
            client,
            log: Log::default(),
            stop: CancellationToken::new(),
        }
    }

    fn options(&self) -> LeadershipOptions {
        let (started, stopped, trouble) = (self.log.clone(), self.log.clone(), self.log.clone());
        LeadershipOptions::default()
            .stop_on(self.stop.clone())
            .drain_limit(Duration::from_secs(3))
            .seal_limit(Duration::from_secs(3))
            .on_started(move |grant| started.add(format!("started {}", grant.token)))
            .on_stopped(move |over| stopped.add(format!("stopped {} {over:?}", over.grant.token)))
            .on_trouble(move |what| trouble.add(format!("trouble {what:?}")))
    }

    /// Lets time pass, little by little, until it is so.
    async fn pass_until(&self, what: &str, mut so: impl AsyncFnMut() -> bool) {
        let passing = async || {
            if so().await {
                return true;
            }
            self.clock.advance(Duration::from_millis(50));
            false
        };
        eventually(what, PATIENCE, passing).await.unwrap();
    }

    /// The fences that releases told; 0 for none.
    fn releases(&self) -> Vec<i64> {
        let seen = self.host.seen(Kind::Release).into_iter();
        seen.map(|request| match request.message {
            Some(Asked::Release(release)) => release.refused_by_fence,
            other => panic!("{other:?}"),
        })
        .collect()
    }
}

/// Fails as told, then seals; counts its calls.
#[derive(Clone, Default)]
struct Seals {
    plan: Arc<Mutex<Vec<Failing>>>,
    calls: Arc<AtomicUsize>,
}

#[derive(Clone, Copy)]
enum Failing {
    Refused(u64),
    Transient,
    Fatal,
    Panic,
}

impl Seals {
    fn failing(plan: &[Failing]) -> Self {
        Self {
            plan: Arc::new(Mutex::new(plan.iter().rev().copied().collect())),
            calls: Arc::default(),
        }
    }

    fn sealer(
        &self,
    ) -> impl Fn(Grant) -> futures::future::Ready<Result<FencingToken, SealError>>
    + Send
    + Sync
    + 'static
    + use<> {
        let Self { plan, calls } = self.clone();
        move |grant| {
            calls.fetch_add(1, Ordering::SeqCst);
            let next = plan.lock().unwrap().pop();
            futures::future::ready(match next {
                None => Ok(grant.token),
                Some(Failing::Refused(fence)) => Err(SealError::Refused {
                    fence: FencingToken::new(fence).unwrap(),
                }),
                Some(Failing::Transient) => Err(SealError::transient("not now")),
                Some(Failing::Fatal) => Err(SealError::fatal("never")),
                Some(Failing::Panic) => panic!("the sealer broke"),
            })
        }
    }
}

/// Opens once and stays open.
#[derive(Clone, Default)]
struct Gate(Arc<Notify>);

impl Gate {
    fn open(&self) {
        self.0.notify_one();
    }

    async fn opened(&self) {
        self.0.notified().await;
        self.0.notify_one();
    }
}
