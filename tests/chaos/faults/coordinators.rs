//! Coordinators: killed in the middle of acquires, frozen, and of two kinds at once (I1, I3, I4, I5, I7, I8).

use std::path::PathBuf;
use std::time::Duration;

use palisade_test_support::CoordinatorBuilder;

use super::load::TTL;
use super::stage::{HEALED, Plan, Stage, one_node};
use crate::common::rounds;

const PAST_TTL: Duration = TTL.saturating_add(Duration::from_secs(1));

/// F3: at whatever moment, also between a commit and its answer.
#[tokio::test(flavor = "multi_thread")]
async fn coordinators_are_killed_in_the_middle_of_acquires() {
    let name = "faults::coordinators::coordinators_are_killed_in_the_middle_of_acquires";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    for round in 0..rounds(2, 20) {
        stage
            .suffers("F3", async |stage| {
                let one = round % 2;
                // It has the answers of etcd, or has not, and tells them to nobody.
                let moment = u64::try_from(round * 7 % 40).unwrap();
                Stage::lasts(Duration::from_millis(moment)).await;
                stage.coordinators[one].kill().unwrap();
                stage.load.all_get_on(HEALED).await;
                stage.coordinators[one].start_again().await.unwrap();
            })
            .await;
    }
    stage.ends().await;
}

/// F4: it wakes with requests, answers and a view of the world that are older than every session.
#[tokio::test(flavor = "multi_thread")]
async fn coordinators_are_frozen_for_longer_than_sessions_live() {
    let name = "faults::coordinators::coordinators_are_frozen_for_longer_than_sessions_live";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    for round in 0..rounds(1, 6) {
        stage
            .suffers("F4", async |stage| {
                stage.coordinators[round % 2].pause().unwrap();
                Stage::lasts(PAST_TTL).await;
                stage.coordinators[round % 2].resume().unwrap();
            })
            .await;
        stage
            .suffers("F4 all", async |stage| {
                for coordinator in &mut stage.coordinators {
                    coordinator.pause().unwrap();
                }
                Stage::lasts(PAST_TTL).await;
                for coordinator in &mut stage.coordinators {
                    coordinator.resume().unwrap();
                }
            })
            .await;
    }
    stage.ends().await;
}

/// F30: coordinators of two kinds serve side by side, and are replaced in turn, some by force. Another version is named by
/// `PALISADE_CHAOS_OTHER_BIN`; without it the two kinds are with and without group commit.
#[tokio::test(flavor = "multi_thread")]
async fn coordinators_of_two_kinds_are_replaced_in_turn() {
    let name = "faults::coordinators::coordinators_of_two_kinds_are_replaced_in_turn";
    let plan = Plan {
        args: vec![vec!["--batching=off".to_owned()], Vec::new()],
        ..Plan::default()
    };
    let mut stage = Stage::start(name, one_node().await, plan).await;
    let other = std::env::var_os("PALISADE_CHAOS_OTHER_BIN").map(PathBuf::from);
    for round in 0..rounds(2, 8) {
        stage
            .suffers("F30", async |stage| {
                let one = round % 2;
                if round % 3 == 0 {
                    stage.coordinators[one].kill().unwrap();
                } else {
                    stage.coordinators[one].terminate().await.unwrap();
                }
                let with = |next: CoordinatorBuilder| match &other {
                    Some(other) if round / 2 % 2 == 0 => next.program(other),
                    _ if round / 2 % 2 == 1 => next.arg("--batching=off"),
                    _ => next,
                };
                stage.replaces(one, with).await;
                stage.load.all_get_on(HEALED).await;
            })
            .await;
    }
    stage.ends().await;
}
