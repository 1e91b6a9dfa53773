use palisade_test_support::{MariaDb, Postgres};

use crate::program::{Dev, run};

/// The README's first guarded write by hand: `palisade` for the lease, `psql` for the rest.
#[tokio::test]
async fn a_first_guarded_write_by_hand() {
    let postgres = Postgres::start().await.unwrap();
    let psql = async |sql: &str| postgres.psql("postgres", sql).await;
    // Twice: what is installed already is no error.
    for _ in 0..2 {
        let installed = run(&["guard", "install", "--postgres", &postgres.url()]);
        assert_eq!(
            (installed.code, installed.stdout.as_str()),
            (Some(0), ""),
            "{installed:?}"
        );
    }
    let table =
        "CREATE TABLE orders (id bigint, paid boolean); INSERT INTO orders VALUES (7, false)";
    psql(table).await.unwrap();
    psql("SELECT palisade.protect('orders', 'orders')")
        .await
        .unwrap();

    let dev = Dev::start();
    let (first, second) = (acquire(&dev), acquire(&dev));
    let write = |[token, holder]: &[String; 2]| {
        format!(
            "BEGIN; SELECT palisade.check('orders', {token}, '{holder}'); \
             UPDATE orders SET paid = true WHERE id = 7; COMMIT"
        )
    };
    let seal = |[token, holder]: &[String; 2]| {
        format!("SELECT palisade.seal('orders', {token}, '{holder}')")
    };

    psql("UPDATE orders SET paid = true").await.unwrap_err();
    psql(&seal(&first)).await.unwrap();
    psql(&write(&first)).await.unwrap();
    psql(&seal(&second)).await.unwrap();
    let refused = psql(&write(&first)).await.unwrap_err().to_string();
    for token in [&first[0], &second[0]] {
        assert!(refused.contains(token.as_str()), "{refused}");
    }
    psql(&write(&second)).await.unwrap();
}

/// Token and holder of a lease that was released again: what a leader of the past has in its hands.
fn acquire(dev: &Dev) -> [String; 2] {
    let acquired = dev.run(&["acquire", "orders", "--detach"]);
    assert_eq!(acquired.code, Some(0), "{acquired:?}");
    let value = |name: &str| {
        let line = acquired
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.expect(name).to_owned()
    };
    let [token, holder, session, secret] = ["token", "holder", "session", "secret"].map(value);
    let released = dev.run(&[
        "release",
        "orders",
        "--token",
        &token,
        "--session",
        &session,
        "--secret",
        &secret,
    ]);
    assert_eq!(released.code, Some(0), "{released:?}");
    [token, holder]
}

#[test]
fn the_guard_is_installed_in_a_file_that_is_there_only() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("orders.db");
    let path = file.to_str().unwrap();
    let absent = run(&["guard", "install", "--sqlite", path]);
    assert_eq!(absent.code, Some(1), "{absent:?}");
    assert!(!file.exists());
    std::fs::File::create(&file).unwrap();
    let installed = run(&["guard", "install", "--sqlite", path]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    assert!(
        std::fs::read(&file)
            .unwrap()
            .starts_with(b"SQLite format 3")
    );
}

#[test]
fn a_database_that_is_away_is_an_error_without_its_password() {
    let url = "postgres://someone:hunter2@127.0.0.1:1/orders";
    for line in [
        &["guard", "install", "--postgres", url][..],
        &["demo", "--postgres", url],
    ] {
        let away = run(line);
        assert_eq!(away.code, Some(69), "{away:?}");
        assert!(!away.stderr.contains("hunter2"), "{}", away.stderr);
        assert!(away.stderr.contains("cannot be reached"), "{}", away.stderr);
    }
}

