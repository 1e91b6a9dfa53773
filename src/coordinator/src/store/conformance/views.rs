//! Lists, events, readiness.

use futures::StreamExt;

use super::client::{resource, token};
use super::{Fixture, TAKEOVER};
use crate::clock::within;
use crate::domain::Event;

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

/// A watch shows grants and vacancies in order, after saying that it knows nothing of before.
pub(super) async fn a_watch_shows_what_happens(fixture: Fixture) {
    let another = fixture.subject.another().await;
    let client = fixture.client("client").await;
    let mut events = another.watch().await.unwrap();
    let first = within(&fixture.clock, TAKEOVER * 5, events.next()).await;
    assert_eq!(first.unwrap().unwrap().unwrap(), Event::Resync);
    let hold = client.take("r", "1").await;
    client.give_back(&hold).await;
    let next = client.take("r", "2").await;
    client.close().await.unwrap();
    let mut grants = Vec::new();
    let mut vacancies = Vec::new();
    while vacancies.len() < 2 {
        let event = within(&fixture.clock, TAKEOVER * 5, events.next()).await;
        match event.expect("events come").expect("the watch goes on") {
            Ok(Event::Granted(granted)) => {
                assert_eq!(grants.len(), vacancies.len(), "a grant over a lease");
                grants.push(granted);
            }
            Ok(Event::Vacant {
                resource: name,
                revision,
            }) => {
                assert_eq!(name, resource("r"));
                let last: &crate::domain::Hold = grants.last().expect("it was granted before");
                assert!(revision > last.granted);
                vacancies.push(revision);
            }
            // Nothing is missing here, but a store may say so.
            Ok(Event::Resync) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(grants, [hold, next]);
    assert!(token(&grants[0]) < token(&grants[1]));
}

/// A store that can grant says so.
pub(super) async fn a_store_that_works_is_ready(fixture: Fixture) {
    fixture.store.ready().await.unwrap();
    fixture.subject.another().await.ready().await.unwrap();
    fixture.client("client").await.take("r", "1").await;
}
