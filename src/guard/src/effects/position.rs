//! Sequences, offsets and versions: numbers that say how far something has come.

use palisade_token::FencingToken;

/// The greatest position: 2^53 − 1, exact in SQL, JSON and JavaScript.
pub const MAX_POSITION: u64 = (1 << 53) - 1;

/// What came of a producer's number that was not refused.
///
/// ```no_run
/// # use palisade_guard::{GuardError, effects::{Name, SeqOutcome}, postgres::GuardedTx};
/// # async fn take(mut tx: GuardedTx, producer: Name, number: u64) -> Result<(), GuardError> {
/// match tx.accept(&producer, number).await? {
///     SeqOutcome::Applied => {
///         let effect = sqlx::query("UPDATE counters SET value = value + 1");
///         effect.execute(&mut *tx).await?;
///     }
///     SeqOutcome::Duplicate => {} // written before
/// }
/// tx.commit().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SeqOutcome {
    /// It is the next one: write its effect in this transaction.
    Applied,
    /// It was accepted before, by this holder or an earlier one: do not write its effect again.
    Duplicate,
}

/// Where a producer's sequence is.
///
/// ```
/// use palisade_guard::effects::position::Sequence;
///
/// let mut at = Sequence { token: "42".parse()?, last: Some(6) };
/// assert_eq!(at.next(), 7);
/// at.last = None; // after a restart
/// assert_eq!(at.next(), 0);
/// # Ok::<(), palisade_token::TokenError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// The token under which it was moved last.
    pub token: FencingToken,
    /// The last number that was accepted; `None` since a restart that nothing has followed.
    pub last: Option<u64>,
}

/// What a producer's number meets.
///
/// ```
/// use palisade_guard::effects::position::{Numbering, number};
///
/// let token = "42".parse()?;
/// match number(None, token, 3) {
///     Numbering::Applied(moved) => println!("write it; {} comes next", moved.next()),
///     Numbering::Duplicate => println!("write nothing"),
///     Numbering::Gap { expected } => assert_eq!(expected, 0), // send again from there
///     Numbering::Fenced { token } => println!("step down: {token} has gone on"),
/// }
/// # Ok::<(), palisade_token::TokenError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// Accepted: the sequence is now this.
    Applied(Sequence),
    /// It was accepted before; nothing is moved.
    Duplicate,
    /// Numbers before it are missing.
    Gap {
        /// The one that comes next.
        expected: u64,
    },
    /// The sequence was moved under a greater token: final.
    Fenced {
        /// That token.
        token: FencingToken,
    },
}

impl Sequence {
    /// The number that comes next.
    #[must_use]
    pub const fn next(self) -> u64 {
        match self.last {
            Some(last) => last + 1,
            None => 0,
        }
    }
}

/// Says what a number under a token meets. PostgreSQL decides the same in SQL, because the decision has to
/// be taken under the lock of the row; a test holds the two against each other.
///
/// | token | number | |
/// |---|---|---|
/// | lower than the sequence's | any | fenced |
/// | equal or greater, or no sequence yet | last + 1, or 0 at the start | applied |
/// | | up to last | duplicate |
/// | | beyond | gap |
///
/// Numbers *go on* over a takeover: the new holder reads the last one after its seal and continues. Zero under
/// a new token does not start anew by itself: it may as well be the repeated first number of the old
/// holder, whose effect would be applied twice (I14). Starting anew is a step of its own, [`restart`].
///
/// ```
/// use palisade_guard::effects::position::{Numbering, Sequence, number};
///
/// let at = Some(Sequence { token: "42".parse()?, last: Some(6) });
/// let next = "43".parse()?; // the next holder goes on where the last one was
/// assert_eq!(number(at, next, 6), Numbering::Duplicate);
/// assert_eq!(number(at, next, 8), Numbering::Gap { expected: 7 });
/// assert!(matches!(number(at, next, 7), Numbering::Applied(moved) if moved.token == next));
/// assert!(matches!(number(at, "41".parse()?, 7), Numbering::Fenced { .. }));
/// # Ok::<(), palisade_token::TokenError>(())
/// ```
#[must_use]
pub fn number(at: Option<Sequence>, token: FencingToken, number: u64) -> Numbering {
    let next = at.map_or(0, Sequence::next);
    match at {
        Some(at) if token < at.token => Numbering::Fenced { token: at.token },
        _ if number < next => Numbering::Duplicate,
        _ if number > next => Numbering::Gap { expected: next },
        _ => Numbering::Applied(Sequence {
            token,
            last: Some(number),
        }),
    }
}

