//! Messages as they come in, whoever made them: what is accepted keeps its bounds, what is refused names field and bound, and
//! tells no secret.

use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::attach_request::Message;
use palisade_api::v1::{GetLeaseRequest, ListLeasesRequest, OpenSessionRequest};
use palisade_api::{
    AcquireRequest, AttachRequest, ERROR_DOMAIN, ReleaseRequest, SessionOpening, SessionRef,
};
use prost::Message as _;
use tonic_types::StatusExt;

use super::error::{BadField, CallError};
use super::{attach, deadline, page, parse};
use crate::config::Limits;

/// The most that is told of what was given: a text's first characters, each escaped at the longest.
const MOST_GIVEN: usize = 64 * 10 + 2;
/// Shorter ones are told by chance.
const LEAST_SECRET: usize = 8;

/// Holds a refusal to what all refusals are.
pub(crate) fn is_told(bad: BadField, secrets: &[&[u8]]) {
    assert!(!bad.field.is_empty() && !bad.bound.is_empty(), "{bad:?}");
    assert!(bad.given.len() <= MOST_GIVEN, "{} bytes", bad.given.len());
    assert!(!bad.given.contains(char::is_control), "{bad:?}");
    let status = super::refuse(&CallError::Field(bad.clone()));
    let info = status
        .get_details_error_info()
        .expect("every error has one");
    assert_eq!(
        (info.domain.as_str(), info.reason.as_str()),
        (ERROR_DOMAIN, "INVALID_FIELD")
    );
    assert_eq!(info.metadata["field"], bad.field);
    // Of a secret and of metadata only the length is told; other fields are told as they were sent.
    let is_secret = ["secret", "metadata", "body"]
        .iter()
        .any(|end| bad.field.ends_with(end));
    let told = format!("{status:?} {bad:?}");
    for secret in secrets
        .iter()
        .filter(|secret| is_secret && secret.len() >= LEAST_SECRET)
    {
        if let Ok(secret) = std::str::from_utf8(secret) {
            assert!(!told.contains(secret), "{told}");
        }
    }
}

/// What is checked of a message: its bounds are the configured ones.
fn check<T>(parsed: Result<T, BadField>, secrets: &[&[u8]]) -> Option<T> {
    match parsed {
        Ok(value) => Some(value),
        Err(bad) => {
            is_told(bad, secrets);
            None
        }
    }
}

/// The number of a message and its bytes.
pub(crate) fn messages(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    let limits = Limits::default();
    match kind % 8 {
        0 => {
            if let Ok(OpenSessionRequest {
                opening: Some(given),
            }) = OpenSessionRequest::decode(bytes)
            {
                opening(&given, &limits);
            }
        }
        1 => {
            if let Ok(given) = SessionRef::decode(bytes) {
                session(&given);
            }
        }
        2 => {
            if let Ok(given) = AcquireRequest::decode(bytes) {
                acquire(given, &limits);
            }
        }
        3 => {
            if let Ok(given) = ReleaseRequest::decode(bytes) {
                if let Some(owner) = &given.session {
                    session(owner);
                }
                check(parse::resource("resource", &given.resource), &[]);
                check(parse::hold(given.hold), &[]);
                check(
                    parse::fence("refused_by_fence", given.refused_by_fence),
                    &[],
                );
            }
        }
        4 => {
            if let Ok(given) = GetLeaseRequest::decode(bytes) {
                check(parse::resource("resource", &given.resource), &[]);
                let size = check(parse::queue_size("queue_size", given.queue_size), &[]);
                assert!(size.is_none_or(|size| size <= 1000));
            }
        }
        5 => {
            if let Ok(given) = ListLeasesRequest::decode(bytes) {
                list(&given);
            }
        }
        6 => {
            if let Ok(AttachRequest {
                seq,
                message: Some(message),
            }) = AttachRequest::decode(bytes)
            {
                if let Message::Open(open) = &message {
                    assert!(!format!("{open:?}").is_empty());
                }
                attach::fuzz_message(seq, message, &limits);
            }
        }
        _ => deadline::fuzz_timeout(bytes),
    }
}

pub(super) fn opening(given: &SessionOpening, limits: &Limits) {
    let least = limits.min_ttl;
    if let Some(opening) = check(parse::opening(given, limits, least), &[&given.secret]) {
        let bounds = parse::millis(least)..=parse::millis(limits.max_ttl).next_multiple_of(1000);
        assert!(bounds.contains(&opening.ttl_ms), "{}", opening.ttl_ms);
        assert!(opening.ttl_ms.is_multiple_of(1000) && opening.ttl_ms >= given.ttl_ms);
        assert!((1..=64).contains(&opening.open_id.as_str().len()));
        assert!(opening.label.len() <= 128 && !opening.label.contains(char::is_control));
        assert!(opening.epoch >= 1);
    }
}

pub(super) fn session(given: &SessionRef) {
    if let Some(credentials) = check(parse::session(given), &[&given.secret]) {
        assert_eq!(credentials.session.to_string(), given.session_id);
        assert!(credentials.epoch >= 1 && (16..=64).contains(&given.secret.len()));
    }
}

pub(crate) fn acquire(given: AcquireRequest, limits: &Limits) {
    match &given.owner {
        Some(Owner::Session(owner)) => session(owner),
        Some(Owner::Opening(owner)) => opening(owner, limits),
        None => {}
    }
    if let Some(resource) = check(parse::resource("resource", &given.resource), &[]) {
        assert_eq!(resource.as_str(), given.resource);
    }
    check(parse::request_id("request_id", &given.request_id), &[]);
    let wait = check(parse::wait("wait_ms", given.wait_ms, limits), &[]);
    assert!(wait.is_none_or(|wait| wait <= limits.max_wait));
    let delay = check(
        parse::lock_delay("lock_delay_ms", given.lock_delay_ms, limits),
        &[],
    );
    assert!(delay.is_none_or(|delay| delay <= limits.max_lock_delay));
    let secret = given.metadata.clone();
    let metadata = check(
        parse::metadata("metadata", given.metadata, limits),
        &[&secret],
    );
    assert!(metadata.is_none_or(|bytes| bytes.len() <= limits.max_metadata_bytes));
}

fn list(given: &ListLeasesRequest) {
    let size = check(page::size("page_size", given.page_size), &[]);
    assert!(size.is_none_or(|size| (1..=1000).contains(&size)));
    let Some(prefix) = check(page::prefix("prefix", &given.prefix), &[]) else {
        return;
    };
    if let Some(Some(after)) = check(page::after("page_token", prefix, &given.page_token), &[]) {
        // Upper case is read, too; what is made is lower.
        assert_eq!(
            page::token(prefix, &after),
            given.page_token.to_ascii_lowercase()
        );
    }
    if let Some(name) = check(parse::resource("resource", &given.page_token), &[]) {
        let token = page::token(prefix, &name);
        let after = page::after("page_token", prefix, &token);
        assert_eq!(after, Ok(Some(name)));
    }
}
