//! What the relay publishes, and in which order.

use palisade_guard::effects::{IdempotencyKey, Message};
use palisade_guard::postgres::{Guard, RelayPolicy};
use palisade_guard::{Class, GuardError};
use palisade_test_support::eventually;
use sqlx::Row as _;

use crate::broker::{Broker, message, named};
use crate::db::{Db, PATIENCE, grant, run, sql};

const YES: fn() -> bool = || true;

#[tokio::test]
async fn a_message_is_published_if_its_transaction_commits() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let key = IdempotencyKey::new("tenant", "pay", "k-1").unwrap();
    let whole = Message::new(named("topic"), vec![0, 255, b'\'', b'\\'])
        .unwrap()
        .with_id(named("it's \\ one"))
        .in_order_of(named("a"))
        .with_key(key.clone())
        .with_header("content-type", "a'b\\")
        .unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    tx.stage(&named("main"), &message("never")).await.unwrap();
    tx.rollback().await.unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    assert_eq!(
        tx.stage(&named("main"), &whole).await.unwrap(),
        named("it's \\ one")
    );
    let id = tx.stage(&named("main"), &message("plain")).await.unwrap();
    tx.stage(&named("other outbox"), &message("x"))
        .await
        .unwrap();
    tx.commit().await.unwrap();

    let broker = Broker::default();
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    let pass = db.pass(&relay).await.unwrap();
    assert_eq!((pass.published, pass.failed, pass.buried), (2, 0, 0));
    assert!(db.pass(&relay).await.unwrap().is_idle());
    let taken = broker.envelopes();
    let first = &taken[0];
    assert_eq!(first.payload, [0, 255, b'\'', b'\\']);
    assert_eq!(first.key, Some(key));
    assert_eq!((first.resource.as_str(), first.token.get()), ("r", 5));
    let headers = [
        ("msg-id", "it's \\ one"),
        ("fence-token", "5"),
        ("fence-resource", "r"),
        ("idempotency-key", "tenant pay k-1"),
        ("aggregate", "a"),
        ("content-type", "a'b\\"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    assert_eq!(first.all_headers(), headers);
    assert_eq!(taken[1].id, id);
    assert_eq!(db.number("SELECT count(*) FROM palisade.outbox").await, 1);
}

/// The trap: A stages first and commits last. A relay that goes by the greatest number it has seen skips A's.
#[tokio::test]
async fn a_message_committed_late_is_not_skipped() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let broker = Broker::default();
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    let mut a = db.guard.begin(&db.pool, &sealed).await.unwrap();
    a.stage(&named("main"), &message("a")).await.unwrap();
    let mut b = db.guard.begin(&db.pool, &sealed).await.unwrap();
    b.stage(&named("main"), &message("b")).await.unwrap();
    b.commit().await.unwrap();

    // The naive form of a relay, on the same rows.
    let naive = async |last: i64| -> Vec<(i64, String)> {
        let text = "SELECT id, convert_from(payload, 'UTF8') AS payload FROM palisade.outbox \
                    WHERE id > $1 ORDER BY id";
        let rows = sqlx::query(text)
            .bind(last)
            .fetch_all(&db.pool)
            .await
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    };
    let seen = naive(0).await;
    assert_eq!(seen.len(), 1);
    assert!(
        relay.pass(&db.pool, YES).await.unwrap().is_idle(),
        "A may come before it"
    );
    a.commit().await.unwrap();
    assert_eq!(
        naive(seen[0].0).await,
        [],
        "the naive relay never sees A's message"
    );

    assert_eq!(db.pass(&relay).await.unwrap().published, 2);
    assert_eq!(broker.taken(), ["a", "b"]);
}

