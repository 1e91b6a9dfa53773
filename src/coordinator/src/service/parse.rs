//! From what was sent to what the domain knows, with every bound named.

use std::borrow::Cow;
use std::time::Duration;

use palisade_api::v1::release_request;
use palisade_api::{SessionOpening, SessionRef};
use palisade_token::{FencingToken, ResourceName, ResourceNameError};

use super::error::BadField;
use crate::config::Limits;
use crate::domain::{HoldName, IdError, OpenId, RequestId, SecretHash, SessionId};

/// The shortest secret, in bytes: 128 bits cannot be guessed.
const MIN_SECRET_BYTES: usize = 16;
/// The longest secret, in bytes: beyond a hash's block nothing is gained.
const MAX_SECRET_BYTES: usize = 64;
/// The longest label, in bytes: it is for a line on a screen.
const MAX_LABEL_BYTES: usize = 128;
/// How much of a queue is listed at most, as the interface has it.
const MAX_QUEUE_SIZE: usize = 1000;
/// How much of a bad value is told back.
const SHOWN_CHARACTERS: usize = 64;

const NAME_BOUND: &str = "1 to 256 bytes: segments of [A-Za-z0-9._:-] joined by \"/\", none of them \
     empty, \".\" or \"..\"";
const ID_BOUND: &str = "1 to 64 characters of [A-Za-z0-9._:-]";
const SESSION_BOUND: &str =
    "16 of [0-9a-f], from 0000000000000001 to 7fffffffffffffff, as OpenSession answered it";
const TOKEN_BOUND: &str = "1 to 9007199254740991";
const REQUIRED: &str = "set";

pub(crate) fn bad(
    field: impl Into<Cow<'static, str>>,
    bound: impl Into<String>,
    given: impl ToString,
) -> BadField {
    BadField {
        field: field.into(),
        bound: bound.into(),
        given: given.to_string(),
    }
}

pub(super) fn missing(field: &'static str) -> BadField {
    bad(field, REQUIRED, "missing")
}

/// The beginning of a text, in quotes.
pub(crate) fn shown(text: &str) -> String {
    format!(
        "{:?}",
        text.chars().take(SHOWN_CHARACTERS).collect::<String>()
    )
}

/// Unwraps a message that must be there.
pub(super) fn required<T>(field: &'static str, message: Option<T>) -> Result<T, BadField> {
    message.ok_or_else(|| missing(field))
}

pub(super) fn resource(field: &'static str, text: &str) -> Result<ResourceName, BadField> {
    ResourceName::new(text).map_err(|error| {
        let given = match error {
            ResourceNameError::TooLong { given } => format!("{given} bytes"),
            _ => shown(text),
        };
        bad(field, NAME_BOUND, given)
    })
}

fn text_id<T>(field: &'static str, text: &str, parsed: Result<T, IdError>) -> Result<T, BadField> {
    parsed.map_err(|_| bad(field, ID_BOUND, shown(text)))
}

pub(super) fn request_id(field: &'static str, text: &str) -> Result<RequestId, BadField> {
    text_id(field, text, RequestId::new(text))
}

pub(super) fn token(field: &'static str, number: i64) -> Result<FencingToken, BadField> {
    FencingToken::try_from(number).map_err(|_| bad(field, TOKEN_BOUND, number))
}

/// A fence that a guard showed; 0 means none.
pub(super) fn fence(field: &'static str, number: i64) -> Result<Option<FencingToken>, BadField> {
    if number == 0 {
        return Ok(None);
    }
    FencingToken::try_from(number)
        .map(Some)
        .map_err(|_| bad(field, "0 to 9007199254740991", number))
}

fn secret(field: &'static str, bytes: &[u8]) -> Result<SecretHash, BadField> {
    if (MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&bytes.len()) {
        return Ok(SecretHash::of(bytes));
    }
    let bound = format!("{MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes");
    Err(bad(field, bound, format!("{} bytes", bytes.len())))
}

/// The epoch: 0 is read as 1.
fn epoch(given: u64) -> u64 {
    given.max(1)
}

/// Who calls, as far as the request says.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) session: SessionId,
    pub(super) secret: SecretHash,
    pub(super) epoch: u64,
}

