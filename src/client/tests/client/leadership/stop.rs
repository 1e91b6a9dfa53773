//! How leaderships end.

use std::time::Duration;

use palisade_api::v1;
use palisade_client::{
    Clock, Leadership, LeadershipOptions, LeaseError, LostReason, Next, SessionState,
};

use super::{Campaigning, Gate, Log, Stage, spawn};
use crate::attach::world::{Asked, Fault, Host, Kind, Told};
use crate::fake::{in_time, orders};

/// 15 s less 1 % and less a tenth.
const BELIEVED: Duration = Duration::from_millis(13_350);

/// Works until cancelled, and hands out its leadership.
fn until_cancelled(
    stage: &Stage,
    options: LeadershipOptions,
) -> (
    Campaigning,
    tokio::sync::mpsc::UnboundedReceiver<Leadership<()>>,
) {
    let (handed, leaderships) = tokio::sync::mpsc::unbounded_channel();
    let (client, log) = (stage.client.clone(), stage.log.clone());
    let campaigning = spawn(async move {
        let work = move |leadership: Leadership<()>| {
            let (handed, log) = (handed.clone(), log.clone());
            async move {
                let (closing, cancelled) = (leadership.closing(), leadership.cancelled());
                handed.send(leadership.clone()).unwrap();
                closing.cancelled().await;
                log.add("closing");
                cancelled.cancelled().await;
                log.add(format!("cancelled {:?}", leadership.grant().is_ok()));
                drop(leadership);
                Next::Campaign
            }
        };
        client.run_as_leader(&orders(), options, (), work).await
    });
    (campaigning, leaderships)
}

fn released(host: &Host) -> usize {
    host.seen(Kind::Release).len()
}

#[tokio::test]
async fn told_to_stop_it_stops_taking_work_then_cancels_drains_and_releases() {
    let stage = Stage::new().await;
    let log = stage.log.clone();
    let options = stage.options().finish_limit(Duration::from_secs(4));
    let (campaigning, mut leaderships) = until_cancelled(&stage, options);
    let leadership = in_time(leaderships.recv()).await.unwrap();
    stage.stop.cancel();
    log.saw("closing", 1).await;
    assert!(leadership.grant().is_ok(), "what runs may be finished");
    assert!(!leadership.cancelled().is_cancelled());
    stage.clock.advance(Duration::from_secs(4));
    let ended = in_time(campaigning).await.unwrap().unwrap();
    let all = log.all();
    assert_eq!(all[..3], ["started 101", "closing", "cancelled true"]);
    assert!(
        all[3].starts_with("stopped 101") && all.len() == 4,
        "{all:?}"
    );
    assert_eq!(released(&stage.host), 1);
    assert_eq!(
        leadership.grant(),
        Err(LeaseError::Lost(LostReason::Closed))
    );
    assert_eq!((ended.leaderships, ended.resigned), (1, false));
}

#[tokio::test]
async fn the_lease_is_released_after_the_work_has_ended_and_not_before() {
    let stage = Stage::new().await;
    let gate = Gate::default();
    let (client, options) = (stage.client.clone(), stage.options());
    let (draining, log) = (gate.clone(), stage.log.clone());
    let campaigning = spawn(async move {
        let work = move |leadership: Leadership<()>| {
            let (draining, log) = (draining.clone(), log.clone());
            async move {
                leadership.cancelled().cancelled().await;
                log.add("draining");
                draining.opened().await;
                log.add("drained");
                Next::Campaign
            }
        };
        client.run_as_leader(&orders(), options, (), work).await
    });
    stage.log.saw("started", 1).await;
    stage.stop.cancel();
    stage.log.saw("draining", 1).await;
    // As long as the drain may take, nearly.
    stage.clock.advance(Duration::from_millis(2990));
    for _chance in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!((released(&stage.host), stage.log.count("stopped")), (0, 0));
    gate.open();
    in_time(campaigning).await.unwrap().unwrap();
    assert_eq!((released(&stage.host), stage.log.count("stopped")), (1, 1));
}

