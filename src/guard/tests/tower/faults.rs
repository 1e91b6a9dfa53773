//! What goes wrong, there and back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::Request;
use palisade_guard::effects::{IdempotencyKey, Name};
use palisade_guard::tower::{Carried, Fault, Protocol, Reason};
use palisade_guard::{Blocker, Class, GuardError};

use crate::service::{grant, name, token};

/// The text of a store, which nobody outside may see.
const SECRET: &str = "password authentication failed for user hunter2";

fn source() -> Box<dyn std::error::Error + Send + Sync> {
    Box::from(SECRET)
}

fn key() -> IdempotencyKey {
    IdempotencyKey::new("tenant-7", "charge", "k\"\\1").unwrap()
}

/// Each error, with its reason, HTTP status and gRPC code.
fn every_error() -> Vec<(GuardError, &'static str, u16, &'static str)> {
    let orders = || name("orders/eu");
    let unicode = || Name::new("Zähler-€-🦀").unwrap();
    let stale = GuardError::Stale {
        resource: orders(),
        presented: token(41),
        fence: token(9_007_199_254_740_991),
    };
    let unsealed = |fence: Option<u64>| GuardError::Unsealed {
        resource: orders(),
        presented: token(42),
        fence: fence.map(token),
    };
    let backwards = |fence: Option<u64>| GuardError::StoreWentBackwards {
        resource: orders(),
        sealed: token(42),
        fence: fence.map(token),
    };
    let unguarded = GuardError::Unguarded {
        resource: "Straße".to_owned(),
        table: Some("Aufträge".to_owned()),
    };
    let collision = GuardError::Collision {
        resource: orders(),
        token: token(42),
    };
    let seal_timeout = GuardError::SealTimeout {
        resource: orders(),
        waited: Duration::from_millis(1_500),
        blockers: vec![Blocker::Prepared {
            gid: SECRET.to_owned(),
        }],
    };
    let unknown = GuardError::CommitUnknown {
        transaction: Some(4_711),
        source: source(),
    };
    let in_progress = |owner| GuardError::InProgress {
        key: key(),
        retry_after: Duration::from_millis(2_500),
        owner,
    };
    let gap = GuardError::SequenceGap {
        producer: unicode(),
        expected: 7,
        got: 9,
    };
    let offset = GuardError::OffsetConflict {
        cursor: unicode(),
        expected: 0,
        found: 12,
    };
    let version = GuardError::VersionConflict {
        entity: unicode(),
        expected: 3,
        found: 4,
    };
    let large = GuardError::AnswerTooLarge {
        given: 70_000,
        bound: 65_536,
    };
    let limit = GuardError::LimitReached {
        what: "writes of one resource at once",
        limit: 1_000,
    };
    let newer = GuardError::Newer { found: 9, known: 4 };
    let owner = || Some(Box::new(grant("orders/eu", 41)));
    vec![
        (stale, "FENCE_STALE", 412, "9"),
        (unsealed(None), "FENCE_UNSEALED", 412, "9"),
        (unsealed(Some(41)), "FENCE_UNSEALED", 412, "9"),
        (backwards(None), "FENCE_WENT_BACKWARDS", 412, "9"),
        (backwards(Some(41)), "FENCE_WENT_BACKWARDS", 412, "9"),
        (unguarded, "FENCE_MISSING", 428, "9"),
        (collision, "FENCE_COLLISION", 409, "6"),
        (seal_timeout, "SEAL_TIMEOUT", 503, "4"),
        (
            GuardError::Serialization(source()),
            "SERIALIZATION",
            409,
            "10",
        ),
        (
            GuardError::RolledBack(Some(source())),
            "ROLLED_BACK",
            409,
            "10",
        ),
        (unknown, "COMMIT_UNKNOWN", 503, "2"),
        (in_progress(None), "KEY_IN_PROGRESS", 409, "10"),
        (in_progress(owner()), "KEY_IN_PROGRESS", 409, "10"),
        (
            GuardError::FingerprintMismatch { key: key() },
            "KEY_MISMATCH",
            422,
            "3",
        ),
        (
            GuardError::KeyExpired { key: key() },
            "KEY_EXPIRED",
            409,
            "9",
        ),
        (
            GuardError::Superseded { key: key() },
            "KEY_SUPERSEDED",
            409,
            "10",
        ),
        (large, "ANSWER_TOO_LARGE", 500, "13"),
        (GuardError::Answer(source()), "ANSWER_UNREADABLE", 500, "13"),
        (gap, "SEQUENCE_GAP", 409, "11"),
        (offset, "OFFSET_CONFLICT", 409, "10"),
        (version, "VERSION_CONFLICT", 409, "10"),
        (GuardError::Misuse("x"), "MISUSE", 500, "13"),
        (limit, "LIMIT_REACHED", 503, "8"),
        (newer, "SCHEMA_NEWER", 500, "13"),
        (GuardError::Backend(source()), "STORE_FAILED", 503, "14"),
    ]
}

