//! Writers and seals in one queue: nobody starves, nobody deadlocks, whatever comes first.

use std::time::Duration;

use palisade_guard::postgres::SealPolicy;
use palisade_test_support::within;
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;

use crate::db::{Db, PATIENCE, assert_stale, grant, name, run, sql};

/// Something that goes on by itself.
fn spawn<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> JoinSet<T> {
    let mut task = JoinSet::new();
    task.spawn(work);
    task
}

async fn ended<T: 'static>(mut task: JoinSet<T>) -> T {
    let ended = within("a session goes on", PATIENCE, task.join_next()).await;
    ended.unwrap().unwrap().unwrap()
}

/// Runs SQL on a session of its own, which it gives back.
async fn on(mut session: PgConnection, text: String) -> (PgConnection, Result<(), String>) {
    let result = run(&mut session, &text).await;
    (session, result)
}

/// `SELECT … FOR SHARE` would let writers that overlap keep the seal waiting for ever; here who comes later
/// waits behind it, and is stale.
#[tokio::test]
async fn a_later_writer_queues_behind_a_waiting_seal() {
    let db = Db::with_orders().await;
    let old = db.seal(&grant("orders", 10)).await;
    let running = db.guard.begin(&db.pool, &old).await.unwrap();
    let guard = db.guard.with_seal_policy(SealPolicy::Wait);
    let pool = db.pool.clone();
    let mut seal = spawn(async move { guard.seal(&pool, &grant("orders", 11)).await });
    db.waiting(1).await;
    let mut later = Vec::new();
    for _ in 0..5 {
        let (guard, pool, old) = (db.guard, db.pool.clone(), old.clone());
        later.push(spawn(async move {
            guard.begin(&pool, &old).await.unwrap().commit().await
        }));
    }
    db.waiting(6).await;
    assert!(seal.try_join_next().is_none());
    running.commit().await.unwrap();
    ended(seal).await.unwrap();
    for writer in later {
        let error = ended(writer).await.unwrap_err();
        assert_stale(&error, 10, 11);
    }
}

/// Two writers that enter two resources in opposite orders, a seal waiting for either: the server lets the
/// writers pass the seals after `deadlock_timeout`, and nobody fails.
#[tokio::test]
async fn opposite_orders_under_waiting_seals_stall_and_go_on() {
    let db = Db::new().await;
    let [left, right] = ["left", "right"].map(|resource| grant(resource, 10));
    for held in [&left, &right] {
        db.seal(held).await;
    }
    let enter = |held| format!("SELECT palisade.enter({})", sql(held));
    let (mut a, mut b) = (db.connect().await, db.connect().await);
    run(&mut a, &format!("BEGIN; {}", enter(&left)))
        .await
        .unwrap();
    run(&mut b, &format!("BEGIN; {}", enter(&right)))
        .await
        .unwrap();
    let mut seals = Vec::new();
    for resource in ["left", "right"] {
        let text = format!("SELECT palisade.seal({})", sql(&grant(resource, 11)));
        seals.push(spawn(on(db.connect().await, text)));
    }
    db.waiting(2).await;
    let a = spawn(on(a, format!("{}; COMMIT", enter(&right))));
    let b = spawn(on(b, format!("{}; COMMIT", enter(&left))));
    for task in [a, b].into_iter().chain(seals) {
        assert_eq!(ended(task).await.1, Ok(()));
    }
}

/// The lock after a row lock, which the library never takes so: a stall of `deadlock_timeout`, no error.
#[tokio::test]
async fn a_row_lock_before_the_entry_stalls_and_goes_on() {
    let db = Db::new().await;
    db.run("CREATE TABLE free (id bigint); INSERT INTO free VALUES (1)")
        .await;
    let held = grant("orders", 10);
    db.seal(&held).await;
    let (mut first, mut second) = (db.connect().await, db.connect().await);
    let update = "UPDATE free SET id = id";
    run(&mut first, &format!("BEGIN; {update}")).await.unwrap();
    run(
        &mut second,
        &format!("BEGIN; SELECT palisade.enter({})", sql(&held)),
    )
    .await
    .unwrap();
    let second = spawn(on(second, format!("{update}; COMMIT")));
    db.waiting(1).await;
    let seal = format!("SELECT palisade.seal({})", sql(&grant("orders", 11)));
    let seal = spawn(on(db.connect().await, seal));
    db.waiting(2).await;
    let first = spawn(on(
        first,
        format!("SELECT palisade.check({}); COMMIT", sql(&held)),
    ));
    for task in [first, second, seal] {
        assert_eq!(ended(task).await.1, Ok(()));
    }
}

