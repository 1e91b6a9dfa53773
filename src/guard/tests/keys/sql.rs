//! Without this library: the functions, from any language, with a writer's rights.

use sqlx::{AssertSqlSafe, PgConnection};

use crate::db::{Db, grant, run, sql};
use crate::ledger::with_ledger;

const CLAIM: &str = "'tenant', 'credit', 'k', '\\x01aa'";
const NAME: &str = "'tenant', 'credit', 'k'";

async fn outcome(connection: &mut PgConnection, call: &str) -> String {
    let text = format!("SELECT concat_ws(' ', outcome, answer) FROM palisade.{call}");
    sqlx::query_scalar(AssertSqlSafe(text))
        .fetch_one(connection)
        .await
        .unwrap()
}

/// A connection of a role that may write the ledger and was granted what a writer needs.
async fn writer(db: &Db) -> PgConnection {
    let role = format!("writer_{}", db.name);
    let mut connection = db.connect().await;
    let setup = format!(
        "CREATE ROLE {role}; GRANT INSERT, SELECT ON ledger TO {role}; \
         SELECT palisade.grant_writer('{role}'); SET SESSION AUTHORIZATION {role}"
    );
    run(&mut connection, &setup).await.unwrap();
    connection
}

fn enter(token: u64) -> String {
    format!("SELECT palisade.enter({})", sql(&grant("ledger", token)))
}

