//! F29: the guard's own database is killed under load, and then replaced by an older dump (I2, I3).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use palisade_client::{AcquireOptions, Client, Lease, SessionOptions};
use palisade_guard::GuardError;
use palisade_guard::postgres::{Guard, Sealed};
use palisade_test_support::{Coordinator, Postgres, eventually, within};
use palisade_token::ResourceName;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinHandle;

use crate::common::{LIMIT, now, pause, rounds, spawn};
use crate::report::Row;

const WRITERS: usize = 3;
const TABLE: &str = "CREATE TABLE journal (place bigserial, token bigint NOT NULL, holder text NOT NULL, entry bigint NOT NULL)";

/// What writers were told.
#[derive(Debug, Default)]
struct Told {
    stop: AtomicBool,
    entries: AtomicU64,
    unknown: AtomicU64,
    /// Entries whose commit was acknowledged.
    written: Mutex<Vec<i64>>,
    /// Sealed once, by token: what leaders of before still have.
    sealed: Mutex<BTreeMap<i64, Sealed>>,
    grants: AtomicU64,
}

struct Writer {
    client: Client,
    pool: PgPool,
    told: Arc<Told>,
}

fn journal() -> ResourceName {
    ResourceName::new("journal").unwrap()
}

impl Writer {
    async fn run(self) {
        let options = SessionOptions::default().ttl(Duration::from_secs(5));
        let session = self.client.open_session(options).await.unwrap();
        while !self.told.stop.load(Ordering::Relaxed) {
            let wait = AcquireOptions::default().wait(Duration::from_secs(30));
            if let Ok(lease) = session.acquire(&journal(), wait).await {
                self.leads(&lease).await;
                let _released = lease.release().await;
            }
            pause(Duration::from_millis(10)).await;
        }
    }

