//! The texts that are sent. Everything goes by the simple protocol: several statements in one message,
//! no prepared statement, so that a pooler in transaction mode may sit between.

use std::fmt::Write as _;

use palisade_token::Grant;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use super::Isolation;

/// Quotes a text as an SQL literal, whatever `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 4);
    if text.contains('\\') {
        quoted.push_str(" E");
    }
    quoted.push('\'');
    for character in text.chars() {
        if matches!(character, '\'' | '\\') {
            quoted.push(character);
        }
        quoted.push(character);
    }
    quoted.push('\'');
    quoted
}

pub(super) fn message(sql: String) -> SqlStr {
    AssertSqlSafe(sql).into_sql_str()
}

fn arguments(grant: &Grant) -> String {
    format!(
        "{}, {}, '{}'",
        literal(grant.resource.as_str()),
        grant.token,
        grant.holder
    )
}

pub(super) fn begin(isolation: Isolation, grants: &[&Grant]) -> SqlStr {
    let level = match isolation {
        Isolation::ReadCommitted => "READ COMMITTED",
        Isolation::RepeatableRead => "REPEATABLE READ",
        Isolation::Serializable => "SERIALIZABLE",
    };
    let mut sql = format!("BEGIN ISOLATION LEVEL {level} READ WRITE; ");
    if let [grant] = grants {
        let entry = format!(" {} {} {}", grant.resource, grant.token, grant.holder);
        sql += &format!("CALL palisade.open({})", literal(&entry));
        return message(sql);
    }
    // In the order of the locks: against waiting seals, any other order stalls for deadlock_timeout.
    sql.push_str(
        "SELECT palisade.enter(e.resource, e.token, e.holder) FROM (SELECT * FROM (VALUES ",
    );
    for (index, grant) in grants.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        write!(sql, "{separator}({})", arguments(grant)).expect("writing to a String never fails");
    }
    sql.push_str(
        ") AS v (resource, token, holder) ORDER BY palisade.stripe(resource), resource) AS e",
    );
    message(sql)
}

/// Check and COMMIT. Of one grant, the cursor is the check: `palisade.open` has made it if the grant is
/// admitted, and it lasts as long as its transaction. AND CHAIN opens an empty transaction for the ROLLBACK with
/// which sqlx ends every transaction that it did not commit itself; without it each commit would log a warning.
pub(super) fn commit(grants: &[&Grant]) -> SqlStr {
    if grants.len() == 1 {
        return SqlStr::from_static("FETCH palisade_admitted; COMMIT AND CHAIN");
    }
    let checks: Vec<_> = grants
        .iter()
        .map(|grant| format!("({}, true)", arguments(grant)))
        .collect();
    message(format!(
        "SELECT max(palisade.check(g.resource, g.token, g.holder, g.entered)) AS xact \
         FROM (VALUES {}) AS g (resource, token, holder, entered); COMMIT AND CHAIN",
        checks.join(", ")
    ))
}

pub(super) fn seal(grant: &Grant, wait_millis: u128) -> SqlStr {
    message(format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {wait_millis}; \
         SELECT palisade.seal({}); COMMIT",
        arguments(grant)
    ))
}

/// Asks why a transaction of these grants was refused, in one of its own.
pub(super) fn diagnose(grants: &[&Grant]) -> SqlStr {
    let checks: String = grants
        .iter()
        .map(|grant| format!("SELECT palisade.check({}); ", arguments(grant)))
        .collect();
    message(checks)
}

#[cfg(test)]
mod tests {
    use super::literal;

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal("orders"), "'orders'");
        assert_eq!(literal("o'; DROP"), "'o''; DROP'");
        assert_eq!(literal(r"\'"), r" E'\\'''");
    }
}
