//! The store, as far as the session's life goes.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::dice::Dice;
use super::server::{Answer, Given, What};
use super::time::Skew;

/// How the store sees the session.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) skew: Skew,
    pub(super) ttl: u64,
    /// From this true time on it may have granted to others. None before the session was opened.
    pub(super) expires: Option<u64>,
    /// When the last renewal was sent to it.
    pub(super) relayed: u64,
}

impl Store {
    pub(super) fn has_ended(&self, now: u64) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    fn renew(&mut self, now: u64, relayed: u64) {
        let expires = self.skew.when(now, self.skew.at(now) + self.ttl);
        self.expires = Some(self.expires.map_or(expires, |known| known.max(expires)));
        self.relayed = self.relayed.max(relayed);
    }

    fn left_ms(&self, now: u64, since: u64) -> u64 {
        let gone = self.skew.at(now) - self.skew.at(since);
        self.ttl.saturating_sub(gone) / 1000
    }

    pub(super) fn serve(&mut self, now: u64, relayed: u64, what: &What, dice: &mut Dice) -> Answer {
        if self.has_ended(now) {
            let details = ErrorDetails::with_error_info("SESSION_ENDED", "palisade", []);
            return Err(Status::with_error_details(Code::NotFound, "", details));
        }
        let ttl_ms = self.ttl / 1000;
        let left_ms = match what {
            What::Open { .. } | What::Renew => {
                self.renew(now, relayed);
                let told_late = dice.one_in(2);
                self.left_ms(if told_late { now } else { relayed }, relayed)
            }
            What::Acquire { .. } => self.left_ms(now, self.relayed),
            What::Release { .. } | What::Other => 0,
        };
        Ok(Given { ttl_ms, left_ms })
    }
}
