//! Renewals on shared streams (I12): what holds one session up, and what it does to the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{join_all, try_join_all};
use palisade_test_support::{Etcd, EtcdCluster, EtcdVersion, Proxy, eventually, within};
use tokio::task::JoinHandle;

use super::{TTL, coordinator, coordinator_at};
use crate::clock::SystemClock;
use crate::domain::Refusal;
use crate::store::conformance::Client;
use crate::store::etcd::keepalive::{Answer, SHARDS, SILENCE};
use crate::store::etcd::liveness::Way;
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::store::{Alive, Store, StoreError};

/// Enough that several share the stream of any one of them.
const SESSIONS: usize = 3 * SHARDS;
/// So long a leader without a quorum leads on: while it does, sessions expire and cannot be revoked.
const ELECTION: Duration = Duration::from_secs(10);
/// The least that etcd grants with such elections.
const DYING_TTL: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(60);

fn as_store(store: &Arc<EtcdStore>) -> Arc<dyn Store> {
    Arc::<EtcdStore>::clone(store)
}

async fn open_many(store: &Arc<EtcdStore>) -> Vec<Client> {
    let store = as_store(store);
    let open = async |number| Client::open(&store, &format!("session-{number}"), TTL).await;
    join_all((0..SESSIONS).map(open)).await
}

/// Each must be renewed on a stream that it shares, or nothing is shown.
async fn all_are_known(store: &EtcdStore, clients: &[Client]) {
    let link = store.links.get().await.unwrap();
    let context = link.context();
    for client in clients {
        let lease = context.keys.lease_id(client.caller.session);
        let way = context.liveness.way(lease, context.clock.now());
        assert!(matches!(way, Way::Shared { .. }), "{way:?}");
    }
}

async fn renew_all(clients: &[Client]) -> Result<Vec<Alive>, StoreError> {
    try_join_all(clients.iter().map(Client::renew)).await
}

/// A leader that cannot revoke what expires, and a session of its that has expired.
struct Dying {
    cluster: EtcdCluster,
    store: Arc<EtcdStore>,
    others: Vec<Client>,
    dying: Client,
    followers: Vec<usize>,
}

impl Dying {
    async fn new(version: EtcdVersion) -> Self {
        let mut cluster = Etcd::builder()
            .version(version)
            .arg("--election-timeout")
            .arg(ELECTION.as_millis().to_string())
            .start_cluster(3)
            .await
            .unwrap();
        let leader = cluster.leader().await.unwrap();
        let followers: Vec<_> = (0..3).filter(|member| *member != leader).collect();
        let store = coordinator_at(
            vec![cluster.url(leader)],
            EtcdOptions::PREFIX,
            SystemClock::shared(),
        );
        let others = open_many(&store).await;
        let dying = Client::open(&as_store(&store), "dying", DYING_TTL).await;
        renew_all(&others).await.unwrap();
        // Read here, without a quorum no more.
        let left = store.time_left(dying.caller.session).await.unwrap();
        let clock = SystemClock::shared();
        clock
            .sleep(left.saturating_sub(Duration::from_secs(1)))
            .await;
        for follower in &followers {
            cluster.pause(*follower).unwrap();
        }
        // etcd looks for what has expired every half second.
        clock.sleep(Duration::from_secs(2)).await;
        Self {
            cluster,
            store,
            others,
            dying,
            followers,
        }
    }

    /// Renews the dying session past the look at its key, which needs a quorum. The renewal is on its way
    /// when this returns.
    async fn renews_the_dying(&self) -> JoinHandle<bool> {
        let link = self.store.links.get().await.unwrap();
        let lease = link.context().keys.lease_id(self.dying.caller.session);
        let sent = {
            let link = Arc::clone(&link);
            move || link.keepalive().sent() + link.keepalive().sent_alone()
        };
        let before = sent();
        #[expect(clippy::disallowed_methods, reason = "the test waits for its end")]
        let renewal = tokio::spawn(async move { link.keepalive().renew(lease).await.is_ok() });
        eventually("it is sent", LIMIT, async || sent() > before)
            .await
            .unwrap();
        renewal
    }

    /// Renews all others, which they can be without a quorum.
    async fn others_are_renewed(&self) {
        let link = self.store.links.get().await.unwrap();
        let context = link.context();
        let renew = async |client: &Client| {
            let lease = context.keys.lease_id(client.caller.session);
            link.keepalive().renew(lease).await
        };
        let renewed = join_all(self.others.iter().map(renew));
        let renewed = within("the others are renewed", ELECTION, renewed).await;
        for answer in renewed.unwrap() {
            assert!(matches!(answer, Ok(Answer::Lives { .. })), "{answer:?}");
        }
    }

    async fn stalls(&self) -> u64 {
        let link = self.store.links.get().await.unwrap();
        link.keepalive().stalls()
    }

    async fn heals(mut self) {
        for follower in &self.followers {
            self.cluster.resume(*follower).unwrap();
        }
        eventually("the others are renewed", LIMIT, async || {
            renew_all(&self.others).await.is_ok()
        })
        .await
        .unwrap();
        // Whether it ended, the log says: a leader that came anew gives it its whole time again.
        eventually("the dying session has a fate", LIMIT, async || {
            match self.dying.renew().await {
                Ok(_lives) => true,
                Err(StoreError::Refused(Refusal::SessionEnded { .. })) => true,
                Err(_unknown) => false,
            }
        })
        .await
        .unwrap();
    }
}

