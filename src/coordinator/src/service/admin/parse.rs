//! The bounds of what operators send.

use std::time::Duration;

use palisade_token::FencingToken;

use crate::service::error::BadField;
use crate::service::parse::bad;

const MAX_REASON_BYTES: usize = 256;
const MAX_ACTOR_BYTES: usize = 128;
/// Above this half of all tokens there can be would be gone.
const MAX_PAST: i64 = 1 << 52;
const MOST_PATIENCE: Duration = Duration::from_secs(10 * 60);
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Why, and who.
pub(super) fn why<'a>(reason: &'a str, actor: &'a str) -> Result<(&'a str, &'a str), BadField> {
    let text = |field, text: &'a str, most: usize| {
        let is_plain = !text.chars().any(char::is_control);
        if (1..=most).contains(&text.len()) && is_plain {
            return Ok(text);
        }
        let bound = format!("1 to {most} bytes without control characters");
        Err(bad(field, bound, format!("{} bytes", text.len())))
    };
    Ok((
        text("reason", reason, MAX_REASON_BYTES)?,
        text("actor", actor, MAX_ACTOR_BYTES)?,
    ))
}

pub(super) fn past(field: &'static str, given: i64) -> Result<Option<FencingToken>, BadField> {
    match given {
        0 => Ok(None),
        1..=MAX_PAST => FencingToken::try_from(given)
            .map(Some)
            .map_err(|_| bad(field, "0 to 4503599627370496", given)),
        _ => Err(bad(field, "0 to 4503599627370496", given)),
    }
}

fn patience(field: &'static str, given_ms: u64) -> Result<Duration, BadField> {
    let given = Duration::from_millis(given_ms);
    if given <= MOST_PATIENCE {
        return Ok(given);
    }
    let bound = format!("0 to {} ms", MOST_PATIENCE.as_millis());
    Err(bad(field, bound, format!("{given_ms} ms")))
}

/// How long a holder is asked; 0 is not at all.
pub(super) fn cooperative(field: &'static str, given_ms: u64) -> Result<Duration, BadField> {
    patience(field, given_ms)
}

/// How long streams have to go elsewhere.
pub(super) fn drain_limit(field: &'static str, given_ms: u64) -> Result<Duration, BadField> {
    match patience(field, given_ms)? {
        Duration::ZERO => Ok(DRAIN_LIMIT),
        given => Ok(given),
    }
}
