//! What SQLite's errors mean here. Decided by result code, but for the guard's own words: a trigger in
//! SQLite can say nothing but a text, so ours begins with a code and ends with a resource.

use sqlx::sqlite::SqliteError;

use crate::GuardError;

/// `SQLITE_CONSTRAINT_TRIGGER`: a trigger has raised.
const RAISED: i32 = 1811;

/// Primary result codes: the low byte of the extended ones.
pub(super) const ERROR: i32 = 1;
pub(super) const BUSY: i32 = 5;
pub(super) const LOCKED: i32 = 6;
pub(super) const CONSTRAINT: i32 = 19;

/// How the text of the triggers on protected tables begins; the resource follows.
pub(super) const UNGUARDED: &str = "ZF003 unguarded: this transaction has no entry for ";

/// How it begins when there is an entry, but not for the grant that is sealed now.
pub(super) const REFUSED: &str =
    "ZF001 stale: the entry of this transaction is not what was sealed for ";

fn extended(error: &sqlx::Error) -> Option<i32> {
    let error = error.as_database_error()?;
    error.try_downcast_ref::<SqliteError>()?;
    error.code()?.parse().ok()
}

pub(super) fn primary(error: &sqlx::Error) -> Option<i32> {
    extended(error).map(|code| code & 0xff)
}

/// The error as a [`GuardError`], or itself if nothing is known of it.
pub(crate) fn known(error: sqlx::Error) -> Result<GuardError, sqlx::Error> {
    match primary(&error) {
        Some(BUSY | LOCKED) => Ok(GuardError::Serialization(Box::new(error))),
        Some(CONSTRAINT) if extended(&error) == Some(RAISED) => unguarded(&error).ok_or(error),
        _ => Err(error),
    }
}

fn unguarded(error: &sqlx::Error) -> Option<GuardError> {
    let resource = error
        .as_database_error()?
        .message()
        .strip_prefix(UNGUARDED)?;
    Some(GuardError::Unguarded {
        resource: resource.to_owned(),
        table: None,
    })
}

pub(super) fn plain(error: sqlx::Error) -> GuardError {
    known(error).unwrap_or_else(|error| GuardError::Backend(Box::new(error)))
}
