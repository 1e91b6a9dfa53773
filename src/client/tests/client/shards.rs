//! Shards, spread over members that come and go, on a clock that the test moves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_client::{
    Client, ClientError, Clock, LeaderError, Leadership, LeadershipOptions, Next, Shards,
    ShardsEnded, Spread,
};
use palisade_test_support::eventually;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::attach::world::{Host, Kind};
use crate::clock::ManualClock;
use crate::fake::{PATIENCE, in_time};
use crate::leadership::spawn;

const SHARDS: usize = 12;

type Led = Arc<Mutex<Vec<Leadership<()>>>>;

struct Group {
    host: Host,
    clock: Arc<ManualClock>,
    led: Led,
}

struct Member {
    stop: CancellationToken,
    spread: watch::Receiver<Spread>,
    running: JoinHandle<Result<ShardsEnded, LeaderError>>,
}

fn shards() -> Shards {
    let shards = Shards::numbered(&"jobs".parse().unwrap(), SHARDS).unwrap();
    shards.refresh(Duration::from_millis(500))
}

impl Group {
    async fn new() -> Self {
        Self {
            host: Host::start().await,
            clock: ManualClock::shared(),
            led: Led::default(),
        }
    }

    fn client(&self) -> Client {
        Client::builder()
            .endpoint(&self.host.address)
            .call_timeout(Duration::from_secs(2))
            .clock(Arc::<ManualClock>::clone(&self.clock))
            .connect()
            .unwrap()
    }

    fn member(&self) -> Member {
        self.member_with(shards(), |_| None)
    }

    /// A member whose work stands until it is to close, or does what `instead` says.
    fn member_with(
        &self,
        shards: Shards,
        instead: impl Fn(&str) -> Option<Next> + Send + Sync + 'static,
    ) -> Member {
        let (told, spread) = watch::channel(Spread::default());
        let (client, led, stop) = (
            self.client(),
            Arc::clone(&self.led),
            CancellationToken::new(),
        );
        let options = LeadershipOptions::default()
            .stop_on(stop.clone())
            .drain_limit(Duration::from_secs(3));
        let running = spawn(async move {
            let work = move |leadership: Leadership<()>| {
                let next = instead(leadership.resource().as_str());
                led.lock().unwrap().push(leadership.clone());
                async move {
                    if let Some(next) = next {
                        return next;
                    }
                    leadership.closing().cancelled().await;
                    Next::Campaign
                }
            };
            client
                .run_shards(shards.spread(told), options, (), work)
                .await
        });
        Member {
            stop,
            spread,
            running,
        }
    }

    /// How many hold each shard by their own words.
    fn held(&self) -> BTreeMap<String, usize> {
        let mut held = BTreeMap::new();
        self.led
            .lock()
            .unwrap()
            .retain(|leadership| match leadership.grant() {
                Ok(grant) => {
                    *held.entry(grant.resource.to_string()).or_default() += 1;
                    true
                }
                Err(_) => false,
            });
        held
    }

    /// Lets time pass until the members lead so many, each shard being held by one at most all the while.
    async fn until(&self, members: &[&Member], parts: &[usize]) {
        let so = async || {
            let held = self.held();
            assert!(held.values().all(|holders| *holders == 1), "{held:?}");
            let mut now: Vec<_> = members.iter().map(|member| member.leads()).collect();
            now.sort_unstable();
            if now == parts && held.len() == parts.iter().sum::<usize>() {
                return true;
            }
            self.clock.advance(Duration::from_millis(100));
            false
        };
        eventually(&format!("{parts:?}"), PATIENCE, so)
            .await
            .unwrap();
    }

    /// Lets so much time pass, in steps in which what is due gets done.
    async fn pass(&self, time: Duration) {
        let mut steps = time.as_millis() / 250;
        let over = async || {
            self.clock.advance(Duration::from_millis(250));
            steps -= 1;
            steps == 0
        };
        eventually("time", PATIENCE, over).await.unwrap();
    }

    /// Lets time pass until it is so.
    async fn pass_until(&self, what: &str, mut so: impl AsyncFnMut() -> bool) {
        let passing = async || {
            self.clock.advance(Duration::from_millis(100));
            so().await
        };
        eventually(what, PATIENCE, passing).await.unwrap();
    }

    fn acquires(&self) -> usize {
        self.host.seen(Kind::Acquire).len()
    }
}

impl Member {
    fn leads(&self) -> usize {
        let spread = self.spread.borrow();
        spread.leading.len() + spread.leaving.len()
    }

