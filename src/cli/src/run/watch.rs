//! What the guardian does to its process group, and when: pure, every moment is given.

use std::time::Duration;

use palisade_client::Moment;
use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// Why a group is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// The deadline came near without a later one.
    Deadline,
    /// `palisade run` says so: the lease is lost, or wanted back.
    Asked,
    /// `palisade run` is gone.
    Orphaned,
    /// Its leader has ended; what it left behind follows.
    Finished,
}

impl Why {
    /// Whether it means that the lease may be granted to others soon.
    pub(crate) fn is_loss(self) -> bool {
        !matches!(self, Self::Finished)
    }
}

/// What is to be done to the group now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// SIGTERM.
    Terminate,
    /// SIGKILL, and again as long as somebody lives.
    Kill,
}

#[derive(Debug, Clone, Copy)]
struct Ending {
    why: Why,
    kill_at: Moment,
    is_told: bool,
}

/// The end of a group, once begun, is not taken back, and never moves beyond the deadline that was known then.
#[derive(Debug)]
pub(crate) struct Watch {
    deadline: Moment,
    grace: Duration,
    ending: Option<Ending>,
}

impl Watch {
    pub(crate) fn new(deadline: Moment, grace: Duration) -> Self {
        Self {
            deadline,
            grace,
            ending: None,
        }
    }

    /// The lease was renewed. Past the deadline that is no news any more.
    pub(crate) fn renewed(&mut self, now: Moment, deadline: Moment) {
        if now < self.deadline && self.ending.is_none() {
            self.deadline = self.deadline.max(deadline);
        }
    }

    /// `palisade run` wants it ended, and killed at this moment.
    pub(crate) fn asked(&mut self, kill_at: Moment) {
        self.end(Why::Asked, kill_at);
    }

    /// `palisade run` is gone: nobody renews the lease any more.
    pub(crate) fn orphaned(&mut self, now: Moment) {
        self.end(Why::Orphaned, now.after(self.grace));
    }

    /// The leader has ended.
    pub(crate) fn finished(&mut self, now: Moment) {
        self.end(Why::Finished, now.after(self.grace));
    }

    /// The first reason stays, unless it was none to be in a hurry; the earliest time to kill counts.
    fn end(&mut self, why: Why, kill_at: Moment) {
        let kill_at = kill_at.min(self.deadline);
        match &mut self.ending {
            None => {
                self.ending = Some(Ending {
                    why,
                    kill_at,
                    is_told: false,
                });
            }
            Some(ending) => {
                ending.kill_at = ending.kill_at.min(kill_at);
                if !ending.why.is_loss() {
                    ending.why = why;
                }
            }
        }
    }

    /// What to do at `now`. SIGTERM comes once; after the time to kill it is too late for it.
    pub(crate) fn decide(&mut self, now: Moment) -> Option<Act> {
        if now >= self.deadline.before(self.grace) {
            self.end(Why::Deadline, self.deadline);
        }
        let ending = self.ending.as_mut()?;
        if now >= ending.kill_at {
            return Some(Act::Kill);
        }
        (!std::mem::replace(&mut ending.is_told, true)).then_some(Act::Terminate)
    }

    /// Why it is being ended, if it is.
    pub(crate) fn why(&self) -> Option<Why> {
        self.ending.map(|ending| ending.why)
    }

    /// When [`Watch::decide`] has something new to say, if nothing else happens.
    pub(crate) fn wake(&self) -> Moment {
        self.ending
            .map_or_else(|| self.deadline.before(self.grace), |ending| ending.kill_at)
    }
}
