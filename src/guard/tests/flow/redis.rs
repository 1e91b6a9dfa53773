//! Redis Streams, on a real server.

use palisade_guard::effects::{Name, PublishError, Publisher as _, RedisStreams};
use palisade_guard::postgres::{Relay, RelayPolicy, Stop};
use palisade_test_support::Redis;

use crate::broker::{Broker, message, named};
use crate::db::{Db, assert_stale, grant};

fn publisher(server: &Redis) -> RedisStreams {
    RedisStreams::new(redis::Client::open(server.url()).unwrap())
}

async fn number(server: &Redis, command: &[&str]) -> i64 {
    server.cli(command).await.unwrap().trim().parse().unwrap()
}

/// Envelopes as a relay hands them out: their only maker.
async fn envelopes(db: &Db, payloads: &[&str]) -> Vec<palisade_guard::effects::Envelope> {
    db.stage(&db.seal(&grant("r", 5)).await, "x", payloads)
        .await;
    let broker = Broker::default();
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    db.pass(&relay).await.unwrap();
    broker.envelopes()
}

#[tokio::test]
async fn a_stream_takes_each_message_once_and_none_of_a_replaced_relay() {
    let (db, server) = (Db::new().await, Redis::start().await.unwrap());
    let messages = envelopes(&db, &["1", "2", "3"]).await;
    let (old, new) = (publisher(&server), publisher(&server));
    let len = async || number(&server, &["XLEN", "topic"]).await;
    old.publish(&messages[0], &grant("relay", 1)).await.unwrap();
    old.publish(&messages[0], &grant("relay", 1)).await.unwrap();
    assert_eq!(len().await, 1, "it was repeated");
    // A successor repeats what it cannot know of, and goes on.
    new.publish(&messages[0], &grant("relay", 2)).await.unwrap();
    new.publish(&messages[1], &grant("relay", 2)).await.unwrap();
    assert_eq!(len().await, 2);
    let refused = old.publish(&messages[2], &grant("relay", 1)).await;
    assert!(
        matches!(&refused, Err(PublishError::Fenced { fence }) if fence.get() == 2),
        "{refused:?}"
    );
    // Not even what is there already: it has to learn that it was replaced.
    let refused = old.publish(&messages[0], &grant("relay", 1)).await;
    assert!(
        matches!(refused, Err(PublishError::Fenced { .. })),
        "{refused:?}"
    );
    let mut twin = grant("relay", 2);
    twin.holder = palisade_token::HolderId::from_bytes([9; 16]);
    let refused = new.publish(&messages[2], &twin).await;
    assert!(
        matches!(refused, Err(PublishError::Fenced { .. })),
        "{refused:?}"
    );
    assert_eq!(len().await, 2);
    // The relay of another outbox counts its own tokens.
    new.publish(&messages[2], &grant("another", 1))
        .await
        .unwrap();
    let entries = server.cli(&["XRANGE", "topic", "-", "+"]).await.unwrap();
    let lines: Vec<&str> = entries.lines().collect();
    for (field, value) in [
        ("msg-id", messages[0].id.as_str()),
        ("fence-token", "5"),
        ("fence-resource", "r"),
        ("aggregate", "x"),
        ("payload", "1"),
    ] {
        let at = lines.iter().position(|line| *line == field).unwrap();
        assert_eq!(lines[at + 1], value, "{field}");
    }
}

/// What is kept for a stream is bounded, and the bound leaves the newest ids.
#[tokio::test]
async fn the_ids_that_a_stream_remembers_are_bounded() {
    let (db, server) = (Db::new().await, Redis::start().await.unwrap());
    let messages = envelopes(&db, &["1", "2"]).await;
    let fill = "for i = 1, 10005 do redis.call('ZADD', KEYS[1], i, 'old' .. i) end";
    server
        .cli(&["EVAL", fill, "1", "{topic}:palisade:ids"])
        .await
        .unwrap();
    let publisher = publisher(&server).with_max_entries(1);
    for message in messages.iter().chain(&messages) {
        publisher
            .publish(message, &grant("relay", 1))
            .await
            .unwrap();
    }
    assert_eq!(
        number(&server, &["ZCARD", "{topic}:palisade:ids"]).await,
        10_000
    );
    assert_eq!(
        number(&server, &["ZSCORE", "{topic}:palisade:ids", "old10005"]).await,
        10_005
    );
    // Approximate: Redis trims whole nodes.
    assert_eq!(number(&server, &["XLEN", "topic"]).await, 2);
}

#[tokio::test]
async fn from_outbox_to_stream_through_an_outage_and_a_takeover() {
    let (db, mut server) = (Db::new().await, Redis::start().await.unwrap());
    let sealed = db.seal(&grant("r", 5)).await;
    db.stage(&sealed, "x", &["1", "2"]).await;
    let old = db.seal(&grant("relay", 1)).await;
    let relay = Relay::new(db.guard, old, named("main"), publisher(&server))
        .with_policy(RelayPolicy::new().with_attempts(1));
    server.stop().await.unwrap();
    let pass = db.pass(&relay).await.unwrap();
    assert!(matches!(pass.stopped, Some(Stop::Broker(_))), "{pass:?}");
    server.start_again().await.unwrap();
    assert_eq!(db.pass(&relay).await.unwrap().published, 2);

    let new = db.seal(&grant("relay", 2)).await;
    let successor = Relay::new(db.guard, new, named("main"), publisher(&server));
    db.stage(&sealed, "x", &["3"]).await;
    assert_eq!(db.pass(&successor).await.unwrap().published, 1);
    assert_stale(&db.pass(&relay).await.unwrap_err(), 1, 2);
    assert_eq!(number(&server, &["XLEN", "topic"]).await, 3);

    // A topic that is no stream blames its own message only; one with braces can never be one.
    server.cli(&["SET", "text", "x"]).await.unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    for topic in ["text", "a{b}", "fine"] {
        let topic = Name::new(topic).unwrap();
        let message = palisade_guard::effects::Message::new(topic, b"x".to_vec()).unwrap();
        tx.stage(&named("main"), &message).await.unwrap();
    }
    tx.stage(&named("main"), &message("4")).await.unwrap();
    tx.commit().await.unwrap();
    let pass = db.pass(&successor).await.unwrap();
    assert_eq!((pass.published, pass.failed, pass.buried), (2, 1, 1));
}
