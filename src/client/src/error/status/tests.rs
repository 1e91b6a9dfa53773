use std::collections::HashMap;
use std::time::Duration;

use palisade_api::{ERROR_DOMAIN, ErrorReason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Failure, Verdict};
use crate::error::{ClientError, Unavailable};
use crate::standing::LostReason;

fn refused(code: Code, reason: ErrorReason, metadata: &[(&str, &str)]) -> Failure {
    Failure::from(status(code, ERROR_DOMAIN, reason.reason(), metadata))
}

fn status(code: Code, domain: &str, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> = metadata
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut details = ErrorDetails::with_error_info(reason, domain, metadata);
    details.set_retry_info(Some(Duration::from_secs(3)));
    Status::with_error_details(code, "text that nobody decides by: LEASE_HELD", details)
}

fn cause_of(failure: &Failure) -> Option<(Unavailable, bool)> {
    match &failure.error {
        ClientError::Unavailable {
            cause,
            may_have_happened,
            ..
        } => Some((*cause, *may_have_happened)),
        _ => None,
    }
}

#[test]
fn what_others_hold_is_told_with_token_and_when_to_try_again() {
    let failure = refused(
        Code::FailedPrecondition,
        ErrorReason::LeaseHeld,
        &[("resource", "orders"), ("token", "42")],
    );
    assert_eq!(failure.verdict, Verdict::Final);
    let ClientError::Held {
        resource,
        token,
        retry_after,
    } = failure.error
    else {
        panic!("{failure:?}");
    };
    assert_eq!(resource.as_str(), "orders");
    assert_eq!(token.map(|token| token.get()), Some(42));
    assert_eq!(retry_after, Some(Duration::from_secs(3)));
}

type Expected = fn(&ClientError) -> bool;

fn are_final<const N: usize>(cases: [(Failure, Expected); N]) {
    for (failure, expected) in cases {
        assert_eq!(failure.verdict, Verdict::Final, "{failure:?}");
        assert!(!failure.endpoint_at_fault, "{failure:?}");
        assert!(!failure.may_have_happened, "{failure:?}");
        assert!(!failure.error.may_have_happened(), "{failure:?}");
        assert!(expected(&failure.error), "{failure:?}");
    }
}

#[test]
fn answers_about_holds_are_final_and_typed() {
    use ErrorReason as R;
    let held = [("requestId", "r1"), ("token", "7")];
    are_final([
        (
            refused(Code::FailedPrecondition, R::AlreadyHeld, &held),
            |error| {
                matches!(error, ClientError::AlreadyHeld { request_id, token: Some(token) }
                if request_id == "r1" && token.get() == 7)
            },
        ),
        (
            refused(Code::Aborted, R::WaitExpired, &[("resource", "a")]),
            |error| matches!(error, ClientError::WaitExpired { resource } if resource.as_str() == "a"),
        ),
        (refused(Code::Aborted, R::RequestCancelled, &[]), |error| {
            matches!(error, ClientError::Cancelled)
        }),
        (refused(Code::NotFound, R::SessionEnded, &[]), |error| {
            matches!(
                error,
                ClientError::SessionLost {
                    reason: LostReason::Ended
                }
            )
        }),
        (
            refused(
                Code::FailedPrecondition,
                R::StaleToken,
                &[("token", "9"), ("currentToken", "0")],
            ),
            |error| {
                matches!(
                    error,
                    ClientError::StaleToken {
                        presented: Some(_),
                        current: None
                    }
                )
            },
        ),
        (
            refused(Code::FailedPrecondition, R::FenceAhead, &[("fence", "9")]),
            |error| matches!(error, ClientError::FenceAhead { fence: Some(_) }),
        ),
    ]);
}

#[test]
fn answers_about_calls_are_final_and_typed() {
    use ErrorReason as R;
    are_final([
        (
            refused(
                Code::InvalidArgument,
                R::InvalidField,
                &[
                    ("field", "ttl_ms"),
                    ("bound", "5000 to 300000"),
                    ("given", "1"),
                ],
            ),
            |error| {
                matches!(error, ClientError::Invalid { field, bound, given }
                    if field == "ttl_ms" && bound == "5000 to 300000" && given == "1")
            },
        ),
        (
            refused(
                Code::InvalidArgument,
                R::RequestMismatch,
                &[("field", "metadata")],
            ),
            |error| matches!(error, ClientError::Invalid { field, .. } if field == "metadata"),
        ),
        (
            refused(
                Code::ResourceExhausted,
                R::LimitReached,
                &[("limit", "waiters")],
            ),
            |error| matches!(error, ClientError::LimitReached { limit, .. } if limit == "waiters"),
        ),
        (
            refused(Code::PermissionDenied, R::PermissionDenied, &[]),
            |error| matches!(error, ClientError::Denied { .. }),
        ),
        (
            refused(Code::Unauthenticated, R::Unauthenticated, &[]),
            |error| matches!(error, ClientError::Denied { .. }),
        ),
        (refused(Code::Unimplemented, R::NotServed, &[]), |error| {
            matches!(error, ClientError::NotServed)
        }),
    ]);
}

