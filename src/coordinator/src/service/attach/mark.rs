//! The attach mark of one stream (I4).
//!
//! What was submitted under a mark can happen until the mark is raised, however late a copy of it arrives. So
//! after an unknown outcome, and for whatever the client sends once more, the mark is raised before the same
//! request is submitted again or its outcome told. One raise does for all that was submitted before it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::AttachMark;

/// The mark that this stream wrote last, and the one that it is about to write.
#[derive(Debug)]
pub(super) struct Marks {
    known: Mutex<Known>,
    /// Held by whoever raises it; the others wait for that.
    raising: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    present: AttachMark,
    /// Being written, or perhaps written: it is written again, until that is certain.
    next: Option<AttachMark>,
}

impl Known {
    /// The mark to submit under, unless it is to be raised first.
    fn settled(&self, stale: Option<AttachMark>) -> Option<AttachMark> {
        (self.next.is_none() && stale != Some(self.present)).then_some(self.present)
    }
}

impl Marks {
    pub(super) fn new(present: AttachMark) -> Self {
        let next = None;
        Self {
            known: Mutex::new(Known { present, next }),
            raising: tokio::sync::Mutex::default(),
        }
    }

    /// The mark that was written last.
    pub(super) fn present(&self) -> AttachMark {
        self.known().present
    }

    /// Something was submitted whose outcome is not known, and nobody asks again: the mark is raised before
    /// anything else is submitted.
    pub(super) fn doubt(&self) {
        let mut known = self.known();
        let next = above(known.present);
        known.next.get_or_insert(next);
    }

    /// Whether something may have happened that nobody asks after.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.known().next.is_some()
    }

    /// A mark to submit under. If something was submitted under `stale` whose outcome is unknown, it is
    /// another mark than that: `raise` writes it, from the first to the second.
    pub(super) async fn above<E, F>(
        &self,
        stale: Option<AttachMark>,
        raise: impl FnOnce(AttachMark, AttachMark) -> F,
    ) -> Result<AttachMark, E>
    where
        F: Future<Output = Result<(), E>>,
    {
        let settled = self.known().settled(stale);
        if let Some(settled) = settled {
            return Ok(settled);
        }
        let _turn = self.raising.lock().await;
        let (from, to) = {
            let mut known = self.known();
            if let Some(settled) = known.settled(stale) {
                return Ok(settled);
            }
            let next = above(known.present);
            (known.present, *known.next.get_or_insert(next))
        };
        raise(from, to).await?;
        *self.known() = Known {
            present: to,
            next: None,
        };
        Ok(to)
    }

    /// Whether a mark that was found in place of one of this stream's own is this stream's own, too: raised
    /// since that one was submitted.
    pub(super) fn has_raised(&self, submitted: AttachMark, found: AttachMark) -> bool {
        (found.epoch, found.nonce) == (submitted.epoch, submitted.nonce)
            && found.sub > submitted.sub
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn above(mark: AttachMark) -> AttachMark {
    AttachMark {
        sub: mark.sub.saturating_add(1),
        ..mark
    }
}
