//! No Rust: psql installs the guard from its printed text, seals, writes and is refused.

use palisade_guard::postgres::script;
use serde_json::{Value, json};

use crate::db::{Db, grant, sql};

#[tokio::test]
async fn psql_alone_meets_every_refusal() {
    let db = Db::empty().await;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("guard.sql");
    std::fs::write(&file, script()).unwrap();
    let psql = async |arguments: &[&str]| {
        let fixed = ["-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose"];
        let line = [&fixed[..], &["-d", &db.name], arguments].concat();
        let result = db.server.tool("psql", &line).await;
        result.map_err(|error| error.to_string())
    };
    psql(&["-f", file.to_str().unwrap()]).await.unwrap();
    let setup = "CREATE TABLE orders (id int); CREATE TABLE accounts (shard text, id int); \
                 SELECT palisade.protect('orders', 'orders'); \
                 SELECT palisade.protect('accounts', resource_columns => ARRAY['shard', 'id'], \
                                         resource_prefix => 'accounts')";
    psql(&["-c", setup]).await.unwrap();
    let held = grant("orders", 42);
    let row = grant("accounts/eu/17", 42);
    for grant in [&held, &row] {
        psql(&["-c", &format!("SELECT palisade.seal({})", sql(grant))])
            .await
            .unwrap();
    }
    let write = |grants: &[&palisade_token::Grant], statement: &str| {
        let entries: String = grants
            .iter()
            .map(|grant| format!("SELECT palisade.enter({}); ", sql(grant)))
            .collect();
        format!("BEGIN; {entries} {statement}; COMMIT")
    };
    let orders = "INSERT INTO orders VALUES (1)";
    let accounts = "INSERT INTO accounts VALUES ('eu', 17)";
    let both = write(&[&held, &row], &format!("{orders}; {accounts}"));
    assert_eq!(psql(&["-c", &both]).await.unwrap(), "ok\nok\n");

    let mut other = held.clone();
    other.holder = palisade_token::HolderId::from_bytes([9; 16]);
    let (old, ahead) = (grant("orders", 41), grant("orders", 43));
    for (text, code, facts) in [
        (
            write(&[&old], orders),
            "ZF001",
            json!({"resource": "orders", "presented": 41, "fence": 42}),
        ),
        (
            write(&[&ahead], orders),
            "ZF002",
            json!({"resource": "orders", "presented": 43, "fence": 42}),
        ),
        (
            write(&[], orders),
            "ZF003",
            json!({"resource": "orders", "presented": null, "fence": null}),
        ),
        (
            write(&[&other], orders),
            "ZF004",
            json!({"resource": "orders", "presented": 42, "fence": 42}),
        ),
        (
            write(
                &[&grant("bills", 1)],
                "SELECT 1; INSERT INTO orders VALUES (1)",
            ),
            "ZF003",
            json!({"resource": "orders", "presented": null, "fence": null}),
        ),
        (
            format!("SELECT palisade.check({})", sql(&grant("bills", 7))),
            "ZF002",
            json!({"resource": "bills", "presented": 7, "fence": null}),
        ),
        (
            format!("SELECT palisade.seal({})", sql(&old)),
            "ZF001",
            json!({"resource": "orders", "presented": 41, "fence": 42}),
        ),
        (
            write(&[&grant("accounts/eu/17", 41)], accounts),
            "ZF001",
            json!({"resource": "accounts/eu/17", "presented": 41, "fence": 42}),
        ),
        (
            write(&[&row], "UPDATE accounts SET id = 18"),
            "ZF003",
            json!({"resource": "accounts/eu/18", "presented": null, "fence": null}),
        ),
    ] {
        let told = psql(&["-c", &text]).await.unwrap_err();
        assert!(told.contains(&format!("{code}: ")), "{text}: {told}");
        let detail = told
            .split("DETAIL:")
            .nth(1)
            .and_then(|rest| rest.lines().next());
        let detail: Value = serde_json::from_str(detail.unwrap()).unwrap();
        assert_eq!(detail, facts, "{text}");
        assert!(told.contains("HINT:"), "{told}");
    }
    let left = psql(&[
        "-c",
        "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM accounts)",
    ]);
    assert_eq!(left.await.unwrap(), "1|1\n");
}
