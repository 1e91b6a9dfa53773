//! What becomes of a shard after its task, and what is told of all.

use std::time::Duration;

use tracing::warn;

use super::super::Spread;
use super::{Report, Runner, State, What, free};
use crate::error::ClientError;
use crate::leadership::{Hurdle, LeaderError, LeadershipEnd, Next, Sealer, Waited};

impl<G: Sealer> Runner<G> {
    pub(super) fn took(&mut self, report: Report) -> Result<(), LeaderError> {
        let now = self.client.shared().clock.now();
        let random = &self.client.shared().random;
        let Report { shard, what } = report;
        let (Some(state), Some(pauses)) = (self.states.get_mut(shard), self.pauses.get_mut(shard))
        else {
            return Ok(());
        };
        let State::Busy { slot, .. } = *state else {
            return Ok(());
        };
        let mut pause = |asked: Option<Duration>| State::Idle {
            not_before: now.after(
                random
                    .jittered(pauses.next(), 500)
                    .max(asked.unwrap_or_default()),
            ),
        };
        let idle = State::Idle { not_before: now };
        let next = match what {
            What::GivenUp | What::NotElected(Hurdle::Held(_)) => Ok(idle),
            What::NotElected(hurdle) => match self.campaign.passes(hurdle) {
                Ok(asked) => Ok(pause(asked)),
                Err(error) => {
                    *state = idle;
                    free(&mut self.slots, slot);
                    return Err(error);
                }
            },
            What::Led(Waited::Over(outcome)) => {
                self.leaderships += 1;
                match (outcome.next, &outcome.stopped.end) {
                    (Next::Resign, _) => Ok(State::Resigned),
                    (_, LeadershipEnd::Told) => Ok(idle),
                    _ => {
                        pauses.after_leadership(outcome.lasted);
                        let left = random.jittered(pauses.next(), 500);
                        Ok(State::Idle {
                            not_before: now.after(left),
                        })
                    }
                }
            }
            What::Led(Waited::StillRunning) => {
                warn!(shard, "still running; its session is left to expire");
                self.leaderships += 1;
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.stuck = true;
                }
                *state = State::Stuck;
                return Ok(());
            }
            What::Led(Waited::Gone) => Err(LeaderError::Client(ClientError::NoRuntime)),
        };
        free(&mut self.slots, slot);
        *state = State::Idle { not_before: now };
        *state = next?;
        Ok(())
    }

    pub(super) fn tell(&self) {
        let Some(told) = &self.shards.spread else {
            return;
        };
        let mut spread = Spread {
            members: self.members,
            quota: self.quota,
            ..Spread::default()
        };
        for (number, state) in self.states.iter().enumerate() {
            match state {
                State::Busy { leaving: false, .. } => spread.leading.push(number),
                State::Busy { .. } | State::Stuck => spread.leaving.push(number),
                State::Idle { .. } | State::Resigned => {}
            }
        }
        let differs = |told: &mut Spread| {
            let differs = *told != spread;
            *told = spread;
            differs
        };
        told.send_if_modified(differs);
    }
}
