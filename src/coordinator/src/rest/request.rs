//! From JSON and queries to the messages of the gRPC interface, whose bounds are checked where theirs are.

use http::HeaderMap;
use palisade_api::v1::acquire_request::Owner;
use palisade_api::v1::release_request::Hold;
use palisade_api::v1::watch_leases_request::Scope;
use palisade_api::v1::{
    CheckTokenRequest, GetLeaseRequest, ListLeasesRequest, OpenSessionRequest, WatchLeasesRequest,
};
use palisade_api::{AcquireRequest, ReleaseRequest, SessionOpening, SessionRef};

use super::fields::{Fields, base64};
use crate::service::{BadField, bad, shown};

/// Carries a session's secret, as base64, where a call has no body. A URL never does: URLs are logged.
pub(super) const SECRET_HEADER: &str = "x-palisade-session-secret";
/// Where a watch goes on: browsers send it by themselves when they connect again.
const LAST_EVENT_ID: &str = "last-event-id";

type Parsed<T> = Result<T, BadField>;

fn opening(mut fields: Fields) -> Parsed<SessionOpening> {
    let opening = SessionOpening {
        open_id: fields.text("open_id")?,
        secret: fields.bytes("secret")?,
        ttl_ms: fields.number("ttl_ms")?,
        label: fields.text("label")?,
        epoch: fields.number("epoch")?,
    };
    fields.finish().map(|()| opening)
}

fn session(mut fields: Fields) -> Parsed<SessionRef> {
    let session = SessionRef {
        session_id: fields.text("session_id")?,
        secret: fields.bytes("secret")?,
        epoch: fields.number("epoch")?,
    };
    fields.finish().map(|()| session)
}

fn given_opening(fields: &mut Fields) -> Parsed<Option<SessionOpening>> {
    let given = fields.object("opening", "opening.")?;
    given.map(opening).transpose()
}

fn given_session(fields: &mut Fields) -> Parsed<Option<SessionRef>> {
    let given = fields.object("session", "session.")?;
    given.map(session).transpose()
}

/// Refuses two fields of which one is to be set.
fn not_both(fields: &Fields, name: &'static str, [one, other]: [&str; 2]) -> Parsed<()> {
    if fields.has(one) && fields.has(other) {
        return Err(bad(name, format!("{one} or {other}"), "both"));
    }
    Ok(())
}

pub(super) fn open(fields: &mut Fields) -> Parsed<OpenSessionRequest> {
    Ok(OpenSessionRequest {
        opening: given_opening(fields)?,
    })
}

/// The session that a path names. Its secret comes in the body or in a header of its own; its epoch in the
/// body or in the query.
pub(super) fn of_path(
    id: &str,
    headers: &HeaderMap,
    query: &mut Fields,
    body: &mut Fields,
) -> Parsed<SessionRef> {
    const PATH: &str = "session.session_id";
    let sent = given_session(body)?;
    let mut session = match sent {
        Some(session) => session,
        None => SessionRef {
            epoch: query.number("epoch")?,
            ..SessionRef::default()
        },
    };
    if session.session_id.is_empty() {
        id.clone_into(&mut session.session_id);
    } else if session.session_id != id {
        return Err(bad(PATH, "that of the path", shown(&session.session_id)));
    }
    if let Some(header) = headers.get(SECRET_HEADER) {
        if !session.secret.is_empty() {
            let bound = "left out where the body has a secret";
            return Err(bad(SECRET_HEADER, bound, "there, too"));
        }
        session.secret = base64(SECRET_HEADER.to_owned(), header.as_bytes())?;
    }
    Ok(session)
}

pub(super) fn acquire(fields: &mut Fields) -> Parsed<AcquireRequest> {
    not_both(fields, "owner", ["session", "opening"])?;
    let session = given_session(fields)?.map(Owner::Session);
    let opening = given_opening(fields)?.map(Owner::Opening);
    Ok(AcquireRequest {
        owner: session.or(opening),
        request_id: fields.text("request_id")?,
        resource: fields.text("resource")?,
        wait_ms: fields.number("wait_ms")?,
        lock_delay_ms: fields.number("lock_delay_ms")?,
        metadata: fields.bytes("metadata")?,
        attempt: fields.number("attempt")?,
    })
}

pub(super) fn release(fields: &mut Fields) -> Parsed<ReleaseRequest> {
    not_both(fields, "hold", ["token", "request_id"])?;
    let by_token = fields.has("token");
    let (token, request_id) = (fields.number("token")?, fields.text("request_id")?);
    let hold = match (by_token, request_id.is_empty()) {
        (true, _) => Some(Hold::Token(token)),
        (false, false) => Some(Hold::RequestId(request_id)),
        (false, true) => None,
    };
    Ok(ReleaseRequest {
        session: given_session(fields)?,
        resource: fields.text("resource")?,
        hold,
        refused_by_fence: fields.number("refused_by_fence")?,
    })
}

pub(super) fn get(resource: String, query: &mut Fields) -> Parsed<GetLeaseRequest> {
    Ok(GetLeaseRequest {
        resource,
        queue_size: query.number("queue_size")?,
    })
}

pub(super) fn list(query: &mut Fields) -> Parsed<ListLeasesRequest> {
    Ok(ListLeasesRequest {
        prefix: query.text("prefix")?,
        page_size: query.number("page_size")?,
        page_token: query.text("page_token")?,
    })
}

pub(super) fn watch(headers: &HeaderMap, query: &mut Fields) -> Parsed<WatchLeasesRequest> {
    not_both(query, "scope", ["resource", "prefix"])?;
    let (by_resource, by_prefix) = (query.has("resource"), query.has("prefix"));
    let (resource, prefix) = (query.text("resource")?, query.text("prefix")?);
    let scope = match (by_resource, by_prefix) {
        (true, _) => Some(Scope::Resource(resource)),
        (false, true) => Some(Scope::Prefix(prefix)),
        (false, false) => None,
    };
    let asked = query.number("resume_revision")?;
    Ok(WatchLeasesRequest {
        scope,
        // It is the later one: who connects again asks for the same URL as at first.
        resume_revision: last_event_id(headers)?.unwrap_or(asked),
        bookmark_interval_ms: query.number("bookmark_interval_ms")?,
    })
}

fn last_event_id(headers: &HeaderMap) -> Parsed<Option<i64>> {
    let Some(header) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) else {
        return Ok(None);
    };
    let revision = header.to_str().ok().and_then(|text| text.parse().ok());
    let given = || shown(&String::from_utf8_lossy(header.as_bytes()));
    let bad = || bad(LAST_EVENT_ID, "the id of an event", given());
    revision.ok_or_else(bad).map(Some)
}

pub(super) fn check(query: &mut Fields) -> Parsed<CheckTokenRequest> {
    Ok(CheckTokenRequest {
        resource: query.text("resource")?,
        token: query.number("token")?,
    })
}
