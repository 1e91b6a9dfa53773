//! An operator ends a lease.

use palisade_token::{FencingToken, ResourceName};

use super::{Hold, Notice, Place, Principal, Refusal, Revision, View};

/// Ends a lease, whoever holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoke {
    /// The resource.
    pub resource: ResourceName,
    /// The lease's token: no other lease is ended.
    pub token: FencingToken,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who, in the operator's words.
    pub actor: String,
    /// Who called.
    pub principal: Principal,
}

/// What a revocation came to.
#[allow(
    clippy::large_enum_variant,
    reason = "it is an answer, made once and read once"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// The lease ended by it.
    Lease {
        /// The lease.
        hold: Hold,
        /// When it ended.
        ended: Revision,
    },
    /// The lease had ended before, or never was.
    NotHeld,
}

/// Asks a holder to give a lease back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskBack {
    /// Which lease, why and who.
    pub revoke: Revoke,
    /// How long the holder has, in milliseconds.
    pub left_ms: u64,
}

impl AskBack {
    /// What the holder is told.
    #[must_use]
    pub fn notice(&self, hold: &Hold, revision: Revision) -> Notice {
        let Revoke {
            resource,
            token,
            reason,
            actor,
            principal: _,
        } = self.revoke.clone();
        Notice {
            resource,
            token,
            session: hold.claim.session,
            request: hold.claim.request.clone(),
            left_ms: self.left_ms,
            reason,
            actor,
            revision,
        }
    }
}

/// The lease that a revocation ends, and who gets the resource in the same transaction; `None` where that
/// lease has ended.
///
/// # Errors
/// [`Refusal::StaleToken`] for a token above the current one.
pub fn decide_revoke(
    view: &View,
    given: FencingToken,
) -> Result<Option<(&Hold, Option<&Place>)>, Refusal> {
    let Some(hold) = &view.hold else {
        return Ok(None);
    };
    match hold.token() {
        Some(current) if current == given => Ok(Some((hold, view.head.as_ref()))),
        Some(current) if given < current => Ok(None),
        current => Err(Refusal::StaleToken { given, current }),
    }
}
