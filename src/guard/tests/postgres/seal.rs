use std::time::Duration;

use palisade_guard::postgres::{Guard, SealPolicy};
use palisade_guard::{Blocker, Class, GuardError};
use palisade_test_support::{Postgres, eventually};
use palisade_token::{Grant, HolderId};
use sqlx::PgPool;
use tokio::task::JoinSet;

use crate::db::{Db, PATIENCE, assert_stale, grant, name, run, sql};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_seal_is_raised_repeated_and_never_lowered() {
    let db = Db::new().await;
    assert_eq!(
        db.guard.fence(&db.pool, &name("orders")).await.unwrap(),
        None
    );
    let sealed = db.seal(&grant("orders", 10)).await;
    assert_eq!(sealed.grant(), &grant("orders", 10));
    db.seal(&grant("orders", 10)).await;
    db.seal(&grant("orders", 12)).await;
    let error = db
        .guard
        .seal(&db.pool, &grant("orders", 11))
        .await
        .unwrap_err();
    assert_stale(&error, 11, 12);
    let other = Grant {
        holder: HolderId::from_bytes([99; 16]),
        ..grant("orders", 12)
    };
    let error = db.guard.seal(&db.pool, &other).await.unwrap_err();
    assert!(matches!(error, GuardError::Collision { .. }), "{error:?}");
    let fence = db
        .guard
        .fence(&db.pool, &name("orders"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (fence.token.get(), fence.holder),
        (12, grant("orders", 12).holder)
    );
    let age =
        "SELECT extract(epoch FROM clock_timestamp() - sealed_at)::bigint FROM palisade.fence";
    assert!((0..60).contains(&db.number(age).await));
}

#[tokio::test]
async fn two_seals_of_one_token_have_one_winner() {
    let db = Db::new().await;
    for token in 1..20 {
        let one = grant("orders", token);
        let two = Grant {
            holder: HolderId::from_bytes([99; 16]),
            ..one.clone()
        };
        let (first, second) =
            tokio::join!(db.guard.seal(&db.pool, &one), db.guard.seal(&db.pool, &two));
        let errors: Vec<_> = [first, second]
            .into_iter()
            .filter_map(Result::err)
            .collect();
        assert!(
            matches!(errors.as_slice(), [GuardError::Collision { .. }]),
            "{errors:?}"
        );
    }
}

#[tokio::test]
async fn a_seal_needs_read_committed_and_keeps_what_it_acknowledges() {
    let db = Db::new().await;
    let mut connection = db.connect().await;
    let seal = format!("SELECT palisade.seal({})", sql(&grant("orders", 1)));
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let refused = run(
            &mut connection,
            &format!("BEGIN ISOLATION LEVEL {level}; {seal}"),
        )
        .await;
        assert_eq!(refused, Err("0A000".to_owned()));
        run(&mut connection, "ROLLBACK").await.unwrap();
    }
    for (given, kept) in [
        ("off", "on"),
        ("local", "on"),
        ("on", "on"),
        ("remote_apply", "remote_apply"),
    ] {
        let expect = format!(
            "SET synchronous_commit = {given}; BEGIN; {seal}; DO $$ BEGIN \
             ASSERT current_setting('synchronous_commit') = '{kept}'; END $$; ROLLBACK"
        );
        assert_eq!(run(&mut connection, &expect).await, Ok(()), "{given}");
    }
    // Whatever a session's defaults are, the library's seal is a transaction of its own that may write.
    let setting = format!(
        "ALTER DATABASE \"{}\" SET default_transaction_isolation = 'serializable'; \
         ALTER DATABASE \"{0}\" SET default_transaction_read_only = on",
        db.name
    );
    db.run(&setting).await;
    let pool = PgPool::connect(&db.url).await.unwrap();
    let sealed = db.guard.seal(&pool, &grant("orders", 2)).await.unwrap();
    db.guard
        .begin(&pool, &sealed)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_seal_that_waits_too_long_names_the_blockers() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let held = sql(&grant("orders", 10));
    let mut prepared = db.connect().await;
    let gid = format!("it's {}", db.name);
    let text = format!(
        "BEGIN; SELECT palisade.enter({held}); PREPARE TRANSACTION '{}'",
        gid.replace('\'', "''")
    );
    run(&mut prepared, &text).await.unwrap();
    let mut writer = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut *writer)
        .await
        .unwrap();
    run(&mut writer, "SET LOCAL application_name = 'sleeper'")
        .await
        .unwrap();

    let guard = db.guard.with_seal_policy(SealPolicy::Timeout(SHORT));
    let error = guard
        .seal(&db.pool, &grant("orders", 11))
        .await
        .unwrap_err();
    let GuardError::SealTimeout {
        blockers, waited, ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*waited, SHORT);
    assert_eq!(
        blockers.as_slice(),
        [
            Blocker::Session {
                pid,
                application: Some("sleeper".to_owned()),
                state: Some("idle in transaction".to_owned()),
            },
            Blocker::Prepared { gid: gid.clone() },
        ]
    );
    assert_eq!(error.class(), Class::Retry);
    let text = error.to_string();
    assert!(
        text.contains(&pid.to_string()) && text.contains(&gid),
        "{text}"
    );
    // Nothing was sealed, and the writer is as good as before.
    run(&mut writer, "INSERT INTO orders VALUES (1)")
        .await
        .unwrap();
    writer.commit().await.unwrap();

    // The prepared one outlives a crash of the server's sessions; only the policy ends it.
    let guard = db
        .guard
        .with_seal_policy(SealPolicy::Terminate { after: SHORT });
    let victim = db.guard.begin(&db.pool, &sealed).await.unwrap();
    guard.seal(&db.pool, &grant("orders", 11)).await.unwrap();
    assert_eq!(
        db.number("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()")
            .await,
        0
    );
    let error = victim.commit().await.unwrap_err();
    assert!(
        matches!(
            error,
            GuardError::RolledBack(_) | GuardError::CommitUnknown { .. }
        ),
        "{error:?}"
    );
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 1);
}

