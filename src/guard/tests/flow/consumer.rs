//! The example, taken over and killed in the middle.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use palisade_guard::GuardError;
use palisade_guard::effects::{Envelope, Name, PublishError, Publisher, RedisStreams};
use palisade_guard::postgres::{Guard, Relay};
use palisade_test_support::{Redis, eventually};
use palisade_token::Grant;
use sqlx::PgPool;

use crate::broker::{Broker, named};
use crate::db::{Db, PATIENCE, grant, name, run};

#[allow(dead_code, reason = "its main is for people")]
#[path = "../../examples/queue_consumer.rs"]
mod queue_consumer;

const RESOURCE: &str = "bank/deposits";
const DEPOSITS: i64 = 40;

/// Every fifth message comes twice in the source.
async fn bank() -> Db {
    let db = Db::empty().await;
    queue_consumer::prepare(&db.pool, &name(RESOURCE))
        .await
        .unwrap();
    db.run(&format!(
        "INSERT INTO deposits (message, account, amount)
         SELECT 'm' || n - CASE WHEN n % 5 = 0 THEN 1 ELSE 0 END, (n - CASE WHEN n % 5 = 0 THEN 1 ELSE 0 END) % 3, 1
         FROM generate_series(1, {DEPOSITS}) AS n"
    ))
    .await;
    db
}

/// Each message had its effect once, and one receipt, and they are the same ones.
async fn assert_whole(db: &Db) {
    let distinct = DEPOSITS - DEPOSITS / 5;
    let sums = [
        "SELECT sum(amount)::bigint FROM balances",
        "SELECT count(*) FROM palisade.outbox WHERE outbox = 'receipts'",
        "SELECT count(DISTINCT message) FROM palisade.outbox WHERE outbox = 'receipts'",
        "SELECT count(*) FROM palisade.inbox",
    ];
    for sum in sums {
        assert_eq!(db.number(sum).await, distinct, "{sum}");
    }
    let offset = "SELECT at::bigint FROM palisade.mark WHERE name = 'deposits'";
    assert_eq!(db.number(offset).await, DEPOSITS);
}

/// The trap of every table that is read like a log: positions are given out before the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposit_committed_late_is_not_passed_over() {
    let db = Db::empty().await;
    queue_consumer::prepare(&db.pool, &name(RESOURCE))
        .await
        .unwrap();
    let deposit = "INSERT INTO deposits (message, account, amount) VALUES";
    let mut late = db.connect().await;
    run(&mut late, &format!("BEGIN; {deposit} ('first', 1, 1)"))
        .await
        .unwrap();
    db.run(&format!("{deposit} ('second', 1, 1)")).await;
    let mut tasks = tokio::task::JoinSet::new();
    let pool = db.pool.clone();
    tasks.spawn(async move {
        let consumed = queue_consumer::consume(&pool, &grant(RESOURCE, 1), async |_| {}).await;
        consumed.unwrap()
    });
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut handled = 0;
    eventually("it is done, or waits", PATIENCE, async || {
        let done = tasks.try_join_next();
        handled += done.as_ref().map_or(0, |done| *done.as_ref().unwrap());
        done.is_some() || db.number(waiting).await == 1
    })
    .await
    .unwrap();
    run(&mut late, "COMMIT").await.unwrap();
    handled += tasks.join_all().await.into_iter().sum::<u64>();
    let rest = queue_consumer::consume(&db.pool, &grant(RESOURCE, 1), async |_| {}).await;
    assert_eq!(handled + rest.unwrap(), 2);
    assert_eq!(
        db.number("SELECT sum(amount)::bigint FROM balances").await,
        2
    );
}

