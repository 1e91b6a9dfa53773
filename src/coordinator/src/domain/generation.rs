//! Generations: what makes tokens grow through restores and rebuilds of the store (I3).

use palisade_token::FencingToken;
use serde::{Deserialize, Serialize};

use super::{Nonce, Revision};

/// One stretch of the store's history in which revisions are trusted to grow.
///
/// `token = base + (revision of the grant − since_revision)`. A store issues revisions far more slowly
/// than one a microsecond, so a token issued at time t is at most t in microseconds, and a generation
/// made later, even on a store that was restored or rebuilt from nothing, is above it.
///
/// It is compared by value in every granting transaction: a restored store can show an old one again,
/// with the same revisions, and only the value tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Tells two generations apart that were made from the same readings.
    pub nonce: Nonce,
    /// The token that a grant at `since_revision` would have.
    pub base: u64,
    /// The store's revision when the generation before was read.
    pub since_revision: Revision,
}

/// What a new generation is made from, besides the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The revision in the reply that showed the generation before.
    pub revision: Revision,
    /// Tokens up to this one were seen by a guard; the new generation starts above it.
    pub past: Option<FencingToken>,
    /// Whether that may be more than a day ahead of the clock.
    pub is_forced: bool,
    /// Tells the new generation apart.
    pub nonce: Nonce,
}

/// A reading of the wall clock, in microseconds since 1970, taken after the generation before was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WallClock(pub u64);

impl WallClock {
    /// 2026-11-01: no coordinator ran before it was built, so an earlier clock is wrong.
    pub const BUILT: Self = Self(1_793_491_200_000_000);
    /// Ten years after [`WallClock::BUILT`]: a later clock is wrong, or the build is too old to trust.
    pub const LATEST: Self = Self(Self::BUILT.0 + 10 * 365 * Self::DAY_MICROS);
    /// How far past the clock a generation may be asked to start: one day.
    pub const DAY_MICROS: u64 = 86_400_000_000;
}

/// Why no generation was made. Nothing is granted until one is (I9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// The clock shows a time before the build or ten years after it: set the clock.
    #[error("the clock shows {} µs since 1970; a generation is made from {} to {}",
        given.0, WallClock::BUILT.0, WallClock::LATEST.0)]
    Clock {
        /// What the clock shows.
        given: WallClock,
    },
    /// The token to start past is over a day ahead of the clock: find out which of the two is wrong.
    #[error("token {past} is over a day ahead of the clock at {clock}", clock = clock.0)]
    FarAhead {
        /// The token asked to start past.
        past: FencingToken,
        /// What the clock shows.
        clock: WallClock,
    },
    /// No token is left: 2^53 microseconds end in 2255.
    #[error("no token is left above {base}")]
    Exhausted {
        /// The base that the new generation would have.
        base: u64,
    },
}

impl Generation {
    /// Makes the generation that follows `old`, which was read at `span.revision`, before the clock was.
    ///
    /// # Errors
    /// [`GenerationError`] when the clock cannot be right or the token asked for is too far ahead.
    pub fn after(
        old: Option<&Self>,
        span: Span,
        clock: WallClock,
    ) -> Result<Self, GenerationError> {
        if clock < WallClock::BUILT || clock > WallClock::LATEST {
            return Err(GenerationError::Clock { given: clock });
        }
        let mut base = clock.0;
        if let Some(old) = old {
            // An older history's `since_revision` may be above this one's revision.
            let issued = span.revision.0.saturating_sub(old.since_revision.0);
            base = base.max(old.base.saturating_add(issued).saturating_add(1));
        }
        if let Some(past) = span.past {
            if !span.is_forced && past.get() > clock.0.saturating_add(WallClock::DAY_MICROS) {
                return Err(GenerationError::FarAhead { past, clock });
            }
            base = base.max(past.get().saturating_add(1));
        }
        if base > FencingToken::MAX {
            return Err(GenerationError::Exhausted { base });
        }
        Ok(Self {
            nonce: span.nonce,
            base,
            since_revision: span.revision,
        })
    }

