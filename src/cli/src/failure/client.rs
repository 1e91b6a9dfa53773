use palisade_client::{ClientError, Unavailable};

use super::{Failure, Kind};
use crate::table::plain;

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        tracing::debug!(?error, "the call failed");
        let kind = match &error {
            ClientError::Held { .. } | ClientError::WaitExpired { .. } => Kind::Busy,
            ClientError::Invalid { .. } => Kind::Usage,
            ClientError::SessionLost { .. } => Kind::Lost,
            ClientError::Unavailable { .. } | ClientError::NotServed => Kind::Unreachable,
            _ => Kind::Other,
        };
        Self::new(kind, message(&error))
    }
}

fn message(error: &ClientError) -> String {
    match error {
        ClientError::Unavailable {
            cause,
            may_have_happened,
            ..
        } => unavailable(*cause, *may_have_happened),
        ClientError::SessionLost { .. } => {
            "the session has ended, and all its leases with it; open a new one".to_owned()
        }
        ClientError::Invalid {
            field,
            bound,
            given,
        } => invalid(field, bound, given),
        ClientError::LimitReached {
            limit,
            may_have_happened,
            ..
        } if limit == "storeSpace" => told_with_doubt(
            "the coordinator's store is full; sessions can still be closed",
            *may_have_happened,
        ),
        // All that this program calls is served by every version of a coordinator.
        ClientError::NotServed => "what answers there is no Palisade coordinator; --addr takes \
             the address that one serves gRPC on (its --listen)"
            .to_owned(),
        other => other.to_string(),
    }
}

/// What a coordinator, or the client library, refuses, by the name that it has on the command line.
fn invalid(field: &str, bound: &str, given: &str) -> String {
    let name = match field {
        "opening.ttl_ms" | "ttl" => "--ttl",
        "opening.label" => "--label",
        "wait_ms" | "wait" => "--wait",
        "metadata" => "--metadata",
        "session.session_id" => "--session",
        "session.secret" | "secret" => "--secret",
        "request_id" => "--request",
        "token" => "--token",
        "endpoint" | "endpoints" => "--addr",
        "past_token" => "--past",
        "cooperative" | "cooperative_ms" => "--cooperative",
        "deadline" | "deadline_ms" => "--within",
        "reason" => "--reason",
        "actor" => "--actor",
        "resume_revision" => "--from",
        "resource" => "RESOURCE",
        "prefix" => "PREFIX",
        other => other,
    };
    let (name, bound) = (plain(name), plain(bound));
    if given.is_empty() {
        return format!("{name} must be {bound}");
    }
    format!("{name} is {}; it must be {bound}", plain(given))
}

fn unavailable(cause: Unavailable, may_have_happened: bool) -> String {
    let what = match cause {
        Unavailable::Unreachable => {
            "no coordinator can be reached; start one (`palisade dev`), or name it with --addr or \
             PALISADE_ADDR"
        }
        Unavailable::NoAnswer => {
            "the coordinator did not answer in time; try again, or allow more (--timeout); if \
             it never did, see that --addr is where it serves gRPC (its --listen)"
        }
        Unavailable::Store => {
            "the coordinator cannot reach its store; look at its /readyz, and try again"
        }
        Unavailable::Draining => {
            "the coordinator is shutting down; try again, or name another with --addr"
        }
        Unavailable::HistoryRegressed => {
            "the coordinator grants nothing until it trusts its store's history; look at its log"
        }
        Unavailable::WrongCluster => {
            "the coordinator grants nothing: its etcd endpoints are of different clusters; look at its log"
        }
        _ => {
            "the coordinator did not serve the call; try again, and look at its log if that does not help"
        }
    };
    told_with_doubt(what, may_have_happened)
}

fn told_with_doubt(what: &str, may_have_happened: bool) -> String {
    let doubt = if may_have_happened {
        " (the call may have taken effect all the same)"
    } else {
        ""
    };
    format!("{what}{doubt}")
}

#[cfg(test)]
mod tests {
    use palisade_client::ClientError;

    use super::message;

    fn limit_reached(limit: &str, bound: &str) -> String {
        message(&ClientError::LimitReached {
            limit: limit.to_owned(),
            bound: bound.to_owned(),
            may_have_happened: false,
            retry_after: None,
        })
    }

    #[test]
    fn a_full_store_is_no_limit_of_zero() {
        let full = "the coordinator's store is full; sessions can still be closed";
        assert_eq!(limit_reached("storeSpace", "0"), full);
        let other = limit_reached("waiters", "64");
        assert!(other.contains("waiters") && other.contains("64"), "{other}");
    }

    #[test]
    fn text_from_afar_does_not_reach_the_terminal_as_it_is() {
        let error = ClientError::Invalid {
            field: "x\u{1b}[31m".to_owned(),
            bound: "a\nb".to_owned(),
            given: "\u{7}".to_owned(),
        };
        assert!(!message(&error).contains(char::is_control));
    }
}
