//! Tokens grow whatever happens to etcd's history (I3), and nothing is granted while that is in doubt (I9).
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets an unforeseen error has failed"
)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use palisade_coordinator::clock::{Clock, Moment, SystemClock};
use palisade_coordinator::domain::{
    Acquire, Acquired, AttachMark, Caller, HoldName, Nonce, OpenId, Principal, Release, RequestId,
    SecretHash, Session, SessionId, WallClock,
};
use palisade_coordinator::entropy::{Entropy as _, SystemEntropy};
use palisade_coordinator::store::etcd::{EtcdOptions, EtcdStore};
use palisade_coordinator::store::{Failure, Outcome, Store as _, StoreError};
use palisade_coordinator::tasks::Tasks;
use palisade_test_support::{Etcd, EtcdVersion, eventually};
use palisade_token::{FencingToken, ResourceName};

const LIMIT: Duration = Duration::from_secs(20);
const SECOND_MICROS: u64 = 1_000_000;

/// A wall clock that begins somewhere, and is so many times slower than time.
#[derive(Debug)]
struct Wall {
    clock: Arc<dyn Clock>,
    since: Moment,
    begins: WallClock,
    slowness: u32,
}

impl Wall {
    fn shared(begins: WallClock, slowness: u32) -> Arc<dyn Clock> {
        let clock = SystemClock::shared();
        let since = clock.now();
        Arc::new(Self {
            clock,
            since,
            begins,
            slowness,
        })
    }
}

#[async_trait]
impl Clock for Wall {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn wall(&self) -> WallClock {
        let passed = self.since.until(self.clock.now()) / self.slowness;
        WallClock(self.begins.0 + u64::try_from(passed.as_micros()).unwrap())
    }

    async fn sleep(&self, while_: Duration) {
        self.clock.sleep(while_).await;
    }
}

struct Coordinator {
    store: Arc<EtcdStore>,
    process: Nonce,
}

/// One client of a coordinator: a session and the name it asks under.
struct Client {
    caller: Caller,
}

impl Coordinator {
    fn on(endpoints: Vec<String>) -> Self {
        Self::by(endpoints, SystemClock::shared())
    }

    fn by(endpoints: Vec<String>, clock: Arc<dyn Clock>) -> Self {
        let options = EtcdOptions::new(endpoints);
        let store = EtcdStore::new(options, clock, SystemEntropy::shared(), &Tasks::default());
        Self {
            store,
            process: SystemEntropy.nonce(),
        }
    }

    async fn open(&self) -> Result<Client, StoreError> {
        let opening = SystemEntropy.nonce();
        let open_id = OpenId::new(&hex::encode(opening.as_bytes())).unwrap();
        let principal = Principal::anonymous();
        let session = Session {
            id: SessionId::derive(&principal, &open_id),
            principal: principal.clone(),
            secret: SecretHash::of(b"a secret of a test"),
            label: String::new(),
            ttl_ms: 60_000,
            opening,
            mark: AttachMark {
                epoch: 1,
                sub: 0,
                nonce: self.process,
            },
        };
        let caller = Caller {
            session: session.id,
            principal,
            secret: session.secret,
            epoch: 1,
            is_retry: false,
            process: self.process,
            mark: None,
        };
        self.store.open_session(session).await?;
        Ok(Client { caller })
    }

    async fn acquire(&self, client: &Client, name: &str) -> Result<FencingToken, StoreError> {
        let acquire = Acquire {
            caller: client.caller.clone(),
            resource: ResourceName::new(name).unwrap(),
            request: RequestId::new(name).unwrap(),
            metadata: Vec::new(),
            waits: false,
            max_waiters: 10,
            previous: None,
            lock_delay_ms: 0,
        };
        match self.store.acquire(&acquire).await? {
            Acquired::Held(hold) => Ok(hold.token().unwrap()),
            Acquired::Queued(place) => panic!("a try was queued: {place:?}"),
        }
    }

    async fn release(&self, client: &Client, name: &str, token: FencingToken) {
        let release = Release {
            caller: client.caller.clone(),
            resource: ResourceName::new(name).unwrap(),
            hold: HoldName::Token(token),
        };
        self.store.release(&release).await.unwrap();
    }

