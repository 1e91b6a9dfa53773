//! Those who wait and what wakes them, in many orders of their turns: no wake is lost, nobody hears of another's grant, one
//! promotion runs at a time and none that is asked for is forgotten, who leaves takes everything with him, and no more
//! wait than may (I4, I6, I13).
//!
//! shuttle decides whose turn it is at each await, and between what is called here. How many schedules are tried is
//! multiplied by `PALISADE_MODEL_DEPTH`; one that fails is printed, for `shuttle::replay`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use palisade_token::ResourceName;
use shuttle::future::{JoinHandle, block_on, spawn, yield_now};

use super::{Key, Registry, Seat};
use crate::domain::{
    AttachMark, Claim, Generation, GrantNote, Granted, Hold, Nonce, OpenId, Principal, RequestId,
    Revision, SecretHash, Session, SessionId,
};

fn resource() -> ResourceName {
    ResourceName::new("r").unwrap()
}

fn key(session: &Session, request: &str) -> Key {
    Key {
        session: session.id,
        request: RequestId::new(request).unwrap(),
    }
}

fn session() -> Session {
    let principal = Principal::anonymous();
    let open_id = OpenId::new("open").unwrap();
    let nonce = Nonce::from_bytes([0; 16]);
    Session {
        id: SessionId::derive(&principal, &open_id),
        principal,
        secret: SecretHash::of(b"secret"),
        label: String::new(),
        ttl_ms: 5000,
        opening: nonce,
        mark: AttachMark {
            epoch: 1,
            sub: 0,
            nonce,
        },
    }
}

fn hold(session: &Session, request: &str) -> Hold {
    let request = RequestId::new(request).unwrap();
    Hold {
        claim: Claim::new(session, resource(), request, Vec::new()),
        generation: Generation {
            nonce: Nonce::from_bytes([1; 16]),
            base: 1,
            since_revision: Revision(0),
        },
        granted: Revision(1),
        note: GrantNote::default(),
    }
}

/// What the store says was granted.
type Store = Arc<Mutex<HashSet<&'static str>>>;

/// Waits as a call does: until it was granted, as it is told or finds when it looks, or given back.
fn waits(seat: Seat, store: &Store, request: &'static str) -> JoinHandle<bool> {
    let store = Arc::clone(store);
    spawn(async move {
        loop {
            seat.woken().await;
            if let Some(hold) = seat.granted() {
                assert_eq!(hold.claim.request.as_str(), request, "another's grant");
                return true;
            }
            if store.lock().unwrap().contains(request) {
                return true;
            }
            if seat.is_cancelled() {
                return false;
            }
        }
    })
}

fn tells(registry: &Registry, tell: impl FnOnce(&Registry) + Send + 'static) -> JoinHandle<()> {
    let registry = registry.clone();
    spawn(async move {
        yield_now().await;
        tell(&registry);
    })
}

/// Three ways to be told, to three calls; a fourth leaves in between.
fn told() {
    block_on(async {
        let session = session();
        let registry = Registry::new(4);
        let seat = |request| registry.seat(&resource(), key(&session, request)).unwrap();
        let store = Store::default();
        let handed_over = waits(seat("1"), &store, "1");
        let heard_of = waits(seat("2"), &store, "2");
        let given_back = waits(seat("3"), &store, "3");
        let leaver = seat("1");
        let leaves = spawn(async move {
            yield_now().await;
            drop(leaver);
        });
        let third = key(&session, "3");
        let first = hold(&session, "1");
        let [news_of_first, news_of_second] =
            ["1", "2"].map(|request| Arc::new(Granted::known(hold(&session, request))));
        store.lock().unwrap().extend(["1", "2"]);
        let tellers = [
            tells(&registry, move |registry| registry.grant(&first)),
            // News of the session's other request comes too, before or after.
            tells(&registry, move |registry| registry.hear(&news_of_first)),
            tells(&registry, move |registry| registry.hear(&news_of_second)),
            tells(&registry, move |registry| {
                registry.cancel(&resource(), &third)
            }),
            // Anybody is woken for nothing now and then.
            tells(&registry, |registry| {
                let hosted = registry.hosted();
                let wakes = hosted.iter().flat_map(|hosted| &hosted.wakes);
                wakes.for_each(|wake| wake.ring());
            }),
        ];
        for teller in tellers {
            teller.await.unwrap();
        }
        assert!(handed_over.await.unwrap());
        assert!(heard_of.await.unwrap());
        assert!(!given_back.await.unwrap());
        leaves.await.unwrap();
        is_empty(&registry);
    });
}

fn is_empty(registry: &Registry) {
    assert_eq!(registry.count(), 0, "somebody is still counted");
    assert!(registry.hosted().is_empty(), "something stays behind");
}

/// What a promoter does that it must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Defect {
    /// It does not ask whether it is to run once more.
    Stops,
    /// It begins without asking whether one runs.
    Begins,
}

