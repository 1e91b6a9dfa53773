use palisade_token::{FencingToken, Grant, HolderId, ResourceName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Generation, Nonce, Principal, RequestId, Revision, SecretHash, SessionId, WallClock};

/// One client's liveness, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The id, of which the store makes that of its own lease.
    pub id: SessionId,
    /// Who opened it; nobody else may use it.
    pub principal: Principal,
    /// What the client's secret must hash to.
    pub secret: SecretHash,
    /// A name for people.
    pub label: String,
    /// The granted time to live, in milliseconds.
    pub ttl_ms: u64,
    /// Tells this opening from an earlier one with the same id.
    pub opening: Nonce,
    /// What every grant and enqueue of this session compares.
    pub mark: AttachMark,
}

/// Makes delayed copies of older requests fail: whoever retries raises it first (I4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachMark {
    /// The client's strictly growing number.
    pub epoch: u64,
    /// Raised by the coordinator that wrote the mark, within an epoch.
    pub sub: u64,
    /// The coordinator process that raised it.
    pub nonce: Nonce,
}

/// What one acquire of one session asks for: what a hold and a queue place have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The resource asked for.
    pub resource: ResourceName,
    /// The session that asks.
    pub session: SessionId,
    /// The client's name for this acquire.
    pub request: RequestId,
    /// The id of the hold, if it comes to one.
    pub holder: HolderId,
    /// The session's label.
    pub label: String,
    /// The session's granted time to live, in milliseconds.
    pub ttl_ms: u64,
    /// What the client attached, opaque.
    #[serde(with = "hex::serde")]
    pub metadata: Vec<u8>,
    /// For how long nobody gets the resource after an unclean end, in milliseconds; 0 is not at all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lock_delay_ms: u64,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it asks about by reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Claim {
    /// Makes a claim of a session.
    #[must_use]
    pub fn new(
        session: &Session,
        resource: ResourceName,
        request: RequestId,
        metadata: Vec<u8>,
    ) -> Self {
        let digest = Sha256::new()
            .chain_update(b"palisade hold\0")
            .chain_update(session.opening.as_bytes())
            .chain_update(session.id.as_i64().to_be_bytes())
            .chain_update(resource.as_str().as_bytes())
            .chain_update(b"\0")
            .chain_update(request.as_str().as_bytes())
            .finalize();
        let mut holder = [0; 16];
        holder.copy_from_slice(&digest[..16]);
        Self {
            resource,
            session: session.id,
            request,
            holder: HolderId::from_bytes(holder),
            label: session.label.clone(),
            ttl_ms: session.ttl_ms,
            metadata,
            lock_delay_ms: 0,
        }
    }

    /// The same with a lock-delay.
    #[must_use]
    pub fn with_lock_delay(self, lock_delay_ms: u64) -> Self {
        Self {
            lock_delay_ms,
            ..self
        }
    }

    /// Whether another claim is a copy of the same request.
    #[must_use]
    pub fn is_of(&self, session: SessionId, request: &RequestId) -> bool {
        self.session == session && self.request == *request
    }
}

/// A lease that was granted and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What was asked for.
    pub claim: Claim,
    /// The generation that the grant compared.
    pub generation: Generation,
    /// The revision of the granting transaction.
    pub granted: Revision,
    /// What is told of the grant besides; nothing is decided by it.
    pub note: GrantNote,
}

/// What a granting transaction writes down for people and for whoever asks how the lease before ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GrantNote {
    /// How the lease before ended, as far as the granting coordinator knew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// The granting coordinator's clock, in milliseconds since 1970; 0 if unknown.
    #[serde(default)]
    pub granted_unix_ms: u64,
}

impl GrantNote {
    /// The note of a grant made now.
    #[must_use]
    pub fn at(now: WallClock, previous: Option<Previous>) -> Self {
        Self {
            previous,
            granted_unix_ms: now.0 / 1000,
        }
    }
}

/// How the lease before ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// How.
    pub end: LeaseEnd,
    /// Its token, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<FencingToken>,
    /// Why, in the operator's words, where it was revoked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Its session's label; empty if not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
}

impl Previous {
    /// How a lease ended that was seen.
    #[must_use]
    pub fn of(hold: &Hold, end: LeaseEnd, reason: &str) -> Self {
        Self {
            end,
            token: hold.token(),
            reason: reason.to_owned(),
            label: hold.claim.label.clone(),
        }
    }
}

impl Hold {
    /// The token of this lease. `None` where the record cannot be right (a revision before its own
    /// generation): such a hold is treated as one of unknown history.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        self.generation.token(self.granted)
    }

    /// What the client shows a guard.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        Some(Grant {
            resource: self.claim.resource.clone(),
            token: self.token()?,
            holder: self.claim.holder,
        })
    }
}

/// A place in the queue of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What was asked for.
    pub claim: Claim,
    /// The revision at which the request was committed: the order of service (I11).
    pub since: Revision,
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum LeaseEnd {
    /// By its holder.
    Released,
    /// With its session, for want of renewal.
    Expired,
    /// By an operator.
    Revoked,
}
