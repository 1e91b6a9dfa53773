use palisade_test_support::Postgres;

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

/// What an operator is told to ask a database, from `deploy/README.md`.
fn audit_queries() -> Vec<String> {
    let text = include_str!("../../../../deploy/README.md");
    let blocks = text.split("```sql\n").skip(1);
    blocks
        .map(|block| block.split("```").next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_queries_for_operators_find_what_the_triggers_cannot_see() {
    let postgres = Postgres::start().await.unwrap();
    let psql = async |sql: &str| postgres.psql("postgres", sql).await.unwrap();
    let installed = run(&["guard", "install", "--postgres", &postgres.url()]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    let queries = audit_queries();
    let [weak, inheritance] = queries.as_slice() else {
        panic!("{queries:?}")
    };
    psql(
        "CREATE TABLE orders (id bigint) PARTITION BY RANGE (id); \
         CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (0) TO (9); \
         SELECT palisade.protect('orders', 'orders'); \
         CREATE TABLE plain (id bigint) PARTITION BY RANGE (id); \
         CREATE TABLE plain_1 PARTITION OF plain FOR VALUES FROM (0) TO (9)",
    )
    .await;
    for query in &queries {
        assert_eq!(psql(query).await, "", "{query}");
    }
    psql("CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM (9) TO (99)").await;
    assert_eq!(psql(inheritance).await.trim(), "orders|t|orders_2|f");
    psql("SELECT palisade.protect('orders', 'orders')").await;
    assert_eq!(psql(inheritance).await, "");

    psql(
        "CREATE TABLE plain_2 (id bigint); SELECT palisade.protect('plain_2', 'plain'); \
         ALTER TABLE plain ATTACH PARTITION plain_2 FOR VALUES FROM (9) TO (99)",
    )
    .await;
    assert_eq!(psql(inheritance).await.trim(), "plain|f|plain_2|t");
    psql("SELECT palisade.protect('plain', 'plain')").await;
    assert_eq!(psql(inheritance).await, "");

    psql("ALTER TABLE orders ENABLE TRIGGER zz_palisade_guard").await;
    assert_eq!(psql(weak).await.trim(), "orders|zz_palisade_guard|O");
    psql("SELECT palisade.protect('orders', 'orders')").await;
    assert_eq!(psql(weak).await, "");
}