/// The trap: a guarded transaction has its id from BEGIN on. A begins first and writes the aggregate last:
/// by the ids of transactions A's message would come first, and by the horizon alone it overtakes B's while a
/// third transaction runs.
#[tokio::test]
async fn an_older_transaction_does_not_overtake_a_younger_one_of_its_aggregate() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let broker = Broker::default();
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    let mut a = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let mut between = db.connect().await;
    run(&mut between, "BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    db.stage(&sealed, "x", &["from b, first"]).await;
    let second = message("from a, second").in_order_of(named("x"));
    a.stage(&named("main"), &second).await.unwrap();
    a.commit().await.unwrap();
    db.stage(&sealed, "y", &["another"]).await;
    let oldest = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
    let theirs = "SELECT pg_current_xact_id()::text::bigint";
    let theirs: i64 = sqlx::query_scalar(theirs)
        .fetch_one(&mut between)
        .await
        .unwrap();
    eventually("no other test holds the horizon", PATIENCE, async || {
        db.number(oldest).await == theirs
    })
    .await
    .unwrap();
    // A is below the horizon, B is not: so A waits, too.
    let pass = relay.pass(&db.pool, YES).await.unwrap();
    assert!(pass.is_idle(), "{:?}", broker.taken());
    run(&mut between, "ROLLBACK").await.unwrap();
    assert_eq!(db.pass(&relay).await.unwrap().published, 3);
    assert_eq!(
        broker.taken(),
        ["from b, first", "from a, second", "another"]
    );
}

/// Transactions that stage for one aggregate wait for each other: numbers follow commits.
#[tokio::test]
async fn the_order_of_an_aggregate_is_that_of_its_commits() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let staged = message("1").in_order_of(named("x"));
    let mut a = db.guard.begin(&db.pool, &sealed).await.unwrap();
    a.stage(&named("main"), &staged).await.unwrap();
    let (guard, pool, other) = (db.guard, db.pool.clone(), sealed.clone());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut b = Guard::begin(&guard, &pool, &other).await.unwrap();
        let next = message("2").in_order_of(named("x"));
        b.stage(&named("main"), &next).await.unwrap();
        b.commit().await.unwrap();
    });
    db.waiting(1).await;
    a.stage(&named("main"), &staged).await.unwrap();
    a.commit().await.unwrap();
    tasks.join_all().await;
    let text = "SELECT string_agg(convert_from(payload, 'UTF8'), '' ORDER BY id)::bigint \
                FROM palisade.outbox";
    assert_eq!(db.number(text).await, 112);
}

#[tokio::test]
async fn a_long_transaction_stalls_the_outbox_and_is_named() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &Broker::default());
    let backlog = async || db.guard.backlog(&db.pool, &named("main")).await.unwrap();
    assert_eq!((backlog().await.pending, backlog().await.held), (0, 0));
    db.stage(&sealed, "x", &["before"]).await;
    db.settle().await;
    let mut long = db.connect().await;
    run(&mut long, "BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    db.stage(&sealed, "y", &["after"]).await;
    assert_eq!(relay.pass(&db.pool, YES).await.unwrap().published, 1);
    let seen = backlog().await;
    assert_eq!((seen.pending, seen.held), (1, 1));
    assert!(
        !seen.horizon_lag.is_zero() && seen.horizon_lag <= seen.oldest,
        "{seen:?}"
    );
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut long)
        .await
        .unwrap();
    let named = async |holder, prepared: Option<&str>| {
        eventually("it is the oldest on this server", PATIENCE, async || {
            let seen = backlog().await;
            (seen.holder, seen.prepared.as_deref()) == (holder, prepared)
        })
        .await
        .unwrap();
    };
    named(Some(pid), None).await;
    // A prepared one goes on after its session, and is named by its gid.
    run(&mut long, "PREPARE TRANSACTION 'forgotten'")
        .await
        .unwrap();
    named(None, Some("forgotten")).await;
    run(&mut long, "ROLLBACK PREPARED 'forgotten'")
        .await
        .unwrap();
    db.settle().await;
    assert_eq!(backlog().await.held, 0);
    assert_eq!(db.pass(&relay).await.unwrap().published, 1);
}

/// Ids of transactions in a dump are those of another server: far ahead of this one's, they would be
/// behind its horizon for ever.
#[tokio::test]
async fn messages_of_a_restored_dump_are_published() {
    let db = Db::new().await;
    let broker = Broker::default();
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    let sealed = db.seal(&grant("r", 5)).await;
    db.stage(&sealed, "x", &["restored"]).await;
    db.run("UPDATE palisade.outbox SET xid = '4000000000'")
        .await;
    db.stage(&sealed, "x", &["new"]).await;
    assert_eq!(db.pass(&relay).await.unwrap().published, 2);
    assert_eq!(broker.taken(), ["restored", "new"]);
}