#[tokio::test]
async fn a_consumer_taken_over_in_its_transaction_writes_nothing_more() {
    let db = bank().await;
    // The first holder stands still before a commit; a seal would wait for its transaction, as for any, so
    // it is one that was paused before it began the next.
    let mut old = 0;
    let error = queue_consumer::consume(&db.pool, &grant(RESOURCE, 1), async |_| {
        old += 1;
        if old == 7 {
            let terminate =
                "SELECT pg_terminate_backend(pid) FROM palisade.blockers('bank/deposits')";
            sqlx::query(terminate).execute(&db.pool).await.unwrap();
            let new = queue_consumer::consume(&db.pool, &grant(RESOURCE, 2), async |_| {}).await;
            // Six of the first holder are not new any more, five of them distinct.
            assert_eq!(new.unwrap(), 32 - 5);
        }
    })
    .await
    .unwrap_err();
    assert!(error.downcast_ref::<GuardError>().is_some(), "{error:?}");
    let again = queue_consumer::consume(&db.pool, &grant(RESOURCE, 1), async |_| {}).await;
    let error = again.unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(GuardError::Stale { .. })),
        "{error:?}"
    );
    assert_whole(&db).await;
    // Receipts of one account come in the order of its deposits.
    let broker = Broker::default();
    let relay = Relay::new(
        db.guard,
        db.seal(&grant("relay", 1)).await,
        Name::new("receipts").unwrap(),
        broker.clone(),
    );
    assert_eq!(db.pass(&relay).await.unwrap().published, 32);
    for account in 0..3 {
        let of = Name::new(format!("account-{account}")).unwrap();
        let numbers: Vec<u32> = broker
            .envelopes()
            .iter()
            .filter(|envelope| envelope.aggregate.as_ref() == Some(&of))
            .map(|envelope| {
                envelope
                    .id
                    .as_str()
                    .trim_start_matches("receipt-m")
                    .parse()
                    .unwrap()
            })
            .collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

/// What a process of its own does, if it is told to by its environment: consumes, or relays to Redis, and stands
/// still after so many messages until it is killed.
#[tokio::test]
async fn child() {
    let Ok(task) = std::env::var("PALISADE_FLOW_CHILD") else {
        return;
    };
    let pool = PgPool::connect(&std::env::var("DATABASE_URL").unwrap())
        .await
        .unwrap();
    if task == "consume" {
        let mine = grant(RESOURCE, 1);
        let consumed = queue_consumer::consume(&pool, &mine, async |position| {
            if position == 12 {
                stand_still().await;
            }
        });
        consumed.await.unwrap();
    } else {
        let publisher = RedisStreams::new(redis::Client::open(task).unwrap());
        let publisher = StandsStill(publisher, AtomicU32::new(0));
        let sealed = Guard::new().seal(&pool, &grant("relay", 1)).await.unwrap();
        let relay = Relay::new(Guard::new(), sealed, named("main"), publisher);
        relay.pass(&pool, || true).await.unwrap();
    }
}

#[allow(clippy::print_stdout, reason = "how a process tells its parent")]
async fn stand_still() {
    println!("standing still");
    std::future::pending::<()>().await;
}

fn spawn(db: &Db, task: &str) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "consumer::child", "--nocapture"])
        .env("PALISADE_FLOW_CHILD", task)
        .env("DATABASE_URL", &db.url)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_until_it_stands_still(child: &mut std::process::Child) {
    use std::io::{BufRead as _, BufReader};
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines
        .map_while(Result::ok)
        .any(|line| line.contains("standing still"));
    assert!(said, "it ended before");
}

#[tokio::test]
async fn a_consumer_killed_before_its_commit_is_taken_over() {
    let db = bank().await;
    let mut child = spawn(&db, "consume");
    wait_until_it_stands_still(&mut child);
    // SIGKILL: its connection is closed by the kernel, and the server ends its transaction.
    child.kill().unwrap();
    child.wait().unwrap();
    let new = queue_consumer::consume(&db.pool, &grant(RESOURCE, 2), async |_| {}).await;
    // Eleven were consumed, two of them repetitions.
    assert_eq!(new.unwrap(), 32 - 9);
    assert_whole(&db).await;
}

/// Stands still when the broker has the fifth message, and nobody knows.
struct StandsStill(RedisStreams, AtomicU32);

impl Publisher for StandsStill {
    async fn publish(&self, message: &Envelope, relay: &Grant) -> Result<(), PublishError> {
        self.0.publish(message, relay).await?;
        if self.1.fetch_add(1, Ordering::SeqCst) + 1 == 5 {
            stand_still().await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_relay_killed_between_publishing_and_marking_repeats_nothing_in_the_stream() {
    let (db, server) = (Db::new().await, Redis::start().await.unwrap());
    let payloads: Vec<String> = (10..30).map(|number| number.to_string()).collect();
    let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
    db.stage(&db.seal(&grant("r", 5)).await, "x", &payloads)
        .await;
    db.settle().await;
    let mut child = spawn(&db, &server.url());
    wait_until_it_stands_still(&mut child);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(server.cli(&["XLEN", "topic"]).await.unwrap().trim(), "5");

    let new = db.seal(&grant("relay", 2)).await;
    let publisher = RedisStreams::new(redis::Client::open(server.url()).unwrap());
    let relay = Relay::new(db.guard, new, named("main"), publisher);
    assert_eq!(db.pass(&relay).await.unwrap().published, 20);
    let entries = server.cli(&["XRANGE", "topic", "-", "+"]).await.unwrap();
    let lines: Vec<&str> = entries.lines().collect();
    let in_stream: Vec<&str> = lines
        .windows(2)
        .filter_map(|pair| (pair[0] == "payload").then_some(pair[1]))
        .collect();
    assert_eq!(in_stream, payloads);
}
