//! Lists, events, readiness.

use futures::StreamExt;

use super::Fixture;
use super::client::resource;

/// Names are bytes: where one is the beginning of another, neither hides the other, and pages neither
/// skip nor repeat.
pub(super) async fn pages_by_prefix(fixture: Fixture) {
    let client = fixture.client("client").await;
    let names = ["a", "a-", "a.b", "a/b", "a/b/c", "a0", "ab", "b"];
    for name in names {
        client.take(name, &name.replace('/', ":")).await;
    }
    let waiter = fixture.client("waiter").await;
    waiter.queue("a.b", "1").await;
    for prefix in ["", "a", "a/", "a/b", "ab", "b", "c", "a/b/c/d"] {
        for limit in [1, 2, 3, 100] {
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let page = fixture.store.leases(prefix, after.as_ref(), limit);
                let page = page.await.unwrap();
                assert!(page.leases.len() <= limit);
                for standing in page.leases {
                    let hold = standing.hold;
                    let name = hold.claim.resource.as_str().to_owned();
                    assert_eq!(standing.waiters, u64::from(name == "a.b"), "{name}");
                    found.push(name);
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            let mut expected: Vec<_> = names
                .into_iter()
                .filter(|name| name.starts_with(prefix))
                .collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "prefix {prefix:?}, limit {limit}");
        }
    }
}

/// Those who wait are told in the order in which they will be served, as many as are asked for.
pub(super) async fn a_queue_is_listed_in_order(fixture: Fixture) {
    let holder = fixture.client("holder").await;
    holder.take("r", "1").await;
    let mut places = Vec::new();
    for name in ["first", "second", "third"] {
        places.push(fixture.client(name).await.queue("r", "1").await);
    }
    for size in 0..5 {
        let asked = fixture.store.lease_and_queue(&resource("r"), size).await;
        let standing = asked.unwrap();
        assert_eq!(standing.queue, places[..size.min(3)]);
        assert_eq!(standing.waiters, 3);
    }
}

/// All pages of a snapshot are of one revision, whatever happens meanwhile.
pub(super) async fn a_snapshot_is_of_one_revision(fixture: Fixture) {
    let client = fixture.client("client").await;
    let mut held = Vec::new();
    for number in 0..260 {
        let name = format!("s/{number:03}");
        held.push(client.take(&name, &name.replace('/', ":")).await);
    }
    client.take("t", "beside").await;
    let mut pages = fixture.store.snapshot("s/").await.unwrap();
    let first = pages.next().await.unwrap().unwrap();
    client.give_back(&held[259]).await;
    client.take("s/260", "late").await;
    let mut found: Vec<_> = first.leases.into_iter().map(|listed| listed.hold).collect();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert_eq!(page.revision, first.revision);
        found.extend(page.leases.into_iter().map(|listed| listed.hold));
    }
    assert!(first.revision >= held[259].granted);
    assert_eq!(found, held);
    let mut none = fixture.store.snapshot("nothing/").await.unwrap();
    let page = none.next().await.unwrap().unwrap();
    assert_eq!((page.leases.len(), page.next), (0, None));
    assert!(page.revision > first.revision);
    assert!(none.next().await.is_none());
}

/// A store tells how it stands.
pub(super) async fn a_store_tells_how_it_stands(fixture: Fixture) {
    let hold = fixture.client("client").await.take("r", "1").await;
    let status = fixture.store.status().await;
    assert_eq!(status.generation, Some(hold.generation));
    assert!(status.revision >= hold.granted);
    assert!(status.endpoints.iter().all(|endpoint| endpoint.is_healthy));
}

/// A store that can grant says so.
pub(super) async fn a_store_that_works_is_ready(fixture: Fixture) {
    fixture.store.ready().await.unwrap();
    fixture.subject.another().await.ready().await.unwrap();
    fixture.client("client").await.take("r", "1").await;
}
