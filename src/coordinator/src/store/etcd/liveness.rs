//! What this coordinator knows of how long sessions live: a hint that chooses ways, never proof.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::keepalive::SILENCE;
use crate::clock::Moment;
use crate::domain::AttachMark;

/// Sessions known below which nothing is swept.
const FIRST_SWEEP: usize = 1024;

/// How a session is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// On a stream that others use, unless it gets there too late.
    Shared { late_at: Moment },
    /// On a stream of its own.
    Alone,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// It has lived at least until then, by what etcd has said.
    until: Moment,
    ttl: Duration,
    /// When a renewal was begun that has had no answer since.
    asked: Option<Moment>,
    /// The stream that was last found to be the session's own, and when.
    owner: Option<(AttachMark, Moment)>,
}

impl Known {
    /// From then on less than a third of its time is left: it may be expired where it gets to.
    fn late_at(&self) -> Moment {
        Moment(self.until.0.saturating_sub(self.ttl / 3))
    }
}

/// The sessions that were opened or renewed through this coordinator and may still live.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<i64, Known>,
    sweep_at: usize,
}

impl Table {
    /// Forgets what has ended, whenever the table has doubled: it holds no more than twice what lives (I13).
    fn make_room(&mut self, now: Moment) {
        if self.known.len() < self.sweep_at.max(FIRST_SWEEP) {
            return;
        }
        self.known.retain(|_, known| known.until > now);
        self.known.shrink_to(FIRST_SWEEP);
        self.sweep_at = self.known.len().saturating_mul(2);
    }
}

impl Liveness {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How to renew a lease now; takes note that this is begun.
    pub(super) fn way(&self, lease: i64, now: Moment) -> Way {
        let mut table = self.table();
        let Some(known) = table.known.get_mut(&lease) else {
            return Way::Alone;
        };
        let since = *known.asked.get_or_insert(now);
        if since.until(now) >= SILENCE || now >= known.late_at() {
            return Way::Alone;
        }
        Way::Shared {
            late_at: known.late_at(),
        }
    }

    /// Takes note that etcd gave a lease this long, counted from when it was asked.
    pub(super) fn lives(&self, lease: i64, asked: Moment, ttl: Duration) {
        let mut table = self.table();
        table.make_room(asked);
        let until = asked.after(ttl);
        let known = table.known.entry(lease).or_insert(Known {
            until,
            ttl,
            asked: None,
            owner: None,
        });
        // Replies overtake each other.
        known.until = known.until.max(until);
        known.ttl = ttl;
        known.asked = None;
    }

    /// Until when a lease lives at least.
    pub(super) fn until(&self, lease: i64) -> Option<Moment> {
        self.table().known.get(&lease).map(|known| known.until)
    }

    pub(super) fn forget(&self, lease: i64) {
        self.table().known.remove(&lease);
    }

    /// Takes note that a stream is the session's own.
    pub(super) fn owned(&self, lease: i64, mark: AttachMark, now: Moment) {
        if let Some(known) = self.table().known.get_mut(&lease) {
            known.owner = Some((mark, now));
        }
    }

    /// Whether the stream with this mark was the session's own less than one time to live ago. So long a stream
    /// that is superseded can renew: it ends its session's life late, by two times to live at the most.
    pub(super) fn is_owned(&self, lease: i64, mark: AttachMark, now: Moment) -> bool {
        let table = self.table();
        table.known.get(&lease).is_some_and(|known| {
            let is_recent = |(owner, since): (AttachMark, Moment)| {
                owner == mark && since.until(now) < known.ttl
            };
            known.owner.is_some_and(is_recent)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{FIRST_SWEEP, Liveness, Way};
    use crate::clock::Moment;
    use crate::domain::{AttachMark, Nonce};
    use crate::store::etcd::keepalive::SILENCE;

    const TTL: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Moment {
        Moment(Duration::from_secs(seconds))
    }

    fn mark(sub: u64) -> AttachMark {
        AttachMark {
            epoch: 1,
            sub,
            nonce: Nonce::from_bytes([1; 16]),
        }
    }

    #[test]
    fn who_is_unknown_or_late_goes_alone() {
        let liveness = Liveness::default();
        assert_eq!(liveness.way(1, at(0)), Way::Alone);
        liveness.lives(1, at(0), TTL);
        let shared = Way::Shared { late_at: at(10) };
        assert_eq!(liveness.way(1, at(5)), shared);
        liveness.lives(1, at(5), TTL);
        // A reply that was overtaken takes nothing back.
        liveness.lives(1, at(4), TTL);
        assert_eq!(liveness.way(1, at(14)), Way::Shared { late_at: at(15) });
        assert_eq!(liveness.way(1, at(15)), Way::Alone);
        liveness.forget(1);
        assert_eq!(liveness.way(1, at(5)), Way::Alone);
    }

    #[test]
    fn who_had_no_answer_goes_alone_until_there_is_one() {
        let liveness = Liveness::default();
        liveness.lives(1, at(0), TTL);
        let asked = at(1);
        assert!(matches!(liveness.way(1, asked), Way::Shared { .. }));
        // Several at once share what is under way.
        assert!(matches!(liveness.way(1, asked), Way::Shared { .. }));
        assert_eq!(liveness.way(1, asked.after(SILENCE)), Way::Alone);
        liveness.lives(1, asked.after(SILENCE), TTL);
        assert!(matches!(liveness.way(1, at(5)), Way::Shared { .. }));
    }

    #[test]
    fn an_owner_is_looked_up_again_after_one_time_to_live() {
        let liveness = Liveness::default();
        liveness.owned(1, mark(0), at(0));
        assert!(
            !liveness.is_owned(1, mark(0), at(0)),
            "it is not known to live"
        );
        liveness.lives(1, at(0), TTL);
        liveness.owned(1, mark(0), at(0));
        assert!(liveness.is_owned(1, mark(0), at(14)));
        assert!(!liveness.is_owned(1, mark(1), at(14)), "another stream");
        assert!(!liveness.is_owned(1, mark(0), at(15)));
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let liveness = Liveness::default();
        let sessions = i64::try_from(FIRST_SWEEP).unwrap();
        for round in 0..20 {
            let now = at(100 * u64::try_from(round).unwrap());
            for session in 0..sessions {
                liveness.lives(round * sessions + session, now, TTL);
            }
        }
        assert!(liveness.table().known.len() <= 2 * FIRST_SWEEP);
    }
}