#[derive(Debug, Default)]
struct Promotions {
    /// How often something has happened to the resource, and how much of that a promotion has seen.
    happened: AtomicUsize,
    seen: AtomicUsize,
    running: AtomicUsize,
}

/// Promotes as the service does: looks, and looks again where it failed or is to.
async fn promotes(registry: Registry, promotions: Arc<Promotions>, defect: Option<Defect>) {
    for tries in 0.. {
        let running = promotions.running.fetch_add(1, Ordering::SeqCst);
        assert_eq!(running, 0, "two promote at once");
        let happened = promotions.happened.load(Ordering::SeqCst);
        yield_now().await;
        promotions.running.fetch_sub(1, Ordering::SeqCst);
        let failed = tries == 0;
        if !failed {
            promotions.seen.fetch_max(happened, Ordering::SeqCst);
        }
        let again = registry.promotes_again(&resource(), failed);
        if !again || (defect == Some(Defect::Stops) && !failed) {
            return;
        }
    }
}

fn kicks(
    registry: &Registry,
    promotions: &Arc<Promotions>,
    defect: Option<Defect>,
) -> JoinHandle<()> {
    let (registry, promotions) = (registry.clone(), Arc::clone(promotions));
    spawn(async move {
        yield_now().await;
        promotions.happened.fetch_add(1, Ordering::SeqCst);
        let begins = registry.has_queued(&resource()) && registry.begin_promotion(&resource());
        if begins || defect == Some(Defect::Begins) {
            promotes(registry, promotions, defect).await;
        }
    })
}

/// Something happens while somebody waits, and while another comes and goes.
fn promoted(defect: Option<Defect>) {
    block_on(async move {
        let session = session();
        let registry = Registry::new(2);
        let stays = registry.seat(&resource(), key(&session, "1")).unwrap();
        stays.queued(Revision(0));
        let promotions = Arc::<Promotions>::default();
        let kicks: Vec<_> = (0..3)
            .map(|_| kicks(&registry, &promotions, defect))
            .collect();
        let passing = registry.clone();
        let comes_and_goes = spawn(async move {
            let seat = passing.seat(&resource(), key(&session, "2")).unwrap();
            seat.queued(Revision(0));
            yield_now().await;
        });
        for kick in kicks {
            kick.await.unwrap();
        }
        comes_and_goes.await.unwrap();
        let [happened, seen] = [&promotions.happened, &promotions.seen];
        let [happened, seen] = [happened, seen].map(|count| count.load(Ordering::SeqCst));
        assert_eq!(seen, happened, "somebody waits for what nobody looked at");
        drop(stays);
        is_empty(&registry);
    });
}

/// Whoever waits last leaves while promotions run.
fn left() {
    block_on(async {
        let registry = Registry::new(1);
        let seat = registry.seat(&resource(), key(&session(), "1")).unwrap();
        seat.queued(Revision(0));
        let kick = kicks(&registry, &Arc::default(), None);
        let leaves = spawn(async move {
            yield_now().await;
            drop(seat);
        });
        leaves.await.unwrap();
        kick.await.unwrap();
        is_empty(&registry);
    });
}

/// More come than may wait.
fn bounded() {
    block_on(async {
        let registry = Registry::new(2);
        let come: Vec<_> = ["1", "2", "3", "4"]
            .into_iter()
            .map(|request| {
                let registry = registry.clone();
                spawn(async move {
                    let seat = registry.seat(&resource(), key(&session(), request));
                    assert!(registry.count() <= 2, "more wait than may");
                    yield_now().await;
                    seat.is_ok()
                })
            })
            .collect();
        let mut seated = 0;
        for one in come {
            seated += usize::from(one.await.unwrap());
        }
        assert!(seated >= 2, "there was room for two at any time");
        is_empty(&registry);
    });
}

fn schedules(many: usize) -> usize {
    let depth = std::env::var("PALISADE_MODEL_DEPTH");
    let depth = depth.map_or(1, |depth| depth.parse().unwrap());
    many * depth
}

#[test]
fn whoever_is_told_wakes_up_and_nobody_else_takes_it_for_his() {
    shuttle::check_random(told, schedules(500));
    shuttle::check_pct(told, schedules(300), 3);
}

#[test]
fn whatever_happens_is_looked_at_by_one_promotion_at_a_time() {
    shuttle::check_random(|| promoted(None), schedules(500));
    shuttle::check_pct(|| promoted(None), schedules(300), 3);
}

#[test]
fn who_leaves_during_a_promotion_leaves_nothing() {
    shuttle::check_dfs(left, None);
}

#[test]
fn no_more_wait_than_may() {
    shuttle::check_dfs(bounded, Some(schedules(3000)));
}

#[test]
#[should_panic(expected = "somebody waits for what nobody looked at")]
fn a_promotion_that_does_not_look_again_is_found_out() {
    shuttle::check_random(|| promoted(Some(Defect::Stops)), 1000);
}

#[test]
#[should_panic(expected = "two promote at once")]
fn a_promotion_beside_another_is_found_out() {
    shuttle::check_random(|| promoted(Some(Defect::Begins)), 1000);
}
