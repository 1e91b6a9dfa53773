use sqlx::PgPool;

use super::lent::Lent;
use super::{Guard, errors, sql};
use crate::GuardError;

const BOOTSTRAP: &str = include_str!("../../sql/postgres/bootstrap.sql");

/// Version and text of each step. A published step never changes; a new one is added at the end.
const MIGRATIONS: &[(i64, &str)] = &[
    (
        1,
        concat!(
            include_str!("../../sql/postgres/0001_guard.sql"),
            "\n",
            include_str!("../../sql/postgres/0001_entry.sql")
        ),
    ),
    (
        2,
        concat!(
            include_str!("../../sql/postgres/0002_protect.sql"),
            "\n",
            include_str!("../../sql/postgres/0002_functions.sql"),
            "\n",
            include_str!("../../sql/postgres/0002_audit.sql")
        ),
    ),
    (3, include_str!("../../sql/postgres/0003_keys.sql")),
    (4, include_str!("../../sql/postgres/0004_flow.sql")),
    (5, include_str!("../../sql/postgres/0005_outbox.sql")),
];

/// Who may call what: after the steps, each of which starts from nobody.
const RIGHTS: &str = include_str!("../../sql/postgres/rights.sql");

/// The calls of another language, as comments.
const USAGE: &str = include_str!("../../sql/postgres/usage.sql");

/// All that [`Guard::install`] does, as one text for `psql`, and the calls that another language makes. Where
/// some of it is installed before, it fails and changes nothing.
///
/// ```
/// let script = palisade_guard::postgres::script();
/// assert!(script.contains("palisade.fence"));
/// ```
#[must_use]
pub fn script() -> String {
    let mut script = format!(
        "BEGIN;\nSELECT pg_catalog.pg_advisory_xact_lock(1346456649, 1024);\n{BOOTSTRAP}\n"
    );
    for (version, text) in MIGRATIONS {
        script +=
            &format!("INSERT INTO palisade.migration (version) VALUES ({version});\n\n{text}\n");
    }
    script + RIGHTS + "\nCOMMIT;\n\n" + USAGE
}

impl Guard {
    /// Creates the schema `palisade`, or brings it up to date: all of it or nothing. Any number of
    /// installers may run at once. Needs the right to create a schema, unless all is installed.
    ///
    /// # Errors
    /// [`GuardError::Newer`] if a newer library made the schema, [`GuardError::Backend`].
    pub async fn install(&self, pool: &PgPool) -> Result<(), GuardError> {
        let mut lent = Lent::from(pool).await?;
        match migrate(&mut lent).await {
            Ok(Ok(())) => {
                lent.give_back();
                Ok(())
            }
            Ok(Err(refused)) => {
                run(&mut lent, "ROLLBACK").await.map_err(errors::plain)?;
                lent.give_back();
                Err(refused)
            }
            Err(error) => {
                lent.recover(&error).await;
                Err(errors::plain(error))
            }
        }
    }
}

async fn migrate(lent: &mut Lent) -> Result<Result<(), GuardError>, sqlx::Error> {
    // 1024 lies beside the stripes: the lock of installers alone. With a message of its own, the
    // statements after it see what the installer before has committed.
    run(
        lent,
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
         SELECT pg_advisory_xact_lock(1346456649, 1024)",
    )
    .await?;
    run(lent, BOOTSTRAP).await?;
    let found: i64 = sqlx::raw_sql(sql::message(
        "SELECT coalesce(max(version), 0)::bigint AS version FROM palisade.migration".to_owned(),
    ))
    .fetch_one(&mut **lent.connection())
    .await
    .and_then(|row| sqlx::Row::try_get(&row, 0))?;
    let known = MIGRATIONS.last().map_or(0, |(version, _)| *version);
    if found > known {
        return Ok(Err(GuardError::Newer { found, known }));
    }
    for (version, text) in MIGRATIONS {
        if *version > found {
            run(lent, text).await?;
            let record = format!("INSERT INTO palisade.migration (version) VALUES ({version})");
            run(lent, &record).await?;
        }
    }
    if found < known {
        run(lent, RIGHTS).await?;
    }
    run(lent, "COMMIT").await?;
    Ok(Ok(()))
}

async fn run(lent: &mut Lent, text: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql::message(text.to_owned()))
        .execute(&mut **lent.connection())
        .await
        .map(drop)
}
