//! The store in a file does what every store must, and survives the end of its process.
#![allow(clippy::unwrap_used, reason = "the harness of a test is a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use palisade_coordinator::clock::{Clock, SystemClock};
use palisade_coordinator::domain::Acquired;
use palisade_coordinator::entropy::SystemEntropy;
use palisade_coordinator::store::Store;
use palisade_coordinator::store::conformance::{self, Client, Harness, Subject};
use palisade_coordinator::store::embedded::{EmbeddedStore, OpenError};
use palisade_coordinator::tasks::Tasks;
use tempfile::TempDir;

async fn open(path: &Path) -> Result<Arc<EmbeddedStore>, OpenError> {
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    EmbeddedStore::open(path, clock, entropy, &Tasks::default()).await
}

struct Embedded;

struct State {
    directory: TempDir,
    store: Arc<EmbeddedStore>,
    clock: Arc<dyn Clock>,
}

impl State {
    fn path(directory: &TempDir) -> PathBuf {
        directory.path().join("palisade.db")
    }
}

#[async_trait]
impl Harness for Embedded {
    async fn fresh(&self) -> Box<dyn Subject> {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&State::path(&directory)).await.unwrap();
        Box::new(State {
            directory,
            store,
            clock: SystemClock::shared(),
        })
    }
}

#[async_trait]
impl Subject for State {
    fn store(&self) -> Arc<dyn Store> {
        Arc::<EmbeddedStore>::clone(&self.store)
    }

    async fn another(&self) -> Arc<dyn Store> {
        self.store()
    }

    /// Within one process the nearest thing to a crash; a real one is below.
    async fn restart(&mut self) -> Option<Arc<dyn Store>> {
        self.store.close().await;
        self.store = open(&Self::path(&self.directory)).await.unwrap();
        Some(self.store())
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

#[tokio::test]
async fn a_file_does_what_every_store_must() {
    conformance::run(&Embedded).await;
}

/// Where the other process of [`what_was_told_survives_a_kill`] finds its file.
const FILE: &str = "PALISADE_TEST_FILE";

/// How many grants are told before the kill.
const GRANTS: usize = 40;

/// Not a test of its own: the process that is killed.
#[tokio::test]
async fn grants_until_it_is_killed() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let store: Arc<dyn Store> = open(Path::new(&path)).await.unwrap();
    let client = Client::open(&store, "killed", Duration::from_secs(60)).await;
    for number in 0_u64.. {
        let hold = client.take(&format!("kept/{number}"), "1").await;
        let gone = client.take("gone", &number.to_string()).await;
        client.give_back(&gone).await;
        let token = hold.token().unwrap();
        writeln!(std::io::stdout(), "\ntold {number} {token}").unwrap();
    }
}

/// I7, I3: whatever was told before a kill -9 is there after it, and later tokens are larger.
#[tokio::test]
async fn what_was_told_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = State::path(&directory);
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "grants_until_it_is_killed", "--nocapture"])
        .env(FILE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let mut words = line.split(' ');
        if words.next() == Some("told") {
            let number: usize = words.next().unwrap().parse().unwrap();
            let token: u64 = words.next().unwrap().parse().unwrap();
            assert_eq!(number, told.len());
            told.push(token);
        }
        if told.len() == 1 {
            let second = open(&path).await;
            assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
        }
        if told.len() == GRANTS {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(told.len(), GRANTS);

    let store: Arc<dyn Store> = open(&path).await.unwrap();
    let session = Client::session("killed", Duration::from_secs(60));
    let client = Client::of(&store, &session);
    client.renew().await.unwrap();
    for (number, &token) in told.iter().enumerate() {
        match client.standing(&format!("kept/{number}"), "1").await {
            Some(Acquired::Held(hold)) => assert_eq!(hold.token().unwrap().get(), token),
            other => panic!("lease {number} was told, and is lost: {other:?}"),
        }
    }
    let highest = told.into_iter().max().unwrap();
    assert!(client.take("later", "1").await.token().unwrap().get() > highest);
}
