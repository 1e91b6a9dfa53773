//! Whole operations, with the world moving on before each of their calls to etcd in turn (I1, I3, I4).

use std::fmt;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{TxnOp, TxnOpResponse};
use palisade_test_support::Etcd;

use super::{TTL, coordinator_at, name};
use crate::clock::{Clock, Moment, SystemClock};
use crate::domain::{Acquired, Claim, Generation, GrantNote, Hold, Revision, Session, WallClock};
use crate::store::Store;
use crate::store::conformance::Client;
use crate::store::etcd::view::{Sight, Subject, is_vacant};
use crate::store::etcd::{EtcdStore, codec};

/// More calls than any operation makes when it is disturbed once.
const MOST_CALLS: usize = 30;

type Move = Box<dyn FnOnce() + Send>;

/// A clock that something happens at. An operation reads it before each of its calls.
struct EventfulClock {
    clock: Arc<dyn Clock>,
    /// What happens, and at which reading from now.
    next: Mutex<Option<(usize, Move)>>,
}

impl fmt::Debug for EventfulClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EventfulClock")
    }
}

impl EventfulClock {
    fn due(&self) -> Option<Move> {
        let mut next = self.next.lock().unwrap();
        match next.take() {
            Some((0, happens)) => Some(happens),
            Some((readings, happens)) => {
                *next = Some((readings - 1, happens));
                None
            }
            None => None,
        }
    }
}

#[async_trait]
impl Clock for EventfulClock {
    fn now(&self) -> Moment {
        if let Some(happens) = self.due() {
            happens();
        }
        self.clock.now()
    }

    fn wall(&self) -> WallClock {
        self.clock.wall()
    }

    async fn sleep(&self, while_: Duration) {
        self.clock.sleep(while_).await;
    }
}

/// Something that may happen meanwhile, or an operation that it may happen to.
trait Deed<T>: AsyncFn(Arc<EtcdStore>) -> T + Copy + Send + 'static {}
impl<T, F: AsyncFn(Arc<EtcdStore>) -> T + Copy + Send + 'static> Deed<T> for F {}

/// Does it with a coordinator of its own, on a thread of its own, so that the caller stands still.
fn does_elsewhere<T: Send>(endpoints: Vec<String>, prefix: &str, deed: impl Deed<T>) -> T {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let store = coordinator_at(endpoints, prefix, SystemClock::shared());
        runtime.block_on(Box::pin(deed(store)))
    };
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

/// Prepares a state, operates on it, and lets something happen before each call of the operation in turn.
/// Then checks the state against what happened.
async fn at_every_pause<T: Send + 'static>(
    prepares: impl Deed<()>,
    operates: impl Deed<()>,
    happens: impl Deed<T>,
    is_right: impl AsyncFn(&EtcdStore, T),
) {
    let etcd = Etcd::start().await.unwrap();
    for call in 0..MOST_CALLS {
        let prefix = format!("/pause/{call}");
        let endpoints = etcd.endpoints();
        let clock = Arc::new(EventfulClock {
            clock: SystemClock::shared(),
            next: Mutex::default(),
        });
        let shared: Arc<dyn Clock> = Arc::<EventfulClock>::clone(&clock);
        let store = coordinator_at(endpoints.clone(), &prefix, shared);
        prepares(Arc::clone(&store)).await;
        let (tells, told) = mpsc::channel();
        let happening: Move = Box::new(move || {
            tells
                .send(does_elsewhere(endpoints, &prefix, happens))
                .unwrap();
        });
        *clock.next.lock().unwrap() = Some((call, happening));
        operates(Arc::clone(&store)).await;
        let is_over = clock.next.lock().unwrap().take().is_some();
        if is_over {
            assert!(call > 1, "an operation reads and writes");
            return;
        }
        is_right(&store, told.recv().unwrap()).await;
    }
    panic!("an operation of over {MOST_CALLS} calls");
}

fn client(store: &Arc<EtcdStore>, name: &str) -> Client {
    let store: Arc<dyn Store> = Arc::<EtcdStore>::clone(store);
    Client::of(&store, &Client::session(name, TTL))
}

async fn opens(store: &Arc<EtcdStore>, name: &str) -> Client {
    let store: Arc<dyn Store> = Arc::<EtcdStore>::clone(store);
    Client::open(&store, name, TTL).await
}

async fn held_now(store: &EtcdStore) -> Option<Hold> {
    store.lease(&name()).await.unwrap().hold
}

async fn generation_now(store: &EtcdStore) -> Option<Generation> {
    let link = store.links.get().await.unwrap();
    let get = TxnOp::get(link.context().keys.generation(), None);
    let (replies, _) = link.read(vec![get]).await.unwrap();
    let Some(TxnOpResponse::Get(found)) = replies.first() else {
        panic!("a read is answered by a read");
    };
    let stored = found.kvs().first().map(codec::generation);
    stored.map(|stored| stored.unwrap().record)
}

