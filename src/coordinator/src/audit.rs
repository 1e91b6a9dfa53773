//! One event for each grant, end, revocation and generation, for whoever has to know later who held what.
//!
//! They are `tracing` events of the target [`TARGET`], at level INFO, each with a field `event` and, where
//! they are known, these (names and meanings are kept; more may come):
//!
//! | field | in | meaning |
//! |---|---|---|
//! | `resource`, `token`, `holder` | grant, end, revoke | the lease |
//! | `session`, `request` | grant, end, revoke | whose it is, and the client's name for it |
//! | `principal` | grant, end | who the session belongs to |
//! | `reason` | end | `released`, `expired`, `revoked`, or `unknown` |
//! | `principal`, `actor`, `reason` | revoke | who asked for it, and who and why in the operator's words |
//! | `revision` | all | the store's revision at which it happened |
//! | `base`, `past` | generation | above what all its tokens are, and what an operator or a guard wanted passed |
//!
//! Grants, releases and revocations are told once, by the coordinator whose transaction it was. The end of a
//! session in etcd is nobody's transaction: every coordinator that sees it tells it of each lease, with the same
//! `resource` and `revision`; the lease was the one granted last before that revision. Secrets and clients'
//! metadata are never in them.
//!
//! An event that the log's filter does not let through costs one comparison: `palisade::audit=off` in the filter,
//! such as `RUST_LOG=info,palisade::audit=off`, takes the cost of the lines away under load.

use palisade_token::{FencingToken, ResourceName};
use tracing::info;

use crate::domain::{Generation, Hold, LeaseEnd, Principal, Revision};

/// What filters know the events by.
pub const TARGET: &str = "palisade::audit";

/// A lease was granted by a transaction of this coordinator. `principal` is whose session it is.
pub(crate) fn granted(hold: &Hold, principal: Option<&Principal>) {
    info!(
        target: TARGET,
        event = "grant",
        resource = hold.claim.resource.as_str(),
        token = hold.token().map(FencingToken::get),
        holder = %hold.claim.holder,
        session = %hold.claim.session,
        request = hold.claim.request.as_str(),
        principal = name(principal),
        revision = hold.granted.0,
        "granted"
    );
}

/// A lease ended.
pub(crate) fn ended(
    hold: &Hold,
    end: Option<LeaseEnd>,
    principal: Option<&Principal>,
    revision: Revision,
) {
    info!(
        target: TARGET,
        event = "end",
        resource = hold.claim.resource.as_str(),
        token = hold.token().map(FencingToken::get),
        holder = %hold.claim.holder,
        session = %hold.claim.session,
        request = hold.claim.request.as_str(),
        principal = name(principal),
        reason = reason(end),
        revision = revision.0,
        "ended"
    );
}

/// A lease ended with its session, as the store showed.
pub(crate) fn expired(resource: &ResourceName, revision: Revision) {
    info!(
        target: TARGET,
        event = "end",
        resource = resource.as_str(),
        reason = "expired",
        revision = revision.0,
        "ended"
    );
}

/// Nothing, where nobody was asked who they are.
fn name(principal: Option<&Principal>) -> Option<&str> {
    principal
        .map(Principal::name)
        .filter(|name| !name.is_empty())
}

fn reason(end: Option<LeaseEnd>) -> &'static str {
    match end {
        Some(LeaseEnd::Released) => "released",
        Some(LeaseEnd::Expired) => "expired",
        Some(LeaseEnd::Revoked) => "revoked",
        None => "unknown",
    }
}

/// An operator ended a lease, in these words. The end itself is told besides.
pub(crate) fn revoked(
    hold: &Hold,
    principal: &Principal,
    (actor, reason): (&str, &str),
    revision: Revision,
) {
    info!(
        target: TARGET,
        event = "revoke",
        resource = hold.claim.resource.as_str(),
        token = hold.token().map(FencingToken::get),
        holder = %hold.claim.holder,
        session = %hold.claim.session,
        request = hold.claim.request.as_str(),
        principal = name(Some(principal)),
        actor,
        reason,
        revision = revision.0,
        "revoked"
    );
}

/// A generation was made by this coordinator.
pub(crate) fn generation(made: &Generation, past: Option<FencingToken>) {
    info!(
        target: TARGET,
        event = "generation",
        base = made.base,
        past = past.map(FencingToken::get),
        revision = made.since_revision.0,
        "generation made"
    );
}
