//! Instances with shards come, go and are cut off, on two real coordinators.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_client::{
    CancellationToken, Client, LeaderError, Leadership, LeadershipOptions, Next, SessionOptions,
    SessionState, Shards, ShardsEnded, Spread,
};
use palisade_test_support::{Coordinator, Etcd, Proxy, eventually, within};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::setup::{LIMIT, TTL, coordinator, name, spawn};

const SHARDS: usize = 10;

/// All that was handed out, and how often a shard was that somebody else held by its own words. A panic would be
/// contained.
#[derive(Clone, Default)]
struct Led {
    all: Arc<Mutex<Vec<Leadership<()>>>>,
    violations: Arc<AtomicUsize>,
}

impl Led {
    fn began(&self, leadership: &Leadership<()>) {
        let mut all = self.all.lock().unwrap();
        let held = |other: &&Leadership<()>| {
            other.resource() == leadership.resource() && other.grant().is_ok()
        };
        let holding = all.iter().filter(held).count();
        self.violations.fetch_add(holding, Ordering::SeqCst);
        all.push(leadership.clone());
    }
}

struct Instance {
    link: Proxy,
    stop: CancellationToken,
    spread: watch::Receiver<Spread>,
    running: JoinHandle<Result<ShardsEnded, LeaderError>>,
}

async fn instance(coordinator: &Coordinator, led: &Led, ttl: Duration) -> Instance {
    let link = Proxy::start(&coordinator.addr()).await.unwrap();
    let client = Client::connect(link.url()).unwrap();
    let (told, spread) = watch::channel(Spread::default());
    let shards = Shards::numbered(&name("jobs"), SHARDS)
        .unwrap()
        .per_session(4)
        .refresh(Duration::from_millis(300))
        .patience(Duration::from_secs(1))
        .spread(told);
    let stop = CancellationToken::new();
    let options = LeadershipOptions::default()
        .session(SessionOptions::default().ttl(ttl))
        .stop_on(stop.clone());
    let led = led.clone();
    let running = spawn(async move {
        let work = move |leadership: Leadership<()>| {
            led.began(&leadership);
            async move {
                leadership.closing().cancelled().await;
                Next::Campaign
            }
        };
        client.run_shards(shards, options, (), work).await
    });
    Instance {
        link,
        stop,
        spread,
        running,
    }
}

/// Until each leads so many; no shard is held twice, by its holders' words, at any time.
async fn until(led: &Led, instances: &[&Instance], parts: &[usize]) {
    let so = async || {
        let mut held = BTreeMap::<_, usize>::new();
        let mut all = led.all.lock().unwrap();
        all.retain(|leadership| leadership.grant().is_ok());
        for leadership in all.iter() {
            *held.entry(leadership.resource().clone()).or_default() += 1;
        }
        assert!(held.values().all(|holders| *holders == 1), "{held:?}");
        let leads = |instance: &&Instance| instance.spread.borrow().leading.len();
        let mut now: Vec<_> = instances.iter().map(leads).collect();
        now.sort_unstable();
        now == parts && held.len() == SHARDS
    };
    eventually(&format!("{parts:?}"), LIMIT, so).await.unwrap();
}

async fn ended(instance: Instance) -> ShardsEnded {
    instance.stop.cancel();
    let ended = within("its end", LIMIT, instance.running).await.unwrap();
    ended.unwrap().unwrap()
}

#[tokio::test]
async fn instances_come_go_and_are_cut_off_and_the_rest_share_evenly() {
    let etcd = Etcd::start().await.unwrap();
    let one = coordinator(&etcd.endpoints()).await;
    let other = coordinator(&etcd.endpoints()).await;
    let led = Led::default();
    let first = instance(&other, &led, TTL).await;
    until(&led, &[&first], &[10]).await;
    let second = instance(&other, &led, TTL).await;
    until(&led, &[&first, &second], &[5, 5]).await;
    let third = instance(&one, &led, TTL).await;
    until(&led, &[&first, &second, &third], &[3, 3, 4]).await;

    // One is cut off: the others have its shards once its sessions have ended. It comes back and has its part.
    third.link.blackhole();
    until(&led, &[&first, &second], &[5, 5]).await;
    third.link.heal().await.unwrap();
    until(&led, &[&first, &second, &third], &[3, 3, 4]).await;

    // One goes in an orderly way, and others take over without waiting for anything to expire.
    assert_eq!(ended(second).await.still_running, 0);
    until(&led, &[&first, &third], &[5, 5]).await;
    ended(third).await;
    until(&led, &[&first], &[10]).await;
    ended(first).await;
    assert_eq!(led.violations.load(Ordering::SeqCst), 0, "two held one");
}

/// A coordinator that is back before any deadline moves nothing, though nobody sees who is there meanwhile.
#[tokio::test]
async fn a_coordinator_that_is_back_soon_moves_nothing() {
    let long = Duration::from_secs(60);
    let etcd = Etcd::start().await.unwrap();
    let mut one = coordinator(&etcd.endpoints()).await;
    let led = Led::default();
    let (first, second) = (
        instance(&one, &led, long).await,
        instance(&one, &led, long).await,
    );
    until(&led, &[&first, &second], &[5, 5]).await;
    let tokens = || -> Vec<_> {
        let all = led.all.lock().unwrap();
        let mut tokens: Vec<_> = all.iter().map(Leadership::token).collect();
        tokens.sort_unstable();
        tokens
    };
    let before = tokens();
    one.kill().unwrap();
    let noticed = |led: &Leadership<()>| led.state() == SessionState::Suspect;
    eventually("it is noticed", LIMIT, async || {
        led.all.lock().unwrap().iter().all(noticed)
    })
    .await
    .unwrap();
    one.start_again().await.unwrap();
    let held = |led: &Leadership<()>| led.state() == SessionState::Held;
    eventually("all is well", LIMIT, async || {
        led.all.lock().unwrap().iter().all(held)
    })
    .await
    .unwrap();
    until(&led, &[&first, &second], &[5, 5]).await;
    assert_eq!(tokens(), before);
    ended(first).await;
    ended(second).await;
    assert_eq!(led.violations.load(Ordering::SeqCst), 0, "two held one");
}
