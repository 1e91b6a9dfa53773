use std::time::SystemTime;

use palisade_token::{FencingToken, HolderId, ResourceName};

/// The fence of a resource, as a person or a tool looks at it. Comparing with it is no check: the
/// answer is old when it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fence {
    /// What is protected.
    pub resource: ResourceName,
    /// The token that was last sealed.
    pub token: FencingToken,
    /// The hold that sealed it.
    pub holder: HolderId,
    /// When it was sealed, by the store's clock. Orders nothing.
    pub sealed_at: SystemTime,
}

impl Fence {
    /// Reads what a store holds; `None` if that is no fence.
    pub(crate) fn from_store(
        resource: &ResourceName,
        token: i64,
        holder: &str,
        sealed_at_micros: i64,
    ) -> Option<Self> {
        let since_epoch = std::time::Duration::from_micros(sealed_at_micros.try_into().ok()?);
        Some(Self {
            resource: resource.clone(),
            token: token.try_into().ok()?,
            holder: holder.parse().ok()?,
            sealed_at: SystemTime::UNIX_EPOCH.checked_add(since_epoch)?,
        })
    }
}