#[tokio::test]
async fn a_batch_is_bounded_by_bytes_too() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let large = Message::new(named("topic"), vec![b'x'; Message::MAX_PAYLOAD]).unwrap();
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    tx.stage(&named("main"), &large).await.unwrap();
    tx.commit().await.unwrap();
    db.stage(&sealed, "x", &["1", "2", "3"]).await;
    let broker = Broker::default();
    let relaying = db.seal(&grant("relay", 1)).await;
    db.settle().await;
    let mut tx = db.guard.begin(&db.pool, &relaying).await.unwrap();
    for (bytes, expected) in [
        (1_i64, 1),
        (1 << 20, 1),
        ((1 << 20) + 1, 2),
        ((1 << 20) + 3, 4_i64),
    ] {
        let text = "SELECT count(*) FROM palisade.outbox_batch('relay', 'main', 10, $1)";
        let batch: i64 = sqlx::query_scalar(text)
            .bind(bytes)
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        assert_eq!(batch, expected, "{bytes}");
    }
    tx.rollback().await.unwrap();
    let few = db
        .relay(&relaying, &broker)
        .with_policy(RelayPolicy::new().with_batch(3));
    let passes = [db.pass(&few).await, db.pass(&few).await];
    assert_eq!(passes.map(|pass| pass.unwrap().published), [3, 1]);
    // The bounds hold for other languages as well.
    let mut plain = db.connect().await;
    let enter = format!("BEGIN; SELECT palisade.enter({});", sql(sealed.grant()));
    let huge = "SELECT palisade.stage('r', 'main', 't', convert_to(repeat('x', 1048577), 'UTF8'))";
    assert_eq!(
        run(&mut plain, &format!("{enter} {huge}")).await,
        Err("23514".to_owned())
    );
}

/// One message that no relay can read would stop its whole outbox; one that says whose it is by a header of
/// its own would pass for another's.
#[tokio::test]
async fn what_other_languages_stage_is_what_a_relay_can_read() {
    let db = Db::new().await;
    let sealed = db.seal(&grant("r", 5)).await;
    let mut plain = db.connect().await;
    let enter = format!("BEGIN; SELECT palisade.enter({});", sql(sealed.grant()));
    let mut refused = 0;
    for (arguments, is_fine) in [
        (r#"headers => '{"n": 1}'"#, false),
        (r#"headers => '{"n": ["a"]}'"#, false),
        (r#"headers => '{"n": null}'"#, false),
        (r#"headers => '{"fence-token": "9007199254740991"}'"#, false),
        (r#"headers => '{"n": "1", "msg-id": "m"}'"#, false),
        ("key => 'alone'", false),
        ("key => 'tenant op k k'", false),
        ("key => ''", false),
        (r#"headers => '{"n": "1"}', key => 'tenant op k'"#, true),
        ("headers => '{}'", true),
    ] {
        let stage =
            format!("{enter} SELECT palisade.stage('r', 'main', 't', 'x', {arguments}); COMMIT");
        let staged = run(&mut plain, &stage).await;
        run(&mut plain, "ROLLBACK").await.unwrap();
        if !is_fine && staged == Err("23514".to_owned()) {
            refused += 1;
        } else if is_fine {
            staged.unwrap();
        }
        // What a consumer gives up came with the headers of its outbox.
        let fail = format!(
            "{enter} SELECT palisade.consumer_failed('r', 'c', 'm', 'e', true, 1, 't', 'x', {arguments}); COMMIT"
        );
        let given_up = run(&mut plain, &fail).await;
        assert!(given_up.is_ok() || given_up == Err("23514".to_owned()));
        run(&mut plain, "ROLLBACK").await.unwrap();
    }
    let broker = Broker::default();
    let relay = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    let pass = db.pass(&relay).await.unwrap();
    assert_eq!((pass.published, refused), (2, 8));
    let letters = db.guard.dead_letters(&db.pool, 0, 20).await.unwrap();
    assert_eq!(letters.len(), 4);
}

/// Two relays of different resources do not exclude each other.
#[tokio::test]
async fn an_outbox_belongs_to_one_resource() {
    let db = Db::new().await;
    let broker = Broker::default();
    let first = db.relay(&db.seal(&grant("relay", 1)).await, &broker);
    db.pass(&first).await.unwrap();
    let second = db.relay(&db.seal(&grant("another", 9)).await, &broker);
    let error = db.pass(&second).await.unwrap_err();
    assert!(matches!(error, GuardError::Backend(_)), "{error:?}");
    assert_eq!(error.class(), Class::Backend);
}
