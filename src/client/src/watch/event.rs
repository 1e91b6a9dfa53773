//! What a watch tells.

use palisade_api::v1::{self, LeaseEventType as Type};
use palisade_token::{FencingToken, ResourceName};

use super::kind;
use crate::error::status::Failure;
use crate::error::{ClientError, Unavailable};
use crate::info::{LeaseEnd, LeaseInfo};

/// What happened to a lease, or to the watch itself. See [`LeaseWatch`](crate::LeaseWatch). New kinds may come:
/// skip what is not known.
///
/// ```
/// use palisade_client::WatchEvent;
///
/// fn line(event: &WatchEvent) -> String {
///     let token = event.token().map_or_else(String::new, |token| token.to_string());
///     let resource = event.resource().map_or("", |resource| resource.as_str());
///     format!("{} {resource} {token}", event.revision())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchEvent {
    /// Part of a snapshot: the lease stands at this revision.
    #[non_exhaustive]
    Stands {
        /// The lease.
        lease: Box<LeaseInfo>,
        /// The store's revision.
        revision: i64,
    },
    /// The snapshot is complete: a resource that is not in it is vacant at this revision. Changes follow.
    #[non_exhaustive]
    SnapshotEnd {
        /// The store's revision.
        revision: i64,
    },
    /// The resource was granted.
    #[non_exhaustive]
    Granted {
        /// The resource.
        resource: ResourceName,
        /// The lease; none where the coordinator cannot read what its store keeps of it.
        lease: Option<Box<LeaseInfo>>,
        /// The store's revision.
        revision: i64,
    },
    /// The lease ended. Its holder may not have noticed, unless it released it.
    #[non_exhaustive]
    Ended {
        /// The resource.
        resource: ResourceName,
        /// How it ended; [`LeaseEnd::Unknown`] where the coordinator did not see how.
        end: LeaseEnd,
        /// Its token, where that is known.
        token: Option<FencingToken>,
        /// The label of its session, for people; empty if not known.
        label: String,
        /// The lease without its metadata, where the coordinator saw it.
        lease: Option<Box<LeaseInfo>>,
        /// The operator's reason where it was revoked; else empty.
        reason: String,
        /// The store's revision.
        revision: i64,
    },
    /// The resource has no holder now. Follows an end unless a grant has the same revision.
    #[non_exhaustive]
    Vacant {
        /// The resource.
        resource: ResourceName,
        /// The store's revision.
        revision: i64,
    },
    /// Nothing happened up to this revision.
    #[non_exhaustive]
    Bookmark {
        /// The store's revision.
        revision: i64,
    },
    /// Changes were missed: forget what is known, a snapshot follows. Revisions may be smaller than before.
    #[non_exhaustive]
    Resync {
        /// The store's revision, as far as it is known; else 0.
        revision: i64,
    },
    /// No coordinator tells anything at present: what is known grows old. Told once; it is tried again until
    /// one does, and whatever comes next means that one does.
    #[non_exhaustive]
    Interrupted {
        /// What was met.
        cause: Unavailable,
    },
}

impl WatchEvent {
    /// The store's revision of it; 0 where it has none.
    #[must_use]
    pub fn revision(&self) -> i64 {
        match self {
            Self::Stands { revision, .. }
            | Self::SnapshotEnd { revision }
            | Self::Granted { revision, .. }
            | Self::Ended { revision, .. }
            | Self::Vacant { revision, .. }
            | Self::Bookmark { revision }
            | Self::Resync { revision } => *revision,
            Self::Interrupted { .. } => 0,
        }
    }

    /// The resource that it is about.
    #[must_use]
    pub fn resource(&self) -> Option<&ResourceName> {
        match self {
            Self::Stands { lease, .. } => Some(&lease.grant.resource),
            Self::Granted { resource, .. }
            | Self::Ended { resource, .. }
            | Self::Vacant { resource, .. } => Some(resource),
            _ => None,
        }
    }

    /// The lease that stands, was granted or ended, where it is known.
    ///
    /// ```
    /// use palisade_client::WatchEvent;
    ///
    /// fn holder(event: &WatchEvent) -> Option<&str> {
    ///     match event {
    ///         WatchEvent::Stands { .. } | WatchEvent::Granted { .. } => {
    ///             event.lease().map(|lease| lease.label.as_str())
    ///         }
    ///         _ => None,
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn lease(&self) -> Option<&LeaseInfo> {
        match self {
            Self::Stands { lease, .. } => Some(lease),
            Self::Granted { lease, .. } | Self::Ended { lease, .. } => lease.as_deref(),
            _ => None,
        }
    }

    /// That lease's token, where it is known.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        match self {
            Self::Ended { token, .. } => *token,
            other => other.lease().map(|lease| lease.grant.token),
        }
    }

    /// None for what this version does not know.
    pub(super) fn read(event: v1::LeaseEvent) -> Result<Option<Self>, ClientError> {
        let (kind, revision) = (kind(&event), event.revision);
        let resource =
            || ResourceName::new(&event.resource).map_err(|error| Failure::unexpected(error).error);
        let end = match kind {
            Type::Unspecified => return Ok(None),
            Type::SnapshotEnd => return Ok(Some(Self::SnapshotEnd { revision })),
            Type::Bookmark => return Ok(Some(Self::Bookmark { revision })),
            Type::Resync => return Ok(Some(Self::Resync { revision })),
            Type::Vacant => {
                let resource = resource()?;
                return Ok(Some(Self::Vacant { resource, revision }));
            }
            Type::Snapshot => {
                let lease = event.lease.unwrap_or_default();
                let lease = Box::new(LeaseInfo::try_from(lease)?);
                return Ok(Some(Self::Stands { lease, revision }));
            }
            Type::Granted => {
                let resource = resource()?;
                let lease = event.lease.map(LeaseInfo::try_from).transpose()?;
                let lease = lease.map(Box::new);
                let granted = Self::Granted {
                    resource,
                    lease,
                    revision,
                };
                return Ok(Some(granted));
            }
            Type::Released => LeaseEnd::Released,
            Type::Expired => LeaseEnd::Expired,
            Type::Revoked => LeaseEnd::Revoked,
            Type::Ended => LeaseEnd::Unknown,
        };
        let resource = resource()?;
        let seen = event.lease.unwrap_or_default();
        Ok(Some(Self::Ended {
            resource,
            end,
            token: FencingToken::try_from(seen.token).ok(),
            label: seen.label.clone(),
            // Of some only token and label are known.
            lease: LeaseInfo::try_from(seen).ok().map(Box::new),
            reason: event.reason,
            revision,
        }))
    }
}
