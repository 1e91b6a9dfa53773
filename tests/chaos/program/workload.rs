//! The two workloads: what a job does, and what the tables must hold at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ValueEnum;
use palisade_guard::postgres::Guard;
use palisade_token::ResourceName;
use sqlx::PgPool;

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Each job adds an element of its own to its row, by writing anew the set that it has read.
    LockSet,
    /// Each job makes a payment that is named by a key, and is delivered again until it is acknowledged.
    Effects,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LockSet => "lock-set",
            Self::Effects => "effects",
        })
    }
}

/// What the field's jobs came to, as it was told to those who asked for them.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The receipts of what was acknowledged. More than one of a payment is a violation.
    pub(crate) acknowledged: BTreeMap<i64, BTreeSet<i64>>,
    /// What may have happened.
    pub(crate) unknown: BTreeSet<i64>,
    /// What was asked for at all.
    pub(crate) asked: BTreeSet<i64>,
}

impl Told {
    pub(crate) fn acknowledge(&mut self, number: i64, receipt: i64) {
        self.acknowledged.entry(number).or_default().insert(receipt);
    }
}

/// What the tables hold, held against what was told.
#[derive(Debug, Default, Clone)]
pub(crate) struct Found {
    /// Acknowledged, and not there.
    pub(crate) lost: u64,
    /// There more than once.
    pub(crate) twice: u64,
    /// There, though every answer said that it had not happened; or never asked for.
    pub(crate) unfounded: u64,
    /// Writes with a token below that of an earlier one, or with the token of another holder (I2).
    pub(crate) stale: u64,
    /// Payments that were acknowledged with different receipts.
    pub(crate) contradicted: u64,
}

impl Found {
    /// What the lock-set or the payments have suffered.
    pub(crate) const fn damage(&self) -> u64 {
        self.lost + self.twice
    }

    pub(crate) const fn violations(&self) -> u64 {
        self.damage() + self.unfounded + self.stale + self.contradicted
    }
}

impl Workload {
    /// The first is locked while it is written, so that the second has the order of the commits.
    const fn tables(self) -> (&'static str, &'static str) {
        match self {
            Self::LockSet => (
                "CREATE TABLE field (id bigint PRIMARY KEY, elements bigint[] NOT NULL)",
                "CREATE TABLE accepted (seq bigserial PRIMARY KEY, id bigint NOT NULL, \
                 token bigint NOT NULL, holder text NOT NULL, number bigint NOT NULL)",
            ),
            // Nothing but the guard keeps a number from being there twice.
            Self::Effects => (
                "SELECT 1",
                "CREATE TABLE payment (receipt bigserial PRIMARY KEY, id bigint NOT NULL, \
                 token bigint NOT NULL, holder text NOT NULL, number bigint NOT NULL)",
            ),
        }
    }

    pub(crate) async fn prepare(self, pool: &PgPool, rows: usize) -> Result<(), Failed> {
        let (first, second) = self.tables();
        sqlx::raw_sql(first).execute(pool).await?;
        sqlx::raw_sql(second).execute(pool).await?;
        if self == Self::LockSet {
            sqlx::query("INSERT INTO field SELECT n, '{}' FROM generate_series(0, $1) AS n")
                .bind(i64::try_from(rows)? - 1)
                .execute(pool)
                .await?;
        }
        Ok(())
    }