    async fn end(self) -> ShardsEnded {
        self.stop.cancel();
        in_time(self.running).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn members_who_come_and_go_have_even_parts_and_nothing_flaps() {
    let group = Group::new().await;
    let one = group.member();
    group.until(&[&one], &[SHARDS]).await;
    let before = group.acquires();
    let two = group.member();
    group.until(&[&one, &two], &[6, 6]).await;
    let three = group.member();
    group.until(&[&one, &two, &three], &[4, 4, 4]).await;
    // Each member's own, and what moved: as little as can be.
    assert_eq!(group.acquires() - before, 2 + 6 + 4);
    group.pass(Duration::from_secs(10)).await;
    assert_eq!(group.acquires() - before, 2 + 6 + 4, "nothing moves");
    let ended = two.end().await;
    assert_eq!(ended.still_running, 0);
    group.until(&[&one, &three], &[6, 6]).await;
    assert_eq!(group.acquires() - before, 2 + 6 + 4 + 4);
    let (one, three) = (one.end().await, three.end().await);
    assert_eq!((one.still_running, three.still_running), (0, 0));
    assert!(group.host.world().held.is_empty(), "nothing is left");
    assert_eq!(group.host.world().violations, [""; 0]);
}

#[tokio::test]
async fn whoever_comes_and_goes_soon_moves_nothing() {
    let group = Group::new().await;
    let one = group.member();
    group.until(&[&one], &[SHARDS]).await;
    let before = group.acquires();
    let guest = group.member();
    eventually("it is seen", PATIENCE, async || {
        group.clock.advance(Duration::from_millis(50));
        one.spread.borrow().members == 2
    })
    .await
    .unwrap();
    guest.end().await;
    group.pass(Duration::from_secs(8)).await;
    assert_eq!(group.acquires() - before, 1, "its own lease");
    assert_eq!(group.held().len(), SHARDS);
    one.end().await;
}

#[tokio::test]
async fn a_cap_is_kept_and_sessions_are_shared_by_as_many_as_they_may() {
    let group = Group::new().await;
    let capped = || shards().at_most(5).per_session(2);
    let one = group.member_with(capped(), |_| None);
    group.until(&[&one], &[5]).await;
    // Two each, and the member's own.
    assert_eq!(group.host.seen(Kind::Open).len(), 3 + 1);
    let two = group.member_with(capped(), |_| None);
    group.until(&[&one, &two], &[5, 5]).await;
    one.end().await;
    two.end().await;
    assert_eq!(group.host.seen(Kind::Close).len(), 2 * (3 + 1));
}

#[tokio::test]
async fn what_the_work_resigns_is_left_to_others() {
    let group = Group::new().await;
    let one = group.member_with(shards(), |shard| {
        (shard == "jobs/3").then_some(Next::Resign)
    });
    group.until(&[&one], &[SHARDS - 1]).await;
    let before = group.acquires();
    group.pass(Duration::from_secs(5)).await;
    assert!(!group.held().contains_key("jobs/3"));
    assert_eq!(group.acquires(), before, "not taken any more");
    let two = group.member();
    group.until(&[&one, &two], &[6, 6]).await;
    assert!(group.held().contains_key("jobs/3"));
    one.end().await;
    two.end().await;
}

/// Work that returns at once is begun again after growing pauses, and the others go on.
#[tokio::test]
async fn work_that_ends_at_once_makes_no_tight_loop() {
    let group = Group::new().await;
    let one = group.member_with(shards(), |shard| {
        assert!(shard != "jobs/5", "this one panics");
        (shard == "jobs/3").then_some(Next::Campaign)
    });
    group.until(&[&one], &[SHARDS - 2]).await;
    let (before, begun) = (group.acquires(), group.clock.now());
    group
        .pass_until("some more", async || group.acquires() >= before + 16)
        .await;
    // Of each five pauses that grow at most; then at least half of the longest, each time.
    let passed = begun.until(group.clock.now());
    assert!(passed >= Duration::from_millis(2_500) * 3, "{passed:?}");
    assert_eq!(group.held().len(), SHARDS - 2);
    one.end().await;
}

#[tokio::test]
async fn without_a_view_everybody_goes_on_with_what_it_has() {
    let group = Group::new().await;
    let (one, two) = (group.member(), group.member());
    group.until(&[&one, &two], &[6, 6]).await;
    let before = group.acquires();
    group.host.world().lists_nothing = true;
    group.pass(Duration::from_secs(60)).await;
    assert_eq!((group.held().len(), group.acquires()), (SHARDS, before));
    group.host.world().lists_nothing = false;
    two.end().await;
    group.until(&[&one], &[SHARDS]).await;
    one.end().await;
}

#[tokio::test]
async fn members_that_are_dropped_release_what_they_lead() {
    let group = Group::new().await;
    let one = group.member();
    group.until(&[&one], &[SHARDS]).await;
    one.running.abort();
    group
        .pass_until("all is released", async || {
            group.host.world().held.is_empty()
        })
        .await;
    assert!(group.held().is_empty());
}

/// Work that blocks a thread stays held where its shard is given up, and what shares its session is not lost
/// for it; where all is to stop, that session is left to expire.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_ended_stays_held_and_costs_the_others_nothing() {
    let group = Group::new().await;
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let last = format!("jobs/{}", SHARDS - 1);
    let blocks = last.clone();
    let one = group.member_with(shards(), move |shard| {
        if shard == blocks {
            assert!(blocked.lock().unwrap().recv().is_err(), "nothing is sent");
        }
        None
    });
    group
        .pass_until("all but one by their words", async || {
            one.leads() == SHARDS && group.held().len() == SHARDS - 1
        })
        .await;
    let kept = |group: &Group| group.host.world().held["jobs/0"].1;
    let token = kept(&group);
    let two = group.member();
    // The blocked one is among those given up.
    group
        .pass_until("all but the blocked moved", async || {
            let even = two.leads() == 5 && one.leads() == 7;
            even && group.held().len() == SHARDS - 1
        })
        .await;
    assert!(group.host.world().held.contains_key(&last));
    assert_eq!(kept(&group), token, "what shares its session goes on");
    let closed = group.host.seen(Kind::Close).len();
    one.stop.cancel();
    group
        .pass_until("its end", async || one.running.is_finished())
        .await;
    assert_eq!(one.running.await.unwrap().unwrap().still_running, 1);
    assert_eq!(
        group.host.seen(Kind::Close).len(),
        closed + 1,
        "the member's own"
    );
    assert!(group.host.world().held.contains_key(&last), "not released");
    drop(unblock);
    two.end().await;
}

/// Its lease is lost, and others may take the shard; this process does not, while the old work runs in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_led_anew_beside_work_that_cannot_be_ended() {
    let group = Group::new().await;
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Mutex::new(Some(blocked));
    let last = format!("jobs/{}", SHARDS - 1);
    let (blocks, begun) = (last.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&begun);
    let one = group.member_with(shards(), move |shard| {
        if shard == blocks {
            count.fetch_add(1, Ordering::SeqCst);
            let blocking = blocked.lock().unwrap().take();
            assert!(blocking.is_none_or(|blocked| blocked.recv().is_err()));
        }
        None
    });
    group
        .pass_until("all but one by their words", async || {
            one.leads() == SHARDS && group.held().len() == SHARDS - 1
        })
        .await;
    let two = group.member();
    group
        .pass_until("it is among those given up", async || {
            two.leads() == 5 && one.spread.borrow().leaving == [SHARDS - 1]
        })
        .await;
    // Longer than its drain may take, and what was dropped to end.
    group.pass(Duration::from_secs(10)).await;
    group.host.revoke(&last, "maintenance");
    group
        .pass_until("others have it", async || two.leads() == 6)
        .await;
    two.end().await;
    group
        .pass_until("all but one are taken over", async || {
            one.spread.borrow().leading.len() >= SHARDS - 1 && group.held().len() >= SHARDS - 1
        })
        .await;
    group.pass(Duration::from_secs(10)).await;
    assert_eq!(begun.load(Ordering::SeqCst), 1, "the old work runs still");
    drop(unblock);
    group.until(&[&one], &[SHARDS]).await;
    assert_eq!(begun.load(Ordering::SeqCst), 2);
    one.end().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let jobs = "jobs".parse().unwrap();
    let none = Shards::numbered(&jobs, 0).unwrap_err();
    let many = Shards::numbered(&jobs, usize::MAX).unwrap_err();
    let twice = Shards::of(&jobs, [jobs.clone(), jobs.clone()]).unwrap_err();
    let member = Shards::of(&jobs, ["jobs/members/x".parse().unwrap()]).unwrap_err();
    let long = "x".repeat(250).parse().unwrap();
    let long = Shards::numbered(&long, 1).unwrap_err();
    for error in [none, many, twice, member, long] {
        assert!(matches!(error, ClientError::Invalid { .. }), "{error:?}");
    }
    let group = Group::new().await;
    for refused in [
        shards().at_most(0),
        shards().per_session(0),
        shards().per_session(501),
        shards().refresh(Duration::ZERO),
    ] {
        let member = group.member_with(refused, |_| None);
        let ended = in_time(member.running).await.unwrap();
        assert!(matches!(ended, Err(LeaderError::Client(_))), "{ended:?}");
    }
}
