//! From what the domain says to what is sent.

use std::time::Duration;

use palisade_api::v1::{
    CheckTokenResponse, GetLeaseResponse, Lease, ListLeasesResponse, OpenRequest, PreviousEnd,
    TokenState, Waiter,
};
use palisade_api::{AcquireResponse, Generation, LeaseEnd, ReleaseOutcome, ReleaseResponse};

use palisade_token::FencingToken;

use super::error::CallError;
use super::page::{self, MAX_PAGE_BYTES};
use super::parse::millis;
use crate::domain::{
    Acquired, Generation as DomainGeneration, Hold, LeaseEnd as DomainEnd, Place, Previous,
    Released,
};

use crate::store::{Failure, Listed, Page, Standing, StoreError};

/// A number that the store keeps below 2^63.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn generation(of: &DomainGeneration) -> Generation {
    Generation {
        nonce: of.nonce.as_bytes().to_vec(),
        base: signed(of.base),
        since_revision: signed(of.since_revision.0),
    }
}

/// A lease with its token; `None` for one that cannot have been granted under its generation.
pub(super) fn lease(hold: &Hold) -> Option<Lease> {
    let grant = hold.grant()?;
    let claim = &hold.claim;
    Some(Lease {
        resource: grant.resource.to_string(),
        token: grant.token.as_i64(),
        holder: grant.holder.as_bytes().to_vec(),
        session_id: claim.session.to_string(),
        request_id: claim.request.to_string(),
        label: claim.label.clone(),
        metadata: claim.metadata.clone(),
        granted_revision: signed(hold.granted.0),
        generation: Some(generation(&hold.generation)),
        ttl_ms: claim.ttl_ms,
        granted_unix_ms: signed(hold.note.granted_unix_ms),
        ..Lease::default()
    })
}

/// Something that a session has: with its token if it holds it, with 0 if it waits for it.
pub(super) fn open_request(acquired: &Acquired) -> OpenRequest {
    let (claim, token) = match acquired {
        Acquired::Held(hold) => (&hold.claim, hold.token()),
        Acquired::Queued(place) => (&place.claim, None),
    };
    OpenRequest {
        resource: claim.resource.to_string(),
        request_id: claim.request.to_string(),
        token: token.map_or(0, FencingToken::as_i64),
    }
}

fn not_trusted() -> CallError {
    StoreError::not_applied(Failure::HistoryRegressed).into()
}

/// How the lease before ended; where nobody saw it, unknown is what a client must assume.
pub(super) fn previous(known: Option<&Previous>) -> PreviousEnd {
    PreviousEnd {
        end: end(known.map(|known| known.end)).into(),
        token: known
            .and_then(|known| known.token)
            .map_or(0, FencingToken::as_i64),
        reason: known.map_or_else(String::new, |known| known.reason.clone()),
        label: known.map_or_else(String::new, |known| known.label.clone()),
    }
}

/// How a lease ended, as the interface has it.
pub(super) fn end(known: Option<DomainEnd>) -> LeaseEnd {
    match known {
        Some(DomainEnd::Released) => LeaseEnd::Released,
        Some(DomainEnd::Expired) => LeaseEnd::Expired,
        Some(DomainEnd::Revoked) => LeaseEnd::Revoked,
        None => LeaseEnd::Unknown,
    }
}

pub(super) fn acquired(
    hold: &Hold,
    ttl: Option<Duration>,
    left: Duration,
) -> Result<AcquireResponse, CallError> {
    let mut lease = lease(hold).ok_or_else(not_trusted)?;
    lease.ttl_ms = ttl.map_or(0, millis);
    Ok(AcquireResponse {
        lease: Some(lease),
        session_id: hold.claim.session.to_string(),
        ttl_left_ms: millis(left),
        previous: Some(previous(hold.note.previous.as_ref())),
    })
}

pub(super) fn released(released: &Released) -> ReleaseResponse {
    let (outcome, how, revision) = match released {
        Released::Lease { ended, .. } => (ReleaseOutcome::Released, LeaseEnd::Released, ended.0),
        Released::Place { ended } => (ReleaseOutcome::NotHeld, LeaseEnd::Unknown, ended.0),
        Released::NotHeld(known) => (ReleaseOutcome::NotHeld, end(*known), 0),
    };
    ReleaseResponse {
        outcome: outcome.into(),
        end: how.into(),
        queue_place_given_back: matches!(released, Released::Place { .. }),
        revision: signed(revision),
    }
}

/// How a token stands to a lease.
pub(super) fn checked(standing: &Standing, token: FencingToken) -> CheckTokenResponse {
    let current = standing.hold.as_ref().and_then(Hold::token);
    let generation = standing.generation.as_ref();
    let highest = generation.and_then(|generation| generation.token(standing.revision));
    let state = match current {
        Some(current) if current == token => TokenState::Current,
        _ if highest.is_none_or(|highest| token > highest) => TokenState::Ahead,
        Some(_) => TokenState::Stale,
        None if standing.hold.is_some() => TokenState::Stale,
        None => TokenState::Vacant,
    };
    CheckTokenResponse {
        state: state.into(),
        current_token: current.map_or(0, FencingToken::as_i64),
        revision: signed(standing.revision.0),
    }
}

fn waiter(place: &Place) -> Waiter {
    let claim = &place.claim;
    Waiter {
        session_id: claim.session.to_string(),
        request_id: claim.request.to_string(),
        label: claim.label.clone(),
        enqueued_revision: signed(place.since.0),
    }
}

pub(super) fn standing(
    standing: &Standing,
    known: Option<&Previous>,
) -> Result<GetLeaseResponse, CallError> {
    let lease = match &standing.hold {
        Some(hold) => Some(lease(hold).ok_or_else(not_trusted)?),
        None => None,
    };
    Ok(GetLeaseResponse {
        previous: lease.is_none().then(|| previous(known)),
        queue: standing.queue.iter().map(waiter).collect(),
        lease,
        waiters: u32::try_from(standing.waiters).unwrap_or(u32::MAX),
        revision: signed(standing.revision.0),
        lock_delay_left_ms: millis(standing.lock_delay_left),
    })
}

/// A page of leases, cut where it would be more than clients read.
pub(super) fn page(prefix: &str, listed: Page) -> ListLeasesResponse {
    let mut leases = Vec::with_capacity(listed.leases.len());
    let mut bytes = 0;
    let mut next = listed.next;
    let mut last = None;
    for Listed { hold, waiters } in listed.leases {
        let Some(mut lease) = lease(&hold) else {
            continue;
        };
        lease.waiters = Some(u32::try_from(waiters).unwrap_or(u32::MAX));
        bytes += prost::Message::encoded_len(&lease);
        if bytes > MAX_PAGE_BYTES {
            next = last;
            break;
        }
        leases.push(lease);
        last = Some(hold.claim.resource);
    }
    ListLeasesResponse {
        leases,
        next_page_token: next.map_or_else(String::new, |after| page::token(prefix, &after)),
        revision: signed(listed.revision.0),
    }
}
