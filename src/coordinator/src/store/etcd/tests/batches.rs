//! Group commit: many steps are few transactions, and none of them changes another's outcome (I12).

use std::sync::Arc;

use etcd_client::{PutOptions, TxnOp};
use futures::future::join_all;
use palisade_test_support::Etcd;

use super::{Step as Decision, TTL, World, coordinator_with, heir};
use crate::domain::{AcquireStep, Acquired, Caller, HoldName, Refusal, RequestId};
use crate::store::conformance::Client;
use crate::store::etcd::EtcdOptions;
use crate::store::etcd::batch::Decided;
use crate::store::etcd::link::Link;
use crate::store::etcd::step::{self, Step};
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
            vacates: None,
            awaits: None,
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

/// Grants of a resource each to some clients, decided on and not yet sent.
async fn late_grants(world: &World, clients: &[&Client], name: &str) -> (Arc<Link>, Vec<Step>) {
    const EACH: usize = 6;
    let mut steps = Vec::new();
    for (number, client) in (0..EACH).flat_map(|number| clients.iter().map(move |it| (number, it)))
    {
        let name = format!("{name}/{}/{number}", client.caller.session);
        let late = world.decides(&client.wish(&name, "late", false)).await;
        let Decision::Acquire(AcquireStep::Grant { claim, place: None }) = late.step else {
            panic!("it is free: {:?}", late.step);
        };
        let hold = heir(claim, &late.generation);
        let (keys, sight) = (&late.link.context().keys, &late.sight);
        let session = sight.session.as_ref().expect("it saw its session");
        steps.push(step::grant(
            keys,
            sight,
            session,
            &late.generation,
            &hold,
            None,
        ));
    }
    (Arc::clone(&world.late.links.get().await.unwrap()), steps)
}

/// Sends steps at once; the first goes by itself, the others together.
async fn send((link, steps): (Arc<Link>, Vec<Step>)) -> Vec<Decided> {
    let sent = join_all(steps.into_iter().map(|step| link.submit(step))).await;
    sent.into_iter().map(Result::unwrap).collect()
}

fn count(decided: &[Decided], is_so: impl Fn(&Decided) -> bool) -> usize {
    decided.iter().filter(|decided| is_so(decided)).count()
}

/// One compare of the mark stands for all steps of a session that travel together, with nobody else's among them (I4).
#[tokio::test]
async fn steps_of_one_session_that_travel_together_rest_on_its_mark() {
    let world = World::new().await;
    let client = world.client("one").await;
    let in_time = send(Box::pin(late_grants(&world, &[&client], "in/time")).await).await;
    let applied = |decided: &Decided| matches!(decided, Decided::Applied(..));
    assert_eq!(count(&in_time, applied), in_time.len(), "{in_time:?}");

    let late = Box::pin(late_grants(&world, &[&client], "late")).await;
    client.at(2).take("elsewhere", "raises").await;
    let before = world.all_keys().await;
    let decided = send(late).await;
    assert_eq!(count(&decided, applied), 0, "{decided:?}");
    assert_eq!(world.all_keys().await, before);
    // What stops them is known, so that none has to find out alone.
    let unmarked = count(&decided, |it| matches!(it, Decided::Unmarked));
    let otherwise = count(&decided, |it| matches!(it, Decided::Otherwise(..)));
    assert_eq!(unmarked + otherwise, decided.len(), "{decided:?}");
    assert!(unmarked > 0, "{decided:?}");
}

/// One compare of the generation stands for all steps that travel together, of one session or of many (I3).
#[tokio::test]
async fn steps_that_travel_together_rest_on_the_generation() {
    let world = World::new().await;
    let (one, other) = (world.client("one").await, world.client("other").await);
    for (name, clients) in [("one", vec![&one]), ("both", vec![&one, &other])] {
        let late = Box::pin(late_grants(&world, &clients, name)).await;
        world.prompt.advance(None).await.unwrap();
        let before = world.all_keys().await;
        let decided = send(late).await;
        let applied = count(&decided, |it| matches!(it, Decided::Applied(..)));
        assert_eq!(applied, 0, "{name}: {decided:?}");
        assert_eq!(world.all_keys().await, before, "{name}");
        // The late coordinator sees the change before it looks again.
        world.late.ready().await.unwrap();
    }
}

/// What is compared once stands for one session alone: another's steps beside it rest on their own mark (I4, I12).
#[tokio::test]
async fn a_raised_mark_stops_its_own_steps_among_anothers() {
    let world = World::new().await;
    let (calm, raised) = (world.client("calm").await, world.client("raised").await);
    let late = Box::pin(late_grants(&world, &[&calm, &raised], "late")).await;
    raised.at(2).take("elsewhere", "raises").await;
    let decided = send(late).await;
    for pair in decided.chunks(2) {
        let [calm, raised] = pair else {
            panic!("each number has both");
        };
        assert!(matches!(calm, Decided::Applied(..)), "{calm:?}");
        assert!(!matches!(raised, Decided::Applied(..)), "{raised:?}");
    }
}

/// The release that nobody waits for and the first who would wait do not travel together: each would find how it was
/// before the other, and somebody would wait for what is vacant until he is looked after (I6).
#[tokio::test]
async fn nobody_comes_to_wait_for_what_becomes_vacant_in_the_same_transaction() {
    let world = World::new().await;
    let (holder, waiter) = (world.client("holder").await, world.client("waiter").await);
    for (id, ends_first) in [("1", true), ("2", false)] {
        holder.take("r", id).await;
        let of = |id| HoldName::Request(RequestId::new(id).unwrap());
        let release = world.decides_release(&holder, of(id)).await;
        let enqueue = world.decides(&waiter.wish("r", "waits", true)).await;
        let Decision::Acquire(AcquireStep::Enqueue(claim)) = enqueue.step else {
            panic!("it is held: {:?}", enqueue.step);
        };
        let keys = enqueue.link.context().keys.clone();
        let session = enqueue.sight.session.as_ref();
        let session = session.expect("it saw its session");
        let waits = step::enqueue(&keys, &enqueue.sight, session, &claim);
        let session = release.sight.session.as_ref();
        let session = session.expect("it saw its session");
        let ends = step::end(&keys, &release.sight, None, session).expect("it saw the lease");

        let (link, mut steps) = Box::pin(late_grants(&world, &[&holder], id)).await;
        let pair = match ends_first {
            true => [ends, waits],
            false => [waits, ends],
        };
        steps.splice(1..1, pair);
        let decided = send((link, steps)).await;
        let is_applied = |at: usize| matches!(decided[at], Decided::Applied(..));
        assert_ne!(is_applied(1), is_applied(2), "{decided:?}");
        assert!((3..decided.len()).all(is_applied), "{decided:?}");
        holder.release("r", of(id)).await.unwrap();
        waiter.release("r", of("waits")).await.unwrap();
    }
}

impl Client {
    async fn take_and_give_back(&self) {
        let name = format!("warm/{}", self.caller.session);
        let hold = self.take(&name, "warm").await;
        self.give_back(&hold).await;
    }
}
