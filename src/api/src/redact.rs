//! `Debug` for the messages that carry a secret or metadata. Each takes its message apart without `..`, so
//! that a new field does not compile until someone has decided whether it may be shown.

use std::fmt;

use crate::v1::acquire_request::Owner;
use crate::v1::{AcquireRequest, AttachAcquire, Lease, SessionOpening, SessionRef};

struct Hidden<'a>(&'a [u8]);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} bytes)", self.0.len())
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            session_id,
            secret,
            epoch,
        } = self;
        f.debug_struct("SessionRef")
            .field("session_id", session_id)
            .field("secret", &Hidden(secret))
            .field("epoch", epoch)
            .finish()
    }
}

impl fmt::Debug for SessionOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            open_id,
            secret,
            ttl_ms,
            label,
            epoch,
        } = self;
        f.debug_struct("SessionOpening")
            .field("open_id", open_id)
            .field("secret", &Hidden(secret))
            .field("ttl_ms", ttl_ms)
            .field("label", label)
            .field("epoch", epoch)
            .finish()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resource,
            token,
            holder,
            session_id,
            request_id,
            label,
            metadata,
            granted_revision,
            generation,
            lock_delay_ms,
            ttl_ms,
            granted_unix_ms,
            waiters,
        } = self;
        f.debug_struct("Lease")
            .field("resource", resource)
            .field("token", token)
            .field("holder", &Hex(holder))
            .field("session_id", session_id)
            .field("request_id", request_id)
            .field("label", label)
            .field("metadata", &Hidden(metadata))
            .field("granted_revision", granted_revision)
            .field("generation", generation)
            .field("lock_delay_ms", lock_delay_ms)
            .field("ttl_ms", ttl_ms)
            .field("granted_unix_ms", granted_unix_ms)
            .field("waiters", waiters)
            .finish()
    }
}

impl fmt::Debug for AcquireRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            owner,
            request_id,
            resource,
            wait_ms,
            lock_delay_ms,
            metadata,
            attempt,
        } = self;
        f.debug_struct("AcquireRequest")
            .field("owner", owner)
            .field("request_id", request_id)
            .field("resource", resource)
            .field("wait_ms", wait_ms)
            .field("lock_delay_ms", lock_delay_ms)
            .field("metadata", &Hidden(metadata))
            .field("attempt", attempt)
            .finish()
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(session) => f.debug_tuple("Session").field(session).finish(),
            Self::Opening(opening) => f.debug_tuple("Opening").field(opening).finish(),
        }
    }
}

impl fmt::Debug for AttachAcquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            request_id,
            resource,
            wait_ms,
            lock_delay_ms,
            metadata,
            attempt,
        } = self;
        f.debug_struct("AttachAcquire")
            .field("request_id", request_id)
            .field("resource", resource)
            .field("wait_ms", wait_ms)
            .field("lock_delay_ms", lock_delay_ms)
            .field("metadata", &Hidden(metadata))
            .field("attempt", attempt)
            .finish()
    }
}
