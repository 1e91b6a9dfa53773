use palisade_guard::GuardError;
use palisade_guard::effects::{Fingerprint, IdempotencyKey, Outcome};
use palisade_guard::postgres::{GuardedTx, Sealed};
use sqlx::PgConnection;

use crate::db::{Db, name};

/// A database with a table `ledger` that is protected for the resource `ledger`.
pub(crate) async fn with_ledger() -> Db {
    let db = Db::new().await;
    db.run("CREATE TABLE ledger (entry text, amount bigint)")
        .await;
    db.guard
        .protect(&db.pool, "ledger", &name("ledger"))
        .await
        .unwrap();
    db
}

pub(crate) fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new("tenant", "credit", text).unwrap()
}

pub(crate) fn asked(amount: i64) -> Fingerprint {
    Fingerprint::of(&[("amount", &amount.to_be_bytes())])
}

/// The effect of these tests: one row more. Its answer tells what was found before.
pub(crate) async fn credit(
    connection: &mut PgConnection,
    entry: &str,
    amount: i64,
) -> Result<i64, GuardError> {
    sqlx::query("INSERT INTO ledger VALUES ($1, $2)")
        .bind(entry)
        .bind(amount)
        .execute(&mut *connection)
        .await?;
    let sum = sqlx::query_scalar("SELECT sum(amount)::bigint FROM ledger");
    Ok(sum.fetch_one(connection).await?)
}

/// Credits once, in this transaction.
pub(crate) async fn credit_once(
    tx: &mut GuardedTx,
    text: &str,
    amount: i64,
) -> Result<Outcome<i64>, GuardError> {
    tx.once(&key(text), &asked(amount), async |connection| {
        credit(connection, text, amount).await
    })
    .await
}

/// Credits once, in a transaction of its own.
pub(crate) async fn deliver(
    db: &Db,
    sealed: &Sealed,
    text: &str,
    amount: i64,
) -> Result<Outcome<i64>, GuardError> {
    let mut tx = db.guard.begin(&db.pool, sealed).await?;
    let outcome = credit_once(&mut tx, text, amount).await?;
    tx.commit().await?;
    Ok(outcome)
}
