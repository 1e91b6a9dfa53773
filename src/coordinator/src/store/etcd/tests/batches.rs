//! Group commit: many steps are few transactions, and none of them changes another's outcome (I12).

use std::sync::Arc;

use etcd_client::{PutOptions, TxnOp};
use futures::future::join_all;
use palisade_test_support::Etcd;

use super::{TTL, World, coordinator_with};
use crate::domain::{Acquired, Caller, Refusal};
use crate::store::conformance::Client;
use crate::store::etcd::EtcdOptions;
use crate::store::etcd::batch::Decided;
use crate::store::etcd::step::Step;
use crate::store::{Store, StoreError};

const MANY: u64 = 200;

async fn clients(store: &Arc<dyn Store>, count: u64) -> Vec<Client> {
    let names: Vec<_> = (0..count)
        .map(|number| format!("client.{number}"))
        .collect();
    join_all(names.iter().map(|name| Client::open(store, name, TTL))).await
}

/// How many revisions of etcd it takes to grant each of many clients a resource of its own.
async fn revisions_for_many(is_batching: bool) -> u64 {
    let etcd = Etcd::start().await.unwrap();
    let options = EtcdOptions {
        is_batching,
        ..EtcdOptions::new(etcd.endpoints())
    };
    let store: Arc<dyn Store> = coordinator_with(options);
    let clients = clients(&store, MANY).await;
    let names: Vec<_> = (0..MANY).map(|number| format!("r/{number}")).collect();
    store.ready().await.unwrap();
    let before = store.leases("", None, 1).await.unwrap().revision;
    let asked = clients.iter().zip(&names);
    let held = join_all(asked.map(|(client, name)| client.try_acquire(name, "1"))).await;
    assert!(
        held.iter()
            .all(|held| matches!(held, Ok(Acquired::Held(_))))
    );
    let after = store.leases("", None, 1).await.unwrap().revision;
    after.0 - before.0
}

#[tokio::test]
async fn many_steps_are_few_transactions() {
    let revisions = Box::pin(revisions_for_many(true)).await;
    assert!(
        revisions <= MANY / 4,
        "{revisions} transactions for {MANY} steps"
    );
}

#[tokio::test]
async fn without_group_commit_each_step_is_its_own() {
    assert_eq!(Box::pin(revisions_for_many(false)).await, MANY);
}

/// A session that died, and requests for one resource, in the same transactions as everybody else's.
#[tokio::test]
async fn a_dead_session_and_a_race_change_nobody_elses_outcome() {
    let world = World::new().await;
    let store: Arc<dyn Store> = Arc::<super::EtcdStore>::clone(&world.prompt);
    let clients = clients(&store, 40).await;
    // The store remembers all of them, so that none is found out before its step is in a transaction.
    join_all(clients.iter().map(|client| client.take_and_give_back())).await;
    let (dead, living) = clients.split_first().unwrap();
    world.end_session(dead).await;
    let (racing, calm) = living.split_at(10);

    let ended = dead.try_acquire("of/the/dead", "1");
    let race = join_all(racing.iter().map(|client| client.try_acquire("one", "1")));
    let names: Vec<_> = (0..calm.len())
        .map(|number| format!("own/{number}"))
        .collect();
    let others = calm.iter().zip(&names);
    let own = join_all(others.map(|(client, name)| client.try_acquire(name, "1")));
    let (ended, race, own) = futures::join!(ended, race, own);

    assert!(
        matches!(
            ended,
            Err(StoreError::Refused(Refusal::SessionEnded { .. }))
        ),
        "{ended:?}"
    );
    assert!(
        own.iter().all(|held| matches!(held, Ok(Acquired::Held(_)))),
        "{own:?}"
    );
    let winners = race.iter().filter(|held| held.is_ok()).count();
    assert_eq!(winners, 1, "{race:?}");
    for lost in race.iter().filter_map(|held| held.as_ref().err()) {
        assert!(
            matches!(lost, StoreError::Refused(Refusal::LeaseHeld { .. })),
            "{lost:?}"
        );
    }
}

/// Steps of one session rest on one compare of its mark: where that fails, it does for all of them and for nobody
/// else.
#[tokio::test]
async fn a_mark_that_was_raised_elsewhere_stops_all_of_its_session_and_nobody_else() {
    let world = World::new().await;
    let store: Arc<dyn Store> = Arc::<super::EtcdStore>::clone(&world.prompt);
    let clients = clients(&store, 2).await;
    let [raised, calm] = &clients[..] else {
        panic!("two were opened");
    };
    // The store remembers both, so that what follows goes by the marks that it knows.
    join_all(clients.iter().map(|client| client.take_and_give_back())).await;
    let newer = Caller {
        epoch: raised.caller.epoch + 1,
        ..raised.caller.clone()
    };
    world.late.attach(&newer).await.unwrap();

    let names: Vec<_> = (0..20).map(|number| format!("own/{number}")).collect();
    let others: Vec<_> = (0..20).map(|number| format!("calm/{number}")).collect();
    let stale = join_all(names.iter().map(|name| raised.try_acquire(name, "1")));
    let held = join_all(others.iter().map(|name| calm.try_acquire(name, "1")));
    let (stale, held) = futures::join!(stale, held);

    for refused in stale {
        assert!(
            matches!(
                refused,
                Err(StoreError::Refused(Refusal::EpochStale { .. }))
            ),
            "{refused:?}"
        );
    }
    assert!(
        held.iter()
            .all(|held| matches!(held, Ok(Acquired::Held(_)))),
        "{held:?}"
    );
}

/// etcd refuses a transaction as a whole for one step's sake: that one finds out alone, and the others go on.
#[tokio::test]
async fn a_poisoned_transaction_is_taken_apart() {
    let world = World::new().await;
    let store: Arc<dyn Store> = Arc::<super::EtcdStore>::clone(&world.prompt);
    let clients = clients(&store, 20).await;
    join_all(clients.iter().map(|client| client.take_and_give_back())).await;
    let link = Box::pin(world.prompt.links.get()).await.unwrap();
    let poison = || {
        let no_lease = PutOptions::new().with_lease(0x0dea_d000);
        Step {
            mark: None,
            compares: Vec::new(),
            writes: vec![TxnOp::put("poison", "", Some(no_lease))],
            looks: Vec::new(),
            keys: vec![1],
            bytes: 1,
            under: None,
            may_be_late: false,
            is_alone: false,
        }
    };
    let poisoned = join_all((0..5).map(|_| link.submit(poison())));
    let names: Vec<_> = (0..clients.len())
        .map(|number| format!("own/{number}"))
        .collect();
    let asked = clients.iter().zip(&names);
    let held = join_all(asked.map(|(client, name)| client.try_acquire(name, "1")));
    let (poisoned, held) = futures::join!(poisoned, held);
    for decided in poisoned {
        assert!(matches!(decided, Ok(Decided::Poisoned)), "{decided:?}");
    }
    assert!(
        held.iter()
            .all(|held| matches!(held, Ok(Acquired::Held(_)))),
        "{held:?}"
    );
}

impl Client {
    async fn take_and_give_back(&self) {
        let name = format!("warm/{}", self.caller.session);
        let hold = self.take(&name, "warm").await;
        self.give_back(&hold).await;
    }
}