    /// Installs the guard, and has it refuse whoever has forgotten it.
    pub(crate) async fn guard(
        self,
        pool: &PgPool,
        prefix: &ResourceName,
        protected: bool,
    ) -> Result<(), Failed> {
        let guard = Guard::new();
        guard.install(pool).await?;
        let tables: &[&str] = match self {
            Self::LockSet => &["field", "accepted"],
            Self::Effects => &["payment"],
        };
        for table in tables.iter().filter(|_| protected) {
            guard
                .protect_rows(pool, table, Some(prefix), &["id"])
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn check(self, pool: &PgPool, told: &Told) -> Result<Found, Failed> {
        let (there, log) = match self {
            Self::LockSet => (
                "SELECT unnest(elements) FROM field",
                "SELECT id, token, holder FROM accepted ORDER BY seq",
            ),
            Self::Effects => (
                "SELECT number FROM payment",
                "SELECT id, token, holder FROM payment ORDER BY receipt",
            ),
        };
        let there: Vec<i64> = sqlx::query_scalar(there).fetch_all(pool).await?;
        let log: Vec<(i64, i64, String)> = sqlx::query_as(log).fetch_all(pool).await?;
        Ok(compare(self, &there, &log, told))
    }
}

fn compare(workload: Workload, there: &[i64], log: &[(i64, i64, String)], told: &Told) -> Found {
    let mut found = Found::default();
    let mut times: BTreeMap<i64, u64> = BTreeMap::new();
    for number in there {
        *times.entry(*number).or_default() += 1;
    }
    let count = |condition: bool| u64::from(condition);
    for (number, receipts) in &told.acknowledged {
        found.lost += count(!times.contains_key(number));
        found.contradicted += count(workload == Workload::Effects && receipts.len() > 1);
    }
    for (number, times) in &times {
        found.twice += count(*times > 1);
        let may_be = told.acknowledged.contains_key(number) || told.unknown.contains(number);
        found.unfounded += count(!may_be || !told.asked.contains(number));
    }
    let mut highest: BTreeMap<i64, (i64, &str)> = BTreeMap::new();
    for (row, token, holder) in log {
        let before = highest.entry(*row).or_insert((*token, holder));
        if *token > before.0 {
            *before = (*token, holder);
        } else {
            found.stale += count(*token < before.0 || before.1 != holder);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Told, Workload, compare};

    fn told(acknowledged: &[(i64, i64)], unknown: &[i64]) -> Told {
        let mut told = Told::default();
        for (number, receipt) in acknowledged {
            told.acknowledge(*number, *receipt);
        }
        told.unknown.extend(unknown);
        told.asked.extend(0..10);
        told
    }

    fn log(tokens: &[(i64, i64, &str)]) -> Vec<(i64, i64, String)> {
        let owned = |(row, token, holder): &(i64, i64, &str)| (*row, *token, (*holder).to_owned());
        tokens.iter().map(owned).collect()
    }

    #[test]
    fn what_was_acknowledged_is_there_and_what_is_unknown_may_be() {
        let told = told(&[(1, 1), (2, 2)], &[3, 4]);
        let found = compare(Workload::LockSet, &[1, 2, 3], &log(&[]), &told);
        assert_eq!(found.violations(), 0);
        let found = compare(Workload::LockSet, &[1, 3], &log(&[]), &told);
        assert_eq!((found.lost, found.violations()), (1, 1));
    }

    #[test]
    fn what_was_refused_must_not_be_there_and_nothing_twice() {
        let told = told(&[(1, 1)], &[]);
        let found = compare(Workload::Effects, &[1, 1, 5], &log(&[]), &told);
        assert_eq!((found.twice, found.unfounded), (1, 1));
    }

    #[test]
    fn tokens_do_not_decrease_and_belong_to_one_holder() {
        let told = told(&[], &[]);
        let fine = log(&[(0, 5, "a"), (0, 5, "a"), (1, 2, "b"), (0, 6, "c")]);
        assert_eq!(compare(Workload::LockSet, &[], &fine, &told).stale, 0);
        let back = log(&[(0, 5, "a"), (0, 6, "b"), (0, 5, "a")]);
        assert_eq!(compare(Workload::LockSet, &[], &back, &told).stale, 1);
        let shared = log(&[(0, 5, "a"), (0, 5, "b")]);
        assert_eq!(compare(Workload::LockSet, &[], &shared, &told).stale, 1);
    }

    #[test]
    fn a_payment_has_one_receipt() {
        let told = told(&[(1, 1), (1, 2)], &[]);
        assert_eq!(
            compare(Workload::Effects, &[1], &log(&[]), &told).contradicted,
            1
        );
    }
}
