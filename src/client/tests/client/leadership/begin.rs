//! How leaderships are come by, and how they follow each other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_client::{
    Clock, FencingToken, Grant, LeaderError, Leadership, LeadershipOptions, Next, SealError,
};
use tokio_util::sync::CancellationToken;

use super::{Failing, Log, Seals, Stage, spawn};
use crate::attach::world::{Fault, Kind};
use crate::fake::{in_time, orders};

async fn resign<S>(_leadership: Leadership<S>) -> Next {
    Next::Resign
}

/// The token of each leadership, until the work resigns with the `last`.
async fn lead_until(stage: &Stage, seals: &Seals, last: usize) -> Vec<String> {
    let (client, options, sealer) = (stage.client.clone(), stage.options(), seals.sealer());
    let (log, earlier) = (stage.log.clone(), Arc::new(Mutex::new(Vec::new())));
    let campaigning = spawn(async move {
        let work = move |leadership: Leadership<FencingToken>| {
            let (log, earlier) = (log.clone(), Arc::clone(&earlier));
            async move {
                for before in earlier.lock().unwrap().iter() {
                    let before: &Leadership<FencingToken> = before;
                    assert!(before.grant().is_err(), "a clone outlives it and says so");
                    assert!(!before.state().is_held() && before.time_left().is_zero());
                }
                earlier.lock().unwrap().push(leadership.clone());
                assert_eq!(*leadership.sealed(), leadership.grant().unwrap().token);
                log.add(format!("worked {}", leadership.token()));
                match log.count("worked") {
                    count if count == last => Next::Resign,
                    _ => Next::Campaign,
                }
            }
        };
        client.run_as_leader(&orders(), options, sealer, work).await
    });
    stage
        .pass_until("the end", async || campaigning.is_finished())
        .await;
    let ended = campaigning.await.unwrap().unwrap();
    assert!(ended.resigned && !ended.still_running, "{ended:?}");
    assert_eq!(ended.leaderships, u64::try_from(last).unwrap());
    let all = stage.log.all();
    assert_eq!(stage.log.count("started"), stage.log.count("stopped"));
    all.into_iter()
        .filter(|said| said.starts_with("worked"))
        .collect()
}

#[tokio::test]
async fn leaderships_follow_each_other_until_the_work_resigns() {
    let stage = Stage::new().await;
    let worked = lead_until(&stage, &Seals::default(), 3).await;
    assert_eq!(worked, ["worked 101", "worked 102", "worked 103"]);
    assert_eq!(stage.releases(), [0, 0, 0]);
    assert_eq!(stage.host.seen(Kind::Open).len(), 1, "one session serves");
    assert_eq!(stage.host.seen(Kind::Close).len(), 1);
}

#[tokio::test]
async fn a_fence_ahead_is_told_and_the_next_lease_is_sealed() {
    let stage = Stage::new().await;
    let seals = Seals::failing(&[Failing::Refused(500), Failing::Refused(501)]);
    let worked = lead_until(&stage, &seals, 1).await;
    assert_eq!(worked, ["worked 103"]);
    assert_eq!(stage.releases(), [500, 501, 0]);
    assert_eq!(stage.log.count("trouble Refused"), 2);
}

