use palisade_guard::postgres::Guard;
use palisade_test_support::Postgres;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};

use crate::random::{Noise, parsed};
use crate::sealed;

async fn number(connection: &mut PgConnection, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn sql_of_postgresql() {
    let mut noise = Noise::new("postgres");
    let server = Postgres::builder().fsync(false).start().await.unwrap();
    let pool = PgPool::connect(&server.url()).await.unwrap();
    let (guard, good) = (Guard::new(), sealed());
    guard.install(&pool).await.unwrap();
    sqlx::query("CREATE TABLE orders (id bigint)")
        .execute(&pool)
        .await
        .unwrap();
    guard
        .protect(&pool, "orders", &good.resource)
        .await
        .unwrap();
    guard.seal(&pool, &good).await.unwrap();
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let stripe = number(&mut connection, "SELECT palisade.stripe('orders')::bigint").await;
    for _ in 0..1_500 {
        let texts = noise.grant(&good);
        let [resource, token, holder] = &texts;
        match noise.below(4) {
            // A grant that is none, or not the sealed one.
            0 | 1 => {
                let function = ["enter", "check"][noise.below(2)];
                let call = format!("SELECT palisade.{function}($1, ($2::text)::bigint, $3)::text");
                let mut tx = connection.begin().await.unwrap();
                let entered = sqlx::query(AssertSqlSafe(call))
                    .bind(resource)
                    .bind(token)
                    .bind(holder)
                    .execute(&mut *tx)
                    .await;
                if entered.is_ok() {
                    // bigint takes blanks and zeroes before a number that is the sealed one.
                    let same = resource == good.resource.as_str()
                        && token.trim().trim_start_matches('+').parse() == Ok(good.token.get())
                        && *holder == good.holder.to_string();
                    let written = sqlx::query("INSERT INTO orders VALUES (1)")
                        .execute(&mut *tx)
                        .await;
                    assert_eq!(written.is_ok(), same, "{texts:?}");
                }
                tx.rollback().await.unwrap();
            }
            2 => {
                if parsed(&texts).is_none() {
                    let sealed = sqlx::query("SELECT palisade.seal($1, ($2::text)::bigint, $3)")
                        .bind(resource)
                        .bind(format!("{token}x"))
                        .bind(holder)
                        .execute(&mut connection)
                        .await;
                    assert!(sealed.is_err(), "{texts:?}");
                    let refused = sqlx::query("SELECT palisade.seal($1, 43, $2)")
                        .bind(format!("{resource} "))
                        .bind(holder)
                        .execute(&mut connection)
                        .await;
                    assert!(refused.is_err(), "{texts:?}");
                }
            }
            // A setting of the guard's own with noise in it, or an entry of another transaction.
            _ => {
                let mut tx = connection.begin().await.unwrap();
                let value = match noise.below(3) {
                    0 => noise.text("\n1 orders ok 42 0f -"),
                    1 => format!("\n{} orders ok 42 {} 42", noise.below(700), good.holder),
                    _ => format!("\n{resource} {token} ok {holder}"),
                };
                let set = sqlx::query("SELECT set_config($1, $2, true)")
                    .bind(format!("palisade.e{stripe}"))
                    .bind(&value)
                    .execute(&mut *tx)
                    .await;
                if set.is_ok() {
                    let written = sqlx::query("INSERT INTO orders VALUES (1)")
                        .execute(&mut *tx)
                        .await;
                    assert!(written.is_err(), "{value:?}");
                }
                tx.rollback().await.unwrap();
            }
        }
    }
    for _ in 0..50 {
        let (table, name) = (noise.text("orders_x"), noise.text("orders"));
        let protect = sqlx::query("SELECT palisade.protect($1::text::regclass, $2)")
            .bind(format!("{table}?"))
            .bind(name)
            .execute(&mut connection)
            .await;
        assert!(protect.is_err(), "{table:?}");
    }
    assert_eq!(
        number(&mut connection, "SELECT count(*) FROM orders").await,
        0
    );
    assert_eq!(
        number(&mut connection, "SELECT count(*) FROM palisade.fence").await,
        1
    );
    assert_eq!(
        number(&mut connection, "SELECT token FROM palisade.fence").await,
        42
    );
}