    /// Acquires and releases, with a session of its own, as soon as the store is back.
    async fn next_token(&self, name: &str) -> FencingToken {
        let mut token = None;
        eventually("a grant", LIMIT, async || {
            let done = async {
                let client = self.open().await?;
                let token = self.acquire(&client, name).await?;
                self.release(&client, name, token).await;
                Ok::<_, StoreError>(token)
            };
            token = done.await.ok();
            token.is_some()
        })
        .await
        .unwrap();
        token.unwrap()
    }

    async fn tokens(&self, name: &str, count: usize) -> Vec<FencingToken> {
        let mut tokens = Vec::new();
        for _ in 0..count {
            tokens.push(self.next_token(name).await);
        }
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
        tokens
    }
}

async fn restored(version: EtcdVersion) {
    let mut etcd = Etcd::builder().version(version).start().await.unwrap();
    let running = Coordinator::on(etcd.endpoints());
    let held_across = running.open().await.unwrap();
    let across = running.acquire(&held_across, "across").await.unwrap();
    let mut seen = running.tokens("r", 5).await;
    let snapshot = etcd.snapshot_save("before").await.unwrap();
    seen.extend(running.tokens("r", 20).await);
    // Another generation, so that the restored one is not even the one this coordinator knows.
    let stopped = Coordinator::on(etcd.endpoints());
    seen.extend(stopped.tokens("r", 5).await);
    drop(stopped);
    running.release(&held_across, "across", across).await;
    let taken_over = running.next_token("across").await;

    etcd.restore_from(&snapshot).await.unwrap();

    seen.extend(running.tokens("r", 5).await);
    let fresh = Coordinator::on(etcd.endpoints());
    seen.extend(fresh.tokens("r", 5).await);
    seen.extend(running.tokens("r", 5).await);
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );

    // The restore revived a lease that had been released; its holder's token is still the old one.
    let revived = running
        .store
        .lease(&ResourceName::new("across").unwrap())
        .await
        .unwrap();
    assert_eq!(revived.hold.and_then(|hold| hold.token()), Some(across));
    running.release(&held_across, "across", across).await;
    assert!(running.next_token("across").await > taken_over);
}

#[tokio::test]
async fn a_restored_etcd_3_5_still_gives_larger_tokens() {
    restored(EtcdVersion::V3_5).await;
}

#[tokio::test]
async fn a_restored_etcd_3_4_still_gives_larger_tokens() {
    restored(EtcdVersion::V3_4).await;
}

#[tokio::test]
async fn a_restore_without_any_coordinator_running_still_gives_larger_tokens() {
    let mut etcd = Etcd::start().await.unwrap();
    let first = Coordinator::on(etcd.endpoints());
    let mut seen = first.tokens("r", 5).await;
    let snapshot = etcd.snapshot_save("before").await.unwrap();
    seen.extend(first.tokens("r", 30).await);
    drop(first);
    etcd.restore_from(&snapshot).await.unwrap();
    seen.extend(Coordinator::on(etcd.endpoints()).tokens("r", 5).await);
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );
}

#[tokio::test]
async fn an_etcd_rebuilt_from_nothing_still_gives_larger_tokens() {
    let mut etcd = Etcd::start().await.unwrap();
    let running = Coordinator::on(etcd.endpoints());
    let mut seen = running.tokens("r", 20).await;
    etcd.wipe().await.unwrap();
    seen.extend(running.tokens("r", 5).await);
    seen.extend(Coordinator::on(etcd.endpoints()).tokens("r", 5).await);
    seen.extend(running.tokens("r", 5).await);
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );
}

