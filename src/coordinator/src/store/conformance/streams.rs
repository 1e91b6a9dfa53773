//! Streams: which one a session is, and what its mark shuts out (I4, I5).

use super::Fixture;
use super::client::token;
use super::sessions::refusal;
use crate::domain::{Acquired, HoldName, Refusal};

/// A session is its newest stream; the older one is told so in whatever it tries.
pub(super) async fn a_newer_stream_supersedes(fixture: Fixture) {
    let client = fixture.client("streams").await;
    let first = client.attached(2).await.unwrap();
    let hold = first.take("r", "1").await;
    let another = fixture.subject.another().await;
    let second = client.through(&another).attached(3).await.unwrap();
    let superseded = Refusal::Superseded {
        session: client.caller.session,
        stored: second.caller.mark.unwrap(),
    };
    assert_eq!(refusal(first.try_acquire("r2", "2").await), superseded);
    assert_eq!(refusal(first.acquire("r", "3").await), superseded);
    let release = first.release("r", HoldName::Token(token(&hold))).await;
    assert_eq!(refusal(release), superseded);
    assert_eq!(refusal(first.raised().await), superseded);
    assert_eq!(second.take("r", "1").await, hold);
    let stale = Refusal::EpochStale {
        given: 3,
        stored: 3,
    };
    assert_eq!(refusal(client.attached(3).await), stale);
}

/// A stream whose first attempt was not answered finds that it is the session's own.
pub(super) async fn attaching_again_finds_the_mark(fixture: Fixture) {
    let client = fixture.client("again").await;
    let stream = client.attached(2).await.unwrap();
    let mut unanswered = stream.caller.clone();
    unanswered.mark = None;
    let found = fixture.store.attach(&unanswered).await.unwrap();
    assert_eq!(Some(found.mark), stream.caller.mark);
}

/// What was submitted under an older mark of the same stream cannot happen any more.
pub(super) async fn a_raised_mark_shuts_out_copies(fixture: Fixture) {
    let client = fixture.client("copies").await;
    let before = client.attached(2).await.unwrap();
    let after = before.raised().await.unwrap();
    let stored = after.caller.mark.unwrap();
    let session = client.caller.session;
    let superseded = Refusal::Superseded { session, stored };
    assert_eq!(refusal(before.try_acquire("r", "1").await), superseded);
    assert_eq!(refusal(before.acquire("r", "1").await), superseded);
    let hold = after.take("r", "1").await;
    // Raising again to the same mark is how an unknown outcome is settled.
    assert!(fixture.store.raise(&before.caller, stored).await.is_ok());
    let release = before.release("r", HoldName::Token(token(&hold))).await;
    assert_eq!(refusal(release), superseded);
    after.give_back(&hold).await;
}

/// A unary call under the stored epoch is served beside the stream, and a larger one ends the stream.
pub(super) async fn calls_beside_a_stream(fixture: Fixture) {
    let client = fixture.client("beside").await;
    let stream = client.attached(2).await.unwrap();
    let hold = client.at(2).take("r", "1").await;
    stream.give_back(&hold).await;
    client.at(3).take("r", "2").await;
    let refused = refusal(stream.try_acquire("r2", "3").await);
    assert!(matches!(refused, Refusal::Superseded { .. }), "{refused:?}");
}

/// Whatever a session has is found, so that what nobody knows of can be given back.
pub(super) async fn holdings_are_found(fixture: Fixture) {
    let client = fixture.client("holdings").await;
    let other = fixture.client("other").await;
    assert!(holdings(&fixture, &client).await.is_empty());
    let first = client.take("a", "1").await;
    let second = client.take("b", "2").await;
    let taken = other.take("c", "1").await;
    let place = client.queue("c", "3").await;
    let expected = [
        Acquired::Held(first.clone()),
        Acquired::Held(second),
        Acquired::Queued(place),
    ];
    let found = holdings(&fixture, &client).await;
    assert_eq!(found.len(), expected.len());
    assert!(
        expected.iter().all(|thing| found.contains(thing)),
        "{found:?}"
    );
    other.give_back(&taken).await;
    client.give_back(&first).await;
    let found = holdings(&fixture, &client).await;
    let names: Vec<_> = found
        .iter()
        .map(|found| match found {
            Acquired::Held(hold) => hold.claim.resource.as_str(),
            Acquired::Queued(place) => panic!("it was promoted: {place:?}"),
        })
        .collect();
    assert!(names.contains(&"b") && names.contains(&"c") && names.len() == 2);
}

async fn holdings(fixture: &Fixture, client: &super::Client) -> Vec<Acquired> {
    let found = fixture.store.holdings(client.caller.session).await;
    found.expect("the store can be read")
}
