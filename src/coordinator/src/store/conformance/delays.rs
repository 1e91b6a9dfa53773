//! Lock-delays: after an unclean end, and only after one, nobody gets the resource for a while.

use std::time::Duration;

use super::client::{held, resource, token};
use super::sessions::refusal;
use super::{Client, Fixture, TAKEOVER};
use crate::domain::{Acquire, Acquired, Hold, LeaseEnd, Principal, Refusal, Revoke};
use crate::store::StoreError;

/// etcd keeps no shorter one.
const DELAY: Duration = Duration::from_secs(3);

fn delayed(client: &Client, name: &str, waits: bool) -> Acquire {
    Acquire {
        lock_delay_ms: u64::try_from(DELAY.as_millis()).unwrap(),
        ..client.wish(name, "delayed", waits)
    }
}

async fn take(client: &Client, name: &str) -> Hold {
    let acquired = client.store.acquire(&delayed(client, name, false)).await;
    held(acquired.expect("it is free"))
}

/// A session that holds a resource with a lock-delay, and dies.
async fn dies(fixture: &Fixture, name: &str) -> Hold {
    let dead = fixture.short_lived(&format!("dead.{name}")).await;
    let hold = take(&dead, name).await;
    let store = &fixture.store;
    let gone = || async move { store.lease(&resource(name)).await.unwrap().hold.is_none() };
    let ttl = fixture.store.least_ttl();
    fixture
        .eventually("the lease is gone", ttl + TAKEOVER, gone)
        .await;
    hold
}

fn is_closed(tried: Result<Acquired, StoreError>) -> bool {
    matches!(
        tried,
        Err(StoreError::Refused(Refusal::LeaseHeld { token: None }))
    )
}

async fn left(fixture: &Fixture, name: &str) -> Duration {
    let standing = fixture.store.lease(&resource(name)).await;
    standing.unwrap().lock_delay_left
}

/// It is closed, and says for how long.
async fn closed_for(fixture: &Fixture, client: &Client, name: &str) {
    let before = left(fixture, name).await;
    assert!(is_closed(client.try_acquire(name, "1").await));
    let shown = left(fixture, name).await;
    assert!(
        is_closed(client.try_acquire(name, "1").await),
        "{name} was closed too shortly"
    );
    for shown in [before, shown] {
        assert!(shown > Duration::ZERO && shown <= DELAY, "{shown:?}");
    }
}

/// Tries until it is granted; how long that took.
async fn until_open(fixture: &Fixture, client: &Client, name: &str) -> (Hold, Duration) {
    let since = fixture.clock.now();
    let end = since.after(DELAY * 2 + TAKEOVER * 4);
    loop {
        match client.try_acquire(name, "1").await {
            Ok(acquired) => return (held(acquired), since.until(fixture.clock.now())),
            Err(StoreError::Refused(Refusal::LeaseHeld { token: None })) => {}
            Err(other) => panic!("closed, and yet: {other:?}"),
        }
        assert!(fixture.clock.now() < end, "{name} stays closed");
        fixture.clock.sleep(Duration::from_millis(50)).await;
    }
}

/// A release in order leaves nothing behind, by hand-over or not.
pub(super) async fn a_release_leaves_no_delay(fixture: Fixture) {
    let (first, second) = (
        fixture.client("first").await,
        fixture.client("second").await,
    );
    let hold = take(&first, "r").await;
    let waits = fixture.store.acquire(&delayed(&second, "r", true)).await;
    assert!(matches!(waits, Ok(Acquired::Queued(_))));
    first.give_back(&hold).await;
    let Some(Acquired::Held(handed_over)) = second.standing("r", "delayed").await else {
        panic!("it was handed over");
    };
    assert_eq!(handed_over.claim.lock_delay_ms, hold.claim.lock_delay_ms);
    second.give_back(&handed_over).await;
    let third = first.take("r", "3").await;
    first.give_back(&third).await;
    take(&first, "s").await;
    first.close().await.unwrap();
    second.take("s", "1").await;
}

/// After an unclean end the resource is closed for the delay, and the next holder is told for certain.
pub(super) async fn an_unclean_end_closes_the_resource(fixture: Fixture) {
    let next = fixture.client("next").await;
    let hold = dies(&fixture, "r").await;
    closed_for(&fixture, &next, "r").await;
    let (granted, closed) = until_open(&fixture, &next, "r").await;
    assert_eq!(left(&fixture, "r").await, Duration::ZERO);
    // What a read shows may lag behind, and a delay is counted from when somebody began it.
    assert!(closed + Duration::from_millis(500) > DELAY, "{closed:?}");
    assert!(token(&granted) > token(&hold));
    let previous = granted.note.previous.clone().expect("it is certain");
    assert_eq!(previous.end, LeaseEnd::Expired);
    assert_eq!(previous.token, hold.token());
    next.give_back(&granted).await;
    let again = next.take("r", "2").await;
    next.give_back(&again).await;
}

