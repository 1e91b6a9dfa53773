//! What happened lately, for those who resume a watch.

use std::collections::VecDeque;

use crate::domain::{Batch, Event, Revision};

/// Events that are kept: a client that lost its stream is back before so many have happened, or it
/// starts anew.
const MAX_EVENTS: usize = 50_000;
/// What they may take together, in bytes.
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A stretch of history.
#[derive(Debug, Default)]
pub(super) struct Ring {
    batches: VecDeque<(Revision, Batch, usize)>,
    events: usize,
    bytes: usize,
    /// All that happened after this is here, up to `last`. `None` while nothing is known.
    complete_after: Option<Revision>,
    last: Revision,
}

fn weight(batch: &Batch) -> usize {
    let of = |event: &Event| match event {
        Event::Granted(granted) => granted.weight(),
        Event::Ended(ended) => 128 + ended.reason.len() + ended.actor.len(),
        _ => 64,
    };
    batch.iter().map(of).sum()
}

impl Ring {
    /// History starts anew.
    pub(super) fn clear(&mut self) {
        *self = Self {
            // A revision from before says nothing about this history.
            last: self.last,
            ..Self::default()
        };
    }

    /// All up to this was shown.
    pub(super) fn begins_after(&mut self, revision: Revision) {
        if self.complete_after.is_none() {
            // Of a history that went backwards nothing is known up to where the one before had come.
            self.complete_after = Some(self.last.max(revision));
            self.last = revision;
        }
        self.last = self.last.max(revision);
    }

    pub(super) fn push(&mut self, revision: Revision, batch: &Batch) {
        let weight = weight(batch);
        self.events += batch.len();
        self.bytes += weight;
        self.last = self.last.max(revision);
        self.batches
            .push_back((revision, Batch::clone(batch), weight));
        while self.events > MAX_EVENTS || self.bytes > MAX_BYTES {
            let Some((gone, batch, weight)) = self.batches.pop_front() else {
                return;
            };
            self.events -= batch.len();
            self.bytes -= weight;
            self.complete_after = self.complete_after.map(|after| after.max(gone));
        }
    }

    /// The last revision of which all is known.
    pub(super) fn last(&self) -> Revision {
        self.last
    }

    /// All that happened after a revision; `None` where that is not known any more.
    pub(super) fn after(&self, revision: Revision) -> Option<impl Iterator<Item = &Batch>> {
        if self.complete_after? > revision {
            return None;
        }
        let from = self.batches.partition_point(|(at, _, _)| *at <= revision);
        Some(self.batches.range(from..).map(|(_, batch, _)| batch))
    }
}

#[cfg(test)]
mod tests {
    use palisade_token::ResourceName;

    use super::{MAX_EVENTS, Ring};
    use crate::domain::{Batch, Event, Revision};

    fn batch(revision: u64) -> Batch {
        let resource = ResourceName::new("r").unwrap();
        let revision = Revision(revision);
        [Event::Vacant { resource, revision }].into()
    }

    fn after(ring: &Ring, revision: u64) -> Option<Vec<u64>> {
        let batches = ring.after(Revision(revision))?;
        Some(
            batches
                .map(|batch| batch[0].revision().unwrap().0)
                .collect(),
        )
    }

    #[test]
    fn what_is_complete_can_be_resumed_and_nothing_else() {
        let mut ring = Ring::default();
        assert_eq!(after(&ring, 0), None);
        ring.begins_after(Revision(10));
        for revision in [11, 13, 14] {
            ring.push(Revision(revision), &batch(revision));
        }
        assert_eq!(after(&ring, 9), None);
        assert_eq!(after(&ring, 10), Some(vec![11, 13, 14]));
        assert_eq!(after(&ring, 12), Some(vec![13, 14]));
        assert_eq!(after(&ring, 20), Some(vec![]));
    }

    #[test]
    fn what_is_forgotten_is_not_resumed() {
        let mut ring = Ring::default();
        ring.begins_after(Revision(0));
        for revision in 1..=u64::try_from(MAX_EVENTS).unwrap() + 2 {
            ring.push(Revision(revision), &batch(revision));
        }
        assert_eq!(after(&ring, 1), None);
        assert_eq!(after(&ring, 2).unwrap().len(), MAX_EVENTS);
    }

    /// A restored store issues revisions again: those of before are not resumed from.
    #[test]
    fn a_history_that_went_backwards_begins_where_the_other_ended() {
        let mut ring = Ring::default();
        ring.begins_after(Revision(10));
        ring.push(Revision(100), &batch(100));
        ring.clear();
        assert_eq!(after(&ring, 100), None);
        ring.begins_after(Revision(50));
        ring.push(Revision(60), &batch(60));
        assert_eq!(after(&ring, 55), None);
        assert_eq!(ring.last(), Revision(60));
        assert_eq!(after(&ring, 100), Some(vec![]));
        ring.push(Revision(101), &batch(101));
        assert_eq!(after(&ring, 100), Some(vec![101]));
    }
}
