//! What happened, in the order of the store's history. News wakes and informs; it never proves.

use std::fmt;
use std::sync::{Arc, OnceLock};

use palisade_token::{FencingToken, ResourceName};

use super::{Hold, LeaseEnd, Previous, RequestId, Revision, SessionId};

/// All that happened at one revision, in order: ends, grants, vacancies, notices. Never empty.
pub type Batch = Arc<[Event]>;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A lease ended.
    Ended(Ended),
    /// A lease was granted.
    Granted(Arc<Granted>),
    /// The resource is vacant: its lease ended and nobody was granted it at that revision.
    Vacant {
        /// The resource.
        resource: ResourceName,
        /// The revision at which it ended.
        revision: Revision,
    },
    /// The lock-delay of a vacant resource is over: it can be granted.
    Reopened {
        /// The resource.
        resource: ResourceName,
        /// When.
        revision: Revision,
    },
    /// A lease with a lock-delay ended uncleanly: its delay is to be begun, whoever waits.
    ToClose {
        /// The resource.
        resource: ResourceName,
        /// When.
        revision: Revision,
    },
    /// A holder is asked to give its lease back.
    Asked(Notice),
    /// A holder will not give its lease back, or need not any more.
    Declined {
        /// The resource.
        resource: ResourceName,
        /// The revision at which it was taken back.
        revision: Revision,
    },
    /// All that happened up to this revision was shown.
    Bookmark(Revision),
    /// Events may be missing before this one, and revisions may be smaller from here on: look at everything
    /// again.
    Resync,
}

impl Event {
    /// The resource that it is about.
    #[must_use]
    pub fn resource(&self) -> Option<&ResourceName> {
        match self {
            Self::Ended(ended) => Some(&ended.resource),
            Self::Granted(granted) => Some(granted.resource()),
            Self::Vacant { resource, .. }
            | Self::Reopened { resource, .. }
            | Self::ToClose { resource, .. }
            | Self::Declined { resource, .. } => Some(resource),
            Self::Asked(notice) => Some(&notice.resource),
            Self::Bookmark(_) | Self::Resync => None,
        }
    }

    /// Whether it is about the lease of a resource, for whoever watches leases.
    #[must_use]
    pub fn is_of_lease(&self) -> bool {
        matches!(
            self,
            Self::Ended(_) | Self::Granted(_) | Self::Vacant { .. }
        )
    }

    /// The revision at which it happened.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Self::Ended(ended) => Some(ended.revision),
            Self::Granted(granted) => Some(granted.revision()),
            Self::Vacant { revision, .. }
            | Self::Reopened { revision, .. }
            | Self::ToClose { revision, .. }
            | Self::Declined { revision, .. }
            | Self::Bookmark(revision) => Some(*revision),
            Self::Asked(notice) => Some(notice.revision),
            Self::Resync => None,
        }
    }
}

/// The end of a lease. It ended every lease of the resource that was granted before its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The resource.
    pub resource: ResourceName,
    /// The revision at which it ended.
    pub revision: Revision,
    /// How; `None` where it was not seen.
    pub end: Option<LeaseEnd>,
    /// Why, in the operator's words, where it was revoked.
    pub reason: String,
    /// Who revoked it.
    pub actor: String,
    /// The lease, where its grant was seen.
    pub lease: Option<Arc<Granted>>,
    /// The lease's token and label, where the end itself tells them.
    pub told: Option<(FencingToken, String)>,
}

impl Ended {
    /// The token that the lease had, where it is known.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        match &self.told {
            Some((token, _)) => Some(*token),
            None => self.lease.as_ref()?.hold()?.token(),
        }
    }

    /// As a later grant of the resource notes it down; `None` where it was not seen how it ended.
    #[must_use]
    pub fn previous(&self) -> Option<Previous> {
        let lease = self.lease.as_ref().and_then(|lease| lease.hold());
        let label = match (&self.told, lease) {
            (Some((_, label)), _) => label.clone(),
            (None, Some(hold)) => hold.claim.label.clone(),
            (None, None) => String::new(),
        };
        Some(Previous {
            end: self.end?,
            token: self.token(),
            reason: self.reason.clone(),
            label,
        })
    }
}

/// A grant. The lease itself may still have to be read from what the store keeps, which costs more than
/// most who hear of it need.
pub struct Granted {
    resource: ResourceName,
    session: SessionId,
    revision: Revision,
    unread: Option<(Vec<u8>, ReadHold)>,
    hold: OnceLock<Option<Hold>>,
}

/// Reads a lease from what a store keeps of it, and the revision of its grant.
pub type ReadHold = fn(&[u8], Revision) -> Option<Hold>;

impl Granted {
    /// A grant that is known whole.
    #[must_use]
    pub fn known(hold: Hold) -> Self {
        Self {
            resource: hold.claim.resource.clone(),
            session: hold.claim.session,
            revision: hold.granted,
            unread: None,
            hold: OnceLock::from(Some(hold)),
        }
    }

    /// A grant whose lease is read when somebody asks for it.
    #[must_use]
    pub fn unread(
        resource: ResourceName,
        session: SessionId,
        revision: Revision,
        (value, read): (Vec<u8>, ReadHold),
    ) -> Self {
        Self {
            resource,
            session,
            revision,
            unread: Some((value, read)),
            hold: OnceLock::new(),
        }
    }

    /// The resource.
    #[must_use]
    pub fn resource(&self) -> &ResourceName {
        &self.resource
    }

    /// The session that holds it.
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The revision of the grant.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The lease; `None` where what the store keeps cannot be read.
    #[must_use]
    pub fn hold(&self) -> Option<&Hold> {
        let read = || {
            let (value, read) = self.unread.as_ref()?;
            read(value, self.revision)
        };
        self.hold.get_or_init(read).as_ref()
    }

    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let known = self.hold.get().and_then(Option::as_ref);
        let metadata = known.map_or(0, |hold| hold.claim.metadata.len());
        let unread = self.unread.as_ref().map_or(0, |(value, _)| value.len());
        size_of::<Self>() + unread + metadata
    }
}

impl fmt::Debug for Granted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Granted")
            .field("resource", &self.resource)
            .field("session", &self.session)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Granted {
    fn eq(&self, other: &Self) -> bool {
        let names = |granted: &Self| {
            let resource = granted.resource.clone();
            (resource, granted.session, granted.revision)
        };
        names(self) == names(other) && self.hold() == other.hold()
    }
}

impl Eq for Granted {}

/// What a holder is told when its lease is wanted back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The resource.
    pub resource: ResourceName,
    /// The lease's token.
    pub token: FencingToken,
    /// The session that holds it.
    pub session: SessionId,
    /// The request that holds it.
    pub request: RequestId,
    /// How long the holder has, in milliseconds from when this was written.
    pub left_ms: u64,
    /// Why, in the operator's words.
    pub reason: String,
    /// Who wants it.
    pub actor: String,
    /// When it was written.
    pub revision: Revision,
}