async fn session_now(store: &EtcdStore, session: &Session) -> Option<Session> {
    let link = store.links.get().await.unwrap();
    let subject = Subject {
        resource: &name(),
        session: Some(session.id),
        request: None,
    };
    Sight::of(&link, subject).await.unwrap().view.session
}

async fn connects(store: Arc<EtcdStore>) {
    assert_eq!(generation_now(&store).await, None);
}

async fn advances(store: Arc<EtcdStore>) -> Generation {
    store.advance(None).await.unwrap()
}

/// The generation that was made meanwhile is the last one, or the last one was made with knowledge of it.
async fn is_last_or_known(store: &EtcdStore, made: Generation) {
    let last = generation_now(store).await.unwrap();
    assert!(
        last == made || made.can_precede(&last),
        "{last:?} was made in place of {made:?}"
    );
}

#[tokio::test]
async fn a_first_generation_is_not_made_in_place_of_another() {
    let makes = async |store: Arc<EtcdStore>| store.ready().await.unwrap();
    at_every_pause(connects, makes, advances, is_last_or_known).await;
}

#[tokio::test]
async fn a_generation_is_not_made_in_place_of_one_that_was_made_since() {
    let prepares = async |store: Arc<EtcdStore>| store.ready().await.unwrap();
    let advancing = async |store: Arc<EtcdStore>| {
        store.advance(None).await.unwrap();
    };
    at_every_pause(prepares, advancing, advances, is_last_or_known).await;
}

#[tokio::test]
async fn a_session_is_not_opened_in_place_of_one_that_was_opened_since() {
    let opening = async |store: Arc<EtcdStore>| {
        opens(&store, "one").await;
    };
    let opens_it_too = async |store: Arc<EtcdStore>| {
        opens(&store, "one").await;
        session_now(&store, &Client::session("one", TTL)).await
    };
    at_every_pause(connects, opening, opens_it_too, async |store, opened| {
        let now = session_now(store, &Client::session("one", TTL)).await;
        assert_eq!(now, opened);
    })
    .await;
}

#[tokio::test]
async fn nothing_is_acquired_in_place_of_what_was_granted_since() {
    let prepares = async |store: Arc<EtcdStore>| {
        opens(&store, "one").await;
        opens(&store, "rival").await;
    };
    let acquires = async |store: Arc<EtcdStore>| {
        client(&store, "one").acquire("r", "1").await.unwrap();
    };
    let takes = async |store: Arc<EtcdStore>| {
        let acquired = client(&store, "rival").try_acquire("r", "2").await;
        acquired.ok()
    };
    at_every_pause(prepares, acquires, takes, async |store, acquired| {
        let now = held_now(store).await.unwrap();
        match acquired {
            Some(Acquired::Held(hold)) => assert_eq!(now, hold),
            Some(Acquired::Queued(place)) => panic!("a try was queued: {place:?}"),
            None => assert_eq!(now.claim.label, "one"),
        }
    })
    .await;
}

async fn vacates(store: Arc<EtcdStore>) {
    let holder = opens(&store, "holder").await;
    holder.take("r", "holds").await;
    for waiter in ["first", "second"] {
        opens(&store, waiter).await.queue("r", "waits").await;
    }
    holder.close().await.unwrap();
}

async fn promotes(store: Arc<EtcdStore>) {
    store.promote(&name()).await.unwrap();
}

#[tokio::test]
async fn nobody_is_promoted_in_place_of_one_who_was_granted_since() {
    let takes = async |store: Arc<EtcdStore>| {
        let first = client(&store, "first");
        first.acquire("r", "waits").await.unwrap()
    };
    at_every_pause(vacates, promotes, takes, async |store, acquired| {
        let now = held_now(store).await;
        assert_eq!(now.map(Acquired::Held), Some(acquired));
    })
    .await;
}

/// No operation grants past a queue. Where there is such a lease all the same, it is not overwritten.
#[tokio::test]
async fn nobody_is_promoted_in_place_of_a_lease_that_should_not_be_there() {
    let intrudes = async |store: Arc<EtcdStore>| {
        opens(&store, "intruder").await;
        let session = session_now(&store, &Client::session("intruder", TTL)).await;
        let asks = client(&store, "intruder").wish("r", "1", false);
        let claim = Claim::new(&session.unwrap(), name(), asks.request, asks.metadata);
        let generation = generation_now(&store).await.unwrap();
        let link = store.links.get().await.unwrap();
        let keys = &link.context().keys;
        let put = TxnOp::put(
            keys.lease(&name()),
            codec::hold_value(&Hold {
                claim: claim.clone(),
                generation,
                granted: Revision::default(),
                note: GrantNote::default(),
            }),
            Some(keys.on_lease(claim.session)),
        );
        let vacant = vec![is_vacant(keys, &name())];
        link.write(vacant, vec![put]).await.unwrap().is_some()
    };
    at_every_pause(vacates, promotes, intrudes, async |store, intruded| {
        let now = held_now(store).await.unwrap();
        let holder = if intruded { "intruder" } else { "first" };
        assert_eq!(now.claim.label, holder);
    })
    .await;
}
