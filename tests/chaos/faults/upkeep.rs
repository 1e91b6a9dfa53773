//! What operators do to etcd while it serves: compaction, defragmentation, members that come and go (I1–I5, I7, I8).

use std::time::Duration;

use super::stage::{HEALED, Plan, Stage, one_node, three_nodes};
use crate::common::rounds;

/// F16.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_compacted_and_defragmented_all_the_while() {
    let name = "faults::upkeep::etcd_is_compacted_and_defragmented_all_the_while";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    stage
        .suffers("F16", async |stage| {
            for _ in 0..rounds(5, 100) {
                stage.compacts().await;
                stage.etcd.etcdctl(&["defrag"]).await.unwrap();
                Stage::lasts(Duration::from_millis(200)).await;
            }
        })
        .await;
    stage.ends().await;
}

/// F27: one more member, a learner among the endpoints of a coordinator, which then votes; one less, and one replaced
/// after its data is lost.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_etcd_come_and_go() {
    let name = "faults::upkeep::members_of_etcd_come_and_go";
    let mut stage = Stage::start(name, three_nodes().await, Plan::default()).await;
    for _ in 0..rounds(1, 4) {
        stage
            .suffers("F27 learner", async |stage| {
                let learner = stage.etcd.add(true).await.unwrap();
                knows_all_members(stage).await;
                stage.load.all_get_on(HEALED).await;
                promoted(stage, learner).await;
                stage.load.all_get_on(HEALED).await;
            })
            .await;
        stage
            .suffers("F27 remove", async |stage| {
                // The one that leads: everything must move.
                let leader = stage.etcd.leader().await.unwrap();
                stage.etcd.remove(leader).await.unwrap();
                let door = stage.door();
                stage.log.reach(door);
                stage.load.all_get_on(HEALED).await;
            })
            .await;
        stage
            .suffers("F27 replace", async |stage| {
                let lost = (stage.etcd.leader().await.unwrap() + 1) % stage.etcd.size();
                stage.etcd.kill(lost).unwrap();
                stage.etcd.remove(lost).await.unwrap();
                let _index = stage.etcd.add(false).await.unwrap();
                knows_all_members(stage).await;
                stage.load.all_get_on(HEALED).await;
            })
            .await;
    }
    stage.ends().await;
}

/// A coordinator is started again, and given all members.
async fn knows_all_members(stage: &mut Stage) {
    stage.coordinators[0].terminate().await.unwrap();
    stage.replaces(0, |builder| builder).await;
}

/// It is refused until the learner has caught up.
async fn promoted(stage: &mut Stage, learner: usize) {
    let mut tries = 0;
    while let Err(error) = stage.etcd.promote(learner).await {
        tries += 1;
        assert!(tries < 100, "{error}");
        Stage::lasts(Duration::from_millis(200)).await;
    }
}
