use palisade_guard::sqlite::Guard;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use crate::random::Noise;
use crate::sealed;

#[tokio::test]
async fn sql_of_sqlite() {
    let mut noise = Noise::new("sqlite");
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("noise.sqlite"))
        .create_if_missing(true);
    let pool = SqlitePoolOptions::new()
        .max_connections(2)
        .connect_with(options)
        .await
        .unwrap();
    let (guard, good) = (Guard::new(), sealed());
    guard.install(&pool).await.unwrap();
    sqlx::query("CREATE TABLE orders (id INTEGER)")
        .execute(&pool)
        .await
        .unwrap();
    guard
        .protect(&pool, "orders", &good.resource)
        .await
        .unwrap();
    guard.seal(&pool, &good).await.unwrap();
    for round in 0..2_500 {
        let texts = noise.grant(&good);
        let [resource, token, holder] = &texts;
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let table = if round % 5 == 0 {
            "palisade_fence"
        } else {
            "palisade_entry"
        };
        let rest = if round % 5 == 0 { ", 0" } else { "" };
        let columns = if round % 5 == 0 { ", sealed_at" } else { "" };
        let insert = format!(
            "INSERT OR REPLACE INTO {table} (resource, token, holder{columns}) VALUES (?, ?, ?{rest})"
        );
        let insert = sqlx::query(sqlx::AssertSqlSafe(insert)).bind(resource);
        // Numbers as numbers: an integer column makes the sealed one of ' 42 '.
        let insert = match token.trim().parse::<f64>() {
            Ok(_) => insert.bind(i64::try_from(noise.next() >> 12).unwrap() + 43),
            Err(_) => insert.bind(token),
        };
        drop(insert.bind(holder).execute(&mut *tx).await);
        let written = sqlx::query("INSERT INTO orders VALUES (1)")
            .execute(&mut *tx)
            .await;
        assert!(written.is_err(), "{table}: {texts:?}");
        tx.rollback().await.unwrap();
    }
    for _ in 0..200 {
        let table = noise.text("no_such_table");
        let protected = guard.protect(&pool, &table, &good.resource).await;
        assert!(
            protected.is_err() || table.eq_ignore_ascii_case("orders"),
            "{table:?}"
        );
        assert!(
            guard.unprotect(&pool, &table).await.is_err() || table.eq_ignore_ascii_case("orders"),
            "{table:?}"
        );
    }
}