/// Says what starting anew gives: numbers count from 0 under a token above the sequence's. Under the same
/// token nothing changes, so that a restart whose commit was in doubt may be repeated.
///
/// ```
/// use palisade_guard::effects::position::{Sequence, restart};
///
/// let at = Some(Sequence { token: "42".parse()?, last: Some(6) });
/// assert_eq!(restart(at, "43".parse()?).map(Sequence::next), Ok(0));
/// assert_eq!(restart(at, "42".parse()?).map(Sequence::next), Ok(7)); // nothing changes
/// assert_eq!(restart(at, "41".parse()?), Err("42".parse()?));
/// # Ok::<(), palisade_token::TokenError>(())
/// ```
///
/// # Errors
/// The sequence's token, if that is greater.
pub fn restart(at: Option<Sequence>, token: FencingToken) -> Result<Sequence, FencingToken> {
    match at {
        Some(at) if token < at.token => Err(at.token),
        Some(at) if token == at.token => Ok(at),
        _ => Ok(Sequence { token, last: None }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(number: u64) -> FencingToken {
        FencingToken::new(number).unwrap()
    }

    fn at(number: u64, last: u64) -> Option<Sequence> {
        Some(Sequence {
            token: token(number),
            last: Some(last),
        })
    }

    #[test]
    fn every_case_of_the_rule() {
        let applied = |t, last| {
            Numbering::Applied(Sequence {
                token: token(t),
                last: Some(last),
            })
        };
        let gap = |expected| Numbering::Gap { expected };
        let cases = [
            ("the first of all is 0", None, 5, 0, applied(5, 0)),
            ("or there is a gap", None, 5, 1, gap(0)),
            ("the next", at(5, 3), 5, 4, applied(5, 4)),
            ("the last again", at(5, 3), 5, 3, Numbering::Duplicate),
            ("an old one again", at(5, 3), 5, 0, Numbering::Duplicate),
            ("one is missing", at(5, 3), 5, 5, gap(4)),
            ("a takeover goes on", at(5, 3), 6, 4, applied(6, 4)),
            ("a takeover repeats", at(5, 3), 6, 3, Numbering::Duplicate),
            ("0 is no new start", at(5, 3), 6, 0, Numbering::Duplicate),
            ("a gap over a takeover", at(5, 3), 6, 5, gap(4)),
            (
                "the next, too late",
                at(5, 3),
                4,
                4,
                Numbering::Fenced { token: token(5) },
            ),
            (
                "a repetition, too late",
                at(5, 3),
                4,
                3,
                Numbering::Fenced { token: token(5) },
            ),
        ];
        for (name, at, presented, seq, expected) in cases {
            assert_eq!(number(at, token(presented), seq), expected, "{name}");
        }
    }

    #[test]
    fn every_case_of_a_restart() {
        let fresh = |t| Sequence {
            token: token(t),
            last: None,
        };
        assert_eq!(restart(None, token(5)), Ok(fresh(5)));
        assert_eq!(restart(at(5, 3), token(6)), Ok(fresh(6)));
        assert_eq!(restart(at(5, 3), token(5)), Ok(at(5, 3).unwrap()));
        assert_eq!(restart(at(5, 3), token(4)), Err(token(5)));
        assert_eq!(
            number(Some(fresh(6)), token(6), 1),
            Numbering::Gap { expected: 0 }
        );
    }

    proptest! {
        /// Whatever is sent, in whatever order: between restarts the numbers applied are 0, 1, 2, … each once,
        /// and tokens never decrease.
        #[test]
        fn numbers_are_applied_once_and_in_order(
            steps in prop::collection::vec((1..5_u64, 0..8_u64, prop::bool::weighted(0.1)), 0..80)
        ) {
            let (mut state, mut next): (Option<Sequence>, u64) = (None, 0);
            for (presented, seq, starts_anew) in steps {
                let before = state;
                if starts_anew {
                    if let Ok(restarted) = restart(state, token(presented)) {
                        if Some(restarted) != before {
                            next = 0;
                        }
                        state = Some(restarted);
                    }
                } else {
                    match number(state, token(presented), seq) {
                        Numbering::Applied(moved) => {
                            prop_assert_eq!(seq, next);
                            next += 1;
                            state = Some(moved);
                        }
                        Numbering::Duplicate => prop_assert!(seq < next),
                        Numbering::Gap { expected } => prop_assert!(expected == next && seq > next),
                        Numbering::Fenced { token: by } => prop_assert!(token(presented) < by),
                    }
                }
                if let (Some(before), Some(after)) = (before, state) {
                    prop_assert!(before.token <= after.token);
                }
            }
        }
    }
}