/// What can come back: without sources, blockers, and the words of a misuse.
fn told(error: &GuardError) -> String {
    match error {
        GuardError::SealTimeout {
            resource, waited, ..
        } => format!("{resource} {waited:?}"),
        GuardError::Serialization(_)
        | GuardError::RolledBack(_)
        | GuardError::Answer(_)
        | GuardError::Misuse(_)
        | GuardError::Backend(_) => String::new(),
        GuardError::LimitReached { limit, .. } => limit.to_string(),
        GuardError::CommitUnknown { transaction, .. } => format!("{transaction:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn every_error_returns_as_itself_over_http_and_grpc() {
    for (error, reason, status, code) in every_error() {
        let (class, expected) = (error.class(), told(&error));
        let fault = Fault::from(error);
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let response = fault.response(protocol);
            let headers = response.headers();
            assert_eq!(headers["x-palisade-reason"], reason);
            match protocol {
                Protocol::Grpc => {
                    assert_eq!(response.status(), 200);
                    assert_eq!(headers["content-type"], "application/grpc");
                    assert_eq!(headers["grpc-status"], code, "{reason}");
                    assert!(response.body().is_empty());
                }
                _ => {
                    assert_eq!(response.status(), status, "{reason}");
                    assert_eq!(headers["content-type"], "application/problem+json");
                    let problem: serde_json::Value =
                        serde_json::from_slice(response.body()).unwrap();
                    assert_eq!(problem["reason"], reason);
                    assert_eq!(problem["status"], status);
                }
            }
            let Some(Fault::Guard(back)) = Fault::of_headers(headers) else {
                panic!("{reason} did not come back")
            };
            assert_eq!(back.class(), class, "{reason}");
            assert_eq!(told(&back), expected, "{reason}");
        }
    }
}

#[test]
fn every_reason_is_in_the_table() {
    let mut seen: BTreeSet<&str> = every_error()
        .iter()
        .map(|(_, reason, ..)| *reason)
        .collect();
    seen.extend(["KEY_MISSING", "HEADER_INVALID"]);
    let all: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(seen, all);
    assert_eq!(all.len(), Reason::ALL.len(), "two reasons have one name");
}

/// One of them may be tried again as it is, the others must not: under one status they have to be told apart.
#[test]
fn conflicts_are_told_apart_by_reason_and_only_progress_says_when_to_retry() {
    let mut conflicts = BTreeMap::new();
    for (error, reason, status, _) in every_error() {
        if status == 409 {
            let response = Fault::from(error).response(Protocol::Http);
            conflicts.insert(reason, response.headers().get("retry-after").cloned());
        }
    }
    assert_eq!(conflicts.len(), 9);
    let retried: Vec<_> = conflicts
        .iter()
        .filter(|(_, after)| after.is_some())
        .collect();
    assert_eq!(retried, [(&"KEY_IN_PROGRESS", &Some("3".parse().unwrap()))]);
}

#[test]
fn no_text_of_a_store_is_told() {
    for (error, reason, ..) in every_error() {
        let fault = Fault::from(error);
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let response = fault.response(protocol);
            let mut all = format!("{:?}", response.headers());
            all.push_str(&String::from_utf8_lossy(response.body()));
            assert!(!all.contains("hunter2"), "{reason}: {all}");
        }
    }
}