#[tokio::test]
async fn a_drain_that_overruns_releases_nothing_and_lets_the_session_expire() {
    let stage = Stage::new().await;
    let (client, options) = (stage.client.clone(), stage.options());
    let campaigning = spawn(async move {
        let work = async |_leadership| std::future::pending().await;
        client.run_as_leader(&orders(), options, (), work).await
    });
    stage.log.saw("started", 1).await;
    stage.stop.cancel();
    stage
        .pass_until("the end", async || campaigning.is_finished())
        .await;
    let ended = campaigning.await.unwrap().unwrap();
    assert!(ended.last.unwrap().overran);
    assert!(!ended.still_running, "what awaits is dropped");
    assert_eq!(stage.log.count("stopped"), 1);
    stage.clock.advance(Duration::from_secs(20));
    for _chance in 0..100 {
        tokio::task::yield_now().await;
    }
    let gone = [Kind::Release, Kind::Close, Kind::Cancel].map(|kind| stage.host.seen(kind).len());
    assert_eq!(gone, [0, 0, 0], "its TTL ends it");
    assert_eq!(stage.host.world().held.len(), 1);
}

/// Work that blocks its thread cannot be ended: the campaign ends without it, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn work_that_cannot_be_ended_is_told_and_its_end_too() {
    let stage = Stage::new().await;
    let (client, options) = (stage.client.clone(), stage.options());
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = std::sync::Mutex::new(blocked);
    let campaigning = spawn(async move {
        let work = move |_leadership: Leadership<()>| {
            assert!(blocked.lock().unwrap().recv().is_err(), "nothing is sent");
            async { Next::Campaign }
        };
        client.run_as_leader(&orders(), options, (), work).await
    });
    stage.log.saw("started", 1).await;
    stage.stop.cancel();
    stage
        .pass_until("the end", async || campaigning.is_finished())
        .await;
    let ended = campaigning.await.unwrap().unwrap();
    assert!(ended.still_running, "{ended:?}");
    assert_eq!(stage.log.count("stopped"), 0);
    drop(unblock);
    stage.log.saw("stopped", 1).await;
    let gone = [Kind::Release, Kind::Close].map(|kind| stage.host.seen(kind).len());
    assert_eq!(gone, [0, 0]);
}

#[tokio::test]
async fn an_outage_shorter_than_the_deadline_ends_nothing_and_a_longer_one_does() {
    let stage = Stage::new().await;
    let (campaigning, mut leaderships) = until_cancelled(&stage, stage.options());
    let first = in_time(leaderships.recv()).await.unwrap();
    for _blip in 0..2 {
        stage.host.always(Kind::Open, Some(Fault::Cut));
        stage.host.cut();
        stage
            .pass_until("suspect", async || first.state() == SessionState::Suspect)
            .await;
        let left = first.time_left();
        stage.clock.advance(left - Duration::from_millis(1));
        assert!(first.grant().is_ok() && !first.closing().is_cancelled());
        stage.host.always(Kind::Open, None);
        // No time may pass but what the retry of the opening takes, which has been due for long.
        let held = async || first.state() == SessionState::Held;
        let what = "held again";
        palisade_test_support::eventually(what, crate::fake::PATIENCE, held)
            .await
            .unwrap();
    }
    assert_eq!(stage.log.count("started"), 1);

    stage.host.always(Kind::Open, Some(Fault::Cut));
    stage.host.cut();
    stage.clock.advance(BELIEVED);
    assert_eq!(first.grant(), Err(LeaseError::Expired));
    assert!(first.cancelled().is_cancelled(), "whoever looks tells all");
    stage.log.saw("stopped 101", 1).await;
    assert_eq!(stage.log.count("cancelled false"), 1);
    assert!(stage.log.all().iter().any(|said| said.contains("Expired")));
    stage.host.always(Kind::Open, None);
    stage.host.world().held.clear();
    stage
        .pass_until("the next", async || stage.log.count("started") == 2)
        .await;
    assert_eq!(released(&stage.host), 0, "what has expired is not released");
    let second = in_time(leaderships.recv()).await.unwrap();
    assert!(second.token() > first.token());
    assert!(first.grant().is_err());
    stage.stop.cancel();
    in_time(campaigning).await.unwrap().unwrap();
    assert_eq!(stage.log.count("stopped"), 2);
}

#[tokio::test]
async fn a_lost_lease_ends_its_leadership_and_another_campaign_begins_in_the_same_session() {
    let stage = Stage::new().await;
    let (campaigning, mut leaderships) = until_cancelled(&stage, stage.options());
    let first = in_time(leaderships.recv()).await.unwrap();
    stage.host.revoke("orders", "maintenance");
    stage.log.saw("stopped 101", 1).await;
    assert_eq!(first.grant(), Err(LeaseError::Lost(LostReason::Closed)));
    stage
        .pass_until("the next", async || stage.log.count("started") == 2)
        .await;
    let second = in_time(leaderships.recv()).await.unwrap();
    assert!(second.grant().is_ok());
    assert_eq!(stage.host.seen(Kind::Open).len(), 1);
    stage.stop.cancel();
    let ended = in_time(campaigning).await.unwrap().unwrap();
    assert_eq!(ended.leaderships, 2);
    let lost = "Lost { reason: Revoked }";
    assert!(stage.log.all().iter().any(|said| said.contains(lost)));
}

