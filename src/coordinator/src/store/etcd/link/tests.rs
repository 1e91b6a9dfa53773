use std::sync::Arc;

use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use futures::future::join_all;
use palisade_test_support::Etcd;

use super::Link;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::store::etcd::batch::Decided;
use crate::store::etcd::step::Step;
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::store::{Failure, Outcome, StoreError};
use crate::tasks::Tasks;

fn store(etcd: &Etcd) -> Arc<EtcdStore> {
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    let options = EtcdOptions::new(etcd.endpoints());
    EtcdStore::new(options, clock, entropy, &Tasks::default())
}

fn put(key: &str) -> TxnOp {
    TxnOp::put(key, "", None)
}

/// Replies overtake each other: one that was sent first, and is read last, shows less than was seen since. That proves
/// nothing; what had been seen when it was *sent* does.
#[tokio::test]
async fn replies_that_overtake_each_other_are_not_taken_for_a_regress() {
    let etcd = Etcd::start().await.unwrap();
    let store = store(&etcd);
    let link = store.links.get().await.unwrap();
    link.confirm().await.unwrap();
    let mut under_way = Vec::new();
    for name in ["a", "b", "c"] {
        let sent = link.reached();
        let reply = link.transact(Txn::new().and_then([put(name)])).await;
        under_way.push((sent, reply.unwrap()));
    }
    for (sent, reply) in under_way.into_iter().rev() {
        let judged = link.judge_reply(&reply, sent, true);
        assert!(!judged.unwrap().1.is_regress, "{sent:?}: {reply:?}");
    }
    assert!(!link.broken().is_cancelled());
    let later = link.write(Vec::new(), vec![put("d")]).await.unwrap();
    assert!(!later.unwrap().is_regress);
}

/// A transaction that wrote nothing shows the revision that was seen before, or less on a member that is behind.
#[tokio::test]
async fn failed_compares_are_not_taken_for_a_regress() {
    let etcd = Etcd::start().await.unwrap();
    let store = store(&etcd);
    let link = store.links.get().await.unwrap();
    let there = |name| Compare::create_revision(name, CompareOp::Greater, 0);
    let refused = |number: u8| {
        let mut step = Step::new(vec![there("nobody has put this")]);
        step.put(vec![number], Vec::new(), None);
        step
    };
    for name in ["a", "b", "c"] {
        link.write(Vec::new(), vec![put(name)]).await.unwrap();
        // By itself, as a step that goes alone, and as some that travel together.
        let alone = link.write(vec![there("x")], vec![put("y")]).await;
        assert!(alone.unwrap().is_none());
        let steps = (0..5).map(|number| link.submit(refused(number)));
        for step in join_all(steps).await {
            assert!(matches!(step, Ok(Decided::Otherwise(..))), "{step:?}");
        }
    }
    assert!(!link.broken().is_cancelled());
    assert!(Arc::ptr_eq(&link, &store.links.get().await.unwrap()));
}

/// A reply that names another cluster than the connection began with is no answer, and the connection ends with it
/// (I9). What it says was written may have been.
#[tokio::test]
async fn a_reply_of_another_cluster_ends_the_connection() {
    let etcd = Etcd::start().await.unwrap();
    let store = store(&etcd);
    let context = store.links.get().await.unwrap().context().clone();
    let url = etcd.url();
    let another = async || {
        let (mut link, _) = Box::pin(Link::open(&url, context.clone())).await.unwrap();
        link.confirm().await.unwrap();
        link.cluster ^= 1;
        link
    };
    let told = |error: StoreError| match error {
        StoreError::Failed {
            failure, outcome, ..
        } => (failure, outcome),
        refused @ StoreError::Refused(_) => panic!("{refused:?}"),
    };
    let is_wrong = |failure: &Failure| matches!(failure, Failure::WrongCluster);

    let link = Box::pin(another()).await;
    let (failure, outcome) = told(link.confirm().await.unwrap_err());
    assert!(is_wrong(&failure), "{failure:?}");
    assert_eq!(outcome, Outcome::NotApplied);
    assert!(link.broken().is_cancelled());

    let link = Box::pin(another()).await;
    let key = context.keys.nothing();
    let absent = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
    let put = TxnOp::put(key, "", None);
    let (failure, outcome) = told(link.write(vec![absent], vec![put]).await.unwrap_err());
    assert!(is_wrong(&failure), "{failure:?}");
    assert_eq!(outcome, Outcome::Unknown, "it is in the log");
    assert!(link.broken().is_cancelled());
}