#[test]
fn the_detail_is_that_of_the_sql_errors() {
    let fault = Fault::from(GuardError::Stale {
        resource: name("orders"),
        presented: token(41),
        fence: token(42),
    });
    assert_eq!(
        fault.headers(Protocol::Http)["x-palisade-detail"],
        r#"{"resource":"orders","presented":41,"fence":42}"#
    );
}

#[test]
fn facts_that_do_not_fit_are_no_refusal_of_a_grant() {
    let mut request = Request::new(());
    for (reason, detail) in [
        ("FENCE_STALE", r#"{"resource":"orders","presented":41}"#),
        (
            "FENCE_STALE",
            r#"{"resource":"a//b","presented":41,"fence":42}"#,
        ),
        (
            "FENCE_STALE",
            r#"{"resource":"orders","presented":0,"fence":42}"#,
        ),
        (
            "FENCE_UNSEALED",
            r#"{"resource":"orders","presented":41,"fence":0}"#,
        ),
        ("KEY_MISMATCH", r#"{"tenant":"","operation":"o","key":"k"}"#),
        (
            "HEADER_INVALID",
            r#"{"field":"cookie","bound":"b","given":"g"}"#,
        ),
        ("FENCE_STALE", r#"{"field":"x-fence-token","bound":"b"}"#),
        ("FENCE_STALE", "["),
    ] {
        let headers = request.headers_mut();
        headers.insert("x-palisade-reason", reason.parse().unwrap());
        headers.insert("x-palisade-detail", detail.parse().unwrap());
        let fault = Fault::of_headers(headers).unwrap();
        assert!(
            matches!(fault, Fault::Guard(GuardError::Backend(_))),
            "{detail}: {fault:?}"
        );
    }
    let headers = request.headers_mut();
    headers.insert("x-palisade-reason", "OF_THE_FUTURE".parse().unwrap());
    assert!(Fault::of_headers(headers).is_none());
    assert!(Carried::read(headers).unwrap().grants().is_empty());
}

/// A detail that was lost on the way, or grew too large for it, must not turn "may have happened" into "nothing
/// happened": the caller would do it again under another key.
#[test]
fn what_may_have_happened_stays_so_without_its_facts() {
    for reason in ["COMMIT_UNKNOWN", "KEY_EXPIRED"] {
        for detail in [None, Some("["), Some(r#"{"tenant":"","operation":"o"}"#)] {
            let mut request = Request::new(());
            let headers = request.headers_mut();
            headers.insert("x-palisade-reason", reason.parse().unwrap());
            if let Some(detail) = detail {
                headers.insert("x-palisade-detail", detail.parse().unwrap());
            }
            let fault = Fault::of_headers(headers).unwrap();
            assert!(
                matches!(&fault, Fault::Guard(error) if error.class() == Class::Unknown),
                "{reason} {detail:?}: {fault:?}"
            );
        }
    }
}

/// The name of a row's resource is made of what the row holds: its length is bounded by nothing.
#[test]
fn a_long_name_from_a_store_makes_no_long_headers() {
    let fault = Fault::from(GuardError::Unguarded {
        resource: "ä".repeat(1 << 20),
        table: Some("t".repeat(1 << 20)),
    });
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let response = fault.response(protocol);
        let bytes: usize = response.headers().values().map(|value| value.len()).sum();
        assert!(bytes < 8_192, "{protocol:?}: {bytes} bytes of headers");
        assert!(
            response.body().len() < 8_192,
            "{protocol:?}: {} bytes",
            response.body().len()
        );
    }
}