#[tokio::test]
async fn a_store_that_went_backwards_is_told_from_a_stale_grant() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let clone = sealed.clone();
    // As a restore would: the fence of before.
    db.run(
        "BEGIN; ALTER TABLE palisade.fence DISABLE TRIGGER USER; UPDATE palisade.fence SET token = 7; \
         ALTER TABLE palisade.fence ENABLE ALWAYS TRIGGER keep_rows, ENABLE ALWAYS TRIGGER keep_all; COMMIT",
    )
    .await;
    let tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(&error, GuardError::StoreWentBackwards { sealed, fence: Some(fence), .. }
            if sealed.get() == 10 && fence.get() == 7),
        "{error:?}"
    );
    assert_eq!(error.class(), Class::Fatal);
    // Dead in every clone, and not sealed again on the quiet.
    let error = db.guard.begin(&db.pool, &clone).await.unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { .. }),
        "{error:?}"
    );
    assert_eq!(db.number("SELECT token FROM palisade.fence").await, 7);
    // Sealing again is the caller's decision.
    let again = db.seal(&grant("orders", 10)).await;
    db.guard
        .begin(&db.pool, &again)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    db.run("DROP SCHEMA palisade CASCADE").await;
    db.guard.install(&db.pool).await.unwrap();
    let tx = db.guard.begin(&db.pool, &again).await.unwrap();
    let error = tx.commit().await.unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { fence: None, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_seal_without_the_right_to_end_blockers_still_names_them() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let role = format!("weak_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    db.run(&format!(
        "CREATE ROLE {role} LOGIN; SELECT palisade.grant_writer('{role}')"
    ))
    .await;
    let weak = db.url.replace("postgres@", &format!("{role}@"));
    let weak = PgPool::connect(&weak).await.unwrap();
    let writer = db.guard.begin(&db.pool, &sealed).await.unwrap();
    let guard = db
        .guard
        .with_seal_policy(SealPolicy::Terminate { after: SHORT });
    let error = guard.seal(&weak, &grant("orders", 11)).await.unwrap_err();
    assert!(
        matches!(&error, GuardError::SealTimeout { blockers, .. } if blockers.len() == 1),
        "{error:?}"
    );
    writer.commit().await.unwrap();
    guard.seal(&weak, &grant("orders", 11)).await.unwrap();
    weak.close().await;
    db.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}"))
        .await;
}