#[test]
fn what_may_have_happened_is_said_and_the_default_is_that_it_may() {
    use ErrorReason as R;
    use Unavailable as U;
    use Verdict::{NotDone, Unknown};
    let undone = [("mayHaveHappened", "false")];
    let done = [("mayHaveHappened", "true")];
    for (reason, metadata, cause, verdict, at_fault) in [
        (R::StoreUnavailable, &undone[..], U::Store, NotDone, true),
        (R::StoreUnavailable, &done[..], U::Store, Unknown, true),
        (R::StoreUnavailable, &[], U::Store, Unknown, true),
        (R::Draining, &[], U::Draining, NotDone, true),
        (R::Draining, &done[..], U::Draining, Unknown, true),
        (R::DeadlineExceeded, &undone[..], U::NoAnswer, NotDone, true),
        (R::HistoryRegressed, &[], U::HistoryRegressed, Unknown, true),
        (R::WrongCluster, &[], U::WrongCluster, Unknown, true),
        (R::Superseded, &[], U::Superseded, Unknown, false),
        (R::DeadlineExceeded, &[], U::NoAnswer, Unknown, true),
        (R::Internal, &[], U::Internal, Unknown, true),
    ] {
        let failure = refused(Code::Unavailable, reason, metadata);
        assert_eq!(
            cause_of(&failure),
            Some((cause, verdict == Unknown)),
            "{reason:?}"
        );
        assert_eq!(failure.verdict, verdict, "{reason:?}");
        assert_eq!(failure.endpoint_at_fault, at_fault, "{reason:?}");
    }
}

#[test]
fn whatever_the_reason_what_may_have_happened_is_kept() {
    for number in 1..=22 {
        let reason = ErrorReason::try_from(number).expect("reasons have no gaps");
        for (said, expected) in [("true", true), ("false", false)] {
            let metadata = [
                ("mayHaveHappened", said),
                ("resource", "a"),
                ("storedEpoch", "7"),
            ];
            let failure = refused(Code::Unavailable, reason, &metadata);
            let understood = !matches!(failure.error, ClientError::Unexpected { .. });
            assert_eq!(
                failure.may_have_happened,
                expected || !understood,
                "{reason:?}: {failure:?}"
            );
        }
    }
    for (said, expected) in [("true", true), ("false", false)] {
        let metadata = [("mayHaveHappened", said)];
        for code in [
            Code::Unavailable,
            Code::ResourceExhausted,
            Code::PermissionDenied,
        ] {
            let later = Failure::from(status(code, ERROR_DOMAIN, "FROM_THE_FUTURE", &metadata));
            assert_eq!(later.may_have_happened, expected, "{code:?}: {later:?}");
            assert_eq!(
                later.error.may_have_happened(),
                expected,
                "{code:?}: {later:?}"
            );
        }
    }
}

#[test]
fn a_refusal_that_nobody_of_ours_made_is_final_and_may_have_happened() {
    for code in [
        Code::ResourceExhausted,
        Code::PermissionDenied,
        Code::Unauthenticated,
    ] {
        let failure = Failure::from(Status::with_error_details(code, "", ErrorDetails::new()));
        assert_eq!(failure.verdict, Verdict::Final, "{code:?}");
        assert!(failure.error.may_have_happened(), "{code:?}: {failure:?}");
    }
}

#[test]
fn a_stale_epoch_tells_where_to_go_on() {
    let failure = refused(
        Code::Aborted,
        ErrorReason::EpochStale,
        &[("storedEpoch", "17")],
    );
    assert_eq!(failure.verdict, Verdict::EpochStale { stored: 17 });
    let failure = refused(Code::Aborted, ErrorReason::EpochStale, &[]);
    assert_eq!(failure.verdict, Verdict::Final);
}

#[test]
fn without_a_reason_of_ours_the_code_decides_and_never_the_text() {
    let foreign = status(
        Code::FailedPrecondition,
        "elsewhere.example",
        "LEASE_HELD",
        &[],
    );
    let failure = Failure::from(foreign);
    assert!(
        matches!(failure.error, ClientError::Unexpected { .. }),
        "{failure:?}"
    );
    assert!(failure.error.may_have_happened());

    let later = status(Code::Unavailable, ERROR_DOMAIN, "FROM_THE_FUTURE", &[]);
    assert_eq!(Failure::from(later).verdict, Verdict::Unknown);

    for code in [
        Code::Unavailable,
        Code::Unknown,
        Code::Cancelled,
        Code::DeadlineExceeded,
    ] {
        let failure = Failure::from(Status::with_error_details(code, "", ErrorDetails::new()));
        assert_eq!(
            cause_of(&failure),
            Some((Unavailable::NoAnswer, true)),
            "{code:?}"
        );
        assert!(failure.endpoint_at_fault);
    }
}
