use std::collections::HashMap;
use std::time::Duration;

use palisade_api::{ERROR_DOMAIN, ErrorReason};
use palisade_token::{FencingToken, ResourceName};
use tonic::Code;
use tonic_types::StatusExt;

use super::{lower_camel, status};
use crate::access::{AccessError, Verb};
use crate::domain::{GenerationError, OpenId, Principal, Refusal, RequestId, SessionId, WallClock};
use crate::service::error::{About, BadField, CallError};
use crate::store::{Failure, Outcome, StoreError};

/// What a store says and nobody else may hear.
const BACKEND_TEXT: &str = "etcdserver: secret words";

fn token(number: u64) -> FencingToken {
    FencingToken::new(number).unwrap()
}

fn session() -> SessionId {
    SessionId::derive(&Principal::anonymous(), &OpenId::new("open").unwrap())
}

fn about() -> About {
    About {
        session: Some(session()),
        resource: Some(ResourceName::new("orders/eu").unwrap()),
        request: Some(RequestId::new("r1").unwrap()),
    }
}

fn failed(failure: Failure) -> CallError {
    StoreError::unknown(failure, BACKEND_TEXT).into()
}

fn refusal(refusal: Refusal) -> CallError {
    refusal.into()
}

type Row = (CallError, Code, ErrorReason, Vec<(&'static str, String)>);

#[allow(clippy::too_many_lines, reason = "a table")]
fn refusals() -> Vec<Row> {
    use ErrorReason as Reason;
    let session = session();
    let request = RequestId::new("r0").unwrap();
    let held = || ("resource", "orders/eu".to_owned());
    let of = |key, value: &str| (key, value.to_owned());
    let id = || ("sessionId", session.to_string());
    vec![
        (
            refusal(Refusal::LeaseHeld {
                token: Some(token(7)),
            }),
            Code::FailedPrecondition,
            Reason::LeaseHeld,
            vec![held(), of("token", "7")],
        ),
        (
            refusal(Refusal::LeaseHeld { token: None }),
            Code::FailedPrecondition,
            Reason::LeaseHeld,
            vec![held()],
        ),
        (
            refusal(Refusal::AlreadyHeld {
                request: request.clone(),
                token: token(7),
            }),
            Code::FailedPrecondition,
            Reason::AlreadyHeld,
            vec![held(), of("requestId", "r0"), of("token", "7")],
        ),
        (
            refusal(Refusal::WaitExpired),
            Code::Aborted,
            Reason::WaitExpired,
            vec![held(), of("requestId", "r1")],
        ),
        (
            refusal(Refusal::SessionEnded { session }),
            Code::NotFound,
            Reason::SessionEnded,
            vec![id()],
        ),
        (
            refusal(Refusal::NotYours { session }),
            Code::PermissionDenied,
            Reason::PermissionDenied,
            vec![id()],
        ),
        (
            refusal(Refusal::OpenIdTaken { session }),
            Code::PermissionDenied,
            Reason::PermissionDenied,
            vec![id()],
        ),
        (
            refusal(Refusal::EpochStale {
                given: 1,
                stored: 2,
            }),
            Code::Aborted,
            Reason::EpochStale,
            vec![id(), of("epoch", "1"), of("storedEpoch", "2")],
        ),
        (
            refusal(Refusal::RequestMismatch {
                request,
                field: "metadata",
            }),
            Code::InvalidArgument,
            Reason::RequestMismatch,
            vec![of("requestId", "r0"), of("field", "metadata")],
        ),
        (
            refusal(Refusal::StaleToken {
                given: token(9),
                current: Some(token(7)),
            }),
            Code::FailedPrecondition,
            Reason::StaleToken,
            vec![held(), of("token", "9"), of("currentToken", "7")],
        ),
        (
            refusal(Refusal::StaleToken {
                given: token(9),
                current: None,
            }),
            Code::FailedPrecondition,
            Reason::StaleToken,
            vec![held(), of("token", "9"), of("currentToken", "0")],
        ),
        (
            refusal(Refusal::LimitReached {
                limit: "waiters per resource",
                bound: 5,
            }),
            Code::ResourceExhausted,
            Reason::LimitReached,
            vec![of("limit", "waitersPerResource"), of("bound", "5")],
        ),
    ]
}

fn failures() -> Vec<Row> {
    use ErrorReason as Reason;
    let may = || ("mayHaveHappened", "true".to_owned());
    let not = || ("mayHaveHappened", "false".to_owned());
    let wrong_clock = GenerationError::Clock {
        given: WallClock(0),
    };
    vec![
        (
            failed(Failure::Unavailable),
            Code::Unavailable,
            Reason::StoreUnavailable,
            vec![may()],
        ),
        (
            StoreError::not_applied(Failure::Unavailable).into(),
            Code::Unavailable,
            Reason::StoreUnavailable,
            vec![not()],
        ),
        (
            CallError::StoreSlow(Outcome::Unknown),
            Code::Unavailable,
            Reason::StoreUnavailable,
            vec![may()],
        ),
        (
            failed(Failure::NoSpace),
            Code::ResourceExhausted,
            Reason::LimitReached,
            vec![may(), ("limit", "storeSpace".to_owned())],
        ),
        (
            failed(Failure::HistoryRegressed),
            Code::Unavailable,
            Reason::HistoryRegressed,
            vec![may()],
        ),
        (
            failed(Failure::Generation(wrong_clock)),
            Code::Unavailable,
            Reason::HistoryRegressed,
            vec![may()],
        ),
        (
            failed(Failure::WrongCluster),
            Code::Unavailable,
            Reason::WrongCluster,
            vec![may()],
        ),
        (
            failed(Failure::Damaged("a record")),
            Code::Internal,
            Reason::Internal,
            vec![may()],
        ),
    ]
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn calls() -> Vec<Row> {
    use ErrorReason as Reason;
    let of = |key, value: &str| (key, value.to_owned());
    let bad = BadField {
        field: "resource".into(),
        bound: "short".to_owned(),
        given: "long".to_owned(),
    };
    vec![
        (
            CallError::Field(bad),
            Code::InvalidArgument,
            Reason::InvalidField,
            vec![
                of("field", "resource"),
                of("bound", "short"),
                of("given", "long"),
            ],
        ),
        (
            CallError::TooLate,
            Code::DeadlineExceeded,
            Reason::DeadlineExceeded,
            vec![],
        ),
        (
            CallError::WaitCutShort,
            Code::DeadlineExceeded,
            Reason::DeadlineExceeded,
            vec![of("requestId", "r1"), of("resource", "orders/eu")],
        ),
        (
            CallError::Draining,
            Code::Unavailable,
            Reason::Draining,
            vec![],
        ),
        (
            CallError::DrainingPlaceStands,
            Code::Unavailable,
            Reason::Draining,
            vec![of("requestId", "r1")],
        ),
        (
            CallError::Superseded,
            Code::Aborted,
            Reason::Superseded,
            vec![("sessionId", session().to_string())],
        ),
        (
            CallError::Cancelled,
            Code::Aborted,
            Reason::RequestCancelled,
            vec![of("requestId", "r1"), of("resource", "orders/eu")],
        ),
        (
            CallError::FenceAhead {
                token: token(1),
                fence: token(9),
            },
            Code::FailedPrecondition,
            Reason::FenceAhead,
            vec![
                of("resource", "orders/eu"),
                of("token", "1"),
                of("fence", "9"),
            ],
        ),
        (
            CallError::Limit {
                limit: "waiters",
                bound: 3,
            },
            Code::ResourceExhausted,
            Reason::LimitReached,
            vec![of("limit", "waiters"), of("bound", "3")],
        ),
        (
            CallError::Access(AccessError::Unauthenticated("no")),
            Code::Unauthenticated,
            Reason::Unauthenticated,
            vec![],
        ),
        (
            CallError::Access(AccessError::Denied { verb: Verb::Read }),
            Code::PermissionDenied,
            Reason::PermissionDenied,
            vec![of("verb", "read")],
        ),
        (
            CallError::NotServed("Attach"),
            Code::Unimplemented,
            Reason::NotServed,
            vec![],
        ),
        (
            CallError::Broken("it"),
            Code::Internal,
            Reason::Internal,
            vec![],
        ),
    ]
}

#[test]
fn every_error_has_its_code_one_reason_and_its_metadata() {
    for (error, code, reason, metadata) in [refusals(), failures(), calls()].into_iter().flatten() {
        let told = status(&error, &about());
        assert_eq!(told.code(), code, "{error:?}");
        let details = told.get_error_details_vec();
        let infos = details
            .iter()
            .filter(|detail| matches!(detail, tonic_types::ErrorDetail::ErrorInfo(_)));
        assert_eq!(infos.count(), 1, "{error:?}");
        let details = told.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.domain, ERROR_DOMAIN);
        assert_eq!(info.reason, reason.reason(), "{error:?}");
        assert!(ErrorReason::from_reason(&info.reason).is_some());
        for (key, value) in &metadata {
            assert_eq!(info.metadata.get(*key), Some(value), "{error:?}: {key}");
        }
        assert!(
            info.metadata
                .keys()
                .all(|key| key.starts_with(char::is_lowercase)
                    && key.bytes().all(|byte| byte.is_ascii_alphanumeric())),
            "{error:?}"
        );
        assert!(!format!("{told:?}").contains("secret words"), "{error:?}");
        assert_numbers_are_in_metadata(told.message(), &info.metadata);
    }
}

/// Every number of a message is a variable, so a program must find it without reading the message.
fn assert_numbers_are_in_metadata(message: &str, metadata: &HashMap<String, String>) {
    let words = message.split(|letter: char| !letter.is_ascii_alphanumeric());
    for word in words.filter(|word| word.bytes().any(|byte| byte.is_ascii_digit())) {
        let found = metadata.values().any(|value| value.contains(word));
        assert!(found, "{word:?} of {message:?}");
    }
}

#[test]
fn where_waiting_helps_it_is_told_how_long() {
    let retry = |error: CallError| {
        let details = status(&error, &about()).get_error_details();
        details.retry_info().and_then(|info| info.retry_delay)
    };
    let held = refusal(Refusal::LeaseHeld { token: None });
    assert_eq!(retry(held), Some(Duration::from_secs(1)));
    assert!(retry(failed(Failure::Unavailable)).is_some());
    assert!(retry(CallError::Draining).is_some());
    assert_eq!(retry(refusal(Refusal::WaitExpired)), None);
}

#[test]
fn a_resource_that_is_the_cause_is_named_as_such() {
    let told = status(&refusal(Refusal::LeaseHeld { token: None }), &about());
    let details = told.get_error_details();
    assert_eq!(details.resource_info().unwrap().resource_name, "orders/eu");
}

#[test]
fn limits_are_named_in_one_word() {
    assert_eq!(lower_camel("waiters per resource"), "waitersPerResource");
    assert_eq!(lower_camel("waiters"), "waiters");
}
