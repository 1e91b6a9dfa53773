//! Two instances campaign for one resource and count up in PostgreSQL, while what is between them breaks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_client::{
    CancellationToken, Client, Clock, Ended, LeaderError, Leadership, LeadershipOptions, Next,
    SealError, Sealer, SessionOptions, SessionState, SystemClock,
};
use palisade_guard::GuardError;
use palisade_guard::postgres::{Guard, Sealed};
use palisade_test_support::{Coordinator, Etcd, Postgres, Proxy, eventually, within};
use palisade_token::{FencingToken, Grant};
use sqlx::PgPool;
use tokio::task::JoinHandle;

use crate::setup::{LIMIT, TTL, coordinator, name, spawn};

const RESOURCE: &str = "counter";
/// So long that what is back soon is back before, however busy the machine.
const LONG: Duration = Duration::from_secs(60);

/// What each instance was handed, the newest last.
type Led = Arc<Mutex<Vec<(usize, Leadership<Sealed>)>>>;

/// How the guard's seal plugs into a campaign.
fn sealing(pool: PgPool) -> impl Sealer<Sealed = Sealed> {
    move |grant: Grant| {
        let pool = pool.clone();
        async move {
            match Guard::new().seal(&pool, &grant).await {
                Ok(sealed) => Ok(sealed),
                Err(GuardError::Stale { fence, .. }) => Err(SealError::Refused { fence }),
                Err(other) => Err(SealError::transient(other)),
            }
        }
    }
}

/// Reads and writes, as only one at a time may, until told to stop.
async fn count_up(pool: PgPool, leadership: Leadership<Sealed>, counted: Arc<AtomicU64>) -> Next {
    while !leadership.closing().is_cancelled() {
        match add_one(&pool, leadership.sealed()).await {
            Ok(()) => counted.fetch_add(1, Ordering::SeqCst),
            Err(GuardError::Stale { fence, .. }) => return Next::Refused(fence),
            Err(other) => panic!("{other}"),
        };
        SystemClock.sleep(Duration::from_millis(20)).await;
    }
    Next::Campaign
}

async fn add_one(pool: &PgPool, sealed: &Sealed) -> Result<(), GuardError> {
    let mut transaction = Guard::new().begin(pool, sealed).await?;
    let value: i64 = sqlx::query_scalar("SELECT value FROM counter")
        .fetch_one(&mut *transaction)
        .await?;
    sqlx::query("UPDATE counter SET value = $1")
        .bind(value + 1)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(())
}

struct Stage {
    etcd: Etcd,
    coordinator: Coordinator,
    _postgres: Postgres,
    pool: PgPool,
    counted: Arc<AtomicU64>,
    led: Led,
    /// How often one began while another held by its own words. A panic would be contained.
    violations: Arc<AtomicU64>,
}

/// One process's part, with its own way to the coordinator.
struct Instance {
    link: Proxy,
    stop: CancellationToken,
    /// Starts and stops.
    told: Arc<Mutex<(usize, usize)>>,
    running: JoinHandle<Result<Ended, LeaderError>>,
}