/// Who waited for a dead holder, and who comes while it is closed, gets it after the delay and in order.
pub(super) async fn waiters_wait_for_the_delay(fixture: Fixture) {
    let dead = fixture.short_lived("dead").await;
    take(&dead, "r").await;
    let (first, second) = (
        fixture.client("first").await,
        fixture.client("second").await,
    );
    first.queue("r", "1").await;
    let store = &fixture.store;
    let gone = || async move { store.lease(&resource("r")).await.unwrap().hold.is_none() };
    let ttl = fixture.store.least_ttl();
    fixture
        .eventually("the lease is gone", ttl + TAKEOVER, gone)
        .await;
    store.promote(&resource("r")).await.unwrap();
    let since = fixture.clock.now();
    second.queue("r", "2").await;
    let heir = &first;
    fixture
        .eventually("the first holds", DELAY * 2 + TAKEOVER, || async move {
            store.promote(&resource("r")).await.unwrap();
            matches!(heir.standing("r", "1").await, Some(Acquired::Held(_)))
        })
        .await;
    let closed = since.until(fixture.clock.now());
    assert!(closed + Duration::from_millis(500) > DELAY, "{closed:?}");
    assert!(matches!(
        second.standing("r", "2").await,
        Some(Acquired::Queued(_))
    ));
}

/// A delay goes on whatever becomes of coordinators.
pub(super) async fn a_delay_survives_a_restart(mut fixture: Fixture) {
    let next = fixture.client("next").await;
    dies(&fixture, "r").await;
    assert!(is_closed(next.try_acquire("r", "1").await));
    let Some(store) = fixture.subject.restart().await else {
        return;
    };
    fixture.store = store;
    let next = next.through(&fixture.store);
    assert!(is_closed(next.try_acquire("r", "1").await));
    let (granted, _) = until_open(&fixture, &next, "r").await;
    let previous = granted.note.previous.expect("it is certain");
    assert_eq!(previous.end, LeaseEnd::Expired);
}

/// The lease of whoever is granted the resource by a revocation has its own lock-delay, as any other has.
pub(super) async fn an_heir_by_revocation_has_its_own_delay(fixture: Fixture) {
    let (holder, next) = (fixture.client("holder").await, fixture.client("next").await);
    let hold = holder.take("r", "1").await;
    let heir = fixture.short_lived("heir").await;
    let waits = fixture.store.acquire(&delayed(&heir, "r", true)).await;
    assert!(matches!(waits, Ok(Acquired::Queued(_))));
    let revoke = Revoke {
        resource: resource("r"),
        token: token(&hold),
        reason: "maintenance".to_owned(),
        actor: "ops".to_owned(),
        principal: Principal::anonymous(),
    };
    fixture.store.revoke(&revoke).await.unwrap();
    let store = &fixture.store;
    let now = store.lease(&resource("r")).await.unwrap();
    let now = now.hold.expect("it was handed over");
    assert_eq!(now.claim.session, heir.caller.session);
    assert_eq!(now.claim.lock_delay_ms, 3000);
    let gone = || async move { store.lease(&resource("r")).await.unwrap().hold.is_none() };
    let ttl = store.least_ttl();
    fixture
        .eventually("the heir is gone", ttl + TAKEOVER, gone)
        .await;
    closed_for(&fixture, &next, "r").await;
    let (granted, _) = until_open(&fixture, &next, "r").await;
    let previous = granted.note.previous.expect("it is certain");
    assert_eq!(
        (previous.end, previous.token),
        (LeaseEnd::Expired, now.token())
    );
}

/// A revoked holder may be at work as well as a dead one.
pub(super) async fn a_revocation_closes_the_resource(fixture: Fixture) {
    let (holder, next) = (fixture.client("holder").await, fixture.client("next").await);
    let hold = take(&holder, "r").await;
    next.queue("r", "1").await;
    let revoke = Revoke {
        resource: resource("r"),
        token: token(&hold),
        reason: "maintenance".to_owned(),
        actor: "ops".to_owned(),
        principal: Principal::anonymous(),
    };
    fixture.store.revoke(&revoke).await.unwrap();
    assert!(matches!(
        next.standing("r", "1").await,
        Some(Acquired::Queued(_))
    ));
    let refused = refusal(holder.try_acquire("r", "2").await);
    assert_eq!(refused, Refusal::LeaseHeld { token: None });
    let (store, heir) = (&fixture.store, &next);
    fixture
        .eventually("the next holds", DELAY * 2 + TAKEOVER, || async move {
            store.promote(&resource("r")).await.unwrap();
            matches!(heir.standing("r", "1").await, Some(Acquired::Held(_)))
        })
        .await;
    let Some(Acquired::Held(granted)) = next.standing("r", "1").await else {
        panic!("it holds");
    };
    let previous = granted.note.previous.expect("it is certain");
    assert_eq!(
        (previous.end, previous.reason.as_str(), previous.token),
        (LeaseEnd::Revoked, "maintenance", hold.token())
    );
}
