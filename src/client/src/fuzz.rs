//! What must hold for everything that is read here from others: answers of coordinators, and of what stands between; texts of
//! users. Run by tests on edited corpora, and by `tests/chaos/fuzz`.

use palisade_api::prost::Message as _;
use palisade_api::v1::attach_response::Message;
use palisade_api::v1::{self, GetLeaseResponse, ListLeasesResponse, WatchLeasesResponse};
use palisade_api::{AttachResponse, Refusal};
use tonic::codegen::Bytes;
use tonic::{Code, Status};

use crate::error::status::{Failure, Verdict};
use crate::info::{LeaseInfo, LeasePage, Occupancy};
use crate::watch::{self, WatchPosition};
use crate::{ClientError, Secret, Unavailable};

/// A target for fuzzing: panics where a property does not hold.
pub type Target = fn(&[u8]);

/// All targets of this crate, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[("answer", answer), ("status", status), ("text", text)];

/// Whatever is answered, a call that may have happened is never told as one that has not.
fn is_sound(failure: &Failure) {
    assert!(!failure.error.to_string().is_empty());
    let _whole = format!("{failure:?}");
    if failure.verdict == Verdict::Unknown {
        assert!(failure.may_have_happened, "{failure:?}");
    }
    if let ClientError::Unavailable {
        cause: Unavailable::NoAnswer,
        ..
    } = &failure.error
    {
        assert!(failure.verdict == Verdict::Unknown || !failure.may_have_happened);
    }
}

/// A gRPC status: its code, and its details after it.
fn status(input: &[u8]) {
    let Some((code, details)) = input.split_first() else {
        return;
    };
    let code = Code::from_i32(i32::from(*code));
    let details = Bytes::copy_from_slice(details);
    let failure = Failure::from(Status::with_details(code, "a message", details.clone()));
    is_sound(&failure);
    if details.is_empty() && !matches!(code, Code::Unimplemented) {
        // Nobody of ours has said that nothing was done.
        assert!(failure.verdict != Verdict::NotDone, "{failure:?}");
    }
    if let Ok(refusal) = Refusal::decode(details) {
        is_sound(&Failure::from(refusal));
    }
}

/// The number of an answer and its bytes.
fn answer(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else {
        return;
    };
    match kind % 5 {
        0 => {
            if let Ok(lease) = v1::Lease::decode(bytes) {
                let token = lease.token;
                if let Ok(info) = LeaseInfo::try_from(lease) {
                    assert_eq!(info.grant.token.as_i64(), token);
                    let _shown = format!("{info:?}");
                }
            }
        }
        1 => {
            if let Ok(answer) = GetLeaseResponse::decode(bytes) {
                let _occupancy = Occupancy::try_from(answer).map(|seen| format!("{seen:?}"));
            }
        }
        2 => {
            if let Ok(answer) = ListLeasesResponse::decode(bytes) {
                let count = answer.leases.len();
                let page = LeasePage::try_from(answer);
                assert!(page.is_err() || page.is_ok_and(|page| page.leases.len() == count));
            }
        }
        3 => {
            if let Ok(answer) = WatchLeasesResponse::decode(bytes) {
                watch::fuzz_events(&answer.events);
            }
        }
        _ => {
            let answer = AttachResponse::decode(bytes).unwrap_or_default();
            if let Some(Message::Refused(refused)) = answer.message {
                is_sound(&Failure::from(refused.refusal.unwrap_or_default()));
            }
        }
    }
}

/// Positions of watches and secrets, as users keep them.
fn text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    match text.parse::<WatchPosition>() {
        Ok(position) => {
            assert!(position.revision() > 0);
            assert_eq!(position.to_string().parse().ok(), Some(position));
        }
        Err(error) => assert!(matches!(error, ClientError::Invalid { .. }), "{error}"),
    }
    match Secret::from_hex(text) {
        Ok(secret) => {
            assert_eq!(secret.expose_hex(), text.to_ascii_lowercase());
            assert!(!format!("{secret:?}").contains(&text[..8]));
        }
        Err(error) => {
            let said = format!("{error} {error:?}");
            assert!(
                text.len() < 8 || !text.is_ascii() || !said.contains(text),
                "{said}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use palisade_test_support::fuzz;

    #[test]
    fn every_answer_is_understood_or_not() {
        fuzz("answer", super::answer);
    }

    #[test]
    fn every_error_is_told_as_no_less_than_it_may_be() {
        fuzz("status", super::status);
    }

    #[test]
    fn every_text_of_users_is_read_back_or_refused_without_telling_a_secret() {
        fuzz("text", super::text);
    }
}