/// F24: without a quorum an expired session cannot be revoked, and etcd answers its renewal, and whatever
/// comes after it on the same stream, when it is.
async fn an_expired_session_that_is_not_revoked_holds_up_nobody(version: EtcdVersion) {
    let world = Dying::new(version).await;
    all_are_known(&world.store, &world.others).await;
    let dying = world.renews_the_dying().await;
    world.others_are_renewed().await;
    assert!(!dying.is_finished(), "nothing was held up");
    assert_eq!(world.stalls().await, 0, "it held up a stream of others");
    world.heals().await;
}

#[tokio::test]
async fn an_expired_session_that_is_not_revoked_holds_up_nobody_on_etcd_3_5() {
    an_expired_session_that_is_not_revoked_holds_up_nobody(EtcdVersion::V3_5).await;
}

#[tokio::test]
async fn an_expired_session_that_is_not_revoked_holds_up_nobody_on_etcd_3_4() {
    an_expired_session_that_is_not_revoked_holds_up_nobody(EtcdVersion::V3_4).await;
}

/// F24 where the coordinator cannot know: by its clock the session has time left. The watchdog frees those
/// behind it.
#[tokio::test]
async fn an_expired_session_that_seems_to_live_holds_others_up_no_longer_than_the_watchdog() {
    let world = Dying::new(EtcdVersion::V3_5).await;
    let link = world.store.links.get().await.unwrap();
    let context = link.context();
    let lease = context.keys.lease_id(world.dying.caller.session);
    context.liveness.lives(lease, context.clock.now(), TTL);
    all_are_known(&world.store, &world.others).await;
    let dying = world.renews_the_dying().await;
    world.others_are_renewed().await;
    assert!(!dying.is_finished(), "nothing was held up");
    assert_eq!(world.stalls().await, 1, "the watchdog fires once, for it");
    assert!(!link.broken().is_cancelled(), "the connection is well");
    drop(link);
    world.heals().await;
}

/// F10: a connection that swallows everything is found out by the renewals on it, and they go on over
/// another endpoint.
#[tokio::test]
async fn renewals_leave_a_half_open_connection() {
    let etcd = Etcd::start().await.unwrap();
    let proxy = Proxy::start(&etcd.host_port()).await.unwrap();
    let endpoints = vec![proxy.url(), etcd.url()];
    let store = coordinator_at(endpoints, EtcdOptions::PREFIX, SystemClock::shared());
    let client = Client::open(&as_store(&store), "one", TTL).await;
    let client = client.attached(2).await.unwrap();
    client.renew().await.unwrap();
    all_are_known(&store, std::slice::from_ref(&client)).await;
    proxy.blackhole();
    let link = store.links.get().await.unwrap();
    let renewed = within("a renewal", LIMIT, client.renew()).await.unwrap();
    renewed.expect("it is renewed over the other endpoint");
    assert!(link.broken().is_cancelled(), "the connection is still used");
}

/// A stream that etcd ends is opened again, and nothing is lost.
#[tokio::test]
async fn renewals_go_on_when_etcd_was_started_again() {
    let mut etcd = Etcd::start().await.unwrap();
    let store = coordinator(&etcd, EtcdOptions::PREFIX);
    let clients = open_many(&store).await;
    renew_all(&clients).await.unwrap();
    etcd.stop().await.unwrap();
    etcd.start_again().await.unwrap();
    eventually("all are renewed", LIMIT, async || {
        renew_all(&clients).await.is_ok()
    })
    .await
    .unwrap();
}

/// Whoever asks while a renewal is under way shares it, and is told the time from when that was sent.
#[tokio::test]
async fn renewals_of_one_session_at_once_are_one() {
    let etcd = Etcd::start().await.unwrap();
    let store = coordinator(&etcd, EtcdOptions::PREFIX);
    let client = Client::open(&as_store(&store), "one", TTL).await;
    let link = store.links.get().await.unwrap();
    let lease = link.context().keys.lease_id(client.caller.session);
    let answers = join_all((0..20).map(|_| link.keepalive().renew(lease))).await;
    let sent: BTreeSet<_> = answers
        .into_iter()
        .map(|answer| match answer {
            Ok(Answer::Lives { sent, .. }) => sent,
            other => panic!("it lives: {other:?}"),
        })
        .collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(link.keepalive().sent(), 1);
}

/// A stream that another one has superseded, unseen by its coordinator, renews no longer than a while.
#[tokio::test]
async fn a_superseded_stream_renews_no_longer_than_one_time_to_live() {
    let short = Duration::from_secs(5);
    let etcd = Etcd::start().await.unwrap();
    let (one, other) = (
        coordinator(&etcd, EtcdOptions::PREFIX),
        coordinator(&etcd, EtcdOptions::PREFIX),
    );
    let client = Client::open(&as_store(&one), "one", short).await;
    let first = client.attached(2).await.unwrap();
    first.renew().await.unwrap();
    let second = client.through(&as_store(&other)).attached(3).await.unwrap();
    let clock = SystemClock::shared();
    let until = clock.now().after(short);
    eventually("the first stream is refused", LIMIT, async || {
        second.renew().await.unwrap();
        matches!(
            first.renew().await,
            Err(StoreError::Refused(Refusal::Superseded { .. }))
        )
    })
    .await
    .unwrap();
    assert!(
        until.until(clock.now()) < SILENCE + short,
        "it was looked up late"
    );
    let elsewhere = first.through(&as_store(&other)).renew().await;
    assert!(matches!(
        elsewhere,
        Err(StoreError::Refused(Refusal::Superseded { .. }))
    ));
}