/// A repeat must not answer before what it repeats is durable: its own commit waits for the standby, too.
#[tokio::test]
async fn a_repeated_seal_waits_for_the_synchronous_standby_like_the_first() {
    // A server of its own, for every commit on it comes to wait.
    let server = Postgres::builder().fsync(false).start().await.unwrap();
    let pool = PgPool::connect(&server.create_database("store").await.unwrap())
        .await
        .unwrap();
    let guard = Guard::new();
    guard.install(&pool).await.unwrap();
    let psql = async |sql: &str| server.psql("postgres", sql).await.unwrap();
    let standby = async |names: &str| {
        psql(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
        ))
        .await;
        psql("SELECT pg_reload_conf()").await;
        eventually("the setting is read", PATIENCE, async || {
            psql("SHOW synchronous_standby_names").await.trim() == names
        })
        .await
        .unwrap();
    };
    let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let waits = async || {
        eventually("a commit waits for the standby", PATIENCE, async || {
            !psql(waiting).await.is_empty()
        })
        .await
        .unwrap();
    };
    standby("nobody").await;
    let held = grant("orders", 10);
    let seal = async |guard: Guard, pool: PgPool| {
        let mut seals = JoinSet::new();
        let held = grant("orders", 10);
        seals.spawn(async move { guard.seal(&pool, &held).await });
        waits().await;
        seals
    };
    // A session that ends in the wait has committed here, and tells nobody.
    let mut first = seal(guard, pool.clone()).await;
    psql(&format!(
        "SELECT pg_terminate_backend(pid) FROM ({waiting}) AS w"
    ))
    .await;
    let error = first.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.class(), Class::Backend, "{error:?}");
    assert_eq!(
        guard
            .fence(&pool, &held.resource)
            .await
            .unwrap()
            .unwrap()
            .token,
        held.token
    );

    let mut second = seal(guard, pool.clone()).await;
    standby("").await;
    second.join_next().await.unwrap().unwrap().unwrap();
}

/// An entry of before would let the commit pass under a fence that is above it.
#[tokio::test]
async fn a_transaction_that_has_entered_a_resource_does_not_seal_it() {
    let db = Db::with_orders().await;
    let (old, new) = (sql(&grant("orders", 11)), sql(&grant("orders", 12)));
    db.seal(&grant("orders", 11)).await;
    let mut connection = db.connect().await;
    for (token, level) in [(&new, "raised"), (&old, "repeated")] {
        let both = format!("BEGIN; SELECT palisade.enter({old}); SELECT palisade.seal({token})");
        assert_eq!(
            run(&mut connection, &both).await,
            Err("55000".to_owned()),
            "{level}"
        );
        run(&mut connection, "ROLLBACK").await.unwrap();
    }
    // Another resource, an entry that was taken back, and one of an earlier transaction are no matter.
    let bills = sql(&grant("bills", 1));
    for allowed in [
        format!("BEGIN; SELECT palisade.enter({old}); SELECT palisade.seal({bills}); ROLLBACK"),
        format!(
            "BEGIN; SAVEPOINT s; SELECT palisade.enter({old}); ROLLBACK TO s; SELECT palisade.seal({new}); ROLLBACK"
        ),
        format!("BEGIN; SELECT palisade.enter({old}); COMMIT"),
        format!(
            "BEGIN; SELECT palisade.seal({new}); SELECT palisade.check({new}); INSERT INTO orders VALUES (1, 12); COMMIT"
        ),
    ] {
        assert_eq!(run(&mut connection, &allowed).await, Ok(()), "{allowed}");
    }
}
