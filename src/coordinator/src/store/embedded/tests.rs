use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use super::{EmbeddedStore, OpenError};
use crate::clock::SystemClock;
use crate::domain::{Acquired, HoldName, RequestId};
use crate::entropy::SystemEntropy;
use crate::store::conformance::Client;
use crate::store::{Failure, Outcome, Store, StoreError};
use crate::tasks::Tasks;

const MINUTE: Duration = Duration::from_secs(60);

async fn open(path: &Path) -> Result<Arc<EmbeddedStore>, OpenError> {
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    EmbeddedStore::open(path, clock, entropy, &Tasks::default()).await
}

fn seam(store: &Arc<EmbeddedStore>) -> Arc<dyn Store> {
    Arc::<EmbeddedStore>::clone(store)
}

/// Runs SQL on a file that no store has open.
async fn run_sql(path: &Path, sql: &'static str) {
    let options = SqliteConnectOptions::new().filename(path);
    let options = options.create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// A file with one lease in it, closed.
async fn made(directory: &TempDir) -> std::path::PathBuf {
    let path = directory.path().join("palisade.db");
    let store = open(&path).await.unwrap();
    let client = Client::open(&seam(&store), "client", MINUTE).await;
    client.take("r", "1").await;
    store.close().await;
    path
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let missing = open(&directory.path().join("no/where.db")).await;
    assert!(
        matches!(missing, Err(OpenError::DirectoryMissing { .. })),
        "{missing:?}"
    );

    let folder = open(directory.path()).await;
    assert!(
        matches!(folder, Err(OpenError::NotAStore { .. })),
        "{folder:?}"
    );

    // Nobody makes files there, not even root.
    let forbidden = open(Path::new("/sys/palisade.db")).await;
    assert!(
        matches!(forbidden, Err(OpenError::Permission { .. })),
        "{forbidden:?}"
    );

    let text = directory.path().join("text.db");
    fs::write(
        &text,
        "not a database, but long enough to be read as one".repeat(100),
    )
    .unwrap();
    let other = open(&text).await;
    assert!(
        matches!(other, Err(OpenError::NotAStore { .. })),
        "{other:?}"
    );

    let foreign = directory.path().join("foreign.db");
    run_sql(
        &foreign,
        "PRAGMA journal_mode = WAL; CREATE TABLE accounts (id INTEGER)",
    )
    .await;
    let before = fs::read(&foreign).unwrap();
    let other = open(&foreign).await;
    assert_eq!(fs::read(&foreign).unwrap(), before, "it was changed");
    assert!(
        matches!(other, Err(OpenError::NotAStore { .. })),
        "{other:?}"
    );
}

/// A file of the first version has no delays, and is given a place for them.
#[tokio::test]
async fn an_older_schema_is_brought_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = made(&directory).await;
    run_sql(&path, "DROP TABLE delays; PRAGMA user_version = 1").await;
    let opened = open(&path).await;
    assert!(opened.is_ok(), "{opened:?}");
}

#[tokio::test]
async fn a_newer_schema_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = made(&directory).await;
    run_sql(&path, "PRAGMA user_version = 3").await;
    let newer = open(&path).await;
    assert!(
        matches!(
            newer,
            Err(OpenError::NewerSchema {
                found: 3,
                known: 2,
                ..
            })
        ),
        "{newer:?}"
    );
    run_sql(&path, "PRAGMA user_version = 2").await;
    let store = open(&path).await.unwrap();
    assert_eq!(store.leases("", None, 10).await.unwrap().leases.len(), 1);
}

#[tokio::test]
async fn damage_is_told_and_not_guessed_at() {
    for sql in [
        "UPDATE holds SET claim = '{}'",
        "UPDATE holds SET resource = 'another'",
        "UPDATE sessions SET session = 'no json'",
        "UPDATE state SET revision = -1",
        "DELETE FROM state",
        "DROP TABLE queue",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = made(&directory).await;
        run_sql(&path, sql).await;
        let damaged = open(&path).await;
        assert!(
            matches!(damaged, Err(OpenError::Damaged { .. })),
            "{sql}: {damaged:?}"
        );
    }
}