#[tokio::test]
async fn a_database_that_refuses_is_heard_and_nobody_else() {
    let postgres = Postgres::start().await.unwrap();
    let role = "CREATE ROLE reader LOGIN";
    postgres.psql("postgres", role).await.unwrap();
    let url = postgres.url();
    let (server, _) = url.rsplit_once('/').unwrap();
    let (scheme, _) = url.split_once("://").unwrap();
    let (_, address) = server.rsplit_once('@').unwrap();
    for (url, says) in [
        (
            format!("{server}/absent"),
            "database \"absent\" does not exist",
        ),
        (
            format!("{scheme}://reader@{address}/postgres"),
            "permission denied for database postgres",
        ),
    ] {
        let refused = run(&["guard", "install", "--postgres", &url]);
        let line = format!("palisade: the database refused: {says}\n");
        assert_eq!(
            (refused.code, refused.stderr.as_str()),
            (Some(1), line.as_str())
        );
    }
}

/// A server whose settings give the audit nothing to say.
async fn quiet() -> Postgres {
    Postgres::builder()
        .setting("idle_in_transaction_session_timeout", "1min")
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn tables_are_protected_and_fences_shown_by_commands() {
    let postgres = quiet().await;
    let url = postgres.url();
    let psql = async |sql: &str| postgres.psql("postgres", sql).await.unwrap();
    let guard = |arguments: &[&str]| {
        let line = [&["guard"], arguments, &["--postgres", &url]].concat();
        run(&line)
    };
    assert_eq!(guard(&["install"]).code, Some(0));
    psql(
        "CREATE TABLE orders (id bigint) PARTITION BY RANGE (id); \
         CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (9); \
         CREATE TABLE accounts (shard text, id bigint)",
    )
    .await;
    let rows = [
        "protect",
        "accounts",
        "--columns",
        "shard,id",
        "--prefix",
        "accounts",
    ];
    for line in [
        &["protect", "orders", "--resource", "orders"][..],
        &rows,
        &rows,
    ] {
        let done = guard(line);
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
    }
    let absent = guard(&["status", "orders"]);
    assert_eq!(absent.code, Some(1), "{absent:?}");
    let holder = "000102030405060708090a0b0c0d0e0f";
    psql(&format!(
        "SELECT palisade.seal('orders', 42, '{holder}'); SELECT palisade.seal('accounts/eu/1', 42, '{holder}')"
    ))
    .await;
    let status = guard(&["status", "orders", "-o", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(
        (status["token"].as_u64(), status["holder"].as_str()),
        (Some(42), Some(holder))
    );

    let sound = guard(&["audit"]);
    assert_eq!(
        (sound.code, sound.stdout.as_str()),
        (Some(0), ""),
        "{sound:?}"
    );
    assert_eq!(guard(&["audit", "-o", "json"]).stdout.trim(), "[]");
    assert_eq!(guard(&["unprotect", "orders"]).code, Some(0));
    psql("TRUNCATE orders").await;
}

#[tokio::test]
async fn the_audit_tells_people_and_programs_what_is_open() {
    let postgres = quiet().await;
    let url = postgres.url();
    let psql = async |sql: &str| postgres.psql("postgres", sql).await.unwrap();
    let audit = |arguments: &[&str]| {
        let line = [&["guard", "audit", "--postgres", &url], arguments].concat();
        run(&line)
    };
    // Without a guard there is nothing to ask.
    assert_eq!(audit(&[]).code, Some(1));
    assert_eq!(run(&["guard", "install", "--postgres", &url]).code, Some(0));
    psql(
        "CREATE TABLE orders (id bigint) PARTITION BY RANGE (id); \
         CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (9); \
         SELECT palisade.protect('orders', 'orders'), palisade.seal('orders', 1, repeat('0f', 16))",
    )
    .await;
    psql("ALTER TABLE orders_1 ENABLE TRIGGER zz_palisade_guard; ALTER EVENT TRIGGER palisade_partitions DISABLE")
        .await;
    let open = audit(&[]);
    assert_eq!(open.code, Some(1), "{open:?}");
    let lines: Vec<&str> = open.stdout.lines().collect();
    assert!(
        lines[0].starts_with("SEVERITY") && lines[0].ends_with("WHAT TO DO"),
        "{open:?}"
    );
    assert!(lines[1].starts_with("error     weak-trigger"), "{open:?}");
    assert!(
        lines[1].ends_with("SELECT palisade.protect('public.orders', 'orders')"),
        "{open:?}"
    );
    assert!(
        lines[2].starts_with("warning   partitions-unwatched"),
        "{open:?}"
    );
    assert!(open.stderr.contains("1 of 2 findings"), "{open:?}");
    let open = audit(&["-o", "jsonl"]);
    assert_eq!(open.code, Some(1), "{open:?}");
    let first: serde_json::Value =
        serde_json::from_str(open.stdout.lines().next().unwrap()).unwrap();
    for (key, value) in [
        ("severity", "error"),
        ("kind", "weak-trigger"),
        ("object", "public.orders_1"),
        ("resource", "orders"),
    ] {
        assert_eq!(first[key], value, "{first}");
    }
    psql(first["advice"].as_str().unwrap()).await;
    let closed = audit(&[]);
    assert_eq!(closed.code, Some(0), "a warning is no failure: {closed:?}");
}

/// The texts that `guard sql` prints do what `guard install` does.
#[tokio::test]
async fn the_printed_guard_installs_itself() {
    let postgres = Postgres::start().await.unwrap();
    let printed = run(&["guard", "sql", "--dialect", "postgres"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stdout.contains("palisade.enter('orders', 42,"));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("guard.sql");
    std::fs::write(&file, &printed.stdout).unwrap();
    let load = [
        "-Xq",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        "postgres",
        "-f",
        file.to_str().unwrap(),
    ];
    postgres.tool("psql", &load).await.unwrap();
    // Again it changes nothing, and to `install` all is there.
    assert!(postgres.tool("psql", &load).await.is_err());
    let installed = run(&["guard", "install", "--postgres", &postgres.url()]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let psql = async |sql: &str| postgres.psql("postgres", sql).await;
    psql("CREATE TABLE orders (id int); SELECT palisade.protect('orders', 'orders')")
        .await
        .unwrap();
    psql("DELETE FROM orders").await.unwrap_err();

    let printed = run(&["guard", "sql", "--dialect", "sqlite"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let file = home.path().join("orders.db");
    std::fs::File::create(&file).unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&file);
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    let script = sqlx::AssertSqlSafe(printed.stdout.clone());
    sqlx::raw_sql(script).execute(&pool).await.unwrap();
    // The triggers stand there as comments, ready for the table that they are about.
    let triggers: String = printed
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("-- "))
        .filter(|line| line.starts_with("CREATE TRIGGER"))
        .collect();
    let protect = format!("CREATE TABLE orders (id INTEGER); {triggers}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(protect))
        .execute(&pool)
        .await
        .unwrap();
    let refused = sqlx::raw_sql("INSERT INTO orders VALUES (1)")
        .execute(&pool)
        .await;
    assert!(refused.unwrap_err().to_string().contains("orders"));
    pool.close().await;
    let installed = run(&["guard", "install", "--sqlite", file.to_str().unwrap()]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
}

#[tokio::test]
async fn the_printed_guard_of_mysql_seals_and_refuses() {
    let printed = run(&["guard", "sql", "--dialect", "mysql"]);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let server = MariaDb::start().await.unwrap();
    server.create_database("store").await.unwrap();
    for _ in 0..2 {
        server.sql("store", &printed.stdout).await.unwrap();
    }
    let seal = |token: u32| format!("CALL palisade_seal('orders', {token}, REPEAT('0a', 16))");
    server.sql("store", &seal(42)).await.unwrap();
    let stale = server.sql("store", &seal(41)).await.unwrap_err();
    assert!(stale.to_string().contains("ZF001"), "{stale}");
    let enter = "START TRANSACTION; CALL palisade_enter('orders', 42, REPEAT('0a', 16)); \
                 CALL palisade_leave(); COMMIT";
    server.sql("store", enter).await.unwrap();
}
