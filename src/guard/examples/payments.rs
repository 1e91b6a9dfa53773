//! Charges cards through a provider that fails in every way it can, with a cashier that crashes in the middle
//! and another that takes over: each order is charged once.
//!
//! ```sh
//! cargo run -p palisade-guard --example payments -- postgres://user@localhost/database
//! ```
//!
//! The URL may be given as `DATABASE_URL`, too. The example makes its table `payment_orders` anew.
#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, PoisonError};

use palisade_guard::GuardError;
use palisade_guard::effects::{Attempt, Begun, Fingerprint, IdempotencyKey, KeyPolicy};
use palisade_guard::postgres::{Guard, Sealed};
use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

type Failed = Box<dyn Error + Send + Sync>;

/// What is kept with the key, and told again to whoever asks again.
type Answer = Result<Receipt, Declined>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Receipt {
    charge: u64,
    cents: i64,
}

/// Will be so at every try: an answer, like a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Declined;

/// What the provider says when nobody knows what it did. It is no answer.
#[derive(Debug)]
enum ProviderError {
    Timeout,
    ServerError,
}

/// How the provider treats a call.
#[derive(Debug, Clone, Copy)]
enum Mood {
    Well,
    /// It charges, and its answer is lost.
    ChargesAndTimesOut,
    FailsBefore,
    /// It charges, and says that it failed.
    FailsAfter,
    /// The network delivers the call twice.
    Twice,
}

const MOODS: [Mood; 7] = [
    Mood::ChargesAndTimesOut,
    Mood::Well,
    Mood::FailsBefore,
    Mood::FailsAfter,
    Mood::Twice,
    Mood::Well,
    Mood::ChargesAndTimesOut,
];

/// The most that any card here allows.
const LIMIT_CENTS: i64 = 100_000;

/// A payment provider as they are: unreliable, and with an idempotency key of its own.
#[derive(Default)]
struct Provider(Mutex<Ledger>);

#[derive(Default)]
struct Ledger {
    calls: usize,
    /// By idempotency key.
    charges: BTreeMap<String, Receipt>,
}

impl Provider {
    fn charge(&self, idempotency_key: &str, cents: i64) -> Result<Answer, ProviderError> {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mood = MOODS[ledger.calls % MOODS.len()];
        ledger.calls += 1;
        if matches!(mood, Mood::FailsBefore) {
            return Err(ProviderError::ServerError);
        }
        let answer = ledger.book(idempotency_key, cents);
        match mood {
            Mood::ChargesAndTimesOut => Err(ProviderError::Timeout),
            Mood::FailsAfter => Err(ProviderError::ServerError),
            Mood::Twice => Ok(ledger.book(idempotency_key, cents)),
            _ => Ok(answer),
        }
    }
}

impl Ledger {
    fn book(&mut self, idempotency_key: &str, cents: i64) -> Answer {
        if cents > LIMIT_CENTS {
            return Err(Declined);
        }
        let charge = u64::try_from(self.charges.len()).unwrap_or(u64::MAX) + 1;
        // Looked up by the key: with another key at each attempt, each would charge.
        let receipt = self
            .charges
            .entry(idempotency_key.to_owned())
            .or_insert(Receipt { charge, cents });
        Ok(receipt.clone())
    }
}

/// Where a cashier is to crash, for the example's sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    Never,
    AfterTheCharge,
}

/// Whoever holds the lease on the orders.
struct Cashier<'a> {
    guard: Guard,
    pool: &'a PgPool,
    sealed: Sealed,
    provider: &'a Provider,
}

impl<'a> Cashier<'a> {
    /// In an application the grant comes from a lease (`palisade-client`). Sealed before anything is read.
    async fn take_over(
        pool: &'a PgPool,
        provider: &'a Provider,
        holder: u8,
    ) -> Result<Self, Failed> {
        let guard = Guard::new();
        let resource = ResourceName::new("payments/orders")?;
        let fence = guard.fence(pool, &resource).await?;
        let grant = Grant {
            resource,
            token: FencingToken::new(fence.map_or(0, |fence| fence.token.get()) + 1)?,
            holder: HolderId::from_bytes([holder; 16]),
        };
        let sealed = guard.seal(pool, &grant).await?;
        println!("cashier {holder} has sealed token {}", grant.token);
        Ok(Self {
            guard,
            pool,
            sealed,
            provider,
        })
    }

    /// Pays one order, however many attempts that takes; `None` if it has crashed.
    async fn pay(&self, order: &Order, crash: Crash) -> Result<Option<Answer>, Failed> {
        let (pool, policy) = (self.pool, KeyPolicy::new());
        loop {
            // Committed before the call: whoever comes later knows that it may have been made.
            let begun = self
                .guard
                .begin_attempt(pool, &self.sealed, &order.key, &order.asked(), &policy)
                .await?;
            let attempt = match begun {
                Begun::Replayed { value, .. } => return Ok(Some(value)),
                Begun::Attempt(attempt) => attempt,
            };
            let (id, number) = (order.id, attempt.number());
            match self.provider.charge(&attempt.external_key(), order.cents) {
                Ok(_) if crash == Crash::AfterTheCharge => {
                    println!("order {id}: charged, and the cashier crashes");
                    return Ok(None);
                }
                Ok(answer) => {
                    println!("order {id}: attempt {number}: {answer:?}");
                    return Ok(Some(self.complete(order, &attempt, answer).await?));
                }
                // It may have charged or not: again, with the same key.
                Err(error) => {
                    println!("order {id}: attempt {number}: {error:?}");
                    let mut tx = self.guard.begin(pool, &self.sealed).await?;
                    tx.give_up(&attempt).await?;
                    tx.commit().await?;
                }
            }
        }
    }