/// Two neighbours of one stripe in two transactions that each entered, and then seal the other: a lock that is
/// raised deadlocks, so one fails as such. Seal in a transaction of its own.
#[tokio::test]
async fn a_seal_under_an_entry_of_a_neighbour_deadlocks_as_an_error() {
    let db = Db::new().await;
    let pairs = "SELECT a::bigint FROM generate_series(1, 3000) AS a \
                 WHERE palisade.stripe('n/' || a) = palisade.stripe('n/0') LIMIT 1";
    let (left, right) = ("n/0".to_owned(), format!("n/{}", db.number(pairs).await));
    let mut tasks = Vec::new();
    let mut sessions = Vec::new();
    for resource in [&left, &right] {
        db.seal(&grant(resource, 10)).await;
    }
    for (own, other) in [(&left, &right), (&right, &left)] {
        let mut session = db.connect().await;
        let enter = format!("BEGIN; SELECT palisade.enter({})", sql(&grant(own, 10)));
        run(&mut session, &enter).await.unwrap();
        sessions.push((
            session,
            format!("SELECT palisade.seal({}); COMMIT", sql(&grant(other, 11))),
        ));
    }
    for (session, text) in sessions {
        tasks.push(spawn(on(session, text)));
    }
    let mut results = Vec::new();
    for task in tasks {
        let (session, result) = ended(task).await;
        session.close().await.unwrap();
        results.push(result);
    }
    results.sort();
    assert_eq!(results, [Ok(()), Err("40P01".to_owned())]);
}

/// Each policy against a writer that does not end by itself.
#[tokio::test]
async fn a_seal_waits_or_gives_up_or_ends_its_blockers() {
    let db = Db::with_orders().await;
    let held = sql(&grant("orders", 10));
    db.seal(&grant("orders", 10)).await;
    let hang = format!("BEGIN; SELECT palisade.enter({held}); INSERT INTO orders VALUES (1, 10)");
    let mut writer = db.connect().await;
    run(&mut writer, &hang).await.unwrap();
    let short = Duration::from_millis(100);
    let seal = async |policy, token| {
        let guard = db.guard.with_seal_policy(policy);
        guard.seal(&db.pool, &grant("orders", token)).await
    };
    let error = seal(SealPolicy::Timeout(short), 11).await.unwrap_err();
    assert!(
        matches!(&error, palisade_guard::GuardError::SealTimeout { blockers, .. } if blockers.len() == 1),
        "{error:?}"
    );
    // Nothing was sealed: the writer is as good as it was, and the one that waits gets its turn.
    let guard = db.guard.with_seal_policy(SealPolicy::Wait);
    let pool = db.pool.clone();
    let waiting = spawn(async move { guard.seal(&pool, &grant("orders", 11)).await });
    db.waiting(1).await;
    run(&mut writer, "COMMIT").await.unwrap();
    ended(waiting).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 1);

    let mut writer = db.connect().await;
    run(
        &mut writer,
        &hang
            .replace("10, '", "11, '")
            .replace(&"0a".repeat(16), &"0b".repeat(16)),
    )
    .await
    .unwrap();
    seal(SealPolicy::Terminate { after: short }, 12)
        .await
        .unwrap();
    assert!(writer.ping().await.is_err(), "its session was ended");
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 1);
    assert_eq!(
        db.guard
            .fence(&db.pool, &name("orders"))
            .await
            .unwrap()
            .unwrap()
            .token
            .get(),
        12
    );
}
