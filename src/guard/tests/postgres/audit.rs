//! What the audit finds. (What it finds of partitions is tested in `partitions`.)

use palisade_guard::postgres::{Finding, Severity};
use palisade_guard::{Class, GuardError};
use palisade_test_support::{Postgres, eventually};
use sqlx::PgPool;

use crate::db::{Db, PATIENCE, code, grant, name, run, sql};

async fn kinds(db: &Db, severity: Severity) -> Vec<String> {
    let findings = db.guard.audit(&db.pool).await.unwrap();
    told_in_full(&findings);
    findings
        .into_iter()
        // Of the server, not of this database.
        .filter(|finding| finding.severity == severity && finding.kind != "setting")
        .map(|finding| finding.kind)
        .collect()
}

#[track_caller]
fn told_in_full(findings: &[Finding]) {
    for finding in findings {
        for text in [&finding.object, &finding.problem, &finding.advice] {
            assert!(!text.is_empty(), "{finding:?}");
        }
    }
    assert!(findings.is_sorted_by_key(|finding| finding.severity == Severity::Warning));
}

#[tokio::test]
async fn what_is_sound_is_no_finding() {
    let db = Db::with_orders().await;
    db.seal(&grant("orders", 1)).await;
    assert_eq!(kinds(&db, Severity::Error).await, [""; 0]);
    assert_eq!(kinds(&db, Severity::Warning).await, [""; 0]);
}

#[tokio::test]
async fn what_is_amiss_but_closed_is_a_warning() {
    let db = Db::with_orders().await;
    assert_eq!(kinds(&db, Severity::Warning).await, ["never-sealed"]);
    db.seal(&grant("orders", 1)).await;
    db.run("CREATE TABLE rows (id bigint); SELECT palisade.protect('rows', ARRAY['id'], 'rows')")
        .await;
    assert_eq!(kinds(&db, Severity::Warning).await, ["never-sealed"]);
    db.seal(&grant("rows/7", 1)).await;
    db.run("ALTER TABLE rows RENAME id TO number").await;
    assert_eq!(kinds(&db, Severity::Warning).await, ["column-gone"]);
    db.run("DROP TABLE rows; CREATE TABLE below () INHERITS (orders)")
        .await;
    for weaken in ["DISABLE", "ENABLE", "ENABLE REPLICA"] {
        db.run(&format!("ALTER EVENT TRIGGER palisade_partitions {weaken}"))
            .await;
        assert_eq!(
            kinds(&db, Severity::Warning).await,
            ["partitions-unwatched"]
        );
        db.run("SELECT palisade.watch_partitions()").await;
        assert_eq!(kinds(&db, Severity::Warning).await, [""; 0]);
    }
    assert_eq!(kinds(&db, Severity::Error).await, [""; 0]);
}

#[tokio::test]
async fn a_fence_that_does_not_keep_itself_is_an_error_until_the_advice_is_taken() {
    let db = Db::with_orders().await;
    for weaken in [
        "ALTER TABLE palisade.fence DISABLE TRIGGER keep_rows",
        "ALTER TABLE palisade.fence ENABLE TRIGGER keep_all",
        "DROP TRIGGER keep_rows ON palisade.fence",
        "DROP TRIGGER keep_all ON palisade.fence",
    ] {
        db.run(weaken).await;
        let findings = db.guard.audit(&db.pool).await.unwrap();
        let found: Vec<_> = findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .collect();
        assert_eq!(found.len(), 1, "{weaken}: {found:?}");
        assert_eq!(found[0].kind, "fence-open");
        db.run(&found[0].advice).await;
        assert_eq!(kinds(&db, Severity::Error).await, [""; 0], "{weaken}");
    }
}

/// What the audit says to do about a weak table can be run as it is.
#[tokio::test]
async fn the_advice_for_a_table_mends_it() {
    let db = Db::new().await;
    db.run(
        "CREATE SCHEMA \"Odd '\"; CREATE TABLE \"Odd '\".t (\"i'd\" bigint, e text); \
         SELECT palisade.protect('\"Odd ''\".t', ARRAY['i''d', 'e'], 'a/b')",
    )
    .await;
    db.run("ALTER TABLE \"Odd '\".t DISABLE TRIGGER zz_palisade_guard")
        .await;
    let findings = db.guard.audit(&db.pool).await.unwrap();
    let weak = findings.iter().find(|f| f.kind == "weak-trigger").unwrap();
    assert_eq!(weak.resource.as_deref(), Some("a/b/{i'd}/{e}"));
    db.run(&weak.advice).await;
    assert_eq!(kinds(&db, Severity::Error).await, [""; 0]);
}

