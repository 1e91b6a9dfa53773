use sqlx::{MySqlPool, Row};

use super::lent::Lent;
use super::{Guard, errors, sql};
use crate::GuardError;

const BOOTSTRAP: &str = "CREATE TABLE IF NOT EXISTS palisade_migration (
    version BIGINT NOT NULL PRIMARY KEY,
    applied_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
) ENGINE = InnoDB";

/// Version and text of each step. A published step never changes; a new one is added at the end.
const MIGRATIONS: &[(i64, &str)] = &[(1, include_str!("../../sql/mysql/0001_guard.sql"))];

/// Between two statements of a step.
const NEXT: &str = "-- next\n";

/// `ER_SP_ALREADY_EXISTS`, `ER_TRG_ALREADY_EXISTS`: another installer of the same step was quicker.
const ALREADY: [u16; 2] = [1304, 1359];

/// What another language sends, as comments.
const USAGE: &str = include_str!("../../sql/mysql/usage.sql");

/// What [`Guard::install`] does, as one text for the client `mysql` or `mariadb`, and the calls that another
/// language makes. It may be run again. Protecting a table takes [`Guard::protect`].
///
/// ```
/// let script = palisade_guard::mysql::script();
/// assert!(script.contains("palisade_fence"));
/// ```
#[must_use]
pub fn script() -> String {
    let mut script = format!(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION';\n{BOOTSTRAP};\nDELIMITER $$\n"
    );
    for (version, text) in MIGRATIONS {
        for statement in text.split(NEXT) {
            script += &format!("{}\n$$\n", statement.trim_end());
        }
        script +=
            &format!("INSERT IGNORE INTO palisade_migration (version) VALUES ({version})\n$$\n");
    }
    script + "DELIMITER ;\n\n" + USAGE
}

impl Guard {
    /// Creates the tables and procedures `palisade_*` in the pool's database, or brings them up to date. Any
    /// number of installers may run at once, and one that was cut short is finished by the next. Needs the
    /// rights CREATE, ALTER, CREATE ROUTINE, ALTER ROUTINE and TRIGGER, and where the binary log is on,
    /// `log_bin_trust_function_creators` or SUPER. Logs what [`Guard::weaknesses`] finds.
    ///
    /// # Errors
    /// [`GuardError::Newer`] if a newer library made them, [`GuardError::Backend`].
    pub async fn install(&self, pool: &MySqlPool) -> Result<(), GuardError> {
        // Closed afterwards: its settings are not those of the pool.
        let mut lent = Lent::from(pool).await?;
        lent.run(sql::before_ddl(self.wait()))
            .await
            .map_err(errors::plain)?;
        lent.run(sql::message(BOOTSTRAP.to_owned()))
            .await
            .map_err(errors::plain)?;
        let version =
            "SELECT CAST(COALESCE(MAX(version), 0) AS SIGNED) AS version FROM palisade_migration";
        let found: i64 = sqlx::raw_sql(version)
            .fetch_one(&mut **lent.connection())
            .await
            .and_then(|row| row.try_get("version"))
            .map_err(errors::plain)?;
        let known = MIGRATIONS.last().map_or(0, |(version, _)| *version);
        if found > known {
            return Err(GuardError::Newer { found, known });
        }
        for (version, text) in MIGRATIONS.iter().filter(|(version, _)| *version > found) {
            step(&mut lent, *version, text)
                .await
                .map_err(errors::plain)?;
        }
        drop(lent);
        for weakness in self.weaknesses(pool).await? {
            tracing::warn!(%weakness, "this server may lose what it has acknowledged");
        }
        Ok(())
    }
}

/// No transaction holds DDL together here, so each statement may be run again; the record comes last.
async fn step(lent: &mut Lent, version: i64, text: &str) -> Result<(), sqlx::Error> {
    for statement in text.split(NEXT) {
        match lent.run(sql::message(statement.to_owned())).await {
            Err(error) if errors::number(&error).is_some_and(|n| ALREADY.contains(&n)) => {}
            result => result?,
        }
    }
    let record = format!("INSERT IGNORE INTO palisade_migration (version) VALUES ({version})");
    lent.run(sql::message(record)).await
}