#[tokio::test]
async fn what_may_be_finished_is_cancelled_at_once_where_the_lease_is_lost() {
    let stage = Stage::new().await;
    let options = stage.options().finish_limit(Duration::from_secs(600));
    let (campaigning, mut leaderships) = until_cancelled(&stage, options);
    let leadership = in_time(leaderships.recv()).await.unwrap();
    stage.stop.cancel();
    stage.log.saw("closing", 1).await;
    assert!(!leadership.cancelled().is_cancelled());
    stage.host.revoke("orders", "maintenance");
    let ended = in_time(campaigning).await.unwrap().unwrap();
    assert_eq!(stage.log.count("cancelled false"), 1);
    assert_eq!((released(&stage.host), ended.leaderships), (0, 1));
}

/// Work that hears nothing is dropped after the drain, and there is no next campaign before it has ended.
#[tokio::test]
async fn work_that_does_not_hear_of_the_loss_is_dropped_before_the_next_campaign() {
    let stage = Stage::new().await;
    let (client, options, log) = (stage.client.clone(), stage.options(), stage.log.clone());
    struct Working(Log);
    impl Drop for Working {
        fn drop(&mut self) {
            self.0.add("ended");
        }
    }
    let campaigning = spawn(async move {
        let work = move |_leadership: Leadership<()>| {
            let working = Working(log.clone());
            async move {
                let _working = working;
                std::future::pending().await
            }
        };
        client.run_as_leader(&orders(), options, (), work).await
    });
    stage.log.saw("started 101", 1).await;
    stage.host.revoke("orders", "maintenance");
    stage
        .pass_until("the next", async || stage.log.count("started") == 2)
        .await;
    let all = stage.log.all();
    assert_eq!(all[..2], ["started 101", "ended"]);
    assert!(all[2].contains("Revoked") && all[2].contains("overran: true"));
    assert_eq!(all[3], "started 102");
    assert_eq!(stage.host.seen(Kind::Open).len(), 1, "the session goes on");
    stage.stop.cancel();
    stage
        .pass_until("the end", async || campaigning.is_finished())
        .await;
    campaigning.await.unwrap().unwrap();
}