#[tokio::test]
async fn one_process_has_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("palisade.db");
    let first = open(&path).await.unwrap();
    let second = open(&path).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    first.ready().await.unwrap();
    // Nor does another program write to it, which knows nothing of the lock beside.
    let intruder = SqliteConnectOptions::new().filename(&path);
    let intruder = intruder.busy_timeout(Duration::ZERO).connect().await;
    let wrote = match intruder {
        Ok(mut connection) => {
            sqlx::raw_sql("DELETE FROM holds")
                .execute(&mut connection)
                .await
        }
        Err(error) => Err(error),
    };
    assert!(wrote.is_err());
    // Nor may a second one have a copy that takes the file's place: SQLite's lock would let it.
    let copy = directory.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    fs::rename(&copy, &path).unwrap();
    let second = open(&path).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })), "{second:?}");
    first.close().await;
    open(&path).await.unwrap().ready().await.unwrap();
}

#[tokio::test]
async fn only_the_owner_reads_the_file() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = made(&directory).await;
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", entry.path());
    }
    assert!(path.exists());
}

/// I3: an old copy knows nothing of what was granted since, and yet its tokens are larger.
#[tokio::test]
async fn an_old_file_put_back_yields_larger_tokens() {
    let directory = tempfile::tempdir().unwrap();
    let path = made(&directory).await;
    let copy = directory.path().join("copy.db");
    fs::copy(&path, &copy).unwrap();
    let store = open(&path).await.unwrap();
    let client = Client::open(&seam(&store), "later", MINUTE).await;
    let mut highest = None;
    for number in 0..50 {
        let hold = client.take("s", &number.to_string()).await;
        highest = hold.token();
        client.give_back(&hold).await;
    }
    // As after a kill: nothing is closed, and the old file takes the place of the new one.
    drop((store, client));
    fs::rename(&copy, &path).unwrap();
    let store = open(&path).await.unwrap();
    assert_eq!(store.leases("", None, 10).await.unwrap().leases.len(), 1);
    let client = Client::open(&seam(&store), "later", MINUTE).await;
    assert!(client.take("s", "1").await.token() > highest);
}

/// I7, I9: on a full disk nothing is granted that is not durable, and nothing is lost; leases can still
/// be given back, and then there is room again.
#[tokio::test]
async fn a_full_disk_loses_nothing() {
    const SMALL: u64 = 128 * 1024;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("palisade.db");
    let store = open(&path).await.unwrap();
    store.limit_size(SMALL).await.unwrap();
    let client = Client::open(&seam(&store), "client", MINUTE).await;
    let mut told = Vec::new();
    let refused = loop {
        let name = format!("r/{}", told.len());
        let mut wish = client.wish(&name, "1", false);
        wish.metadata = vec![7; 1000];
        match store.acquire(&wish).await {
            Ok(Acquired::Held(hold)) => told.push(hold),
            Ok(Acquired::Queued(place)) => panic!("{place:?}"),
            Err(error) => break error,
        }
        assert!(told.len() < 1000, "a bound of {SMALL} bytes bounds nothing");
    };
    assert!(told.len() > 10);
    assert!(
        matches!(
            refused,
            StoreError::Failed {
                failure: Failure::NoSpace,
                outcome: Outcome::NotApplied,
                ..
            }
        ),
        "{refused:?}"
    );
    client.renew().await.unwrap();
    let listed = store.leases("", None, 1000).await.unwrap();
    let listed: Vec<_> = listed.leases.into_iter().map(|l| l.hold).collect();
    assert_eq!(listed.len(), told.len());
    for hold in &told {
        assert!(listed.contains(hold));
    }
    // Half by token, half by request; each end makes room.
    let kept = told.split_off(10);
    for (number, hold) in told.iter().enumerate() {
        let name = if number % 2 == 0 {
            HoldName::Token(hold.token().unwrap())
        } else {
            HoldName::Request(RequestId::new("1").unwrap())
        };
        client
            .release(hold.claim.resource.as_str(), name)
            .await
            .unwrap();
    }
    let again = client.take("again", "1").await;
    store.limit_size(8 * SMALL).await.unwrap();
    client.take("more", "1").await;
    store.close().await;
    let store = open(&path).await.unwrap();
    let client = client.through(&seam(&store));
    assert_eq!(client.take("again", "1").await, again);
    for hold in kept {
        let name = hold.claim.resource.as_str();
        assert_eq!(
            client.standing(name, "1").await,
            Some(Acquired::Held(hold.clone()))
        );
    }
}

#[tokio::test]
async fn what_is_closed_stays_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory.path().join("palisade.db")).await.unwrap();
    store.close().await;
    for _ in 0..2 {
        let error = store.ready().await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotApplied);
        let opened = store.open_session(Client::session("late", MINUTE)).await;
        assert_eq!(opened.unwrap_err().outcome(), Outcome::NotApplied);
    }
}