#[tokio::test]
async fn endpoints_of_two_clusters_grant_nothing() {
    let (one, other) = (Etcd::start().await.unwrap(), Etcd::start().await.unwrap());
    let coordinator = Coordinator::on(vec![one.url(), other.url()]);
    let refused = coordinator.open().await.map(|client| client.caller.session);
    assert!(
        matches!(
            refused,
            Err(StoreError::Failed {
                failure: Failure::WrongCluster,
                outcome: Outcome::NotApplied,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_etcd_that_is_away_fails_soon_and_is_used_again_when_it_is_back() {
    let mut etcd = Etcd::start().await.unwrap();
    let coordinator = Coordinator::on(etcd.endpoints());
    let before = coordinator.next_token("r").await;
    etcd.kill().unwrap();
    eventually("a failure", LIMIT, async || {
        coordinator.store.ready().await.is_err()
    })
    .await
    .unwrap();
    let away = coordinator.open().await.map(|client| client.caller.session);
    assert!(
        matches!(
            away,
            Err(StoreError::Failed {
                failure: Failure::Unavailable,
                ..
            })
        ),
        "{away:?}"
    );
    etcd.start_again().await.unwrap();
    assert!(coordinator.next_token("r").await > before);
    coordinator.store.ready().await.unwrap();
}

#[tokio::test]
async fn a_new_generation_of_one_coordinator_does_not_stop_another() {
    let etcd = Etcd::start().await.unwrap();
    let (one, other) = (
        Coordinator::on(etcd.endpoints()),
        Coordinator::on(etcd.endpoints()),
    );
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(one.next_token("r").await);
        other.store.advance(None).await.unwrap();
        seen.push(one.next_token("r").await);
        let past = FencingToken::new(seen[seen.len() - 1].get() + 1_000_000).unwrap();
        one.store.advance(Some(past)).await.unwrap();
        let token = other.next_token("r").await;
        assert!(token > past, "{token} is not past {past}");
        seen.push(token);
    }
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );
}

/// A coordinator whose connection is idle while etcd is restored beneath it knows nothing of the restore: its
/// generation is the restored one, by value, and no revision that it has seen is above those to come. Were the
/// connection opened anew in silence, its next grant would have a token that the lost history gave to another.
#[tokio::test]
async fn nothing_is_granted_over_a_connection_that_was_silently_opened_anew() {
    let mut etcd = Etcd::start().await.unwrap();
    let (idle, busy) = (
        Coordinator::on(etcd.endpoints()),
        Coordinator::on(etcd.endpoints()),
    );
    let mut seen = idle.tokens("r", 1).await;
    seen.extend(busy.tokens("r", 1).await);
    // From here on both grant under one generation, and the snapshot has it.
    idle.store.ready().await.unwrap();
    let snapshot = etcd.snapshot_save("before").await.unwrap();
    seen.extend(busy.tokens("r", 20).await);
    drop(busy);
    etcd.restore_from(&snapshot).await.unwrap();
    seen.extend(idle.tokens("r", 3).await);
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );
}

/// The revisions of a cluster that is rebuilt begin anew, and between the last token before and the first one after lies
/// less than a second by the coordinators' clock.
#[tokio::test]
async fn an_etcd_rebuilt_within_the_same_second_still_gives_larger_tokens() {
    let mut etcd = Etcd::start().await.unwrap();
    let now = SystemClock::shared().wall().0;
    let second = now / SECOND_MICROS;
    // So slow that the rebuild takes some hundredths of a second, and no slower than etcd counts revisions.
    let clock = Wall::shared(WallClock(second * SECOND_MICROS), 50);
    let running = Coordinator::by(etcd.endpoints(), Arc::clone(&clock));
    let mut seen = running.tokens("r", 30).await;
    etcd.wipe().await.unwrap();
    seen.extend(running.tokens("r", 5).await);
    let fresh = Coordinator::by(etcd.endpoints(), Arc::clone(&clock));
    seen.extend(fresh.tokens("r", 5).await);
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );
    assert_eq!(clock.wall().0 / SECOND_MICROS, second, "it took too long");
}

/// Clocks order nothing within one history: whoever makes a generation starts above the one before.
#[tokio::test]
async fn coordinators_whose_clocks_are_an_hour_apart_give_growing_tokens() {
    const HOUR: u64 = 3600 * SECOND_MICROS;
    let etcd = Etcd::start().await.unwrap();
    let now = SystemClock::shared().wall().0;
    let by = |begins| Coordinator::by(etcd.endpoints(), Wall::shared(WallClock(begins), 1));
    let (fast, slow) = (by(now), by(now - HOUR));
    let mut seen = Vec::new();
    for round in 0..4 {
        for one in [&fast, &slow] {
            one.store.advance(None).await.unwrap();
            seen.extend(one.tokens("r", 2).await);
        }
        // One that has just started makes its own, too.
        let begins = if round % 2 == 0 { now - HOUR } else { now };
        seen.extend(by(begins).tokens("r", 2).await);
        seen.extend(fast.tokens("r", 1).await);
    }
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );
    let ahead = seen[0].get();
    assert!(ahead >= now, "{ahead} is not by the clock that is ahead");
}
