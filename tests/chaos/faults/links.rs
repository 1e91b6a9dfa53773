//! What lies between coordinators and etcd: cut, held back, half open, slow, and losing answers (I1–I5, I7, I8).

use std::time::Duration;

use super::load::TTL;
use super::stage::{HEALED, Plan, Stage, one_node};
use crate::common::rounds;

const PAST_TTL: Duration = TTL.saturating_add(Duration::from_secs(1));

/// F9: both coordinators lose etcd, for longer than sessions live; then one of them, whose clients go on by the other.
#[tokio::test(flavor = "multi_thread")]
async fn coordinators_are_cut_off_from_etcd() {
    let name = "faults::links::coordinators_are_cut_off_from_etcd";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    for _ in 0..rounds(1, 4) {
        stage
            .suffers("F9", async |stage| {
                for link in stage.links_of(None) {
                    link.blackhole();
                }
                Stage::lasts(PAST_TTL).await;
                stage.heal_links().await;
            })
            .await;
        stage
            .suffers("F9 one", async |stage| {
                for link in stage.links_of(Some(0)) {
                    link.cut().await.unwrap();
                }
                stage.load.all_get_on(HEALED).await;
                stage.heal_links().await;
            })
            .await;
    }
    stage.ends().await;
}

/// F10: no end is told, and one direction is dead. The watchdog finds it out. What was held back arrives when
/// everybody has gone on (F12, delayed).
#[tokio::test(flavor = "multi_thread")]
async fn links_to_etcd_are_half_open() {
    let name = "faults::links::links_to_etcd_are_half_open";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    for round in 0..rounds(1, 4) {
        stage
            .suffers("F10 requests", async |stage| {
                for link in stage.links_of(Some(round % 2)) {
                    link.hold_requests();
                }
                // By the other coordinator, while this one finds out.
                stage.load.all_get_on(HEALED).await;
                Stage::lasts(PAST_TTL).await;
                stage.heal_links().await;
            })
            .await;
        stage
            .suffers("F10 replies", async |stage| {
                for link in stage.links_of(Some((round + 1) % 2)) {
                    link.hold_replies();
                }
                stage.load.all_get_on(HEALED).await;
                Stage::lasts(PAST_TTL).await;
                stage.heal_links().await;
            })
            .await;
    }
    stage.ends().await;
}

/// F11: what etcd has committed is not told. Short, so that it hits other operations each time.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_etcd_are_lost_after_the_commit() {
    let name = "faults::links::answers_of_etcd_are_lost_after_the_commit";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    for round in 0..rounds(4, 40) {
        stage
            .suffers("F11", async |stage| {
                let only = [None, Some(0), Some(1)][round % 3];
                for link in stage.links_of(only) {
                    link.drop_replies();
                }
                // Some clients' requests come in, and are carried out.
                Stage::lasts(Duration::from_millis(150)).await;
                stage.heal_links().await;
            })
            .await;
    }
    stage.ends().await;
}

/// F12, late: everything is held back for longer than callers wait, again and again, and then arrives, in order. And
/// links that are slow, each piece by another time.
#[tokio::test(flavor = "multi_thread")]
async fn requests_to_etcd_arrive_late() {
    let name = "faults::links::requests_to_etcd_arrive_late";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    for round in 0..rounds(1, 12) {
        stage
            .suffers("F12 late", async |stage| {
                for link in stage.links_of(Some(round % 2)) {
                    link.hold_requests();
                }
                Stage::lasts(Duration::from_millis(2_500)).await;
                stage.heal_links().await;
            })
            .await;
        stage
            .suffers("F12 slow", async |stage| {
                for link in stage.links_of(None) {
                    link.delay(Duration::from_millis(5), Duration::from_millis(150));
                }
                Stage::lasts(Duration::from_secs(3)).await;
                stage.heal_links().await;
            })
            .await;
    }
    stage.ends().await;
}

/// F13: every connection, and with it the watch, ends again and again, while what happened meanwhile is compacted.
/// Waiters go on.
#[tokio::test(flavor = "multi_thread")]
async fn watches_are_lost_and_what_they_missed_is_compacted() {
    let name = "faults::links::watches_are_lost_and_what_they_missed_is_compacted";
    let mut stage = Stage::start(name, one_node().await, Plan::default()).await;
    for round in 0..rounds(2, 20) {
        stage
            .suffers("F13", async |stage| {
                let one = round % 2;
                for link in stage.links_of(Some(one)) {
                    link.cut().await.unwrap();
                }
                stage.load.all_get_on(HEALED).await;
                stage.compacts().await;
                stage.heal_links().await;
            })
            .await;
    }
    stage.ends().await;
}