    /// The order's new state and the answer of its key, in one guarded transaction.
    async fn complete(
        &self,
        order: &Order,
        attempt: &Attempt,
        answer: Answer,
    ) -> Result<Answer, GuardError> {
        let mut tx = self.guard.begin(self.pool, &self.sealed).await?;
        let outcome = tx
            .complete(attempt, async |connection| {
                let state = match &answer {
                    Ok(receipt) => format!("paid {} by charge {}", receipt.cents, receipt.charge),
                    Err(Declined) => "declined".to_owned(),
                };
                let update =
                    "UPDATE payment_orders SET state = $1, changes = changes + 1 WHERE id = $2";
                sqlx::query(update)
                    .bind(state)
                    .bind(order.id)
                    .execute(connection)
                    .await?;
                Ok::<_, GuardError>(answer)
            })
            .await?;
        tx.commit().await?;
        Ok(outcome.into_value())
    }
}

struct Order {
    id: i64,
    cents: i64,
    key: IdempotencyKey,
}

impl Order {
    /// What was asked for, so that the key is not used for another order or amount.
    fn asked(&self) -> Fingerprint {
        Fingerprint::of(&[
            ("order", &self.id.to_be_bytes()),
            ("cents", &self.cents.to_be_bytes()),
        ])
    }
}

/// What came of it, for a reader and for the test that runs this.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) paid: i64,
    pub(crate) declined: i64,
    pub(crate) most_changes_of_an_order: i64,
    pub(crate) calls: usize,
    pub(crate) charges: usize,
    pub(crate) taken_over: usize,
    pub(crate) zombie_was_refused: bool,
}

pub(crate) async fn run(url: &str) -> Result<Report, Failed> {
    let pool = PgPool::connect(url).await?;
    let guard = Guard::new();
    guard.install(&pool).await?;
    sqlx::raw_sql(
        "DROP TABLE IF EXISTS payment_orders; CREATE TABLE payment_orders \
         (id bigint PRIMARY KEY, state text NOT NULL DEFAULT 'open', changes int NOT NULL DEFAULT 0); \
         INSERT INTO payment_orders SELECT generate_series(1, 8)",
    )
    .execute(&pool)
    .await?;
    let resource = ResourceName::new("payments/orders")?;
    guard.protect(&pool, "payment_orders", &resource).await?;

    let provider = Provider::default();
    let first = Cashier::take_over(&pool, &provider, 1).await?;
    let orders = orders(first.sealed.grant().token)?;
    for order in &orders[..4] {
        first.pay(order, Crash::Never).await?;
    }
    first.pay(&orders[4], Crash::AfterTheCharge).await?;

    let second = Cashier::take_over(&pool, &provider, 2).await?;
    let unfinished = guard.unfinished(&pool, &resource, 100).await?;
    println!("unfinished, to be taken over: {}", unfinished.len());
    // The first one was only asleep: it wakes up and goes on.
    let zombie_was_refused = match first.pay(&orders[4], Crash::Never).await {
        Ok(_) => false,
        Err(error) => matches!(error.downcast_ref(), Some(GuardError::Stale { .. })),
    };
    println!("the first cashier was refused: {zombie_was_refused}");
    // All orders, also what is done: as a queue delivers them again.
    for order in &orders {
        second.pay(order, Crash::Never).await?;
    }

    let count = "SELECT count(*) FILTER (WHERE state LIKE 'paid%'), \
                 count(*) FILTER (WHERE state = 'declined'), max(changes)::bigint FROM payment_orders";
    let (paid, declined, most_changes_of_an_order) = sqlx::query_as(count).fetch_one(&pool).await?;
    let ledger = provider.0.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Report {
        paid,
        declined,
        most_changes_of_an_order,
        calls: ledger.calls,
        charges: ledger.charges.len(),
        taken_over: unfinished.len(),
        zombie_was_refused,
    })
}

/// Eight orders; the third is above what its card allows.
fn orders(run: FencingToken) -> Result<Vec<Order>, Failed> {
    let mut orders = Vec::new();
    for id in 1..=8 {
        orders.push(Order {
            id,
            cents: if id == 3 { LIMIT_CENTS + 1 } else { 1_000 + id },
            // From whoever ordered, the same for every retry. (A token in it, only so that the example can be
            // run again: the token of *this attempt* must never be in a key.)
            key: IdempotencyKey::new("shop-1", "charge", &format!("run-{run}-order-{id}"))?,
        });
    }
    Ok(orders)
}

#[tokio::main]
#[allow(dead_code, reason = "a test runs the rest of this file")]
async fn main() -> Result<(), Failed> {
    let url = match std::env::args().nth(1) {
        Some(url) => url,
        None => std::env::var("DATABASE_URL")
            .map_err(|_| "give the URL of a PostgreSQL database, or set DATABASE_URL")?,
    };
    let report = run(&url).await?;
    println!(
        "{} paid, {} declined; {} calls, {} charges; {} taken over, the zombie refused: {}; \
         no order changed more than {} time",
        report.paid,
        report.declined,
        report.calls,
        report.charges,
        report.taken_over,
        report.zombie_was_refused,
        report.most_changes_of_an_order,
    );
    Ok(())
}
