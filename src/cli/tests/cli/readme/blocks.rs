//! The Rust of README.md, word for word: that it compiles is the test.
#![allow(dead_code, clippy::unused_async, reason = "nobody calls it")]

use std::error::Error;
use std::time::Duration;

use palisade_client::{AcquireOptions, Client, SessionOptions};
use palisade_guard::effects::{Fingerprint, IdempotencyKey, Outcome};
use palisade_guard::postgres::{Guard, Sealed};
use palisade_token::ResourceName;
use sqlx::{PgConnection, PgPool};

type Failed = Box<dyn Error + Send + Sync>;

#[rustfmt::skip]
async fn a_guarded_write(resource: ResourceName, pool: PgPool, id: i64) -> Result<(), Failed> {
let session = Client::connect("http://127.0.0.1:7650")?.open_session(SessionOptions::default()).await?;
let lease = session.acquire(&resource, AcquireOptions::default().wait(Duration::from_secs(60))).await?;

let guard = Guard::new();
let sealed = guard.seal(&pool, &lease.grant()?).await?;      // before the first read
let mut tx = guard.begin(&pool, &sealed).await?;
sqlx::query("UPDATE orders SET state = 'paid' WHERE id = $1").bind(id).execute(&mut *tx).await?;
tx.commit().await?;                                           // GuardError::Stale if somebody took over
    Ok(())
}

async fn pay(_: &mut PgConnection, order: i64) -> Result<i64, Failed> {
    Ok(order)
}

#[rustfmt::skip]
async fn once(guard: Guard, pool: PgPool, sealed: Sealed, key: IdempotencyKey) -> Result<Outcome<i64>, Failed> {
let mut tx = guard.begin(&pool, &sealed).await?;
let receipt = tx.once(&key, &Fingerprint::of(&[("order", b"7"), ("amount", b"100")]), async |db| pay(db, 7).await).await?;
tx.commit().await?;                                           // whoever asks again gets the same receipt
    Ok(receipt)
}