#[tokio::test]
async fn who_may_ask() {
    let db = Db::with_orders().await;
    db.seal(&grant("orders", 1)).await;
    let role = format!("auditor_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    db.run(&format!(
        "CREATE ROLE {role} LOGIN; SELECT palisade.grant_writer('{role}')"
    ))
    .await;
    let pool = PgPool::connect(&db.url.replace("postgres@", &format!("{role}@")))
        .await
        .unwrap();
    let error = db.guard.audit(&pool).await.unwrap_err();
    assert_eq!(error.class(), Class::Backend, "{error:?}");
    // A writer that owns the table can take the guard off; so it is told.
    db.run(&format!(
        "SELECT palisade.grant_owner('{role}'); ALTER TABLE orders OWNER TO {role}"
    ))
    .await;
    let findings = db.guard.audit(&pool).await.unwrap();
    assert!(findings.iter().any(|finding| finding.kind == "writer-owns"));
    pool.close().await;
    db.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}"))
        .await;
}

/// Logical replication applies rows without firing statement triggers; row guards stop it. Its first copy is
/// a COPY, and stopped by both.
#[tokio::test]
async fn logical_replication_passes_whole_tables_and_stops_at_rows() {
    let server = Postgres::builder()
        .fsync(false)
        .setting("wal_level", "logical")
        .start()
        .await
        .unwrap();
    let psql = async |database: &str, sql: &str| server.psql(database, sql).await.unwrap();
    let source = server.create_database("source").await.unwrap();
    let pool = PgPool::connect(&server.create_database("target").await.unwrap())
        .await
        .unwrap();
    let guard = palisade_guard::postgres::Guard::new();
    guard.install(&pool).await.unwrap();
    let tables = "CREATE TABLE whole (id bigint PRIMARY KEY); CREATE TABLE rows (id bigint PRIMARY KEY); \
         CREATE TABLE copied (id bigint PRIMARY KEY)";
    psql("target", tables).await;
    for table in ["whole", "copied"] {
        guard.protect(&pool, table, &name(table)).await.unwrap();
    }
    guard
        .protect_rows(&pool, "rows", Some(&name("rows")), &["id"])
        .await
        .unwrap();
    psql("source", tables).await;
    // The slot first: within one server CREATE SUBSCRIPTION would wait for itself.
    psql("source", "INSERT INTO copied VALUES (1)").await;
    for (table, copies) in [("whole", false), ("rows", false), ("copied", true)] {
        psql(
            "source",
            &format!("CREATE PUBLICATION {table} FOR TABLE {table}"),
        )
        .await;
        psql(
            "source",
            &format!("SELECT pg_create_logical_replication_slot('{table}', 'pgoutput')"),
        )
        .await;
        psql(
            "target",
            &format!(
                "CREATE SUBSCRIPTION {table} CONNECTION '{source}' PUBLICATION {table} \
                 WITH (create_slot = false, slot_name = '{table}', copy_data = {copies})"
            ),
        )
        .await;
    }
    psql(
        "source",
        "INSERT INTO whole VALUES (1); INSERT INTO rows VALUES (1)",
    )
    .await;
    eventually("the row arrives", PATIENCE, async || {
        psql("target", "SELECT count(*) FROM whole").await.trim() == "1"
    })
    .await
    .unwrap();
    eventually("the other is refused, and tried again", PATIENCE, async || {
        let failed = "SELECT apply_error_count > 1 FROM pg_stat_subscription_stats WHERE subname = 'rows'";
        psql("target", failed).await.trim() == "t"
    })
    .await
    .unwrap();
    assert_eq!(
        psql("target", "SELECT count(*) FROM rows").await.trim(),
        "0"
    );
    eventually("the first copy is refused", PATIENCE, async || {
        let failed =
            "SELECT sync_error_count > 0 FROM pg_stat_subscription_stats WHERE subname = 'copied'";
        psql("target", failed).await.trim() == "t"
    })
    .await
    .unwrap();
    let copied = psql("target", "SELECT count(*) FROM copied").await;
    assert_eq!(copied.trim(), "0");
    let findings = guard.audit(&pool).await.unwrap();
    let open: Vec<_> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| (finding.kind.as_str(), finding.object.as_str()))
        .collect();
    let tables = ["public.copied", "public.whole"];
    assert_eq!(open, tables.map(|table| ("replicated-into", table)));
}

/// `--disable-triggers` loads data past the guard, and leaves its triggers at less than ALWAYS.
#[tokio::test]
async fn a_dump_loaded_with_triggers_disabled_is_found() {
    let db = Db::with_orders().await;
    let sealed = db.seal(&grant("orders", 10)).await;
    let mut tx = db.guard.begin(&db.pool, &sealed).await.unwrap();
    run(&mut tx, "INSERT INTO orders VALUES (1, 10)")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dump.sql");
    let file = file.to_str().unwrap();
    let load = ["-Xq", "-v", "ON_ERROR_STOP=1", "-d", &db.name, "-f", file];
    let plain = ["-d", &db.name, "-f", file, "--data-only", "-t", "orders"];
    db.server.tool("pg_dump", &plain).await.unwrap();
    let refused = db.server.tool("psql", &load).await.unwrap_err();
    assert!(refused.to_string().contains("unguarded"));
    let disabling = [
        "-d",
        &db.name,
        "-f",
        file,
        "--data-only",
        "--disable-triggers",
        "-t",
        "orders",
    ];
    db.server.tool("pg_dump", &disabling).await.unwrap();
    db.server.tool("psql", &load).await.unwrap();
    assert_eq!(db.number("SELECT count(*) FROM orders").await, 2);
    assert_eq!(kinds(&db, Severity::Error).await, ["weak-trigger"]);
    db.guard
        .protect(&db.pool, "orders", &name("orders"))
        .await
        .unwrap();
    assert_eq!(kinds(&db, Severity::Error).await, [""; 0]);
}

