//! Two coordinators on one etcd: any of them serves any session, and one that dies takes nothing with it.

use palisade_client::{Client, Hold};
use palisade_test_support::{Etcd, EtcdCluster, eventually, within};

use crate::setup::{LIMIT, TTL, acquired, client_of, coordinator, name, open, waiting};

#[tokio::test]
async fn a_lease_acquired_through_one_is_renewed_and_released_through_the_other() {
    let etcd = Etcd::start().await.unwrap();
    let (one, other) = (
        coordinator(&etcd.endpoints()).await,
        coordinator(&etcd.endpoints()).await,
    );
    let session = open(&client_of(&[&one])).await;
    let lease = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    let token = lease.token();
    let credentials = session.detach().unwrap();

    let through_other = client_of(&[&other]);
    let detached = through_other.detached(credentials);
    let (_sent, ttl_left) = detached.renew().await.unwrap();
    assert!(ttl_left <= TTL && ttl_left > TTL / 2, "{ttl_left:?}");
    let seen = through_other.get_lease(&name("r"), 0).await.unwrap();
    assert_eq!(seen.lease.map(|lease| lease.grant.token), Some(token));
    let released = detached
        .release(&name("r"), Hold::Token(token), None)
        .await
        .unwrap();
    assert_eq!(released.ended_before, None);
    assert!(acquired(&client_of(&[&one]), "r").await.unwrap().token() > token);
}

#[tokio::test]
async fn a_killed_coordinator_loses_no_lease_and_no_place_in_the_queue() {
    let etcd = Etcd::start().await.unwrap();
    let mut one = coordinator(&etcd.endpoints()).await;
    let other = coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&one, &other]);
    let session = open(&client).await;
    let held = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    let token = held.token();

    let first = waiter(&client).await;
    expect_waiters(&client_of(&[&other]), 1).await;
    let second = waiter(&client).await;
    expect_waiters(&client_of(&[&other]), 2).await;
    one.kill().unwrap();

    // Two lifetimes later the session lives: it was renewed through the other coordinator.
    let born = session.deadline();
    let grown = async || session.deadline().0 > born.0 + TTL * 2;
    eventually("renewals through the other coordinator", LIMIT, grown)
        .await
        .unwrap();
    assert_eq!(held.grant().unwrap().token, token);
    let seen = client_of(&[&other]).get_lease(&name("r"), 0).await.unwrap();
    assert_eq!(seen.lease.map(|lease| lease.grant.token), Some(token));
    assert_eq!(seen.waiters, 2);

    held.release().await.unwrap();
    let after = within("the first waiter", LIMIT, first)
        .await
        .unwrap()
        .unwrap();
    assert!(after.token() > token);
    let seen = client_of(&[&other]).get_lease(&name("r"), 0).await.unwrap();
    assert_eq!(seen.waiters, 1, "the second was served before its turn");
    let first_token = after.token();
    after.release().await.unwrap();
    let last = within("the second waiter", LIMIT, second)
        .await
        .unwrap()
        .unwrap();
    assert!(last.token() > first_token);
}

type Waiting = tokio::task::JoinHandle<palisade_client::Lease>;

async fn waiter(client: &Client) -> Waiting {
    let session = open(client).await;
    crate::setup::spawn(async move { session.acquire(&name("r"), waiting(LIMIT)).await.unwrap() })
}

async fn expect_waiters(client: &Client, count: u32) {
    let reached = async || client.get_lease(&name("r"), 0).await.unwrap().waiters == count;
    eventually("a place in the queue", LIMIT, reached)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_lease_survives_the_loss_of_one_of_three_etcd_members() {
    let mut etcd = EtcdCluster::start(3).await.unwrap();
    let coordinator = coordinator(&etcd.endpoints()).await;
    let client = client_of(&[&coordinator]);
    let session = open(&client).await;
    let lease = session.acquire(&name("r"), waiting(LIMIT)).await.unwrap();
    let leader = etcd.leader().await.unwrap();
    etcd.kill(leader).unwrap();
    let token = acquired(&client, "other").await.unwrap().token();
    assert!(token.get() > 0);
    let seen = client.get_lease(&name("r"), 0).await.unwrap();
    assert_eq!(seen.lease.map(|seen| seen.grant.token), Some(lease.token()));
    lease.release().await.unwrap();
    assert!(acquired(&client, "r").await.is_ok());
}