#[tokio::test]
async fn plain_sql_applies_an_effect_once() {
    let db = with_ledger().await;
    db.seal(&grant("ledger", 10)).await;
    let mut c = writer(&db).await;
    run(&mut c, &format!("BEGIN; {}", enter(10))).await.unwrap();
    let begin = format!("once_begin('ledger', {CLAIM})");
    assert_eq!(outcome(&mut c, &begin).await, "claimed");
    run(
        &mut c,
        &format!("INSERT INTO ledger VALUES ('k', 5); SELECT palisade.once_finish({NAME}, '{{\"ok\":5}}'); COMMIT"),
    )
    .await
    .unwrap();
    run(&mut c, &format!("BEGIN; {}", enter(10))).await.unwrap();
    assert_eq!(outcome(&mut c, &begin).await, r#"replayed {"ok":5}"#);
    let other = begin.replace("aa", "bb");
    assert_eq!(outcome(&mut c, &other).await, "mismatch");
    run(&mut c, "ROLLBACK").await.unwrap();
    // In the tables of the schema a writer has no business.
    for text in [
        "SELECT * FROM palisade.effect",
        "DELETE FROM palisade.effect",
        "UPDATE palisade.effect SET answer = '6'",
        "INSERT INTO palisade.effect SELECT * FROM palisade.effect",
    ] {
        assert_eq!(run(&mut c, text).await, Err("42501".to_owned()), "{text}");
    }
    // And who was granted nothing may do nothing.
    let role = format!("nobody_{}", db.name);
    let mut nobody = db.connect().await;
    run(
        &mut nobody,
        &format!("CREATE ROLE {role}; SET SESSION AUTHORIZATION {role}"),
    )
    .await
    .unwrap();
    for call in [
        format!("once_begin('ledger', {CLAIM})"),
        format!("claim('ledger', {CLAIM}, NULL, '1 day')"),
        format!("once_finish({NAME}, '1')"),
        format!("once_cancel({NAME})"),
        format!("attempt_begin('ledger', {CLAIM})"),
        format!("attempt_open('ledger', {NAME}, 1)"),
        format!("attempt_finish('ledger', {NAME}, 1, '1')"),
        "unfinished('ledger')".to_owned(),
        "purge_effects()".to_owned(),
        "admitted('ledger')".to_owned(),
    ] {
        let called = run(&mut nobody, &format!("SELECT palisade.{call}")).await;
        assert_eq!(called, Err("42501".to_owned()), "{call}");
    }
}

/// No key is claimed, answered or taken over by who was not admitted, even without a protected table.
#[tokio::test]
async fn plain_sql_claims_no_key_without_a_good_entry() {
    let db = with_ledger().await;
    db.seal(&grant("ledger", 10)).await;
    let mut c = writer(&db).await;
    run(&mut c, &format!("BEGIN; {}", enter(10))).await.unwrap();
    let begun = format!("attempt_begin('ledger', {CLAIM})");
    assert_eq!(outcome(&mut c, &begun).await, "claimed");
    run(&mut c, "COMMIT").await.unwrap();
    db.seal(&grant("ledger", 11)).await;
    for (entry, code) in [
        ("SELECT 1".to_owned(), "ZF003"),
        (enter(10), "ZF001"),
        (enter(12), "ZF002"),
    ] {
        for call in [
            format!("once_begin('ledger', {CLAIM})"),
            format!("attempt_begin('ledger', {CLAIM})"),
            format!("attempt_open('ledger', {NAME}, 1)"),
            format!("attempt_finish('ledger', {NAME}, 1, '1')"),
            format!("attempt_finish('ledger', {NAME}, 1, NULL)"),
        ] {
            let refused = run(&mut c, &format!("BEGIN; {entry}; SELECT palisade.{call}")).await;
            assert_eq!(refused, Err(code.to_owned()), "{entry} {call}");
            run(&mut c, "ROLLBACK").await.unwrap();
        }
    }
    // Nor is another's attempt finished by who has not taken it over.
    run(&mut c, &format!("BEGIN; {}", enter(11))).await.unwrap();
    let open = format!("attempt_open('ledger', {NAME}, 1)");
    assert_eq!(outcome(&mut c, &open).await, "superseded");
    let finish = format!("SELECT palisade.attempt_finish('ledger', {NAME}, 1, '1')");
    assert_eq!(run(&mut c, &finish).await, Err("55000".to_owned()));
    run(&mut c, "ROLLBACK").await.unwrap();
    let unfinished =
        "SELECT count(*) FROM palisade.effect WHERE attempt = 1 AND attempt_until IS NOT NULL";
    assert_eq!(db.number(unfinished).await, 1);
}

/// A claim that is forgotten takes its effect with it.
#[tokio::test]
async fn plain_sql_commits_no_effect_without_its_answer() {
    let db = with_ledger().await;
    db.seal(&grant("ledger", 10)).await;
    let mut c = writer(&db).await;
    let begin = format!("once_begin('ledger', {CLAIM})");
    let write = "INSERT INTO ledger VALUES ('k', 5)";
    let forgotten = format!(
        "BEGIN; {}; SELECT palisade.{begin}; {write}; COMMIT",
        enter(10)
    );
    assert_eq!(run(&mut c, &forgotten).await, Err("55000".to_owned()));
    // Nor with one that is none.
    let none = format!(
        "BEGIN; {}; SELECT palisade.{begin}; {write}; SELECT palisade.once_finish({NAME}, NULL); COMMIT",
        enter(10)
    );
    assert_eq!(run(&mut c, &none).await, Err("55000".to_owned()));
    run(&mut c, "ROLLBACK").await.unwrap();
    let twice = format!(
        "BEGIN; {}; SELECT palisade.{begin}; SELECT palisade.once_finish({NAME}, '1'); \
         SELECT palisade.once_finish({NAME}, '2')",
        enter(10)
    );
    assert_eq!(run(&mut c, &twice).await, Err("55000".to_owned()));
    run(&mut c, "ROLLBACK").await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM ledger").await, 0);
    // Given back, together with what was written.
    let given_back = format!(
        "BEGIN; {}; SAVEPOINT s; SELECT palisade.{begin}; {write}; ROLLBACK TO s; \
         SELECT palisade.{begin}; SELECT palisade.once_cancel({NAME}); COMMIT",
        enter(10)
    );
    run(&mut c, &given_back).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM palisade.effect").await, 0);
    // What is finished is neither given back nor answered anew.
    let finished = format!(
        "BEGIN; {}; SELECT palisade.{begin}; SELECT palisade.once_finish({NAME}, '1'); COMMIT; \
         SELECT palisade.once_cancel({NAME})",
        enter(10)
    );
    run(&mut c, &finished).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM palisade.effect").await, 1);
}
