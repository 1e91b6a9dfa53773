use etcd_client::{Compare, CompareOp, TxnOp};
use palisade_test_support::Etcd;

use super::Link;
use crate::clock::SystemClock;
use crate::entropy::SystemEntropy;
use crate::store::etcd::{EtcdOptions, EtcdStore};
use crate::store::{Failure, Outcome, StoreError};
use crate::tasks::Tasks;

/// A reply that names another cluster than the connection began with is no answer, and the connection ends with it
/// (I9). What it says was written may have been.
#[tokio::test]
async fn a_reply_of_another_cluster_ends_the_connection() {
    let etcd = Etcd::start().await.unwrap();
    let (clock, entropy) = (SystemClock::shared(), SystemEntropy::shared());
    let options = EtcdOptions::new(etcd.endpoints());
    let store = EtcdStore::new(options, clock, entropy, &Tasks::default());
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
