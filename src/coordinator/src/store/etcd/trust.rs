//! Which generation a connection may grant under (DESIGN: I3, I9).
//!
//! A restored etcd is a new process, so it cannot be reached over an old connection. A generation is
//! trusted on a connection only once it was *made* over it, or *seen to change* on it; a value that was
//! there when the connection opened may be an old one that a restore has brought back.

use super::codec::Stored;
use crate::domain::{Generation, Revision};

/// The terms and revisions that prove a regress when a committed write shows less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Reached {
    pub(super) revision: Revision,
    pub(super) term: u64,
}

/// What one connection has seen.
#[derive(Debug, Default)]
pub(super) struct Trust {
    last_read: Option<Stored<Generation>>,
    trusted: Option<Stored<Generation>>,
    reached: Reached,
}

/// What a read of the generation means for a connection.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    /// Grants may be made under it.
    Trusted(Stored<Generation>),
    /// Nothing may be granted until a new generation is made.
    Untrusted,
}

impl Trust {
    /// Takes note of a generation that was made over this connection.
    pub(super) fn made(&mut self, generation: Stored<Generation>, reached: Reached) {
        self.last_read = Some(generation.clone());
        self.trusted = Some(generation);
        self.reached = reached;
    }

    /// Takes note of a read of the generation over this connection.
    pub(super) fn read(&mut self, found: Option<Stored<Generation>>, reached: Reached) -> Verdict {
        let Some(found) = found else {
            self.trusted = None;
            self.last_read = None;
            return Verdict::Untrusted;
        };
        if let Some(trusted) = &self.trusted
            && trusted.raw == found.raw
        {
            self.saw(reached);
            return Verdict::Trusted(found);
        }
        let changed = self
            .last_read
            .as_ref()
            .is_some_and(|last| last.raw != found.raw && last.record.can_precede(&found.record));
        self.last_read = Some(found.clone());
        if changed {
            self.trusted = Some(found.clone());
            self.reached = reached;
            return Verdict::Trusted(found);
        }
        self.trusted = None;
        Verdict::Untrusted
    }

    /// The generation that grants may be made under now.
    pub(super) fn trusted(&self) -> Option<&Stored<Generation>> {
        self.trusted.as_ref()
    }

    /// Takes note of what any reply shows. Replies overtake each other, so only growth counts.
    pub(super) fn saw(&mut self, reached: Reached) {
        self.reached.revision = self.reached.revision.max(reached.revision);
        self.reached.term = self.reached.term.max(reached.term);
    }

    /// What was seen so far: taken when a write is sent, and given back with its reply.
    pub(super) fn reached(&self) -> Reached {
        self.reached
    }

    /// Whether the reply of a *committed write* shows that history went backwards since it was sent.
    /// Reads, keepalives, failed compares and followers may lag: they prove nothing.
    pub(super) fn is_regress(sent: Reached, committed: Reached) -> bool {
        committed.revision <= sent.revision || committed.term < sent.term
    }
}

#[cfg(test)]
mod tests {
    use super::{Reached, Stored, Trust, Verdict};
    use crate::domain::{Generation, Nonce, Revision};

    fn generation(base: u64, since: u64) -> Stored<Generation> {
        let record = Generation {
            nonce: Nonce::from_bytes([1; 16]),
            base,
            since_revision: Revision(since),
        };
        Stored {
            record,
            raw: format!("{base}/{since}").into_bytes().into(),
        }
    }

    fn reached(revision: u64, term: u64) -> Reached {
        Reached {
            revision: Revision(revision),
            term,
        }
    }

    #[test]
    fn a_value_found_when_the_connection_opened_is_not_trusted() {
        let mut trust = Trust::default();
        for _ in 0..3 {
            let verdict = trust.read(Some(generation(100, 1)), reached(5, 1));
            assert!(matches!(verdict, Verdict::Untrusted));
        }
        assert!(trust.trusted().is_none());
    }

    #[test]
    fn a_value_seen_to_change_is_trusted() {
        let mut trust = Trust::default();
        trust.read(Some(generation(100, 1)), reached(5, 1));
        let verdict = trust.read(Some(generation(200, 5)), reached(6, 1));
        assert!(matches!(verdict, Verdict::Trusted(found) if found.record.base == 200));
    }

    #[test]
    fn a_value_that_cannot_follow_is_not_trusted() {
        let mut trust = Trust::default();
        trust.made(generation(200, 5), reached(6, 1));
        for (base, since) in [(150, 6), (201, 4), (200, 5 + 1)] {
            let mut trust = Trust {
                last_read: trust.last_read.clone(),
                ..Trust::default()
            };
            let verdict = trust.read(Some(generation(base, since)), reached(7, 1));
            assert!(matches!(verdict, Verdict::Untrusted), "{base} {since}");
        }
    }

    #[test]
    fn a_missing_generation_ends_trust_and_starts_anew() {
        let mut trust = Trust::default();
        trust.made(generation(200, 5), reached(6, 1));
        assert!(matches!(
            trust.read(None, reached(7, 1)),
            Verdict::Untrusted
        ));
        assert!(trust.trusted().is_none());
        let verdict = trust.read(Some(generation(300, 7)), reached(8, 1));
        assert!(
            matches!(verdict, Verdict::Untrusted),
            "nothing on this connection precedes it"
        );
    }

    #[test]
    fn only_less_than_what_was_seen_at_sending_is_a_regress() {
        assert!(!Trust::is_regress(reached(5, 2), reached(6, 2)));
        assert!(!Trust::is_regress(reached(5, 2), reached(9, 3)));
        assert!(Trust::is_regress(reached(5, 2), reached(5, 2)));
        assert!(Trust::is_regress(reached(5, 2), reached(6, 1)));
    }

    #[test]
    fn replies_that_overtake_each_other_lower_nothing() {
        let mut trust = Trust::default();
        trust.saw(reached(9, 3));
        trust.saw(reached(7, 2));
        assert_eq!(trust.reached(), reached(9, 3));
    }
}
