//! What goes past the guard where the data is.

use std::path::Path;

use palisade_coordinator::domain::WallClock;
use palisade_guard::postgres::{Guard, Severity};
use serde_json::json;
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};

use super::report::{Check, Report};
use crate::clock;
use crate::failure::Failure;
use crate::progress;

const INSTALLED: &str = "guard";
const AUDIT: &str = "guard-audit";
const FENCES: &str = "guard-fences";
/// How many tokens may be issued between the looks at the coordinators and at the fences.
const MEANWHILE: u64 = 10_000;
const POSTGRES: &str = "guard in PostgreSQL";

pub(super) async fn postgres(
    url: &str,
    highest: Option<u64>,
    report: &mut Report,
) -> Result<(), Failure> {
    let looking = progress::during("looking at PostgreSQL", in_postgres(url, highest));
    let checks = match looking.await {
        Ok(checks) => checks,
        Err(failure) => {
            let advice =
                "see that it runs, its URL, and that the role may look (palisade.grant_owner)";
            vec![Check::fail(
                INSTALLED,
                POSTGRES,
                failure.to_string(),
                advice,
            )]
        }
    };
    report.add_all(checks)
}

async fn in_postgres(url: &str, highest: Option<u64>) -> Result<Vec<Check>, Failure> {
    let pool = crate::guard::in_postgres(url).await?;
    let is_installed: bool =
        sqlx::query_scalar("SELECT to_regprocedure('palisade.audit()') IS NOT NULL")
            .fetch_one(&pool)
            .await?;
    if !is_installed {
        return Ok(vec![not_installed(POSTGRES, "--postgres")]);
    }
    let tables: i64 = sqlx::query_scalar("SELECT count(DISTINCT \"table\") FROM palisade.guards")
        .fetch_one(&pool)
        .await?;
    let mut checks = vec![guarded(
        POSTGRES,
        tables,
        "palisade guard protect TABLE --postgres URL",
    )];
    let findings = Guard::new().audit(&pool).await?;
    if findings.is_empty() {
        checks.push(Check::ok(AUDIT, POSTGRES, "nothing goes past it"));
    }
    for finding in findings {
        let found = format!("{}: {}", finding.object, finding.problem);
        let check = match finding.severity {
            Severity::Warning => Check::warn(AUDIT, POSTGRES, found, finding.advice),
            _ => Check::fail(AUDIT, POSTGRES, found, finding.advice),
        };
        checks.push(
            check
                .value("kind", finding.kind)
                .value("object", finding.object)
                .value("resource", json!(finding.resource)),
        );
    }
    checks.extend(fences(POSTGRES, highest_fence(&pool).await?, highest));
    pool.close().await;
    Ok(checks)
}

async fn highest_fence(pool: &PgPool) -> Result<Option<i64>, Failure> {
    let found = sqlx::query_scalar("SELECT max(token) FROM palisade.fence");
    Ok(found.fetch_one(pool).await?)
}

pub(super) async fn sqlite(
    file: &Path,
    highest: Option<u64>,
    report: &mut Report,
) -> Result<(), Failure> {
    let subject = format!("guard in {}", file.display());
    let looking = progress::during(
        "looking at the SQLite file",
        in_sqlite(file, &subject, highest),
    );
    let checks = match looking.await {
        Ok(checks) => checks,
        Err(failure) => {
            let advice = "see that it is there, that it is an SQLite file, and that it may be read";
            vec![Check::fail(INSTALLED, subject, failure.to_string(), advice)]
        }
    };
    report.add_all(checks)
}

async fn in_sqlite(
    file: &Path,
    subject: &str,
    highest: Option<u64>,
) -> Result<Vec<Check>, Failure> {
    let options = SqliteConnectOptions::new().filename(file).read_only(true);
    let pool: SqlitePool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    let is_installed: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = 'palisade_fence')",
    )
    .fetch_one(&pool)
    .await?;
    if !is_installed {
        return Ok(vec![not_installed(subject, "--sqlite")]);
    }
    // Each protected table has one trigger for each of the three kinds of change.
    let tables: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (SELECT tbl_name FROM main.sqlite_schema WHERE type = 'trigger' \
         AND name GLOB 'zz_palisade_guard_*' GROUP BY tbl_name HAVING count(*) >= 3)",
    )
    .fetch_one(&pool)
    .await?;
    let weak: Vec<String> = sqlx::query_scalar(
        "SELECT tbl_name FROM main.sqlite_schema WHERE type = 'trigger' \
         AND name GLOB 'zz_palisade_guard_*' GROUP BY tbl_name HAVING count(*) < 3 ORDER BY 1",
    )
    .fetch_all(&pool)
    .await?;
    let mut checks = vec![guarded(
        subject,
        tables,
        "palisade guard protect TABLE --sqlite FILE",
    )];
    checks.extend(weak.into_iter().map(|table| {
        let found = format!("{table} has lost some of its triggers: writes go past the guard");
        let advice = "protect it again: palisade guard protect TABLE --sqlite FILE";
        Check::fail(AUDIT, subject, found, advice).value("object", table)
    }));
    let fence: Option<i64> = sqlx::query_scalar("SELECT max(token) FROM main.palisade_fence")
        .fetch_one(&pool)
        .await?;
    checks.extend(fences(subject, fence, highest));
    pool.close().await;
    Ok(checks)
}

fn not_installed(subject: &str, flag: &str) -> Check {
    let advice = format!("palisade guard install {flag} ...");
    Check::fail(
        INSTALLED,
        subject,
        "it is not installed: no write is refused",
        advice,
    )
}

fn guarded(subject: &str, tables: i64, how: &str) -> Check {
    let check = match tables {
        0 => {
            let advice = format!("{how}: a table that is not protected takes every write");
            Check::warn(
                INSTALLED,
                subject,
                "it is installed, and no table is protected",
                advice,
            )
        }
        1 => Check::ok(INSTALLED, subject, "1 table is protected"),
        tables => Check::ok(INSTALLED, subject, format!("{tables} tables are protected")),
    };
    check.value("tables", tables)
}

/// A fence above every token that the coordinators can have issued refuses whoever they grant to.
fn fences(subject: &str, fence: Option<i64>, highest: Option<u64>) -> Option<Check> {
    let (fence, highest) = (u64::try_from(fence?).ok()?, highest?);
    let now = u64::try_from(clock::unix_ms()).unwrap_or_default();
    let a_day_ahead = now
        .saturating_mul(1_000)
        .saturating_add(WallClock::DAY_MICROS);
    let found = format!("its highest fence is {fence}, above all tokens so far ({highest})");
    let advance = format!("palisade generation advance --past {fence} --reason TEXT");
    let check = if fence <= highest.saturating_add(MEANWHILE) {
        Check::ok(
            FENCES,
            subject,
            "no fence is above the tokens issued so far",
        )
    } else if fence <= a_day_ahead {
        let advice = format!(
            "is it the database of these coordinators? Then they step past it once a holder tells them of the \
             refusal, or now by {advance}"
        );
        Check::warn(FENCES, subject, found, advice)
    } else {
        let advice = format!(
            "it is more than a day ahead of the clock, and refuses every holder. Is it the database of these \
             coordinators, and the clock right? Then {advance} --force"
        );
        Check::fail(FENCES, subject, found, advice)
    };
    Some(
        check
            .value("highest_fence", fence)
            .value("highest_token", highest),
    )
}
