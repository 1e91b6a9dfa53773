//! A worker process is killed at every point between two statements, also between its commit and its
//! acknowledgement. The message is delivered again, to another process that has taken over: one effect, and the
//! same answer whenever it is asked for.

use std::io::{BufRead as _, Write as _};
use std::process::Stdio;

use palisade_guard::effects::{Begun, KeyPolicy, Outcome};
use palisade_guard::postgres::{Guard, Sealed};
use palisade_guard::{Class, GuardError};
use palisade_test_support::within;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::db::{Db, PATIENCE, grant};
use crate::ledger::{asked, credit, credit_once, key, with_ledger};

/// What the worker process is told: set only by the tests below.
const TASK: &str = "PALISADE_TEST_WORKER";

/// Tells the test where this process is, and goes on when it is told to. Here it is killed.
fn at(point: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "@{point}").unwrap();
    out.flush().unwrap();
    let read = std::io::stdin().lock().read_line(&mut String::new());
    assert_ne!(read.unwrap(), 0, "the test has ended");
}

/// Not a test of its own: the worker, in a process that the tests below start.
#[tokio::test]
async fn worker_process() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let [url, token, kind, text] = task.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{task}");
    };
    let pool = PgPoolOptions::new().connect(url).await.unwrap();
    let grant = grant("ledger", token.parse().unwrap());
    let sealed = Guard::new().seal(&pool, &grant).await.unwrap();
    at("sealed");
    let outcome = loop {
        let outcome = match kind {
            "once" => once(&pool, &sealed, text).await,
            _ => attempt(&pool, &sealed, text).await,
        };
        match outcome {
            // What the killed one's connection has not let go of yet.
            Err(error) if error.class() == Class::Retry => {}
            outcome => break outcome.unwrap(),
        }
    };
    at("committed");
    // The acknowledgement.
    at(&format!("answer {}", outcome.into_value()));
}

async fn once(pool: &PgPool, sealed: &Sealed, text: &str) -> Result<Outcome<i64>, GuardError> {
    let mut tx = Guard::new().begin(pool, sealed).await?;
    at("begun");
    let outcome = tx
        .once(&key(text), &asked(5), async |c| {
            let answer = credit(c, text, 5).await;
            at("written");
            answer
        })
        .await?;
    at("stored");
    tx.commit().await?;
    Ok(outcome)
}

async fn attempt(pool: &PgPool, sealed: &Sealed, text: &str) -> Result<Outcome<i64>, GuardError> {
    let policy = KeyPolicy::new();
    let begun = Guard::new()
        .begin_attempt(pool, sealed, &key(text), &asked(5), &policy)
        .await?;
    let attempt = match begun {
        Begun::Attempt(attempt) => attempt,
        Begun::Replayed { value, first_seen } => {
            return Ok(Outcome::Replayed { value, first_seen });
        }
    };
    at("recorded");
    // The outside world: it knows its own keys, and no fence.
    sqlx::query(
        "INSERT INTO provider (key, calls) VALUES ($1, 1) \
         ON CONFLICT (key) DO UPDATE SET calls = provider.calls + 1",
    )
    .bind(attempt.external_key())
    .execute(pool)
    .await?;
    at("called");
    let mut tx = Guard::new().begin(pool, sealed).await?;
    let outcome = tx
        .complete(&attempt, async |c| {
            let answer = credit(c, text, 5).await;
            at("written");
            answer
        })
        .await?;
    at("stored");
    tx.commit().await?;
    Ok(outcome)
}

struct Worker {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    fn start(db: &Db, token: u64, kind: &str, text: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::worker_process", "--exact", "--nocapture"])
            .env(TASK, format!("{} {token} {kind} {text}", db.url))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            input,
            lines,
        }
    }

    /// Lets it run until it is at a point that begins so, and gives the rest of the line.
    async fn run_to(&mut self, point: &str) -> String {
        let walk = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it lives");
                let Some((_, here)) = line.split_once('@') else {
                    continue;
                };
                if let Some(rest) = here.strip_prefix(point) {
                    return rest.trim().to_owned();
                }
                self.input.write_all(b"\n").await.unwrap();
            }
        };
        within(point, PATIENCE, walk).await.unwrap()
    }

    /// As `kill -9` does.
    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Kills a worker at the point, and has two others after each other deliver again.
async fn killed_at(db: &Db, token: u64, kind: &str, point: &str) -> i64 {
    let text = format!("{kind}-{point}");
    let mut worker = Worker::start(db, token, kind, &text);
    worker.run_to(point).await;
    worker.kill().await;
    let mut answers = Vec::new();
    for later in 1..=2 {
        let mut worker = Worker::start(db, token + later, kind, &text);
        answers.push(worker.run_to("answer").await.parse().unwrap());
        worker.kill().await;
    }
    let entries = format!("SELECT count(*) FROM ledger WHERE entry = '{text}'");
    assert_eq!(db.number(&entries).await, 1, "{text}");
    assert_eq!(answers[0], answers[1], "{text}");
    // What is stored is that answer.
    let sealed = db.seal(&grant("ledger", token + 3)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let outcome = credit_once(&mut tx, &text, 5).await.unwrap();
    assert!(outcome.is_replayed());
    assert_eq!(outcome.into_value(), answers[0], "{text}");
    tx.rollback().await.unwrap();
    answers[0]
}

#[tokio::test]
async fn a_worker_killed_at_any_point_leaves_one_effect_and_one_answer() {
    let db = with_ledger().await;
    for (index, point) in ["begun", "written", "stored", "committed"]
        .into_iter()
        .enumerate()
    {
        let index = u64::try_from(index).unwrap();
        let sum = killed_at(&db, 10 * (index + 1), "once", point).await;
        // Its answer is from the one time that it was applied.
        assert_eq!(sum, 5 * i64::try_from(index + 1).unwrap());
    }
}

#[tokio::test]
async fn a_worker_killed_around_its_external_call_leaves_one_effect_and_one_answer() {
    let db = with_ledger().await;
    db.run("CREATE TABLE provider (key text PRIMARY KEY, calls int)")
        .await;
    let points = [
        ("recorded", 1),
        ("called", 2),
        ("written", 2),
        ("stored", 2),
        ("committed", 1),
    ];
    for (index, (point, calls)) in points.into_iter().enumerate() {
        let token = 10 * u64::try_from(index + 1).unwrap();
        killed_at(&db, token, "attempt", point).await;
        let called = format!(
            "SELECT calls::bigint FROM provider WHERE key = '{}'",
            key(&format!("attempt-{point}")).external()
        );
        // It may be asked again: with the same key, so that it charges once.
        assert_eq!(db.number(&called).await, calls, "{point}");
    }
    let charges = db.number("SELECT count(*) FROM provider").await;
    assert_eq!(charges, db.number("SELECT count(*) FROM ledger").await);
}