#[tokio::test]
async fn what_fails_for_now_is_sealed_under_the_same_lease() {
    let stage = Stage::new().await;
    let seals = Seals::failing(&[Failing::Transient; 3]);
    let worked = lead_until(&stage, &seals, 1).await;
    assert_eq!(worked, ["worked 101"]);
    assert_eq!(seals.calls.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn what_is_not_sealed_in_time_is_left_to_others() {
    let stage = Stage::new().await;
    // With the shortest pauses no more than five fit in the limit.
    let seals = Seals::failing(&[Failing::Transient; 8]);
    let worked = lead_until(&stage, &seals, 1).await;
    assert_ne!(worked, ["worked 101"]);
    assert!(stage.log.count("trouble NotSealed") > 0);
    assert!(stage.host.world().held.is_empty());
}

#[tokio::test]
async fn a_sealer_that_panics_costs_one_lease_and_no_more() {
    let stage = Stage::new().await;
    let seals = Seals::failing(&[Failing::Panic]);
    let worked = lead_until(&stage, &seals, 1).await;
    assert_eq!(worked, ["worked 102"]);
    assert_eq!(stage.log.count("trouble Panicked"), 1);
    assert_eq!(stage.releases(), [0, 0]);
}

#[tokio::test]
async fn what_no_campaign_can_mend_ends_it() {
    let (stage, resource) = (Stage::new().await, orders());
    let sealer = Seals::failing(&[Failing::Fatal]).sealer();
    let leading = stage
        .client
        .run_as_leader(&resource, stage.options(), sealer, resign);
    let ended = in_time(leading).await;
    assert!(matches!(ended, Err(LeaderError::Seal(_))), "{ended:?}");
    assert!(stage.host.world().held.is_empty(), "released");
    assert_eq!(stage.log.count("started"), 0);

    let tight = stage.options().pauses(Duration::ZERO, Duration::ZERO);
    let leading = stage.client.run_as_leader(&resource, tight, (), resign);
    let ended = in_time(leading).await;
    assert!(matches!(ended, Err(LeaderError::Client(_))), "{ended:?}");

    let denied =
        crate::attach::world::status(tonic::Code::PermissionDenied, "PERMISSION_DENIED", &[]);
    stage.host.always(Kind::Open, Some(Fault::End(denied)));
    let leading = stage
        .client
        .run_as_leader(&resource, stage.options(), (), resign);
    let ended = in_time(leading).await;
    assert!(matches!(ended, Err(LeaderError::Client(_))), "{ended:?}");
}

/// On a clock that stands still nothing that fails is tried twice.
#[tokio::test]
async fn nothing_is_tried_again_without_a_pause() {
    let stage = Stage::new().await;
    let seals = Seals::failing(&[Failing::Refused(500); 50]);
    let (client, options, sealer) = (stage.client.clone(), stage.options(), seals.sealer());
    let campaigning = spawn(async move {
        client
            .run_as_leader(&orders(), options, sealer, resign)
            .await
    });
    for round in 1..=4 {
        stage.log.saw("trouble Refused", round).await;
        for _chance in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(stage.host.seen(Kind::Acquire).len(), round);
        // The longest pause there is.
        stage.clock.advance(Duration::from_secs(5));
    }
    stage.stop.cancel();
    let ended = in_time(campaigning).await.unwrap().unwrap();
    assert_eq!((ended.resigned, ended.leaderships), (false, 0));
}

#[tokio::test]
async fn a_campaign_that_waits_ends_when_told_and_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let other = stage
        .client
        .open_session(palisade_client::SessionOptions::default());
    let other = in_time(other).await.unwrap();
    let held = in_time(other.try_acquire(&orders())).await.unwrap();
    let (client, options) = (stage.client.clone(), stage.options());
    let campaigning =
        spawn(async move { client.run_as_leader(&orders(), options, (), resign).await });
    stage.host.saw(Kind::Acquire, 2).await;
    stage.stop.cancel();
    let ended = in_time(campaigning).await.unwrap().unwrap();
    assert_eq!((ended.resigned, ended.leaderships), (false, 0));
    let queues = || {
        stage
            .host
            .world()
            .queue
            .values()
            .all(|queue| queue.is_empty())
    };
    assert!(queues(), "no place is left in the queue");
    in_time(held.release()).await.unwrap();
}

/// For ever, and no sooner than after the shortest pause.
#[tokio::test]
async fn who_has_waited_in_vain_queues_again() {
    let stage = Stage::new().await;
    let of = [("resource", "orders"), ("requestId", "r")];
    let over = crate::attach::world::refusal(tonic::Code::Aborted, "WAIT_EXPIRED", &of);
    for _round in 0..8 {
        let over = Fault::Refuse(over.clone());
        stage.host.next(Kind::Acquire, over);
    }
    let begun = stage.clock.now();
    let worked = lead_until(&stage, &Seals::default(), 1).await;
    assert_eq!(worked, ["worked 101"]);
    assert_eq!(stage.host.seen(Kind::Acquire).len(), 9);
    assert_eq!(stage.log.count("trouble"), 0, "others hold it: no trouble");
    let took = begun.until(stage.clock.now());
    assert!(took >= Duration::from_millis(8 * 125), "{took:?}");
}

/// Many stores are sealed one after another, and the work is handed what each gave.
#[tokio::test]
async fn many_guards_are_sealed_in_order() {
    let stage = Stage::new().await;
    let log = Log::default();
    let named = |name: &'static str| {
        let log = log.clone();
        move |grant: Grant| {
            log.add(format!("sealed {name}"));
            futures::future::ready(Ok::<_, SealError>((name, grant.token.get())))
        }
    };
    let (orders_store, bills, rest) = (named("orders"), named("bills"), vec![named("a")]);
    let sealer = (orders_store, bills, rest);
    let stop = CancellationToken::new();
    let options = LeadershipOptions::default().stop_on(stop);
    let work = async |leadership: Leadership<_>| {
        let sealed = leadership.sealed();
        assert_eq!(*sealed, (("orders", 101), ("bills", 101), vec![("a", 101)]));
        Next::Resign
    };
    let ended = in_time(stage.client.run_as_leader(&orders(), options, sealer, work)).await;
    let last = ended.unwrap().last.unwrap();
    assert_eq!(last.end, palisade_client::LeadershipEnd::Finished);
    assert_eq!(log.all(), ["sealed orders", "sealed bills", "sealed a"]);
}
