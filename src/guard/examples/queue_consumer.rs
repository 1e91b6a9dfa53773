//! A consumer that handles each message once, whoever holds its lease and whatever is killed meanwhile.
//!
//! One guarded transaction holds everything that belongs to a message: the effect (an account's balance), the
//! mark in the inbox, the offset in the source, and the message that it sends on (a receipt, in the outbox).
//! Any other process that has sealed a greater token meanwhile makes the commit fail, and nothing of it
//! happens; what did commit is found by the successor through the offset.
//!
//! The source here is a table `deposits`, read like a log; a broker's partition would do as well. A table is
//! no log by itself: positions are given out before the commit, so the consumer waits for those who write.
//!
//! ```text
//! export DATABASE_URL=postgres://postgres@localhost/bank
//! palisade acquire bank/deposits --addr … # prints the grant: RESOURCE TOKEN HOLDER
//! cargo run -p palisade-guard --example queue_consumer -- RESOURCE TOKEN HOLDER
//! ```

#![allow(clippy::print_stdout, reason = "an example says what it has done")]

use std::env;
use std::error::Error;

use palisade_guard::GuardError;
use palisade_guard::effects::{Message, Name, Receipt};
use palisade_guard::postgres::{Guard, Sealed};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use sqlx::{PgPool, Row as _};

/// How far the source has been consumed.
const CURSOR: &str = "deposits";
/// Under whose name messages count as seen.
const CONSUMER: &str = "bank";
/// Where receipts are staged, for a relay to publish.
const OUTBOX: &str = "receipts";

type Failure = Box<dyn Error + Send + Sync>;

/// Makes the tables. The source is everybody's to write; the balances are the holder's alone.
///
/// # Errors
/// What the database says.
pub(crate) async fn prepare(pool: &PgPool, resource: &ResourceName) -> Result<(), Failure> {
    let guard = Guard::new();
    guard.install(pool).await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS deposits (position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             message text NOT NULL, account bigint NOT NULL, amount bigint NOT NULL);
         CREATE TABLE IF NOT EXISTS balances (account bigint PRIMARY KEY, amount bigint NOT NULL)",
    )
    .execute(pool)
    .await?;
    guard.protect(pool, "balances", resource).await?;
    Ok(())
}

/// Seals the grant and consumes what there is; returns how many deposits were new. `before_commit` is called
/// before the commit of each message, so that tests can stop here.
///
/// # Errors
/// [`GuardError::Stale`] when another holder has taken over: stop. What else the database says.
pub(crate) async fn consume(
    pool: &PgPool,
    grant: &Grant,
    mut before_commit: impl AsyncFnMut(u64),
) -> Result<u64, Failure> {
    let guard = Guard::new();
    // The order at takeover: seal first, then read where the last holder has got to.
    let sealed = guard.seal(pool, grant).await?;
    let mut handled = 0;
    loop {
        match one(&guard, pool, &sealed, &mut before_commit).await {
            Ok(Some(Receipt::New)) => handled += 1,
            Ok(Some(Receipt::Seen | Receipt::Late)) => {}
            Ok(None) => return Ok(handled),
            Err(error) => return Err(error),
        }
    }
}

/// Handles the next message, if there is one.
async fn one(
    guard: &Guard,
    pool: &PgPool,
    sealed: &Sealed,
    before_commit: &mut impl AsyncFnMut(u64),
) -> Result<Option<Receipt>, Failure> {
    let (cursor, consumer, outbox) = (Name::new(CURSOR)?, Name::new(CONSUMER)?, Name::new(OUTBOX)?);
    let mut tx = guard.begin(pool, sealed).await?;
    // Else a deposit committed late, below one that is consumed by then, would never be seen.
    sqlx::query("LOCK TABLE deposits IN SHARE MODE")
        .execute(&mut *tx)
        .await?;
    let offset = tx.offset(&cursor).await?;
    let next = sqlx::query(
        "SELECT position, message, account, amount FROM deposits
         WHERE position > $1 ORDER BY position LIMIT 1",
    )
    .bind(i64::try_from(offset)?)
    .fetch_optional(&mut *tx)
    .await?;
    let Some(next) = next else {
        return Ok(None);
    };
    let position = u64::try_from(next.try_get::<i64, _>("position")?)?;
    let (account, amount): (i64, i64) = (next.try_get("account")?, next.try_get("amount")?);
    let id = Name::new(next.try_get::<&str, _>("message")?)?;

    // The source may hold a message twice; the offset alone would not tell.
    let receipt = tx.inbox(&consumer, &id, None).await?;
    if receipt == Receipt::New {
        let written = sqlx::query(
            "INSERT INTO balances VALUES ($1, $2)
             ON CONFLICT (account) DO UPDATE SET amount = balances.amount + excluded.amount",
        )
        .bind(account)
        .bind(amount)
        .execute(&mut *tx)
        .await;
        if let Err(error) = written {
            return Err(tx.refusal(error).into());
        }
        let text = format!(r#"{{"deposit":"{id}","amount":{amount}}}"#);
        let receipt = Message::new(Name::new("receipts")?, text)?
            .with_id(Name::new(format!("receipt-{id}"))?)
            .in_order_of(Name::new(format!("account-{account}"))?);
        tx.stage(&outbox, &receipt).await?;
    }
    tx.advance_offset(&cursor, offset, position).await?;
    before_commit(position).await;
    tx.commit().await?;
    Ok(Some(receipt))
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [resource, token, holder] = arguments.as_slice() else {
        return Err("usage: queue_consumer RESOURCE TOKEN HOLDER, and DATABASE_URL".into());
    };
    let grant = Grant {
        resource: ResourceName::new(resource)?,
        token: token.parse::<FencingToken>()?,
        holder: holder.parse::<HolderId>()?,
    };
    let pool = PgPool::connect(&env::var("DATABASE_URL")?).await?;
    prepare(&pool, &grant.resource).await?;
    match consume(&pool, &grant, async |_| {}).await {
        Ok(handled) => println!("{handled} deposits"),
        Err(error) => {
            if let Some(GuardError::Stale { fence, .. }) = error.downcast_ref() {
                println!("replaced by the holder of {fence}");
            }
            return Err(error);
        }
    }
    Ok(())
}
