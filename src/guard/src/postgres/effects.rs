//! Effects in a guarded transaction: the SQL of what [`crate::effects`] decides.

mod ask;
mod attempt;
mod backlog;
mod once;
mod outbox;
mod purge;
mod relay;
mod stream;

pub use backlog::{Backlog, Expired};
pub use relay::{Pass, Relay, RelayPolicy, Stop};

use std::time::{Duration, SystemTime};

use palisade_token::Grant;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::PgRow;
use sqlx::{Row, SqlStr};

use super::{GuardedTx, errors, sql};
use crate::GuardError;
use crate::effects::{Claim, Fingerprint, IdempotencyKey, KeyPolicy};
use crate::metrics::{self, Idempotency, StoreKind};

/// Set between a claim and its effect, so that an effect that fails takes nothing else with it.
const SAVEPOINT: &str = "SAVEPOINT palisade_effect";
const UNDO: &str = "ROLLBACK TO SAVEPOINT palisade_effect; RELEASE SAVEPOINT palisade_effect";
const RELEASE: &str = "RELEASE SAVEPOINT palisade_effect";

/// What the store says to a claim that is not refused.
struct Claimed {
    claim: Claim,
    answer: Option<String>,
    first_seen: SystemTime,
    attempt: i32,
}

impl GuardedTx {
    /// Sends a message of several statements, and gives the row of the first that has one.
    async fn ask(&mut self, text: String) -> Result<PgRow, GuardError> {
        let rows = sqlx::raw_sql(sql::message(text))
            .fetch_all(&mut **self)
            .await;
        match rows {
            Ok(rows) => rows.into_iter().next().ok_or_else(|| unreadable("no row")),
            Err(error) => Err(self.refusal(error)),
        }
    }

    async fn send(&mut self, text: String) -> Result<(), GuardError> {
        let text: SqlStr = sql::message(text);
        match sqlx::raw_sql(text).execute(&mut **self).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refusal(error)),
        }
    }

    /// Claims a key for the grant's resource. An effect of this transaction has its savepoint then.
    async fn claim(
        &mut self,
        grant: &Grant,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        policy: &KeyPolicy,
        as_attempt: bool,
    ) -> Result<Claimed, GuardError> {
        let (attempt, savepoint) = match as_attempt {
            true => (interval(policy.attempt_lifetime()), ""),
            false => ("NULL".to_owned(), SAVEPOINT),
        };
        let text = format!(
            "SELECT outcome, answer, attempt, (extract(epoch FROM first_seen) * 1000000)::bigint AS first_seen, \
             (extract(epoch FROM retry_after) * 1000)::bigint AS retry_after, owner[1] AS owner, \
             owner[2]::bigint AS owner_token, owner[3] AS owner_holder \
             FROM palisade.claim({}, {}, decode('{}', 'hex'), {attempt}, {}); {savepoint}",
            sql::literal(grant.resource.as_str()),
            arguments(key),
            fingerprint,
            interval(policy.answer_lifetime()),
        );
        let row = self.ask(text).await?;
        let result = read_claim(&row, key);
        if !as_attempt && !matches!(&result, Ok(claimed) if claimed.claim == Claim::Claimed) {
            // Kept, they would lie in each other, one for each replay.
            self.send(RELEASE.to_owned()).await?;
        }
        match &result {
            Ok(claimed) => match claimed.claim {
                Claim::Replayed => count(Idempotency::Replayed),
                Claim::TakenOver => count(Idempotency::TakenOver),
                _ => {}
            },
            Err(GuardError::InProgress { .. }) => count(Idempotency::InProgress),
            Err(GuardError::FingerprintMismatch { .. }) => count(Idempotency::Mismatch),
            Err(GuardError::KeyExpired { .. }) => count(Idempotency::Expired),
            Err(_) => {}
        }
        result
    }
}

fn count(outcome: Idempotency) {
    metrics::idempotency(StoreKind::Postgres, outcome);
}

fn read_claim(row: &PgRow, key: &IdempotencyKey) -> Result<Claimed, GuardError> {
    let outcome: String = row.try_get("outcome").map_err(errors::plain)?;
    let key = key.clone();
    let claim = match outcome.as_str() {
        "claimed" => Claim::Claimed,
        "taken_over" => Claim::TakenOver,
        "replayed" => Claim::Replayed,
        "mismatch" => return Err(GuardError::FingerprintMismatch { key }),
        "expired" => return Err(GuardError::KeyExpired { key }),
        _ => {
            let millis: i64 = row.try_get("retry_after").map_err(errors::plain)?;
            return Err(GuardError::InProgress {
                key,
                retry_after: Duration::from_millis(millis.try_into().unwrap_or_default()),
                owner: read_grant(row, "owner", "owner_token", "owner_holder").map(Box::new),
            });
        }
    };
    Ok(Claimed {
        claim,
        answer: row.try_get("answer").map_err(errors::plain)?,
        first_seen: read_time(row, "first_seen")?,
        attempt: row
            .try_get::<Option<i32>, _>("attempt")
            .map_err(errors::plain)?
            .unwrap_or_default(),
    })
}

fn read_grant(row: &PgRow, resource: &str, token: &str, holder: &str) -> Option<Grant> {
    Some(Grant {
        resource: row.try_get::<String, _>(resource).ok()?.parse().ok()?,
        token: row.try_get::<i64, _>(token).ok()?.try_into().ok()?,
        holder: row.try_get::<String, _>(holder).ok()?.parse().ok()?,
    })
}

fn read_time(row: &PgRow, column: &str) -> Result<SystemTime, GuardError> {
    let micros: i64 = row.try_get(column).map_err(errors::plain)?;
    u64::try_from(micros)
        .ok()
        .and_then(|micros| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros)))
        .ok_or_else(|| unreadable("a time before 1970"))
}

fn unreadable(what: &'static str) -> GuardError {
    GuardError::Backend(Box::from(format!(
        "the schema palisade has answered: {what}"
    )))
}

/// The arguments of the SQL functions for a key.
fn arguments(key: &IdempotencyKey) -> String {
    let [tenant, operation, key] = [key.tenant(), key.operation(), key.key()].map(sql::literal);
    format!("{tenant}, {operation}, {key}")
}

fn interval(duration: Duration) -> String {
    format!("make_interval(secs => {})", duration.as_secs_f64())
}

fn to_json<T: Serialize>(value: &T) -> Result<String, GuardError> {
    let answer =
        serde_json::to_string(value).map_err(|error| GuardError::Answer(Box::new(error)))?;
    match answer.len() {
        given if given > KeyPolicy::MAX_ANSWER_BYTES => Err(GuardError::AnswerTooLarge {
            given,
            bound: KeyPolicy::MAX_ANSWER_BYTES,
        }),
        _ => Ok(answer),
    }
}

/// The value as JSON, and as it is read back from there: some types are read otherwise than they were written
/// (`Some(())` as `None`), and some not at all (a float that is not a number).
fn to_answer<T: Serialize + DeserializeOwned>(value: &T) -> Result<(String, T), GuardError> {
    let answer = to_json(value)?;
    let value = from_json(Some(&answer))?;
    Ok((answer, value))
}

fn from_json<T: DeserializeOwned>(answer: Option<&str>) -> Result<T, GuardError> {
    let answer = answer.ok_or_else(|| unreadable("an answer that is none"))?;
    serde_json::from_str(answer).map_err(|error| GuardError::Answer(Box::new(error)))
}