    /// Seals, and writes a few entries. Whatever fails is given up: the next leader goes on.
    async fn leads(&self, lease: &Lease) {
        let Ok(grant) = lease.grant() else { return };
        let guard = Guard::new();
        let seal = within("a seal", LIMIT, guard.seal(&self.pool, &grant));
        let Ok(sealed) = seal.await.unwrap() else {
            return;
        };
        self.told.grants.fetch_add(1, Ordering::Relaxed);
        let token = grant.token.as_i64();
        locked(&self.told.sealed).insert(token, sealed.clone());
        for _ in 0..3 {
            let entry = self.told.entries.fetch_add(1, Ordering::Relaxed);
            let entry = i64::try_from(entry).unwrap();
            match within("a write", LIMIT, write(&self.pool, &sealed, entry))
                .await
                .unwrap()
            {
                Ok(()) => locked(&self.told.written).push(entry),
                Err(_unknown) => {
                    self.told.unknown.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(pool: &PgPool, sealed: &Sealed, entry: i64) -> Result<(), GuardError> {
    let grant = sealed.grant();
    let mut transaction = Guard::new().begin(pool, sealed).await?;
    let insert = "INSERT INTO journal (token, holder, entry) VALUES ($1, $2, $3)";
    let done = sqlx::query(insert)
        .bind(grant.token.as_i64())
        .bind(grant.holder.to_string())
        .bind(entry)
        .execute(&mut *transaction)
        .await;
    match done {
        Ok(_) => transaction.commit().await.map(drop),
        Err(error) => Err(transaction.refusal(error)),
    }
}

/// Tokens in the order of the writes, and every entry.
async fn written(pool: &PgPool) -> (Vec<(i64, String)>, Vec<i64>) {
    let select = "SELECT token, holder, entry FROM journal ORDER BY place";
    let rows: Vec<(i64, String, i64)> = sqlx::query_as(select).fetch_all(pool).await.unwrap();
    let entries = rows.iter().map(|(_, _, entry)| *entry).collect();
    let marks = rows.into_iter().map(|(token, holder, _)| (token, holder));
    (marks.collect(), entries)
}

/// I2.
fn never_decrease(marks: &[(i64, String)]) {
    for pair in marks.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        let is_next = before.0 < after.0 || before == after;
        assert!(is_next, "I2: {after:?} wrote after {before:?}");
    }
}

struct World {
    postgres: Postgres,
    _coordinator: Coordinator,
    told: Arc<Told>,
    writers: Vec<JoinHandle<()>>,
    url: String,
    pool: PgPool,
}

impl World {
    async fn start() -> Self {
        let postgres = Postgres::start().await.unwrap();
        let url = postgres.create_database("store").await.unwrap();
        let pool = pool(&url);
        Guard::new().install(&pool).await.unwrap();
        sqlx::query(TABLE).execute(&pool).await.unwrap();
        Guard::new()
            .protect(&pool, "journal", &journal())
            .await
            .unwrap();
        let coordinator = Coordinator::builder().start().await.unwrap();
        let told = Arc::<Told>::default();
        let writer = |_| {
            let writer = Writer {
                client: Client::connect(coordinator.addr()).unwrap(),
                pool: pool.clone(),
                told: Arc::clone(&told),
            };
            spawn(writer.run())
        };
        let writers = (0..WRITERS).map(writer).collect();
        Self {
            postgres,
            _coordinator: coordinator,
            told,
            writers,
            url,
            pool,
        }
    }

    async fn gets_on(&self) -> Duration {
        let since = now();
        let count = || locked(&self.told.written).len();
        let before = count();
        let moved = async || count() > before + 3;
        eventually("writes go on", LIMIT, moved).await.unwrap();
        since.until(now())
    }

    /// Kill -9, and what was acknowledged is there.
    async fn is_killed(&mut self) -> Duration {
        self.postgres.kill().unwrap();
        pause(Duration::from_millis(200)).await;
        self.postgres.start_again().await.unwrap();
        let recovery = self.gets_on().await;
        let acknowledged = locked(&self.told.written).clone();
        let (marks, entries) = written(&self.pool).await;
        never_decrease(&marks);
        for entry in acknowledged {
            let is_there = entries.contains(&entry);
            assert!(is_there, "I2: {entry} was acknowledged, and is lost");
        }
        recovery
    }

    /// What was sealed last before now.
    fn sealed_last(&self) -> Sealed {
        let sealed = locked(&self.told.sealed);
        sealed.last_key_value().unwrap().1.clone()
    }
}

fn pool(url: &str) -> PgPool {
    PgPoolOptions::new()
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy(url)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guards_database_is_killed_and_replaced_by_an_older_dump() {
    let mut world = World::start().await;
    world.gets_on().await;
    let mut recovery = Vec::new();
    for _ in 0..rounds(2, 10) {
        recovery.push(world.is_killed().await);
    }

    let home = tempfile::tempdir().unwrap();
    let dump = home.path().join("dump.sql").display().to_string();
    world.gets_on().await;
    let dumped = ["-d", "store", "-f", &dump];
    world.postgres.tool("pg_dump", &dumped).await.unwrap();
    world.gets_on().await;
    world.gets_on().await;
    let after_dump = world.sealed_last();
    let drop_it = "DROP DATABASE store WITH (FORCE)";
    world.postgres.psql("postgres", drop_it).await.unwrap();
    world.postgres.create_database("other").await.unwrap();
    let load = ["-Xq", "-v", "ON_ERROR_STOP=1", "-d", "other", "-f", &dump];
    world.postgres.tool("psql", &load).await.unwrap();
    let newest = locked(&world.told.sealed)
        .last_key_value()
        .map(|(token, _)| *token);
    let rename = "ALTER DATABASE other RENAME TO store";
    world.postgres.psql("postgres", rename).await.unwrap();
    // Of what was sealed since the dump the fence knows nothing, and lets nobody write by it.
    let fresh = pool(&world.url);
    let refused = write(&fresh, &after_dump, -1).await.unwrap_err();
    assert!(
        matches!(
            refused,
            GuardError::StoreWentBackwards { .. } | GuardError::Stale { .. }
        ),
        "I2, I9: {refused:?}"
    );
    recovery.push(world.gets_on().await);
    world.told.stop.store(true, Ordering::Relaxed);
    for writer in std::mem::take(&mut world.writers) {
        within("a writer", LIMIT, writer).await.unwrap().unwrap();
    }
    let (marks, entries) = written(&fresh).await;
    never_decrease(&marks);
    assert!(!entries.contains(&-1), "I2");
    let last = marks.last().map(|(token, _)| *token);
    assert!(last > newest, "I3: {last:?} after {newest:?}");
    Row {
        fault: "F29",
        test: "faults::guards::a_guards_database_is_killed_and_replaced_by_an_older_dump",
        operations: world.told.entries.load(Ordering::Relaxed)
            + 2 * world.told.grants.load(Ordering::Relaxed),
        unknown: world.told.unknown.load(Ordering::Relaxed),
        violations: 0,
        recovery,
    }
    .write();
}
