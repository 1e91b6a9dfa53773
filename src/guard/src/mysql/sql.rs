//! The texts that are sent: several statements in one message, as text. Names, tokens and holders need no
//! quoting, whatever `sql_mode` says: no letter of theirs is special.

use std::time::Duration;

use palisade_token::{Grant, ResourceName};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::Isolation;

pub(super) fn message(sql: String) -> SqlStr {
    AssertSqlSafe(sql).into_sql_str()
}

fn arguments(grant: &Grant) -> String {
    format!(
        "'{}', '{}', '{}'",
        grant.resource, grant.token, grant.holder
    )
}

pub(super) fn begin(isolation: Isolation, grants: &[&Grant]) -> SqlStr {
    let level = match isolation {
        Isolation::ReadCommitted => "READ COMMITTED",
        Isolation::RepeatableRead => "REPEATABLE READ",
        Isolation::Serializable => "SERIALIZABLE",
    };
    let enter: Vec<_> = grants
        .iter()
        .map(|grant| format!("CALL palisade_enter({})", arguments(grant)))
        .collect();
    message(format!(
        "SET TRANSACTION ISOLATION LEVEL {level}; START TRANSACTION READ WRITE; {}",
        enter.join("; ")
    ))
}

/// Two statements: the check is the first, COMMIT the second.
pub(super) const COMMIT: &str = "CALL palisade_leave(); COMMIT AND NO CHAIN NO RELEASE";

pub(super) fn seal(grant: &Grant, wait: Duration) -> SqlStr {
    message(format!(
        "SET @palisade_wait = @@SESSION.innodb_lock_wait_timeout; SET @palisade_auto = @@SESSION.autocommit; \
         SET SESSION innodb_lock_wait_timeout = {}; SET SESSION autocommit = 1; CALL palisade_seal({})",
        wait.as_secs(),
        arguments(grant)
    ))
}

/// Puts back what [`seal`] has set.
pub(super) const AFTER_SEAL: &str = "SET SESSION innodb_lock_wait_timeout = @palisade_wait; \
     SET SESSION autocommit = @palisade_auto";

/// What the last refusal of this session was about.
pub(super) const REFUSAL: &str = "SELECT CAST(@palisade_refusal AS CHAR) AS refusal";

/// For DDL: how the routines' texts are to be understood, and how long to wait for those who use the table.
pub(super) fn before_ddl(wait: Duration) -> SqlStr {
    message(format!(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'; \
         SET SESSION lock_wait_timeout = {}",
        wait.as_secs()
    ))
}

pub(super) fn status(resource: &ResourceName) -> SqlStr {
    message(format!("CALL palisade_status('{resource}')"))
}

pub(super) fn blockers(resource: &ResourceName) -> SqlStr {
    message(format!("CALL palisade_blockers('{resource}')"))
}

pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text literal under the `sql_mode` of [`before_ddl`].
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::{identifier, literal};

    #[test]
    fn literals_and_identifiers_cannot_be_left() {
        assert_eq!(literal(r"o'; \' DROP"), r"'o''; \\'' DROP'");
        assert_eq!(identifier("a`; DROP"), "`a``; DROP`");
    }
}