/// Whoever is admitted by a restored fence may be stale since: until it is sealed again the audit says so.
#[tokio::test]
async fn a_fence_from_another_database_is_found_until_it_is_sealed_again() {
    let db = Db::with_orders().await;
    db.seal(&grant("orders", 10)).await;
    db.seal(&grant("bills", 10)).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("dump.sql");
    let file = file.to_str().unwrap();
    let copy = format!("copy_{}", db.name)
        .chars()
        .take(60)
        .collect::<String>();
    let url = db.server.create_database(&copy).await.unwrap();
    db.server
        .tool("pg_dump", &["-d", &db.name, "-f", file])
        .await
        .unwrap();
    let load = ["-Xq", "-v", "ON_ERROR_STOP=1", "-d", &copy, "-f", file];
    db.server.tool("psql", &load).await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    let errors = async || {
        let mut findings = db.guard.audit(&pool).await.unwrap();
        findings.retain(|finding| finding.severity == Severity::Error);
        findings
    };
    let found = errors().await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].kind.as_str(), found[0].resource.as_deref()),
        ("other-history", Some("bills"))
    );
    // The same grant again, and a later one.
    db.guard.seal(&pool, &grant("bills", 10)).await.unwrap();
    let found = errors().await;
    assert_eq!(found[0].resource.as_deref(), Some("orders"));
    db.guard.seal(&pool, &grant("orders", 11)).await.unwrap();
    assert_eq!(errors().await, []);
    pool.close().await;
}

/// Files that were put back under a running holder: it learns it at its next commit, and nothing is sealed
/// for it. A server that was promoted is found by the audit, too.
#[tokio::test]
async fn a_server_restored_from_its_files_kills_what_was_sealed_since() {
    let mut server = Postgres::builder().fsync(false).start().await.unwrap();
    let guard = palisade_guard::postgres::Guard::new();
    let url = server.create_database("store").await.unwrap();
    let pool = PgPool::connect(&url).await.unwrap();
    guard.install(&pool).await.unwrap();
    server
        .psql(
            "store",
            "CREATE TABLE orders (id bigint); SELECT palisade.protect('orders', 'orders')",
        )
        .await
        .unwrap();
    guard.seal(&pool, &grant("orders", 9)).await.unwrap();
    let data = server.socket_dir().join("data");
    let backup = server.socket_dir().join("backup");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let status = std::process::Command::new("cp")
            .arg("-a")
            .args([from, to])
            .status();
        assert!(status.unwrap().success());
    };
    pool.close().await;
    server.stop().await.unwrap();
    copy(&data, &backup);
    server.start_again().await.unwrap();

    let pool = PgPool::connect(&url).await.unwrap();
    let sealed = guard.seal(&pool, &grant("orders", 10)).await.unwrap();
    let clone = sealed.clone();
    guard
        .begin(&pool, &sealed)
        .await
        .unwrap()
        .commit()
        .await
        .unwrap();
    server.stop().await.unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    std::fs::write(data.join("standby.signal"), "").unwrap();
    server.start_again().await.unwrap();
    server.psql("store", "SELECT pg_promote()").await.unwrap();

    let pool = PgPool::connect(&url).await.unwrap();
    let mut tx = guard.begin(&pool, &sealed).await.unwrap();
    let write = sqlx::query("INSERT INTO orders VALUES (1)")
        .execute(&mut *tx)
        .await;
    let error = write.unwrap_err();
    assert_eq!(code(&error), "ZF002");
    let error = tx.refusal(error);
    assert!(
        matches!(error, GuardError::StoreWentBackwards { fence: Some(fence), .. } if fence.get() == 9),
        "{error:?}"
    );
    drop(tx);
    let error = guard.begin(&pool, &clone).await.unwrap_err();
    assert!(
        matches!(error, GuardError::StoreWentBackwards { .. }),
        "{error:?}"
    );
    let fence = guard.fence(&pool, &name("orders")).await.unwrap().unwrap();
    assert_eq!(fence.token.get(), 9, "never sealed on the quiet");
    // Whom the old fence admits is admitted, until somebody seals: so the audit warns of every fence here.
    let findings = guard.audit(&pool).await.unwrap();
    assert!(
        findings
            .iter()
            .any(|finding| finding.kind == "other-history"),
        "{findings:?}"
    );
    guard.seal(&pool, &grant("orders", 11)).await.unwrap();
    let findings = guard.audit(&pool).await.unwrap();
    assert!(
        !findings
            .iter()
            .any(|finding| finding.kind == "other-history"),
        "{findings:?}"
    );
    let old = format!("SELECT palisade.check({})", sql(&grant("orders", 9)));
    assert!(server.psql("store", &old).await.is_err());
}
