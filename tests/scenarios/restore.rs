//! An etcd that is restored from an older snapshot still yields larger tokens (I3), as clients see it.

use palisade_client::Client;
use palisade_test_support::{Etcd, EtcdVersion, eventually};
use palisade_token::FencingToken;

use crate::setup::{LIMIT, acquired, client_of, coordinator};

async fn tokens(client: &Client, count: usize) -> Vec<FencingToken> {
    let mut tokens = Vec::new();
    for _ in 0..count {
        let mut lease = None;
        let granted = async || {
            lease = acquired(client, "r").await.ok();
            lease.is_some()
        };
        eventually("a grant", LIMIT, granted).await.unwrap();
        let lease = lease.unwrap();
        tokens.push(lease.token());
        lease.release().await.unwrap();
    }
    tokens
}

async fn with_a_coordinator_running(version: EtcdVersion) {
    let mut etcd = Etcd::builder().version(version).start().await.unwrap();
    let coordinator = coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&coordinator]);
    let mut seen = tokens(&client, 3).await;
    let snapshot = etcd.snapshot_save("older").await.unwrap();
    seen.extend(tokens(&client, 10).await);
    etcd.restore_from(&snapshot).await.unwrap();
    seen.extend(tokens(&client, 3).await);
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );
}

#[tokio::test]
async fn with_a_coordinator_running_on_etcd_3_5() {
    with_a_coordinator_running(EtcdVersion::V3_5).await;
}

#[tokio::test]
async fn with_a_coordinator_running_on_etcd_3_4() {
    with_a_coordinator_running(EtcdVersion::V3_4).await;
}

#[tokio::test]
async fn with_no_coordinator_running() {
    let mut etcd = Etcd::start().await.unwrap();
    let mut before = coordinator(&etcd.endpoints()).await;
    let mut seen = tokens(&client_of(&[&before]), 3).await;
    let snapshot = etcd.snapshot_save("older").await.unwrap();
    seen.extend(tokens(&client_of(&[&before]), 10).await);
    before.kill().unwrap();
    etcd.restore_from(&snapshot).await.unwrap();
    let after = coordinator(&etcd.endpoints()).await;
    seen.extend(tokens(&client_of(&[&after]), 3).await);
    assert!(
        seen.is_sorted_by(|a, b| a < b),
        "tokens went backwards: {seen:?}"
    );
}
