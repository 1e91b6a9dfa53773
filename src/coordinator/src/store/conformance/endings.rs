//! Sessions that end because nobody renews them. These cases wait for real.

use super::client::{held, resource, token};
use super::sessions::refusal;
use super::{Fixture, TAKEOVER};
use crate::domain::{Acquired, Refusal};

/// I5, I6: with its session, everything goes that it held, within its time to live and a second.
pub(super) async fn a_session_ends_when_it_is_not_renewed(fixture: Fixture) {
    let ttl = fixture.store.least_ttl();
    let client = fixture.short_lived("short").await;
    let session = client.caller.session;
    let hold = client.take("r", "1").await;
    let left = fixture.store.time_left(session).await.unwrap();
    assert!(
        left <= ttl.max(client.renew().await.unwrap().ttl),
        "{left:?}"
    );
    let store = &fixture.store;
    fixture
        .eventually("the resource is vacant", ttl + TAKEOVER, || async move {
            store.lease(&resource("r")).await.unwrap().hold.is_none()
        })
        .await;
    let ended = Refusal::SessionEnded { session };
    assert_eq!(refusal(client.renew().await), ended);
    assert_eq!(refusal(client.try_acquire("r", "1").await), ended);
    assert_eq!(refusal(store.time_left(session).await), ended);
    let next = fixture.client("next").await.take("r", "1").await;
    assert!(token(&next) > token(&hold));
}

/// A session lives for as long as it is renewed, and loses nothing meanwhile.
pub(super) async fn a_renewed_session_lives(fixture: Fixture) {
    let client = fixture.short_lived("renewed").await;
    let ttl = fixture.store.least_ttl();
    let hold = client.take("r", "1").await;
    let end = fixture.clock.now().after(ttl * 2);
    while fixture.clock.now() < end {
        let alive = client.renew().await.unwrap();
        assert!(alive.ttl >= ttl);
        fixture.clock.sleep(ttl / 5).await;
    }
    assert_eq!(client.take("r", "1").await, hold);
}

/// I6: whoever waits for a dead holder holds within its time to live and a second.
pub(super) async fn the_dead_hand_over(fixture: Fixture) {
    let ttl = fixture.store.least_ttl();
    let dead = fixture.short_lived("dead").await;
    let hold = dead.take("r", "1").await;
    let heir = fixture.client("heir").await;
    heir.queue("r", "1").await;
    let heir = &heir;
    fixture
        .eventually("the heir holds", ttl + TAKEOVER, || async move {
            heir.store.promote(&resource("r")).await.unwrap();
            matches!(heir.standing("r", "1").await, Some(Acquired::Held(_)))
        })
        .await;
    let next = held(heir.acquire("r", "1").await.unwrap());
    assert!(token(&next) > token(&hold));
}

/// I11: a dead waiter leaves with its session; nobody waits for it.
pub(super) async fn dead_waiters_are_skipped(fixture: Fixture) {
    let ttl = fixture.store.least_ttl();
    let holder = fixture.client("holder").await;
    let hold = holder.take("r", "1").await;
    let dead = fixture.short_lived("dead").await;
    dead.queue("r", "1").await;
    let heir = fixture.client("heir").await;
    heir.queue("r", "1").await;
    let store = &fixture.store;
    fixture
        .eventually("one waiter is left", ttl + TAKEOVER, || async move {
            store.lease(&resource("r")).await.unwrap().waiters == 1
        })
        .await;
    holder.give_back(&hold).await;
    let standing = heir.standing("r", "1").await;
    assert!(matches!(standing, Some(Acquired::Held(_))), "{standing:?}");
}
