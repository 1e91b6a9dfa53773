//! Three members of etcd: killed, frozen and parted from each other (I1–I5, I7, I8).

use std::time::Duration;

use super::load::TTL;
use super::stage::{Plan, Stage, three_nodes};
use crate::common::rounds;

/// Past the end of every session that is not renewed.
const PAST_TTL: Duration = TTL.saturating_add(Duration::from_millis(1_500));

/// F5, and a follower as well.
#[tokio::test(flavor = "multi_thread")]
async fn etcds_leader_and_followers_are_killed() {
    let etcd = three_nodes().await;
    let name = "faults::members::etcds_leader_and_followers_are_killed";
    let mut stage = Stage::start(name, etcd, Plan::default()).await;
    for _ in 0..rounds(1, 5) {
        stage
            .suffers("F5", async |stage| {
                let leader = stage.etcd.leader().await.unwrap();
                stage.etcd.kill(leader).unwrap();
                stage.load.all_get_on(super::stage::HEALED).await;
                stage.etcd.start_again(leader).await.unwrap();
            })
            .await;
        stage
            .suffers("F5 follower", async |stage| {
                let follower = (stage.etcd.leader().await.unwrap() + 1) % 3;
                stage.etcd.kill(follower).unwrap();
                stage.load.all_get_on(super::stage::HEALED).await;
                stage.etcd.start_again(follower).await.unwrap();
            })
            .await;
    }
    stage.ends().await;
}

/// F6 and F7.
#[tokio::test(flavor = "multi_thread")]
async fn etcds_leader_and_then_all_of_it_is_frozen() {
    let etcd = three_nodes().await;
    let name = "faults::members::etcds_leader_and_then_all_of_it_is_frozen";
    let mut stage = Stage::start(name, etcd, Plan::default()).await;
    for _ in 0..rounds(1, 4) {
        stage
            .suffers("F6", async |stage| {
                let leader = stage.etcd.leader().await.unwrap();
                stage.etcd.pause(leader).unwrap();
                Stage::lasts(PAST_TTL).await;
                stage.etcd.resume(leader).unwrap();
            })
            .await;
        stage
            .suffers("F7", async |stage| {
                for member in 0..3 {
                    stage.etcd.pause(member).unwrap();
                }
                Stage::lasts(PAST_TTL).await;
                for member in 0..3 {
                    stage.etcd.resume(member).unwrap();
                }
            })
            .await;
    }
    stage.ends().await;
}

/// F8, and what a minority says meanwhile is not believed. Then two of three are cut off from each other and from the
/// leader, so that nobody leads.
#[tokio::test(flavor = "multi_thread")]
async fn etcds_leader_is_parted_from_its_peers() {
    let etcd = three_nodes().await;
    let name = "faults::members::etcds_leader_is_parted_from_its_peers";
    let mut stage = Stage::start(name, etcd, Plan::default()).await;
    for _ in 0..rounds(1, 4) {
        stage
            .suffers("F8", async |stage| {
                let leader = stage.etcd.leader().await.unwrap();
                stage.etcd.part(leader).unwrap();
                // The others elect another leader, and clients go on there.
                stage.load.all_get_on(super::stage::HEALED).await;
                Stage::lasts(PAST_TTL).await;
                stage.etcd.rejoin().await.unwrap();
            })
            .await;
    }
    stage.ends().await;
}
