use palisade_guard::mysql::Guard;
use palisade_test_support::MariaDb;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, MySqlPool};

use crate::random::{Noise, parsed};
use crate::sealed;

async fn number(connection: &mut MySqlConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn procedures_of_mariadb() {
    let mut noise = Noise::new("mysql");
    let server = MariaDb::start().await.unwrap();
    let url = server.create_database("noise").await.unwrap();
    let pool = MySqlPool::connect(&url).await.unwrap();
    let (guard, good) = (Guard::new(), sealed());
    guard.install(&pool).await.unwrap();
    sqlx::query("CREATE TABLE orders (id BIGINT) ENGINE = InnoDB")
        .execute(&pool)
        .await
        .unwrap();
    guard
        .protect(&pool, "orders", &good.resource)
        .await
        .unwrap();
    let held = guard.seal(&pool, &good).await.unwrap();
    // A good entry is there all the time: of another session, and not for the taking.
    let entered = guard.begin(&pool, &held).await.unwrap();
    let mut connection = MySqlConnection::connect(&url).await.unwrap();
    for _ in 0..2_000 {
        let texts = noise.grant(&good);
        let [resource, token, holder] = &texts;
        let kind = noise.below(4);
        if kind == 2 {
            if parsed(&texts).is_none() {
                let is_bytes = noise.below(2) == 0;
                let call = sqlx::query("CALL palisade_seal(?, ?, ?)");
                let call = if is_bytes {
                    call.bind(resource.as_bytes())
                        .bind(token.as_bytes())
                        .bind(holder.as_bytes())
                } else {
                    call.bind(resource).bind(token).bind(holder)
                };
                let sealed = call.execute(&mut connection).await;
                assert!(sealed.is_err(), "{texts:?}");
            }
            continue;
        }
        let mut tx = connection.begin().await.unwrap();
        if kind == 3 {
            // The session's own mark, with noise in it.
            let set = sqlx::query("SET @palisade_stamp = ?");
            let set = match noise.below(3) {
                0 => set.bind(noise.text("42")).execute(&mut *tx).await,
                1 => set.bind(noise.bytes()).execute(&mut *tx).await,
                _ => set.bind(noise.next()).execute(&mut *tx).await,
            };
            drop(set);
        } else {
            let call = "CALL palisade_enter(?, ?, ?)";
            let call = sqlx::query(call).bind(resource).bind(token).bind(holder);
            let refused = call.execute(&mut *tx).await;
            assert!(refused.is_err(), "{texts:?}");
        }
        let written = sqlx::query("INSERT INTO orders VALUES (1)")
            .execute(&mut *tx)
            .await;
        assert!(written.is_err(), "{kind}: {texts:?}");
        tx.rollback().await.unwrap();
    }
    for _ in 0..50 {
        let table = noise.text("no_such_table");
        assert!(guard.protect(&pool, &table, &good.resource).await.is_err() || table == "orders");
        assert!(
            guard.unprotect(&pool, &table).await.is_err() || table == "orders",
            "{table:?}"
        );
    }
    entered.commit().await.unwrap();
    assert_eq!(
        number(&mut connection, "SELECT COUNT(*) FROM orders").await,
        0
    );
    assert_eq!(
        number(&mut connection, "SELECT COUNT(*) FROM palisade_fence").await,
        1
    );
    assert_eq!(
        number(&mut connection, "SELECT token FROM palisade_fence").await,
        42
    );
    assert_eq!(
        number(&mut connection, "SELECT COUNT(*) FROM palisade_entry").await,
        0
    );
}