pub(super) fn session(given: &SessionRef) -> Result<Credentials, BadField> {
    let id = &given.session_id;
    Ok(Credentials {
        session: id
            .parse()
            .map_err(|_| bad("session.session_id", SESSION_BOUND, shown(id)))?,
        secret: secret("session.secret", &given.secret)?,
        epoch: epoch(given.epoch),
    })
}

/// How to open a session.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) open_id: OpenId,
    pub(super) secret: SecretHash,
    pub(super) ttl_ms: u64,
    pub(super) label: String,
    pub(super) epoch: u64,
}

pub(super) fn opening(
    given: &SessionOpening,
    limits: &Limits,
    least_ttl: Duration,
) -> Result<Opening, BadField> {
    let open_id = OpenId::new(&given.open_id);
    Ok(Opening {
        open_id: text_id("opening.open_id", &given.open_id, open_id)?,
        secret: secret("opening.secret", &given.secret)?,
        ttl_ms: ttl("opening.ttl_ms", given.ttl_ms, limits, least_ttl)?,
        label: label("opening.label", &given.label)?,
        epoch: epoch(given.epoch),
    })
}

/// A time to live: within the bounds, and in whole seconds, rounded up, as etcd has it. A shorter one is
/// never made longer on the quiet: who asks for it would count on a takeover that soon.
fn ttl(
    field: &'static str,
    given_ms: u64,
    limits: &Limits,
    least: Duration,
) -> Result<u64, BadField> {
    let least = millis(limits.min_ttl.max(least));
    let most = millis(limits.max_ttl);
    let asked = match given_ms {
        0 => millis(limits.default_ttl).max(least),
        _ => given_ms,
    };
    if !(least..=most).contains(&asked) {
        let bound = format!("{least} to {most} ms, or 0 for the default");
        return Err(bad(field, bound, format!("{given_ms} ms")));
    }
    Ok(asked.div_ceil(1000) * 1000)
}

fn label(field: &'static str, text: &str) -> Result<String, BadField> {
    if text.len() > MAX_LABEL_BYTES {
        let bound = format!("at most {MAX_LABEL_BYTES} bytes");
        return Err(bad(field, bound, format!("{} bytes", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(bad(field, "without control characters", shown(text)));
    }
    Ok(text.to_owned())
}

pub(super) fn wait(
    field: &'static str,
    given_ms: u64,
    limits: &Limits,
) -> Result<Duration, BadField> {
    let most = millis(limits.max_wait);
    if given_ms > most {
        return Err(bad(
            field,
            format!("0 to {most} ms"),
            format!("{given_ms} ms"),
        ));
    }
    Ok(Duration::from_millis(given_ms))
}

pub(super) fn lock_delay(
    field: &'static str,
    given_ms: u64,
    limits: &Limits,
) -> Result<Duration, BadField> {
    let most = millis(limits.max_lock_delay);
    if given_ms > most {
        return Err(bad(
            field,
            format!("0 to {most} ms"),
            format!("{given_ms} ms"),
        ));
    }
    Ok(Duration::from_millis(given_ms))
}

pub(super) fn metadata(
    field: &'static str,
    given: Vec<u8>,
    limits: &Limits,
) -> Result<Vec<u8>, BadField> {
    if given.len() > limits.max_metadata_bytes {
        let bound = format!("at most {} bytes", limits.max_metadata_bytes);
        return Err(bad(field, bound, format!("{} bytes", given.len())));
    }
    Ok(given)
}

/// How many of a queue to list.
pub(super) fn queue_size(field: &'static str, given: i32) -> Result<usize, BadField> {
    let size = usize::try_from(given).ok();
    let size = size.filter(|size| *size <= MAX_QUEUE_SIZE);
    size.ok_or_else(|| bad(field, format!("0 to {MAX_QUEUE_SIZE}"), given))
}

pub(super) fn hold(given: Option<release_request::Hold>) -> Result<HoldName, BadField> {
    match required("hold", given)? {
        release_request::Hold::Token(number) => Ok(HoldName::Token(token("token", number)?)),
        release_request::Hold::RequestId(text) => {
            Ok(HoldName::Request(request_id("request_id", &text)?))
        }
    }
}

/// Milliseconds as the interface has them. Nothing here is longer than a day.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