    /// The token of a grant that committed at `revision` under this generation. `None` where the store
    /// shows a revision from before the generation, or no token is left: such a grant is not told.
    #[must_use]
    pub fn token(&self, revision: Revision) -> Option<FencingToken> {
        let since = revision.0.checked_sub(self.since_revision.0)?;
        FencingToken::new(self.base.checked_add(since)?).ok()
    }

    /// Whether a generation seen on the same connection after this one can have been made by the rule.
    #[must_use]
    pub fn can_precede(&self, later: &Self) -> bool {
        let Some(revisions) = later.since_revision.0.checked_sub(self.since_revision.0) else {
            return false;
        };
        self.base
            .checked_add(revisions)
            .is_some_and(|issued| later.base > issued)
    }
}

#[cfg(test)]
mod tests {
    use palisade_token::FencingToken;
    use proptest::prelude::*;

    use super::{Generation, GenerationError, Span, WallClock};
    use crate::domain::{Nonce, Revision};

    const NOW: WallClock = WallClock(WallClock::BUILT.0 + WallClock::DAY_MICROS);

    fn span(revision: u64) -> Span {
        Span {
            revision: Revision(revision),
            past: None,
            is_forced: false,
            nonce: Nonce::from_bytes([1; 16]),
        }
    }

    #[test]
    fn a_wrong_clock_makes_no_generation() {
        for given in [
            WallClock(0),
            WallClock(WallClock::BUILT.0 - 1),
            WallClock(WallClock::LATEST.0 + 1),
        ] {
            let made = Generation::after(None, span(1), given);
            assert_eq!(made, Err(GenerationError::Clock { given }));
        }
    }

    #[test]
    fn a_generation_starts_past_a_fence_at_most_a_day_ahead() {
        let day = NOW.0 + WallClock::DAY_MICROS;
        let past = |number| Span {
            past: Some(FencingToken::new(number).unwrap()),
            ..span(1)
        };
        let made = Generation::after(None, past(day), NOW).unwrap();
        assert_eq!(made.base, day + 1);
        assert!(matches!(
            Generation::after(None, past(day + 1), NOW),
            Err(GenerationError::FarAhead { .. })
        ));
        let forced = Span {
            is_forced: true,
            ..past(day + 1)
        };
        assert_eq!(Generation::after(None, forced, NOW).unwrap().base, day + 2);
    }

    #[test]
    fn a_revision_from_before_the_generation_has_no_token() {
        let made = Generation::after(None, span(10), NOW).unwrap();
        assert_eq!(made.token(Revision(9)), None);
        assert_eq!(
            made.token(Revision(11)).map(FencingToken::get),
            Some(NOW.0 + 1)
        );
    }

    proptest! {
        /// Grants of the old generation go on until the new one commits: those are below it, too.
        #[test]
        fn later_generations_are_above_all_tokens_before(
            first_revision in 0_u64..1 << 40,
            grants in 0_u64..1 << 20,
            back in any::<bool>(),
            clock_step in 0_u64..10_000_000_000,
        ) {
            let old = Generation::after(None, span(first_revision), NOW).unwrap();
            let last_granted = Revision(first_revision + grants);
            let issued = old.token(last_granted).unwrap();
            // A restore shows an older revision again; then only the clock carries the order, and it
            // does so as long as fewer revisions than microseconds have passed.
            let (revision, clock) = if back {
                (first_revision / 2, WallClock(NOW.0 + grants + 1 + clock_step))
            } else {
                (last_granted.0, WallClock(NOW.0 + clock_step))
            };
            let new = Generation::after(Some(&old), span(revision), clock).unwrap();
            prop_assert!(new.token(Revision(revision)).unwrap() > issued);
            if !back {
                prop_assert!(old.can_precede(&new));
            }
        }
    }
}
