//! etcd loses its history under load: restored from a snapshot, with and without a bump of its revision, and rebuilt from
//! nothing, at the same address (I1, I2, I3, I7, I9).

use super::stage::{HEALED, Plan, Stage, one_node};
use crate::common::rounds;

fn plan() -> Plan {
    Plan {
        history_is_lost: true,
        ..Plan::default()
    }
}

/// F17: revisions go back, and what was released is held again.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_restored_from_an_older_snapshot() {
    let name = "faults::history::etcd_is_restored_from_an_older_snapshot";
    let mut stage = Stage::start(name, one_node().await, plan()).await;
    for round in 0..rounds(2, 8) {
        let snapshot = stage.etcd.snapshot_save(&format!("older-{round}")).await;
        let snapshot = snapshot.unwrap();
        stage.load.all_get_on(HEALED).await;
        stage.load.all_get_on(HEALED).await;
        stage
            .suffers("F17", async |stage| {
                stage.loses_history(Some(&snapshot), None).await
            })
            .await;
    }
    stage.ends().await;
}

/// F18.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_restored_with_its_revision_bumped() {
    let name = "faults::history::etcd_is_restored_with_its_revision_bumped";
    let mut stage = Stage::start(name, one_node().await, plan()).await;
    for round in 0..rounds(2, 4) {
        let snapshot = stage.etcd.snapshot_save(&format!("older-{round}")).await;
        let snapshot = snapshot.unwrap();
        stage.load.all_get_on(HEALED).await;
        stage
            .suffers("F18", async |stage| {
                stage.loses_history(Some(&snapshot), Some(1_000_000)).await;
            })
            .await;
    }
    stage.ends().await;
}

/// F19: nothing is left, not even the generation.
#[tokio::test(flavor = "multi_thread")]
async fn etcd_is_rebuilt_from_nothing() {
    let name = "faults::history::etcd_is_rebuilt_from_nothing";
    let mut stage = Stage::start(name, one_node().await, plan()).await;
    for _ in 0..rounds(3, 8) {
        stage
            .suffers("F19", async |stage| stage.loses_history(None, None).await)
            .await;
    }
    stage.ends().await;
}
