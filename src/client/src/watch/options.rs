//! What is watched, and how.

use std::time::Duration;

use palisade_token::ResourceName;

use super::WatchPosition;

/// What is watched.
///
/// ```
/// use palisade_client::{ResourceName, WatchScope};
///
/// let one: WatchScope = "orders/eu-1".parse::<ResourceName>()?.into();
/// let all_orders = WatchScope::Prefix("orders/".to_owned());
/// # let _ = (one, all_orders);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum WatchScope {
    /// One resource.
    Resource(ResourceName),
    /// All resources whose name begins with this; empty means all. End it with `/` to stay within a segment.
    /// Resources that the caller may not read are left out.
    Prefix(String),
}

impl From<ResourceName> for WatchScope {
    fn from(resource: ResourceName) -> Self {
        Self::Resource(resource)
    }
}

impl From<&ResourceName> for WatchScope {
    fn from(resource: &ResourceName) -> Self {
        Self::Resource(resource.clone())
    }
}

/// How a watch is made.
///
/// ```
/// use std::time::Duration;
/// use palisade_client::{WatchOptions, WatchPosition};
///
/// let position: WatchPosition = "1234".parse()?;
/// let options = WatchOptions::default().resume(position).bookmarks(Duration::from_secs(2));
/// # let _ = options;
/// # Ok::<(), palisade_client::ClientError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct WatchOptions {
    pub(super) resume: Option<WatchPosition>,
    pub(super) bookmarks: Option<Duration>,
}

impl WatchOptions {
    /// Goes on from where another watch of the same scope was (see [`LeaseWatch::position`]), instead of with a
    /// snapshot. If that is not known any more a [`WatchEvent::Resync`] comes, and a snapshot.
    pub fn resume(mut self, position: WatchPosition) -> Self {
        self.resume = Some(position);
        self
    }

    /// How often a [`WatchEvent::Bookmark`] comes while nothing happens: every 10 s unless set, from 1 s to
    /// 5 min. After about two without any another coordinator is asked.
    pub fn bookmarks(mut self, every: Duration) -> Self {
        self.bookmarks = Some(every);
        self
    }
}
