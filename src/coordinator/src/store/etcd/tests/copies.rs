//! Delayed copies through a frozen follower of a real cluster: what it has in its sockets it carries out when it thaws,
//! long after the request was finished elsewhere (I4, I5, I11).

use std::sync::Arc;
use std::time::Duration;

use futures::join;
use palisade_test_support::{EtcdCluster, eventually};

use super::{TTL, coordinator_with};
use crate::domain::{Acquired, AttachMark, Hold, HoldName, Refusal, Released, RequestId};
use crate::store::conformance::Client;
use crate::store::etcd::batch::Decided;
use crate::store::etcd::reads::read;
use crate::store::etcd::{EtcdOptions, EtcdStore, step};
use crate::store::{Store, StoreError};

/// Longer than any freeze: the late coordinator waits for its answer, so that nothing is cancelled on the way.
const LIMIT: Duration = Duration::from_secs(60);
/// A member that thaws may first find itself without a leader, and drop what it has: then the round does not count.
const ROUNDS: usize = 10;
/// Rounds in which what was late did arrive.
const ENOUGH: usize = 2;

struct Cluster {
    etcd: EtcdCluster,
    follower: usize,
    /// Its only connection leads to the follower.
    late: Arc<EtcdStore>,
    /// Its only connection leads to the leader.
    prompt: Arc<EtcdStore>,
}

fn as_store(store: &Arc<EtcdStore>) -> Arc<dyn Store> {
    Arc::<EtcdStore>::clone(store)
}

/// Refused for good, as a later word of the client's is known.
fn is_outdated<T>(outcome: &Result<T, StoreError>) -> bool {
    matches!(
        outcome,
        Err(StoreError::Refused(
            Refusal::EpochStale { .. } | Refusal::Superseded { .. }
        ))
    )
}

impl Cluster {
    async fn start() -> Self {
        let etcd = EtcdCluster::start(3).await.unwrap();
        let leader = etcd.leader().await.unwrap();
        let follower = (leader + 1) % etcd.size();
        let at = |member| {
            coordinator_with(EtcdOptions {
                call_limit: LIMIT,
                ..EtcdOptions::new(vec![etcd.url(member)])
            })
        };
        let (late, prompt) = (at(follower), at(leader));
        for store in [&late, &prompt, &late] {
            store.ready().await.unwrap();
        }
        Self {
            etcd,
            follower,
            late,
            prompt,
        }
    }

    async fn client(&self, name: String) -> Client {
        Client::open(&as_store(&self.late), &name, TTL).await
    }

    /// The same client, asking once more through the other coordinator.
    fn elsewhere(&self, client: &Client, epoch: u64) -> Client {
        client.through(&as_store(&self.prompt)).at(epoch)
    }

    async fn holder(&self, name: &str) -> Option<Hold> {
        let name = super::ResourceName::new(name).unwrap();
        self.prompt.lease(&name).await.unwrap().hold
    }

    /// Waits until so many calls are on their way to the follower, which answers none of them.
    async fn are_sent(late: &EtcdStore, count: u64) {
        let sent = async || late.links.in_flight() == count;
        eventually("what is late is on its way", LIMIT, sent)
            .await
            .unwrap();
    }
}

/// The copy is refused by its transaction: one beside it, which nothing came after, arrives and is granted.
#[tokio::test]
async fn a_finished_acquire_is_not_granted_again_by_its_copy_in_a_frozen_follower() {
    let mut cluster = Box::pin(Cluster::start()).await;
    let mut arrived = 0;
    for round in 0..ROUNDS {
        let (name, beside) = (format!("r/{round}"), format!("beside/{round}"));
        let client = cluster.client(format!("client.{round}")).await;
        let other = cluster.client(format!("other.{round}")).await;
        let elsewhere = cluster.elsewhere(&client, 2);
        cluster.etcd.pause(cluster.follower).unwrap();
        let (etcd, late, follower) = (&mut cluster.etcd, &cluster.late, cluster.follower);
        let finishes = async {
            Cluster::are_sent(late, 2).await;
            let hold = elsewhere.take(&name, "1").await;
            elsewhere.give_back(&hold).await;
            etcd.resume(follower).unwrap();
        };
        let copies = (client.acquire(&name, "1"), other.acquire(&beside, "1"));
        let (copy, control, ()) = join!(copies.0, copies.1, finishes);
        assert_eq!(cluster.holder(&name).await, None, "granted again: {copy:?}");
        if matches!(control, Ok(Acquired::Held(_))) {
            assert!(is_outdated(&copy), "{copy:?}");
            arrived += 1;
        }
        if arrived == ENOUGH {
            return;
        }
    }
    panic!("only {arrived} copies arrived in {ROUNDS} rounds");
}

