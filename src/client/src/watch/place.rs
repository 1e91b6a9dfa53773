//! How far a watch has come: pure.

use std::fmt;
use std::str::FromStr;

use palisade_api::v1::{LeaseEvent, LeaseEventType as Type};

use super::kind;
use crate::error::ClientError;

/// From where another watch can go on. As text it is for files and command lines; what it says is for
/// coordinators of the same store only.
///
/// It does not tell one history of a store from another. After the store was restored from a backup throw away
/// what was saved: once the new history has come as far it would be gone on from, and what was lost with
/// the old one not told. The same goes for a watch that finds no coordinator from before the restore until then.
///
/// ```
/// use palisade_client::WatchPosition;
///
/// let position: WatchPosition = "1234".parse()?;
/// assert_eq!(position.revision(), 1234);
/// assert_eq!(position.to_string(), "1234");
/// # Ok::<(), palisade_client::ClientError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WatchPosition {
    revision: i64,
}

impl WatchPosition {
    /// The store's revision up to which everything was told.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }
}

impl fmt::Display for WatchPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.revision)
    }
}

impl FromStr for WatchPosition {
    type Err = ClientError;

    fn from_str(text: &str) -> Result<Self, ClientError> {
        match text.parse() {
            Ok(revision) if revision > 0 => Ok(Self { revision }),
            _ => Err(ClientError::invalid("position", "a revision above 0", text)),
        }
    }
}

/// What was heard, and what was handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// All up to here was heard; none before the end of a snapshot.
    heard: Option<i64>,
    /// All up to here was handed on.
    handed_on: Option<i64>,
    /// Some of a snapshot was heard, and not its end.
    in_snapshot: bool,
    /// Such a snapshot broke off, and nothing was heard since.
    is_broken: bool,
}

impl Place {
    pub(super) fn begin(resume: Option<WatchPosition>) -> Self {
        let heard = resume.map(|position| position.revision);
        Self {
            heard,
            handed_on: heard,
            in_snapshot: false,
            is_broken: false,
        }
    }

    /// What the next stream goes on from; 0 for a snapshot.
    pub(super) fn resume_revision(&self) -> i64 {
        self.heard.unwrap_or_default()
    }

    pub(super) fn position(&self) -> Option<WatchPosition> {
        self.handed_on.map(|revision| WatchPosition { revision })
    }

    /// Takes in a message, and leaves out what was heard before: of one revision everything is in one
    /// message. What was told of a snapshot that broke off may have ended meanwhile: it begins anew.
    pub(super) fn hears(&mut self, mut events: Vec<LeaseEvent>) -> Vec<LeaseEvent> {
        let first = events.first().map(kind);
        if first.is_some() && std::mem::take(&mut self.is_broken) && first != Some(Type::Resync) {
            let resync = LeaseEvent {
                r#type: Type::Resync.into(),
                ..LeaseEvent::default()
            };
            events.insert(0, resync);
        }
        let mut before = self.heard;
        let mut fresh = Vec::with_capacity(events.len());
        for event in events {
            match kind(&event) {
                Type::Resync => {
                    self.heard = None;
                    before = None;
                    self.in_snapshot = false;
                }
                Type::Snapshot => self.in_snapshot = true,
                Type::SnapshotEnd => {
                    self.in_snapshot = false;
                    self.heard = Some(event.revision);
                    before = self.heard;
                }
                // A bookmark repeats the last revision.
                Type::Bookmark => self.heard = self.heard.map(|heard| heard.max(event.revision)),
                _ if before.is_some_and(|known| event.revision <= known) => {
                    continue;
                }
                _ => self.heard = self.heard.map(|heard| heard.max(event.revision)),
            }
            fresh.push(event);
        }
        fresh
    }

    /// An event is handed on, maybe the last of what was heard.
    pub(super) fn hands_on(&mut self, event: &LeaseEvent, is_last: bool) {
        if kind(event) == Type::Resync {
            self.handed_on = None;
        }
        if is_last {
            self.handed_on = self.heard;
        }
    }

    /// The stream is no more. Another one does not complete a snapshot.
    pub(super) fn breaks_off(&mut self) {
        self.is_broken |= std::mem::take(&mut self.in_snapshot);
    }
}

#[cfg(test)]
mod tests;
