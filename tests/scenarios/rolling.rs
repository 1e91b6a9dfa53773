//! Coordinators and members of etcd are killed in turn, under load: what clients were told is what etcd's log says
//! (I1, I3, I4, I7, I8), every request is answered, and nothing is left behind (I5).

mod load;
mod log;

use palisade_test_support::{Coordinator, EtcdCluster, eventually};

use self::load::Load;
use self::log::Log;
use crate::setup::{LIMIT, coordinator};

/// What is killed, one after the other, and each started again before the next: a quorum stays.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Coordinator(usize),
    Leader,
    Follower,
}

const TURN: [Victim; 5] = [
    Victim::Coordinator(0),
    Victim::Leader,
    Victim::Coordinator(1),
    Victim::Follower,
    Victim::Leader,
];
/// Some tens of seconds on an idle machine.
const TURNS: usize = 2;

async fn member(etcd: &EtcdCluster, victim: Victim) -> usize {
    let leader = etcd.leader().await.unwrap();
    match victim {
        Victim::Follower => (leader + 1) % etcd.size(),
        Victim::Leader | Victim::Coordinator(_) => leader,
    }
}

async fn kill_in_turn(etcd: &mut EtcdCluster, coordinators: &mut [Coordinator; 2], load: &Load) {
    for victim in TURN.repeat(TURNS) {
        load.gets_on().await;
        if let Victim::Coordinator(number) = victim {
            coordinators[number].kill().unwrap();
            load.gets_on().await;
            coordinators[number].start_again().await.unwrap();
        } else {
            let member = member(etcd, victim).await;
            etcd.kill(member).unwrap();
            load.gets_on().await;
            etcd.start_again(member).await.unwrap();
        }
    }
    load.gets_on().await;
}

/// A frozen member has what a coordinator sent it in its sockets: when it thaws, it carries that out, long after the
/// coordinator is gone and its clients have gone on elsewhere.
async fn freeze_in_turn(etcd: &mut EtcdCluster, coordinators: &mut [Coordinator; 2], load: &Load) {
    for member in 0..etcd.size() {
        for coordinator in &mut *coordinators {
            load.gets_on().await;
            etcd.pause(member).unwrap();
            // So long it sends what is not answered any more.
            coordinator.http_get("/metrics").await.unwrap();
            coordinator.kill().unwrap();
            load.gets_on().await;
            etcd.resume(member).unwrap();
            coordinator.start_again().await.unwrap();
        }
    }
    load.gets_on().await;
}

async fn settle(load: Load, endpoints: &[String]) {
    let rest = load.end().await;
    let log = Log::of(endpoints).await;
    let kept = rest.kept_resources();
    // What nobody knows of goes while the sessions live (I5).
    let settled = async || log.held().await == kept && log.queued().await == 0;
    eventually("only what is kept is held", LIMIT, settled)
        .await
        .unwrap();
    let told = rest.close().await;
    eventually("nothing is left", LIMIT, async || log.is_empty().await)
        .await
        .unwrap();

    let holds = log.holds().await;
    assert!(told.len() > 100, "it was hardly any load");
    log::tokens_grow(&holds);
    log::requests_are_granted_once(&holds);
    log::has_what_was_told(&holds, &told);
    load::nobody_believed_at_once(&told);
}

async fn started() -> (EtcdCluster, [Coordinator; 2], Load) {
    let etcd = EtcdCluster::start(3).await.unwrap();
    let endpoints = etcd.endpoints();
    let coordinators = [coordinator(&endpoints).await, coordinator(&endpoints).await];
    let load = Load::start(&coordinators).await;
    (etcd, coordinators, load)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_are_told_is_in_the_log_whoever_is_killed() {
    let (mut etcd, mut coordinators, load) = started().await;
    kill_in_turn(&mut etcd, &mut coordinators, &load).await;
    settle(load, &etcd.endpoints()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_coordinator_asked_of_a_frozen_member_changes_nothing() {
    let (mut etcd, mut coordinators, load) = started().await;
    freeze_in_turn(&mut etcd, &mut coordinators, &load).await;
    settle(load, &etcd.endpoints()).await;
}
