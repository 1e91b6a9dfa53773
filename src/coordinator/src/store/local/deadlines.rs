//! When sessions end. In memory only: a renewal writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::ttl;
use crate::clock::Moment;
use crate::domain::{Ledger, SessionId};

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    by_session: BTreeMap<SessionId, Moment>,
    by_time: BTreeSet<(Moment, SessionId)>,
}

impl Deadlines {
    pub(super) fn get(&self, id: SessionId) -> Option<Moment> {
        self.by_session.get(&id).copied()
    }

    pub(super) fn set(&mut self, id: SessionId, deadline: Moment) {
        self.remove(id);
        self.by_session.insert(id, deadline);
        self.by_time.insert((deadline, id));
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        if let Some(deadline) = self.by_session.remove(&id) {
            self.by_time.remove(&(deadline, id));
        }
    }

    /// Whether a session's time is over though it was not ended yet.
    pub(super) fn is_over(&self, id: SessionId, now: Moment) -> bool {
        self.get(id).is_some_and(|deadline| deadline <= now)
    }

    pub(super) fn nearest(&self) -> Option<Moment> {
        self.by_time.first().map(|(deadline, _)| *deadline)
    }

    /// Up to `limit` sessions whose time is over, the longest over first.
    pub(super) fn due(&self, now: Moment, limit: usize) -> Vec<SessionId> {
        let due = self.by_time.iter().take_while(|(at, _)| *at <= now);
        due.take(limit).map(|(_, id)| *id).collect()
    }

    /// Forgets sessions that a ledger does not know, and gives the full time to those that are new.
    /// The others keep their deadline: a failure of the disk prolongs nobody's life.
    pub(super) fn follow(&mut self, ledger: &Ledger, now: Moment) {
        let known = |id: &SessionId| ledger.session(*id).is_some();
        self.by_session.retain(|id, _| known(id));
        self.by_time.retain(|(_, id)| known(id));
        for session in ledger.sessions() {
            if self.get(session.id).is_none() {
                self.set(session.id, now.after(ttl(session)));
            }
        }
    }
}