/// An operator wants it back within 8 s, and is told that it will be released.
async fn is_wanted_back(stage: &Stage, leadership: &Leadership<()>) {
    stage
        .host
        .tell(&Told::RevokeRequested(v1::AttachRevokeRequested {
            resource: "orders".to_owned(),
            request_id: leadership.info().request_id.clone(),
            token: leadership.token().as_i64(),
            deadline_ms: 8_000,
            reason: "moving".to_owned(),
            actor: "ops".to_owned(),
        }));
    let acks = stage.host.saw(Kind::RevokeAck, 1).await;
    match &acks[0].message {
        Some(Asked::RevokeAck(ack)) => assert!(ack.will_release),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_operator_who_wants_it_back_is_answered_and_gets_it() {
    let stage = Stage::new().await;
    let options = stage.options().finish_limit(Duration::from_secs(600));
    let (campaigning, mut leaderships) = until_cancelled(&stage, options);
    let first = in_time(leaderships.recv()).await.unwrap();
    is_wanted_back(&stage, &first).await;
    stage.log.saw("closing", 1).await;
    assert_eq!(first.revoke_requested().unwrap().actor, "ops");
    let asked = stage.clock.now();
    stage
        .pass_until("its release", async || released(&stage.host) == 1)
        .await;
    let took = asked.until(stage.clock.now());
    assert!(
        took <= Duration::from_secs(5),
        "half of what was given: {took:?}"
    );
    assert_eq!(stage.log.count("stopped 101"), 1);
    stage.stop.cancel();
    in_time(campaigning).await.unwrap().unwrap();
}

/// Also one who comes while what was begun may be finished, or while it is drained.
#[tokio::test]
async fn an_operator_is_answered_by_a_leadership_that_is_being_stopped() {
    let stage = Stage::new().await;
    let options = stage.options().finish_limit(Duration::from_secs(600));
    let (campaigning, mut leaderships) = until_cancelled(&stage, options);
    let leadership = in_time(leaderships.recv()).await.unwrap();
    stage.stop.cancel();
    stage.log.saw("closing", 1).await;
    is_wanted_back(&stage, &leadership).await;
    let asked = stage.clock.now();
    assert!(!leadership.cancelled().is_cancelled());
    stage
        .pass_until("the end", async || campaigning.is_finished())
        .await;
    let took = asked.until(stage.clock.now());
    assert!(
        took <= Duration::from_secs(5),
        "half of what was given: {took:?}"
    );
    assert_eq!(released(&stage.host), 1);

    let stage = Stage::new().await;
    let (client, options, gate) = (stage.client.clone(), stage.options(), Gate::default());
    let (handed, mut leaderships) = tokio::sync::mpsc::unbounded_channel();
    let (draining, log) = (gate.clone(), stage.log.clone());
    let campaigning = spawn(async move {
        let work = move |leadership: Leadership<()>| {
            let (draining, log, handed) = (draining.clone(), log.clone(), handed.clone());
            async move {
                handed.send(leadership.clone()).unwrap();
                leadership.cancelled().cancelled().await;
                log.add("draining");
                draining.opened().await;
                Next::Campaign
            }
        };
        client.run_as_leader(&orders(), options, (), work).await
    });
    let leadership = in_time(leaderships.recv()).await.unwrap();
    stage.stop.cancel();
    stage.log.saw("draining", 1).await;
    is_wanted_back(&stage, &leadership).await;
    assert_eq!(released(&stage.host), 0, "the work has not ended");
    gate.open();
    in_time(campaigning).await.unwrap().unwrap();
    assert_eq!(released(&stage.host), 1);
}

#[tokio::test]
async fn a_campaign_whose_future_is_dropped_stops_in_the_background() {
    let stage = Stage::new().await;
    let (campaigning, mut leaderships) = until_cancelled(&stage, stage.options());
    let leadership = in_time(leaderships.recv()).await.unwrap();
    campaigning.abort();
    stage.log.saw("stopped 101", 1).await;
    stage.host.saw(Kind::Release, 1).await;
    stage.host.saw(Kind::Close, 1).await;
    assert_eq!(stage.log.count("cancelled true"), 1);
    assert!(leadership.grant().is_err());
    assert!(stage.log.all().last().unwrap().contains("Told"));
}

#[tokio::test]
async fn panics_of_the_work_and_of_callbacks_are_contained() {
    let stage = Stage::new().await;
    let (client, log) = (stage.client.clone(), Log::default());
    let (started, stopped, trouble, worked) = (log.clone(), log.clone(), log.clone(), log.clone());
    let options = LeadershipOptions::default()
        .on_started(move |_grant| {
            started.add("started");
            assert!(started.count("started") != 2, "the second start");
        })
        .on_stopped(move |over| {
            stopped.add(format!("stopped {over:?}"));
            assert!(stopped.count("stopped") != 3, "the third stop");
        })
        .on_trouble(move |what| trouble.add(format!("trouble {what:?}")));
    let campaigning = spawn(async move {
        let work = move |_leadership: Leadership<()>| {
            worked.add("worked");
            assert!(worked.count("worked") != 1, "the first work");
            let last = worked.count("worked") == 3;
            async move { if last { Next::Resign } else { Next::Campaign } }
        };
        client.run_as_leader(&orders(), options, (), work).await
    });
    stage
        .pass_until("the end", async || campaigning.is_finished())
        .await;
    let ended = campaigning.await.unwrap().unwrap();
    assert_eq!((ended.leaderships, ended.resigned), (4, true));
    assert_eq!((log.count("started"), log.count("stopped")), (4, 4));
    assert_eq!(log.count("worked"), 3, "none after a start that panicked");
    let all = log.all().join("\n");
    for said in ["the first work", "the second start", "trouble Panicked"] {
        assert!(all.contains(said), "{said} in {all}");
    }
    assert_eq!(released(&stage.host), 4);
}

/// The runtime ends before the leadership: its end is told all the same.
#[test]
fn a_runtime_that_ends_tells_the_end() {
    let log = Log::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let told = log.clone();
    runtime.block_on(async move {
        let stage = Stage::new().await;
        let options = stage
            .options()
            .on_stopped(move |over| told.add(format!("stopped {:?}", over.end)));
        let (_campaigning, mut leaderships) = until_cancelled(&stage, options);
        in_time(leaderships.recv()).await.unwrap();
    });
    drop(runtime);
    assert_eq!(log.all(), ["stopped Abandoned"]);
}