/// The wait was given up and that was told; a place that comes up afterwards would be served to nobody.
#[tokio::test]
async fn a_late_enqueue_in_a_frozen_follower_is_not_promoted_as_a_ghost() {
    let mut cluster = Box::pin(Cluster::start()).await;
    let mut arrived = 0;
    for round in 0..ROUNDS {
        let (name, beside) = (format!("r/{round}"), format!("beside/{round}"));
        let client = cluster.client(format!("client.{round}")).await;
        let other = cluster.client(format!("other.{round}")).await;
        let holder = cluster.client(format!("holder.{round}")).await;
        let mut held = Vec::new();
        for name in [&name, &beside] {
            // Through the late coordinator, which so knows that only a place can be had.
            held.push(holder.take(name, "holds").await);
        }
        let elsewhere = cluster.elsewhere(&client, 2);
        cluster.etcd.pause(cluster.follower).unwrap();
        let (etcd, late, follower) = (&mut cluster.etcd, &cluster.late, cluster.follower);
        let finishes = async {
            Cluster::are_sent(late, 2).await;
            elsewhere.queue(&name, "1").await;
            let request = HoldName::Request(RequestId::new("1").unwrap());
            let left = elsewhere.release(&name, request).await.unwrap();
            assert!(matches!(left, Released::Place { .. }), "{left:?}");
            etcd.resume(follower).unwrap();
        };
        let copies = (client.acquire(&name, "1"), other.acquire(&beside, "1"));
        let (copy, control, ()) = join!(copies.0, copies.1, finishes);
        let holder = holder.through(&as_store(&cluster.prompt));
        holder.give_back(&held[0]).await;
        assert_eq!(cluster.holder(&name).await, None, "a ghost: {copy:?}");
        if matches!(control, Ok(Acquired::Queued(_))) {
            assert!(is_outdated(&copy), "{copy:?}");
            holder.give_back(&held[1]).await;
            let heir = cluster.holder(&beside).await;
            assert!(heir.is_some_and(|heir| heir.claim.session == other.caller.session));
            arrived += 1;
        }
        if arrived == ENOUGH {
            return;
        }
    }
    panic!("only {arrived} copies arrived in {ROUNDS} rounds");
}

/// A call that has waited long enough gives up what it asked for, and so ends a lease that was granted just before. Its
/// client, which has heard nothing, has asked again elsewhere meanwhile, and was told that it holds: it goes on holding.
#[tokio::test]
async fn a_late_give_up_in_a_frozen_follower_does_not_end_what_was_told_since() {
    let mut cluster = Box::pin(Cluster::start()).await;
    let mut arrived = 0;
    for round in 0..ROUNDS {
        let (name, beside) = (format!("r/{round}"), format!("beside/{round}"));
        let client = cluster.client(format!("client.{round}")).await;
        let other = cluster.client(format!("other.{round}")).await;
        let hold = client.take(&name, "1").await;
        let elsewhere = cluster.elsewhere(&client, 2);
        cluster.etcd.pause(cluster.follower).unwrap();
        let (etcd, late, follower) = (&mut cluster.etcd, &cluster.late, cluster.follower);
        let asks_again = async {
            Cluster::are_sent(late, 2).await;
            let told = elsewhere.acquire(&name, "1").await.unwrap();
            assert_eq!(told, Acquired::Held(hold.clone()));
            etcd.resume(follower).unwrap();
        };
        let request = HoldName::Request(RequestId::new("1").unwrap());
        let copies = (client.release(&name, request), other.acquire(&beside, "1"));
        let (copy, control, ()) = join!(copies.0, copies.1, asks_again);
        assert_eq!(cluster.holder(&name).await, Some(hold), "ended: {copy:?}");
        if matches!(control, Ok(Acquired::Held(_))) {
            assert!(is_outdated(&copy), "{copy:?}");
            arrived += 1;
        }
        if arrived == ENOUGH {
            return;
        }
    }
    panic!("only {arrived} copies arrived in {ROUNDS} rounds");
}

/// A stream has submitted an acquire, and raises its mark, both with an unknown outcome. Its client goes on elsewhere,
/// and finishes there. Were the raise to be carried out late, or tried again over the mark that is found, the stream
/// would submit the acquire once more, under a mark that counts.
#[tokio::test]
async fn a_raise_of_unknown_outcome_brings_no_finished_acquire_back() {
    let mut cluster = Box::pin(Cluster::start()).await;
    let mut arrived = 0;
    for round in 0..ROUNDS {
        let (name, beside) = (format!("r/{round}"), format!("beside/{round}"));
        let other = cluster.client(format!("other.{round}")).await;
        let client = cluster.client(format!("client.{round}")).await;
        let stream = client.attached(2).await.unwrap();
        let from = stream.caller.mark.unwrap();
        let to = AttachMark {
            sub: from.sub + 1,
            ..from
        };
        let link = cluster.late.links.get().await.unwrap();
        let seen = read(&link, client.caller.session).await.unwrap().unwrap();
        assert_eq!(seen.record.mark, from);
        let raise = step::raise(&link.context().keys, &seen, to);
        cluster.etcd.pause(cluster.follower).unwrap();
        let prompt = as_store(&cluster.prompt);
        let (etcd, late, follower) = (&mut cluster.etcd, &cluster.late, cluster.follower);
        let finishes = async {
            Cluster::are_sent(late, 2).await;
            let newer = client.through(&prompt).attached(3).await.unwrap();
            let hold = newer.take(&name, "1").await;
            newer.give_back(&hold).await;
            etcd.resume(follower).unwrap();
        };
        let (copy, control, ()) = join!(link.submit(raise), other.acquire(&beside, "1"), finishes);
        let is_raised = matches!(copy, Ok(Decided::Applied(..)));
        // The stream does not know what became of its raise: it raises again, and then asks again.
        let again = cluster.late.raise(&stream.caller, to).await;
        let mut asks = stream.clone();
        asks.caller.mark = Some(to);
        let asked = asks.try_acquire(&name, "1").await;
        assert!(!is_raised, "a late raise was carried out");
        assert!(is_outdated(&again), "it was raised again: {again:?}");
        assert!(is_outdated(&asked), "it was granted again: {asked:?}");
        assert_eq!(cluster.holder(&name).await, None);
        arrived += usize::from(matches!(control, Ok(Acquired::Held(_))));
        if arrived == ENOUGH {
            return;
        }
    }
    panic!("only {arrived} copies arrived in {ROUNDS} rounds");
}