impl Stage {
    async fn new() -> Self {
        let etcd = Etcd::start().await.unwrap();
        let postgres = Postgres::start().await.unwrap();
        let pool = PgPool::connect(&postgres.url()).await.unwrap();
        for statement in [
            "CREATE TABLE counter (value bigint NOT NULL)",
            "INSERT INTO counter VALUES (0)",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        let guard = Guard::new();
        guard.install(&pool).await.unwrap();
        guard
            .protect(&pool, "counter", &name(RESOURCE))
            .await
            .unwrap();
        Self {
            coordinator: coordinator(&etcd.endpoints()).await,
            etcd,
            _postgres: postgres,
            pool,
            counted: Arc::default(),
            led: Arc::default(),
            violations: Arc::default(),
        }
    }

    async fn instance(&self, number: usize, ttl: Duration) -> Instance {
        let link = Proxy::start(&self.coordinator.addr()).await.unwrap();
        let client = Client::connect(link.url()).unwrap();
        let stop = CancellationToken::new();
        let told = Arc::new(Mutex::new((0, 0)));
        let (started, stopped, led) = (Arc::clone(&told), Arc::clone(&told), Arc::clone(&self.led));
        let violations = Arc::clone(&self.violations);
        let options = LeadershipOptions::default()
            .session(SessionOptions::default().ttl(ttl))
            .stop_on(stop.clone())
            .on_started(move |_grant| {
                let held = |(_, other): &&(usize, Leadership<Sealed>)| other.grant().is_ok();
                let holding = led.lock().unwrap().iter().filter(held).count();
                violations.fetch_add(holding.try_into().unwrap(), Ordering::SeqCst);
                started.lock().unwrap().0 += 1;
            })
            .on_stopped(move |_stopped| stopped.lock().unwrap().1 += 1);
        let (pool, counted, led) = (
            self.pool.clone(),
            Arc::clone(&self.counted),
            Arc::clone(&self.led),
        );
        let sealer = sealing(pool.clone());
        let running = spawn(async move {
            let work = move |leadership: Leadership<Sealed>| {
                led.lock().unwrap().push((number, leadership.clone()));
                count_up(pool.clone(), leadership, Arc::clone(&counted))
            };
            client
                .run_as_leader(&name(RESOURCE), options, sealer, work)
                .await
        });
        Instance {
            link,
            stop,
            told,
            running,
        }
    }

    /// The leader above `token`, once it leads and counts.
    async fn leader(&self, above: Option<FencingToken>) -> (usize, Leadership<Sealed>) {
        let newest = || self.led.lock().unwrap().last().cloned();
        let so = async || {
            newest().is_some_and(|(_, led)| Some(led.token()) > above && led.grant().is_ok())
        };
        eventually("a leader", LIMIT, so).await.unwrap();
        let before = self.counted.load(Ordering::SeqCst);
        let counts = async || self.counted.load(Ordering::SeqCst) > before;
        eventually("it counts", LIMIT, counts).await.unwrap();
        newest().unwrap()
    }
}

impl Stage {
    /// Ends them, and looks at what they have told and done.
    async fn end(self, instances: [Instance; 2]) {
        for instance in instances {
            instance.stop.cancel();
            let ended = within("its end", LIMIT, instance.running).await.unwrap();
            let ended = ended.unwrap().unwrap();
            assert!(!ended.still_running && !ended.resigned);
            let told = *instance.told.lock().unwrap();
            assert_eq!(told.0, told.1, "a stop for each start");
            assert_eq!(u64::try_from(told.0).unwrap(), ended.leaderships);
        }
        assert_eq!(self.violations.load(Ordering::SeqCst), 0, "two leaders");
        let value: i64 = sqlx::query_scalar("SELECT value FROM counter")
            .fetch_one(&self.pool)
            .await
            .unwrap();
        assert_eq!(
            u64::try_from(value).unwrap(),
            self.counted.load(Ordering::SeqCst)
        );
    }
}

async fn state(led: &Leadership<Sealed>, state: SessionState) {
    eventually(&format!("{state:?}"), LIMIT, async || led.state() == state)
        .await
        .unwrap();
}

#[tokio::test]
async fn outages_shorter_than_the_deadline_end_no_leadership() {
    let mut stage = Stage::new().await;
    let (one, other) = (stage.instance(0, LONG).await, stage.instance(1, LONG).await);
    let (who, first) = stage.leader(None).await;

    // The coordinator is killed and back; then etcd; then the way to it is cut.
    stage.coordinator.kill().unwrap();
    state(&first, SessionState::Suspect).await;
    stage.coordinator.start_again().await.unwrap();
    state(&first, SessionState::Held).await;
    stage.etcd.kill().unwrap();
    stage.etcd.start_again().await.unwrap();
    let instances = [&one, &other];
    instances[who].link.cut().await.unwrap();
    state(&first, SessionState::Suspect).await;
    instances[who].link.heal().await.unwrap();
    state(&first, SessionState::Held).await;
    let (still, same) = stage.leader(None).await;
    assert_eq!((still, same.token()), (who, first.token()));
    assert_eq!(*instances[who].told.lock().unwrap(), (1, 0));
    stage.end([one, other]).await;
}

#[tokio::test]
async fn an_outage_past_the_deadline_ends_the_leadership_before_another_begins() {
    let stage = Stage::new().await;
    let (one, other) = (stage.instance(0, TTL).await, stage.instance(1, TTL).await);
    let (who, first) = stage.leader(None).await;
    let instances = [&one, &other];
    // It hears nothing any more, and nothing ends: only its own clock tells.
    instances[who].link.blackhole();
    let (next, second) = stage.leader(Some(first.token())).await;
    assert_ne!(next, who);
    assert!(first.grant().is_err() && first.cancelled().is_cancelled());
    eventually("it is told", LIMIT, async || {
        *instances[who].told.lock().unwrap() == (1, 1)
    })
    .await
    .unwrap();
    instances[who].link.heal().await.unwrap();

    // The second is told to stop: the first, which campaigns again, follows at once.
    instances[next].stop.cancel();
    let (third, last) = stage.leader(Some(second.token())).await;
    assert_eq!(third, who);
    assert!(last.previous().is_some());
    stage.end([one, other]).await;
}

/// The fence is ahead, as after a restore of the guard's database: one lease is spent, the next is above it.
#[tokio::test]
async fn a_fence_that_is_ahead_costs_one_lease() {
    let stage = Stage::new().await;
    let ahead = Grant {
        resource: name(RESOURCE),
        token: FencingToken::new(tomorrow()).unwrap(),
        holder: palisade_token::HolderId::from_bytes([7; 16]),
    };
    Guard::new().seal(&stage.pool, &ahead).await.unwrap();
    let instance = stage.instance(0, TTL).await;
    let (_who, led) = stage.leader(Some(ahead.token)).await;
    assert!(led.token() > ahead.token);
    instance.stop.cancel();
    let ended = within("its end", LIMIT, instance.running).await.unwrap();
    assert_eq!(ended.unwrap().unwrap().leaderships, 1);
}

/// An hour ahead of the clock, in microseconds: coordinators go past it by themselves.
#[allow(
    clippy::disallowed_methods,
    reason = "tokens are of the wall clock, which this is an hour ahead of"
)]
fn tomorrow() -> u64 {
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_micros()).unwrap() + 3_600_000_000
}
