use std::time::Duration;

use sqlx::{PgPool, Row};

use super::super::{Guard, errors, sql};
use super::outbox::letter;
use crate::GuardError;
use crate::effects::{DeadLetter, Name};
use crate::metrics::{self, Purged, Rows, StoreKind};

const STORE: StoreKind = StoreKind::Postgres;

/// What waits in an outbox.
///
/// ```no_run
/// # use std::time::Duration;
/// # use palisade_guard::{GuardError, effects::Name, postgres::Guard};
/// # async fn watch(pool: &sqlx::PgPool, outbox: Name) -> Result<(), GuardError> {
/// let backlog = Guard::new().backlog(pool, &outbox).await?;
/// if backlog.horizon_lag > Duration::from_secs(60) {
///     let (pid, prepared) = (backlog.holder, backlog.prepared);
///     eprintln!("{} messages wait for process {pid:?} or {prepared:?}", backlog.held);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backlog {
    /// Messages staged and committed, and not published.
    pub pending: u64,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
    /// Those among them that wait for a transaction that began before theirs and still runs.
    pub held: u64,
    /// How long the oldest of those has waited; zero if there is none. A long transaction stalls the outbox: see
    /// to `idle_in_transaction_session_timeout`.
    pub horizon_lag: Duration,
    /// The server process that they wait for, if it can be told.
    pub holder: Option<i32>,
    /// The prepared transaction that they wait for, if it is one.
    pub prepared: Option<String>,
    /// Messages of this outbox that were given up.
    pub dead_letters: u64,
}

/// What [`Guard::purge_flow`] forgets.
///
/// ```no_run
/// # use std::time::Duration;
/// # use palisade_guard::{GuardError, postgres::{Expired, Guard}};
/// # async fn purge(guard: Guard, pool: &sqlx::PgPool) -> Result<(), GuardError> {
/// let month = Duration::from_secs(30 * 86_400); // longer than any broker delivers again
/// let most = Expired::MAX_ROWS;
/// while guard.purge_flow(pool, Expired::Inbox, month, most).await? == u64::from(most) {}
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Expired {
    /// Messages in the inbox: a repetition that comes later than the age given is handled again.
    Inbox,
    /// Failed attempts of consumers at messages that did not come again.
    Failures,
    /// Dead letters that nobody has taken.
    DeadLetters,
}

impl Expired {
    /// The most rows of one call: what is locked and logged at once.
    pub const MAX_ROWS: u32 = 10_000;
}

impl Guard {
    /// What waits in an outbox, and for whom; sets the gauges of the metrics too.
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn backlog(&self, pool: &PgPool, outbox: &Name) -> Result<Backlog, GuardError> {
        let text = format!(
            "SELECT * FROM palisade.backlog({})",
            sql::literal(outbox.as_str())
        );
        let row = sqlx::raw_sql(sql::message(text))
            .fetch_one(pool)
            .await
            .map_err(errors::plain)?;
        let count = |column: &str| {
            let number: i64 = row.try_get(column).map_err(errors::plain)?;
            Ok::<_, GuardError>(u64::try_from(number).unwrap_or_default())
        };
        let backlog = Backlog {
            pending: count("pending")?,
            oldest: Duration::from_micros(count("oldest_micros")?),
            held: count("held")?,
            horizon_lag: Duration::from_micros(count("horizon_lag_micros")?),
            holder: row.try_get("holder_pid").map_err(errors::plain)?,
            prepared: row.try_get("holder_gid").map_err(errors::plain)?,
            dead_letters: count("dead_letters")?,
        };
        metrics::outbox_pending(STORE, backlog.pending);
        metrics::outbox_horizon_lag(STORE, backlog.horizon_lag);
        metrics::rows(STORE, Rows::DeadLetters, backlog.dead_letters);
        Ok(backlog)
    }

    /// Dead letters in the order of their numbers, beginning after the number `after` (0: all), at most
    /// `most` of them, and at most 1,000.
    ///
    /// ```no_run
    /// # use palisade_guard::{GuardError, postgres::Guard};
    /// # async fn all(guard: Guard, pool: &sqlx::PgPool) -> Result<(), GuardError> {
    /// let mut after = 0;
    /// loop {
    ///     let page = guard.dead_letters(pool, after, 1000).await?;
    ///     let Some(last) = page.last() else { break };
    ///     after = last.id;
    ///     page.iter().for_each(|letter| println!("{letter:?}"));
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn dead_letters(
        &self,
        pool: &PgPool,
        after: i64,
        most: u32,
    ) -> Result<Vec<DeadLetter>, GuardError> {
        let most = most.min(1000);
        let text = format!("SELECT * FROM palisade.dead_letters('{after}', {most})");
        let rows = sqlx::raw_sql(sql::message(text)).fetch_all(pool).await;
        rows.map_err(errors::plain)?.iter().map(letter).collect()
    }

    /// Forgets one batch of what is older than `age`, at most `most` rows (1 to [`Expired::MAX_ROWS`]), and says
    /// how many; fewer than `most` means that there is no more. Rows that are in use are passed over.
    ///
    /// # Errors
    /// [`GuardError::Backend`].
    pub async fn purge_flow(
        &self,
        pool: &PgPool,
        what: Expired,
        age: Duration,
        most: u32,
    ) -> Result<u64, GuardError> {
        let (table, purged) = match what {
            Expired::Inbox => ("inbox", Some(Purged::Inbox)),
            Expired::Failures => ("failure", None),
            Expired::DeadLetters => ("dead_letter", Some(Purged::DeadLetters)),
        };
        // What is older than a century is as old as that.
        let age = age.min(Duration::from_secs(100 * 365 * 86_400)).as_micros();
        let most = most.clamp(1, Expired::MAX_ROWS);
        let text =
            format!("SELECT palisade.purge_flow('{table}', interval '{age} microseconds', {most})");
        let row = sqlx::raw_sql(sql::message(text)).fetch_one(pool).await;
        let gone: i64 = row.and_then(|row| row.try_get(0)).map_err(errors::plain)?;
        let gone = u64::try_from(gone).unwrap_or_default();
        if let Some(purged) = purged {
            metrics::purged(STORE, purged, gone);
        }
        Ok(gone)
    }
}
